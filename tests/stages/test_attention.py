"""runtime.attention and model.document_mask in runs: what is logged, saved, handed on and refused."""

from pathlib import Path

import pytest
import yaml
from workshop import Workshop, history

from nanochat.checkpoint.find import resolve_ref
from nanochat.checkpoint.load import load_dims
from nanochat.config.runtime import AttentionBackend
from nanochat.errors import ConfigError, MismatchError
from nanochat.runtime.device import Machine
from nanochat.stages.inference import load_for_inference
from nanochat.tokenizer.bpe import Tokenizer

MASKED = ("run=masked", "model.document_mask=true", "runtime.attention=plain", "train.num_iterations=4")


@pytest.fixture(scope="module")
def masked_run(workshop: Workshop) -> Path:
    return workshop.train("base", *MASKED)


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in history(run) if "train/loss" in row]


def test_the_log_says_what_computes(base_run: Path, masked_run: Path) -> None:
    said = [(run / "log.txt").read_text().count(text) for run, text in (
        (base_run, "attention: sdpa (torch's own, on cpu)"), (masked_run, "attention: plain (asked for)")
    )]  # fmt: skip
    assert said == [1, 1]


def test_another_kernel_is_the_same_run(workshop: Workshop, base_run: Path) -> None:
    run = workshop.train("base", "run=plain-attention", "runtime.attention=plain", "train.num_iterations=4")
    assert losses(run) == pytest.approx(losses(base_run)[:4], abs=1e-5)  # the rate falls after step 8 and step 3


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("runtime.attention=flash4", "it needs device cuda, and"),
        ("runtime.fused_kernels=true", "they need device cuda"),
    ],
)
def test_a_kernel_that_is_not_here_is_refused(workshop: Workshop, asked: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"{asked} cannot be used here: {problem}"):
        workshop.train("base", "run=nowhere", asked)
    assert not (workshop.base_dir / "base" / "nowhere" / "config.yaml").exists()


def test_the_mask_is_part_of_the_model(workshop: Workshop, masked_run: Path, base_run: Path) -> None:
    """Saved with the token that starts a document, taken over by the next stage, and never changed on the way."""
    dims, bos = load_dims(masked_run / "checkpoints" / "step_000004"), Tokenizer.load(masked_run / "tokenizer").bos
    assert (dims.document_mask, dims.bos_id) == (True, bos)
    assert load_dims(base_run / "checkpoints" / "step_000010").bos_id is None
    assert losses(masked_run)[0] == pytest.approx(losses(base_run)[0], abs=1e-5)  # before blocks say anything
    assert losses(masked_run)[-1] != pytest.approx(losses(base_run)[3], abs=1e-5)
    run = workshop.train("sft", "run=masked", "init_from=base/masked", "train.num_iterations=1")
    assert load_dims(run / "checkpoints" / "step_000001") == dims
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["document_mask"] is True
    with pytest.raises(MismatchError, match="model.document_mask=False, but base/masked.* was trained with"):
        workshop.train("sft", "run=other", "init_from=base/masked", "model.document_mask=false")


def test_what_was_trained_with_flex_can_be_evaluated(workshop: Workshop, base_run: Path) -> None:
    """flex is a kernel in compiled code only, and an evaluation is not compiled; a pipeline gives both the same key."""
    ref = resolve_ref(workshop.base_dir, "base/ref")
    machine = Machine("cpu", "float32", False, "cpu", None, None)
    assert load_for_inference(ref, machine, AttentionBackend.flex).attention.full == "sdpa"
    assert load_for_inference(ref, machine, AttentionBackend.plain).attention.full == "plain"

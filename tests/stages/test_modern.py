"""Runs of `model=modern`: trained by both optimizers, continued, tuned; and runs that are older than its keys."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from workshop import Workshop, assert_same_run, history, steps_saved

from nanochat.checkpoint.load import load_dims, load_model
from nanochat.checkpoint.manifest import write_manifest
from nanochat.config.model import BEFORE
from nanochat.errors import MismatchError

NETWORK = ("model=modern", "model.depth=2", "model.aspect_ratio=16")
MODERN = (*NETWORK, "optim=muon_modern", "optim.batch_lr_scaling=false")  # for large batches
NEW = ("residual.a", "residual.b", "smear.scale", "backout.scale", "blocks.1.attn.value_embed.table.weight")


@pytest.fixture(scope="module")
def modern_run(workshop: Workshop) -> Path:
    return workshop.train("base", "run=modern", *MODERN)


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_model(run / "checkpoints" / f"step_{step:06d}")


def unfinished(run: Path, name: str, kept: int) -> Path:
    """A copy of a run as it was after the save of step `kept`."""
    made = run.with_name(name)
    shutil.copytree(run, made)
    (made / "result.json").unlink()
    for step in steps_saved(made):
        if step > kept:
            shutil.rmtree(made / "checkpoints" / f"step_{step:06d}")
    return made


def aged(run: Path) -> None:
    """Takes the keys that came with model=modern, and those of an optimizer that knows it, out of a run's files."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] = {key: value for key, value in config["model"].items() if key not in BEFORE}
    del config["optim"]["scalar_lr"], config["optim"]["smear_lr"], config["eval"]["core_every"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for step in steps_saved(run):
        folder = run / "checkpoints" / f"step_{step:06d}"
        dims = yaml.safe_load((folder / "model.yaml").read_text())
        kept = {key: value for key, value in dims.items() if key not in BEFORE}
        assert len(kept) < len(dims)
        (folder / "model.yaml").write_text(yaml.safe_dump(kept))
        (folder / "manifest.json").unlink()
        write_manifest(folder, step, 1)


def test_everything_that_is_new_is_trained(modern_run: Path) -> None:
    first, last = weights(modern_run, 3), weights(modern_run, 10)
    assert all(not torch.equal(first[name], last[name]) for name in NEW)
    assert len(last["wte.weight"]) == 320  # 300 tokens, padded
    losses = [row["train/loss"] for row in history(modern_run) if "train/loss" in row]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize("optim", ["adamw", "muon_adamw"])
def test_other_optimizers(workshop: Workshop, optim: str) -> None:
    run = workshop.train("base", f"run=modern-{optim}", *NETWORK, f"optim={optim}", "train.num_iterations=4")
    losses = [row["train/loss"] for row in history(run) if "train/loss" in row]
    assert len(losses) == 4 and all(map(math.isfinite, losses))


def test_continues_bit_for_bit(workshop: Workshop, modern_run: Path) -> None:
    unfinished(modern_run, "modern-again", 6)
    assert_same_run(workshop.train("base", "run=modern-again", *MODERN), modern_run)


def test_another_feature_is_another_run(workshop: Workshop, modern_run: Path) -> None:
    unfinished(modern_run, "modern-other", 6)
    with pytest.raises(MismatchError, match="model.window_pattern was .*SSSL.*, is null"):
        workshop.train("base", "run=modern-other", *MODERN, "model.window_pattern=null")


def test_tuned_from_its_checkpoint(workshop: Workshop, modern_run: Path) -> None:
    kept = ("optim=muon_modern", "train.init_optimizer=true", "optim.weight_decay=0", "optim.momentum.final=null")
    run = workshop.train("sft", "run=modern", "init_from=base/modern", "train.num_iterations=2", "model=modern", *kept)
    assert weights(run, 2).keys() == weights(modern_run, 10).keys()
    assert load_dims(run / "checkpoints" / "step_000002") == load_dims(modern_run / "checkpoints" / "step_000010")


def test_another_network_than_the_checkpoint_is_refused(workshop: Workshop, base_run: Path) -> None:
    with pytest.raises(MismatchError, match="model.name=modern, but base/ref.* was trained with model.name=gpt"):
        workshop.train("sft", "run=else", "init_from=base/ref", "model=modern")


def test_a_run_from_before_the_keys_goes_on(workshop: Workshop, base_run: Path) -> None:
    run = unfinished(base_run, "older", 6)
    aged(run)
    assert not any("window_pattern" in key for key in json.loads((run / "plan.json").read_text())["recipe"])
    assert_same_run(workshop.train("base", "run=older"), base_run)


def test_a_checkpoint_from_before_the_keys_is_tuned(workshop: Workshop, base_run: Path) -> None:
    aged(unfinished(base_run, "origin", 6))
    run = workshop.train("sft", "run=from-older", "init_from=base/origin", "train.num_iterations=1")
    saved = yaml.safe_load((run / "checkpoints/step_000001/model.yaml").read_text())
    assert {key: saved[key] for key in BEFORE} == BEFORE

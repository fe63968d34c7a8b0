"""CORE while a base model trains, and as stage=eval."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from core_files import write_folder, write_zip
from workshop import Workshop, history

from nanochat.config.load import compose_run
from nanochat.config.naming import run_name
from nanochat.errors import ConfigError, CorruptError, Interrupted, MissingError, NanochatError
from nanochat.evals.core import evaluate_core
from nanochat.runtime.lock import hold
from nanochat.tracking.jsonl import read_jsonl
from nanochat.train import dispatch

CORE = "nanochat.stages.core.evaluate_core"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("core"))


def train(workshop: Workshop, *extra: str) -> Path:
    quick = ("eval.every=-1", "eval.sample_every=-1", "train.num_iterations=4", "train.save_every=-1")
    return workshop.train("base", *quick, *extra)


def core_rows(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_jsonl(run / "metrics.jsonl") if "eval/core" in row]


def test_while_training(workshop: Workshop, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At every core_every steps and the last, each once, behind the save."""
    asked = (f"eval.core_bundle={files}", "eval.core_every=3", "eval.core_max_per_task=5")
    run = train(workshop, "run=core", *asked)
    assert [row["step"] for row in core_rows(run)] == [3, 4]
    body = json.loads((run / "core.json").read_text())
    assert (
        body["checkpoint"] == "base/core@4"
        and body["max_per_task"] == 5
        and body["core"] == core_rows(run)[1]["eval/core"]
    )
    assert {task["n"] for task in body["tasks"]} == {5} and (run / "core.csv").is_file()
    assert set(core_rows(run)[0]) >= {"eval/core/sounds", "eval/core/refer", "eval/core/last"}
    assert json.loads((run / "result.json").read_text())["metrics"]["eval/core"] == body["core"]
    assert "step 3: eval/core" in capsys.readouterr().out
    report = (run / "report.md").read_text()
    assert "## CORE" in report and "| sounds |" in report and "base/core@4" in report


def test_the_save_comes_first(workshop: Workshop, files: Path) -> None:
    """What CORE fails of must not cost the run; it is made up for without training again."""
    asked = ("run=fails", f"eval.core_bundle={files}", "eval.core_every=2")
    with patch(CORE, side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        train(workshop, "train.save_every=2", *asked)
    run = workshop.folder("base", "fails")
    assert (run / "checkpoints" / "step_000002" / "manifest.json").is_file()
    train(workshop, "train.save_every=2", *asked)
    assert [row["step"] for row in core_rows(run)] == [2, 4]
    assert len([row for row in history(run) if "train/loss" in row]) == 4


def test_a_signal_ends_an_evaluation(workshop: Workshop, files: Path) -> None:
    def interrupted(*args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate_core(*args, **options)

    asked = ("run=stopped", f"eval.core_bundle={files}", "eval.core_every=2", "eval.core_max_per_task=2")
    with patch(CORE, interrupted), pytest.raises(Interrupted, match="saved step 2"):
        train(workshop, *asked)
    run = workshop.folder("base", "stopped")
    assert core_rows(run) == []
    train(workshop, *asked)
    assert [row["step"] for row in core_rows(run)] == [2, 4]


def test_without_the_files_a_base_run_goes_on(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(workshop, "run=without", "eval.core_every=2")
    said = [line for line in capsys.readouterr().out.splitlines() if "CORE" in line]
    assert len(said) == 1 and "eval.core_bundle=" in said[0] and "eval.core_every=-1" in said[0]
    assert core_rows(run) == [] and (run / "result.json").is_file()


def test_files_that_are_named_must_be_there(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="eval.core_bundle="):
        train(workshop, "run=named", f"eval.core_bundle={tmp_path / 'none'}")
    assert not read_jsonl(workshop.folder("base", "named") / "metrics.jsonl")
    (tmp_path / "bad").mkdir()
    bad = write_folder(tmp_path / "bad")
    (bad / "eval_data" / "refer.jsonl").write_text("{}\n")
    with pytest.raises(CorruptError, match="refer.jsonl:1"):
        train(workshop, "run=bad", f"eval.core_bundle={bad}")


def test_everything_off(workshop: Workshop) -> None:
    with patch("nanochat.stages.core.find_bundle", side_effect=AssertionError("looked for")):
        run = train(workshop, "run=core-off", "eval.core_every=-1")
    assert (run / "result.json").is_file()


def test_a_dry_run_keeps_no_files(workshop: Workshop, files: Path) -> None:
    asked = (f"eval.core_bundle={files}", "eval.core_every=2", "eval.core_max_per_task=1")
    run = train(workshop, "run=dry_core", "dry_run=true", *asked)
    assert core_rows(run) and not (run / "core.json").exists()


def evaluate(workshop: Workshop, *extra: str) -> Path:
    return workshop.train("eval", "runtime=cpu", "eval=core", *extra)


def test_as_a_stage(workshop: Workshop, base_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = write_zip(tmp_path / "b.zip")
    run = evaluate(workshop, "run=as_stage", "init_from=base/ref", f"eval.core_bundle={packed}")
    out = capsys.readouterr().out
    assert "CORE of base/ref@10" in out and "sounds" in out and "centred" in out
    result = json.loads((run / "result.json").read_text())
    assert result["checkpoint"] == "base/ref@10" and result["step"] == 10
    assert set(result["metrics"]) == {"eval/core", "eval/core/sounds", "eval/core/refer", "eval/core/last"}
    names = ("core.csv", "core.json", "core_items.jsonl", "log.txt", "overrides.yaml", "config.yaml", "report.md")
    assert all((run / name).is_file() for name in names)
    assert (
        "CORE 3/3 last" in (run / "log.txt").read_text()
        and "init_from=base/ref" in (run / "overrides.yaml").read_text()
    )
    assert len((run / "core_items.jsonl").read_text().splitlines()) == 36


def test_equal_to_what_training_measured(workshop: Workshop, files: Path) -> None:
    trained = train(workshop, "run=agrees", f"eval.core_bundle={files}", "eval.core_every=4")
    run = evaluate(workshop, "run=agrees", "init_from=base/agrees", f"eval.core_bundle={files}")
    assert (run / "core_items.jsonl").read_text() == (trained / "core_items.jsonl").read_text()


def test_other_files_are_measured_again(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    bundle = write_folder(tmp_path / "b")
    command = ("run=again", "init_from=base/ref", f"eval.core_bundle={bundle}", "eval.core_max_per_task=2")
    evaluate(workshop, *command)
    with patch(CORE, side_effect=AssertionError("measured again")):
        evaluate(workshop, *command)
        (bundle / "eval_data" / "refer.jsonl").open("a").write("\n \n")
        with pytest.raises(AssertionError, match="measured again"):
            evaluate(workshop, *command)


def test_the_next_checkpoint_replaces_everything(
    workshop: Workshop, base_run: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = (f"eval.core_bundle={files}", "eval.core_max_per_task=1")
    run = evaluate(workshop, "run=other", "init_from=base/ref@9", *core)
    evaluate(workshop, "run=other", "init_from=base/ref", "eval.core_every=-1", "eval.every=1", "eval.tokens=64")
    assert "the evaluation of base/ref@9" in capsys.readouterr().out
    assert not list(run.glob("core*")) and json.loads((run / "result.json").read_text())["checkpoint"] == "base/ref@10"
    assert all("eval/core" not in row for row in read_jsonl(run / "metrics.jsonl"))


def test_asked_for_without_files(workshop: Workshop, base_run: Path) -> None:
    """Before anything is computed."""
    with patch("nanochat.stages.eval.load_for_inference", side_effect=AssertionError), pytest.raises(MissingError):
        evaluate(workshop, "run=nofiles", "init_from=base/ref")


def test_two_evaluations_of_one_name_at_once(workshop: Workshop, base_run: Path, files: Path) -> None:
    at_once = patch("nanochat.stages.eval.hold", partial(hold, patience=0.0))
    with hold(workshop.folder("eval", "busy")), at_once, pytest.raises(NanochatError, match="is in use"):
        evaluate(workshop, "run=busy", "init_from=base/ref", f"eval.core_bundle={files}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["eval.core_max_per_task=0"], "eval.core_max_per_task=0"),
        (["stage=base", "eval.hf_model=gpt2"], "eval.hf_model=gpt2 is read by stage=eval only"),
        (["stage=eval", "eval=core", "eval.hf_model=gpt2", "init_from=base/x"], "name two models"),
        (["stage=eval", "eval.hf_model=gpt2"], "eval.tasks cannot be; take eval=core"),
        (["stage=eval", "eval=none", "eval.hf_model=gpt2"], "asks for nothing to be; take eval=core"),
    ],
)
def test_what_cannot_be_asked(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose_run(overrides)
    assert said in str(error.value)


def test_the_default_of_the_guide() -> None:
    options = compose_run(["stage=base"]).config.eval
    assert (options.core_every, options.core_max_per_task, options.core_bundle) == (2000, 500, None)
    for stage in ("mid", "sft", "eval"):
        assert compose_run([f"stage={stage}"]).config.eval.core_every == -1
    core = compose_run(["stage=eval", "eval=core"]).config.eval
    assert core.core_every > 0 and core.core_max_per_task == -1 and core.every == core.sample_every == -1


def test_a_hugging_face_model(workshop: Workshop, files: Path, tmp_path: Path) -> None:
    """Without a checkpoint or a tokenizer of ours; named like its folder."""
    transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")
    from hf_models import save

    config = transformers.GPT2Config(vocab_size=300, n_positions=64, n_embd=8, n_layer=1, n_head=1)
    folder = save(tmp_path / "my-gpt2", transformers.GPT2LMHeadModel(config))
    command = ["stage=eval", "eval=core", f"base_dir={tmp_path / 'base'}", f"eval.hf_model={folder}", "runtime=cpu"]
    composed = compose_run([*command, f"eval.core_bundle={files}", "eval.core_max_per_task=3"])
    assert run_name(composed.config) == "my-gpt2"
    dispatch(composed.config, composed.overrides)
    result = json.loads((tmp_path / "base" / "eval" / "my-gpt2" / "result.json").read_text())
    assert result["checkpoint"] == str(folder) and "eval/core" in result["metrics"]
    with patch("nanochat.evals.hf.HfScorer", side_effect=AssertionError("loaded again")):
        dispatch(composed.config, composed.overrides)

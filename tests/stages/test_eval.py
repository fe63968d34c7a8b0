import json
from pathlib import Path
from unittest.mock import patch

import pytest
from workshop import Workshop, history, samples

from nanochat.config.load import compose_run
from nanochat.train import dispatch

SMALL = (
    "eval.tokens=256",
    "eval.steps=null",
    "eval.prompts=[The]",
    "eval.sample_every=1",
    "eval.metrics_max_problems=2",
)


def evaluate(workshop: Workshop, *extra: str) -> Path:
    return workshop.train("eval", "runtime=cpu", *SMALL, *extra)


def test_measures_and_keeps(workshop: Workshop, sft_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluate(workshop, "run=ref")
    result = json.loads((run / "result.json").read_text())
    assert result["step"] == 10 and set(result["metrics"]) >= {"train/bpb", "val/bpb", "eval/chat/spelling_bee"}
    assert [row["step"] for row in history(run)] == [10] and samples(run)[0]["prompt"] == "The"
    assert "sft/ref@10" in capsys.readouterr().out
    assert (run / "report.md").is_file()


def test_agrees_with_what_training_measured(workshop: Workshop, sft_run: Path) -> None:
    """The same validation rows by another path."""
    run = evaluate(workshop, "run=agree", "init_from=sft/ref", "eval.tokens=100000")
    trained = workshop.train("sft", "run=agree", "init_from=mid/ref", "eval.tokens=100000", "eval.every=10")
    found = json.loads((run / "result.json").read_text())["metrics"]["val/bpb"]
    assert found == pytest.approx(json.loads((trained / "result.json").read_text())["metrics"]["val/bpb"], rel=1e-5)


def test_what_was_measured_is_not_measured_again(workshop: Workshop, sft_run: Path) -> None:
    command = ("run=once", "init_from=sft/ref")
    evaluate(workshop, *command)
    with patch("nanochat.stages.eval.evaluate_bpb", side_effect=AssertionError("measured again")):
        evaluate(workshop, *command)
        for change in (
            "init_from=sft/ref@9",
            "eval.tokens=128",
            "data.val_tasks.spelling_bee.stop=5",
            "overwrite=true",
        ):
            with pytest.raises(AssertionError, match="measured again"):
                evaluate(workshop, *command, change)


def test_the_next_evaluation_takes_the_place(workshop: Workshop, sft_run: Path) -> None:
    evaluate(workshop, "run=next", "init_from=sft/ref@9")
    run = evaluate(workshop, "run=next", "init_from=sft/ref")
    assert [row["step"] for row in history(run)] == [10] and {row["step"] for row in samples(run)} == {10}


def test_everything_off(workshop: Workshop, sft_run: Path) -> None:
    off = ("eval.every=-1", "eval.sample_every=-1", "~eval.tasks.spelling_bee", "~eval.tasks.arithmetic")
    run = evaluate(workshop, "run=nothing", "init_from=sft/ref", *off)
    assert json.loads((run / "result.json").read_text())["metrics"] == {} and (run / "report.md").is_file()


def test_a_dry_run_only_prints(workshop: Workshop, sft_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluate(workshop, "run=dry", "init_from=sft/ref", "dry_run=true")
    assert "val/bpb" in capsys.readouterr().out and not run.exists()


def test_a_base_model_on_a_corpus(workshop: Workshop, base_run: Path) -> None:
    overrides = ["stage=eval", f"base_dir={workshop.base_dir}", "run=corpus", "init_from=base/ref", "runtime=cpu"]
    composed = compose_run([*overrides, "data=text", f"data.root={workshop.corpus}", "eval=none", "eval.every=1"])
    dispatch(composed.config, composed.overrides)
    found = json.loads((workshop.folder("eval", "corpus") / "result.json").read_text())["metrics"]
    assert 0 < found["val/bpb"] < 9 and 0 < found["train/bpb"] < 9

"""`stage=eval eval=chat` from the command line's words to the metrics."""

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from workshop import Workshop, history

from nanochat.config.load import compose_run
from nanochat.errors import ConfigError
from nanochat.evals.chatcore import BASELINES
from nanochat.runtime.sandbox import Isolation

CHAT = ("runtime=cpu", "eval=chat", "hub_root=samples", "eval.every=-1", "eval.sample_every=-1", "init_from=sft/ref",
        "eval.metrics_max_problems=2", "eval.max_new_tokens=4", "eval.allow_unsafe_code=true")  # fmt: skip


def evaluate(workshop: Workshop, *extra: str) -> tuple[Path, dict[str, float]]:
    run = workshop.train("eval", *CHAT, *extra)
    return run, json.loads((run / "result.json").read_text())["metrics"]


def test_the_six_tasks(workshop: Workshop, sft_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, metrics = evaluate(workshop, "run=six")
    assert set(metrics) == {*(f"eval/chat/{name}" for name in BASELINES), "eval/chatcore"}
    assert "ChatCORE" in capsys.readouterr().out
    rows = [json.loads(line) for line in (run / "chat" / "gsm8k.jsonl").read_text().splitlines()]
    assert [row["problem"] for row in rows] == [0, 1] and rows[0]["question"] and len(rows[0]["answers"]) == 1
    assert sorted(path.stem for path in (run / "chat").iterdir()) == sorted(BASELINES)


def test_some_tasks_with_several_answers(workshop: Workshop, sft_run: Path) -> None:
    left = [f"~eval.tasks.{name}" for name in BASELINES if name not in ("gsm8k", "mmlu")]
    drawn = ("eval.num_samples=3", "eval.temperature=1.0", "eval.top_k=5")
    run, metrics = evaluate(workshop, "run=some", *left, *drawn)
    names = ("mmlu", "gsm8k", "gsm8k/pass@1", "gsm8k/pass@2")
    assert set(metrics) == {f"eval/chat/{name}" for name in names}
    answers = json.loads((run / "chat" / "gsm8k.jsonl").read_text().splitlines()[0])["answers"]
    assert len({answer["text"] for answer in answers}) > 1


@pytest.mark.parametrize(
    ("override", "message"),
    [("eval.num_samples=2", "eval.temperature=0.8"), ("eval.allow_unsafe_code=false", "not permitted.*bubblewrap")],
)
def test_refused_before_the_model_is_loaded(
    workshop: Workshop, sft_run: Path, override: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanochat.runtime.sandbox.find_isolation", lambda: (Isolation.none, "not permitted"))
    with (
        patch("nanochat.stages.eval.load_for_inference", side_effect=AssertionError("loaded")),
        pytest.raises(ConfigError, match=message),
    ):
        workshop.train("eval", *CHAT, "run=refused", override)


def test_only_one_task_of_its_own() -> None:
    """Hydra merges dicts: what `eval=chat` asks is not replaced by a dict; from nothing one may be added."""
    asked = compose_run(["stage=eval", "init_from=sft/x", "eval=none", "+eval.tasks.mine={task: gsm8k, split: test}"])
    assert list(asked.config.eval.tasks) == ["mine"]


def test_while_fine_tuning(workshop: Workshop, mid_run: Path) -> None:
    every = ("eval=choices", "hub_root=samples", "eval.every=-1", "eval.sample_every=-1", "eval.metrics_every=5")
    run = workshop.train("sft", "run=choices", "init_from=mid/ref", *every, "eval.metrics_max_problems=3")
    measured = [row for row in history(run) if "eval/chat/mmlu" in row]
    assert [row["step"] for row in measured] == [5, 10] and all("eval/chat/arc_easy" in row for row in measured)
    assert not (run / "chat").exists()

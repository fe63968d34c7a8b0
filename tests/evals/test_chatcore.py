import json
import statistics
from math import sqrt
from pathlib import Path

import pytest

from nanochat.evals.chat import Answered, TaskResult
from nanochat.evals.chatcore import BASELINES, chat_metrics, chat_table, chatcore, standard_error, write_records


def result(task: str, *rights: int, samples: int = 1) -> TaskResult:
    """`rights` of the answers to each problem are right."""
    answered = [
        Answered(i, f"q{i}", "e", [f"a{n}" for n in range(samples)], [n < right for n in range(samples)])
        for i, right in enumerate(rights)
    ]
    return TaskResult(task, samples, answered)


SIX = [
    result("arc_easy", 1, 1, 0, 0),  # 0.5 -> 1/3
    result("arc_challenge", 0, 0, 0, 1),  # 0.25 -> 0
    result("mmlu", 1, 1, 1, 1),  # 1 -> 1
    result("gsm8k", 1, 0, 0, 0, 0),  # 0.2
    result("humaneval", 0, 0),  # 0
    result("spelling_bee", 1, 1, 1, 0),  # 0.75
]


def test_chatcore_is_the_mean_of_the_centred() -> None:
    metrics = chat_metrics([*SIX, result("mine", 1)])
    assert metrics["eval/chatcore"] == pytest.approx((1 / 3 + 0 + 1 + 0.2 + 0 + 0.75) / 6)
    assert metrics["eval/chat/gsm8k"] == 0.2 and metrics["eval/chat/mine"] == 1
    assert len(metrics) == 8


@pytest.mark.parametrize("missing", list(BASELINES))
def test_not_with_one_of_the_six_missing(missing: str) -> None:
    results = [one for one in SIX if one.task != missing]
    assert "eval/chatcore" not in chat_metrics(results) and chatcore(results) is None


def test_guessing_is_zero_and_worse_than_guessing_below() -> None:
    letters = [result(name, 1, 0, 0, 0) for name in ("arc_easy", "arc_challenge", "mmlu")]
    others = [result(name, 0) for name in ("gsm8k", "humaneval", "spelling_bee")]
    found = chatcore([*others, *letters])
    assert found is not None and found[0] == 0
    found = chatcore([*others, *(result(one.task, 0) for one in letters)])
    assert found is not None and found[0] == pytest.approx(-1 / 6)


def test_standard_errors() -> None:
    assert standard_error(result("x", 1, 1, 0, 0, 0)) == pytest.approx(statistics.stdev([1, 1, 0, 0, 0]) / sqrt(5))
    assert standard_error(result("x", 4, 0, 2, samples=4)) == pytest.approx(statistics.stdev([1, 0, 0.5]) / sqrt(3))
    assert standard_error(result("x", 1)) is None
    found = chatcore(SIX)
    errors = [standard_error(one) / (1 - BASELINES[one.task]) for one in SIX]  # type: ignore[operator]
    assert found is not None and found[1] == pytest.approx(sqrt(sum(e * e for e in errors)) / 6)


def test_pass_at_k() -> None:
    metrics = chat_metrics([result("gsm8k", 1, 0, 4, samples=4), result("mmlu", 1, 0, 0)])
    assert metrics == {
        "eval/chat/gsm8k": pytest.approx(5 / 12),
        "eval/chat/gsm8k/pass@1": pytest.approx(5 / 12),
        "eval/chat/gsm8k/pass@2": pytest.approx((0.5 + 0 + 1) / 3),
        "eval/chat/gsm8k/pass@4": pytest.approx(2 / 3),
        "eval/chat/mmlu": pytest.approx(1 / 3),
    }


def test_the_table() -> None:
    columns, rows = chat_table(SIX)
    assert columns == ["chat task", "accuracy", "std. error", "n", "centred"]
    assert rows[0] == ["arc_easy", 0.5, pytest.approx(0.2887, abs=1e-4), 4, pytest.approx(1 / 3)]
    assert rows[-1][0] == "ChatCORE" and rows[-1][4] == pytest.approx(0.3806, abs=1e-4)
    columns, rows = chat_table([result("mine", 2, 0, samples=4), result("mmlu", 1)])
    assert columns[5:] == ["pass@2", "pass@4"] and rows[0][3:] == [2, None, pytest.approx(5 / 12), 0.5]
    assert rows[1][2:] == [None, 1, 1, None, None]
    assert chat_table([]) == (["chat task", "accuracy", "std. error", "n", "centred"], [])


def test_files_to_read(tmp_path: Path) -> None:
    write_records(tmp_path, [result("old", 1)])
    odd = TaskResult("new", 2, [Answered(0, "é\n?", "\ud800", ["x", "y"], [False, True])])
    write_records(tmp_path, [odd, result("other", 1, 0)])
    assert sorted(path.name for path in (tmp_path / "chat").iterdir()) == ["new.jsonl", "other.jsonl"]
    (row,) = map(json.loads, (tmp_path / "chat" / "new.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["problem"] == 0 and row["question"] == "é\n?" and row["expected"] == "?"
    assert row["answers"] == [{"text": "x", "right": False}, {"text": "y", "right": True}]
    assert len((tmp_path / "chat" / "other.jsonl").read_text().splitlines()) == 2
    write_records(tmp_path, [])
    assert not (tmp_path / "chat").exists()

import csv
import json
from pathlib import Path

import pytest
from core_files import byte_tokenizer, small_bundle, tiny_gpt

from nanochat.evals.core import CoreResult, evaluate_core
from nanochat.evals.core_report import core_table, write_core
from nanochat.evals.core_scoring import GptScorer


@pytest.fixture
def result(tmp_path: Path) -> CoreResult:
    tokenizer = byte_tokenizer()
    return evaluate_core(GptScorer(tiny_gpt(tokenizer.vocab_size), tokenizer, "cpu"), small_bundle(tmp_path), 5)


def test_files(tmp_path: Path, result: CoreResult) -> None:
    write_core(tmp_path, result, {"checkpoint": "base/x@3", "step": 3})
    body = json.loads((tmp_path / "core.json").read_text())
    assert body["checkpoint"] == "base/x@3" and body["core"] == result.core and body["core_error"] == result.error
    assert [task["label"] for task in body["tasks"]] == ["sounds", "refer", "last"]
    with (tmp_path / "core.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["sounds", "refer", "last", "CORE"]
    for row, task in zip(rows, body["tasks"], strict=False):
        assert {key: str(value) for key, value in task.items()} == row
        assert task["centred"] == pytest.approx((task["accuracy"] - task["baseline"]) / (1 - task["baseline"]))
    assert float(rows[3]["centred"]) == pytest.approx(sum(float(row["centred"]) for row in rows[:3]) / 3)
    assert float(rows[3]["centred_error"]) == result.error and rows[3]["n"] == "15"


def test_items_say_which_problem_it_was(tmp_path: Path, result: CoreResult) -> None:
    write_core(tmp_path, result, {})
    items = [json.loads(line) for line in (tmp_path / "core_items.jsonl").read_text().splitlines()]
    assert len(items) == 15 and set(items[0]) == {"label", "index", "line", "gold", "predicted", "correct"}
    lines = (tmp_path / "bundle" / "eval_data" / "say" / "sounds.jsonl").read_text().splitlines()
    for item in items[:5]:
        assert json.loads(lines[item["line"] - 1])["gold"] == item["gold"]
        assert item["correct"] == (item["gold"] == item["predicted"])
    for score in result.scores:
        right = [item["correct"] for item in items if item["label"] == score.task.label]
        assert sum(right) / len(right) == score.accuracy


def test_the_table(result: CoreResult) -> None:
    columns, rows = core_table(result)
    assert [row[0] for row in rows] == ["sounds", "refer", "last", "CORE"]
    assert {len(row) for row in rows} == {len(columns)} and rows[3][-2] == f"{result.core:.4f}"

"""What CORE came to, on disk: core.csv for spreadsheets, core.json for programs, core_items.jsonl with each problem."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.evals.core import CoreResult, TaskScore
from nanochat.tracking.atomic import write_bytes, write_json

CSV_FILE = "core.csv"
JSON_FILE = "core.json"
ITEMS_FILE = "core_items.jsonl"
CORE_FILES = (CSV_FILE, JSON_FILE, ITEMS_FILE)


def core_table(result: CoreResult) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the table; the last row is CORE."""
    columns = ["task", "kind", "shots", "problems", "accuracy", "+-", "baseline", "centred", "+-"]
    rows: list[list[Any]] = [
        [s.task.label, s.task.kind, s.task.shots, s.n, *_rounded(s.accuracy, s.error, s.task.baseline), *_centred(s)]
        for s in result.scores
    ]
    total = sum(score.n for score in result.scores)
    return columns, [*rows, ["CORE", None, None, total, None, None, None, *_rounded(result.core, result.error)]]


def _centred(score: TaskScore) -> list[str]:
    return _rounded(score.centred, score.centred_error)


def _rounded(*values: float) -> list[str]:
    return [f"{value:.4f}" for value in values]


def write_core(folder: Path, result: CoreResult, about: Mapping[str, Any]) -> None:
    """The three files. `about` says what was measured with what, and comes first in core.json."""
    write_bytes(folder / CSV_FILE, _csv(result).encode())
    write_bytes(folder / ITEMS_FILE, _items(result).encode())
    body = {"core": result.core, "core_error": result.error, "tasks": [_described(s) for s in result.scores]}
    write_json(folder / JSON_FILE, {**about, **body})


def _described(score: TaskScore) -> dict[str, Any]:
    return {
        "label": score.task.label,
        "kind": str(score.task.kind),
        "shots": score.task.shots,
        "n": score.n,
        "accuracy": score.accuracy,
        "accuracy_error": score.error,
        "baseline": score.task.baseline,
        "centred": score.centred,
        "centred_error": score.centred_error,
    }


def _csv(result: CoreResult) -> str:
    described = [_described(score) for score in result.scores]
    total = {"label": "CORE", "n": sum(score.n for score in result.scores)}
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(described[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([*described, {**total, "centred": result.core, "centred_error": result.error}])
    return out.getvalue()


def _items(result: CoreResult) -> str:
    lines = []
    for score in result.scores:
        for a in score.answers:
            row = {"label": score.task.label, "index": a.index, "line": a.line}
            lines.append(json.dumps({**row, "gold": a.gold, "predicted": a.predicted, "correct": a.correct}))
    return "\n".join(lines) + "\n"

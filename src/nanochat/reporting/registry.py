"""The runs on disk: listing them, showing one, comparing two. No torch here: `nanochat runs` must start at once."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.checkpoint.find import is_path, list_checkpoints
from nanochat.errors import MissingError, NanochatError, nearest
from nanochat.reporting.runfolder import GIT_DIFF, RunFolder, is_run
from nanochat.reporting.tables import format_time, render_table
from nanochat.tracking.console import format_seconds

STAGES = ("identity", "tokenizer", "base", "mid", "sft", "rl", "eval")
ABSENT = "(not set)"
OF_THE_MOMENT = ("time", "pid")  # differ between any two attempts


@dataclass(frozen=True)
class RunRow:
    """One line of `nanochat runs ls`. `updated`: seconds since 1970."""

    stage: str
    run: str
    status: str
    step: int | None
    steps: int | None
    loss: float | None
    bpb: float | None
    updated: float


@dataclass(frozen=True)
class RunDiff:
    """(key, value in a, value in b) of what differs between two runs."""

    a: str
    b: str
    config: list[tuple[str, Any, Any]]
    versions: list[tuple[str, Any, Any]]
    metrics: list[tuple[str, Any, Any]]


def find_runs(base_dir: Path, stage: str | None = None) -> list[RunFolder]:
    """The run folders of one stage or of all, newest first."""
    stages = STAGES if stage is None else (stage,)
    folders = [path for name in stages if (base_dir / name).is_dir() for path in (base_dir / name).iterdir()]
    return sorted((RunFolder(path) for path in folders if is_run(path)), key=lambda run: run.updated, reverse=True)


def _row(run: RunFolder) -> RunRow:
    """The row of one run; a damaged file shows as its status and does not hide the other runs."""
    stage, name = run.path.parent.name, run.path.name
    try:
        last = run.last_metrics
        steps = run.recipe.get("steps")
        loss, bpb = last.get("train/loss"), last.get("val/bpb")
        return RunRow(stage, name, run.status, last.get("step"), steps, loss, bpb, run.updated)
    except NanochatError as error:
        return RunRow(stage, name, f"damaged: {error}", None, None, None, None, run.updated)


def list_runs(base_dir: Path, stage: str | None = None) -> list[RunRow]:
    """All runs below `base_dir`, newest first."""
    return [_row(run) for run in find_runs(base_dir, stage)]


def find_run(base_dir: Path, ref: str) -> RunFolder:
    """The run that a REF names (a step after @ is of no matter here); it needs no checkpoint.

    Raises MissingError naming the nearest runs.
    """
    name = ref.partition("@")[0]
    if is_path(ref):
        path = Path(name).expanduser().resolve()
        path = path.parent.parent if path.parent.name == "checkpoints" else path
        if not is_run(path):
            raise MissingError(f"run {ref}: {path} is no run's folder; `nanochat runs ls` shows what there is")
        return RunFolder(path)
    runs = find_runs(base_dir)
    found = [run for run in runs if name in (run.name, run.path.parent.name)]
    if not found:
        known = f"{nearest(name, [run.name for run in runs])}" if runs else "there are no runs there"
        raise MissingError(f"run {ref}: {base_dir / name} does not exist; {known}")
    return found[0]  # newest first, so a stage alone is its newest run


def show_run(run: RunFolder) -> str:
    """A run as text: where, how far, what was asked, its plan and its metrics."""
    checkpoints = [str(step) for step, _ in list_checkpoints(run.path)]
    last = run.attempts[-1] if run.attempts else {}
    facts = [
        ("folder", str(run.path)),
        ("status", run.status),
        ("updated", format_time(run.updated)),
        ("took", format_seconds(run.result["seconds"]) if "seconds" in run.result else None),
        ("attempts", len(run.attempts)),
        ("checkpoints", ", ".join(checkpoints) or None),
        ("asked", " ".join(run.overrides) or None),
    ]
    rules = run.plan.get("rules") or []
    metrics = sorted(run.last_metrics.items())
    versions = [(key, value) for key, value in last.items() if key != GIT_DIFF]
    tables = [render_table(["run", run.name], facts)]
    for title, columns, rows in (
        ("plan", ["name", "value", "rule"], rules),
        ("last metrics", ["metric", "value"], metrics),
        ("environment of the last attempt", ["what", "value"], versions),
    ):
        if rows:
            tables.append(render_table(columns, rows, title=title))
    return "\n\n".join(tables)


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    pairs = [(key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in sorted(a.keys() | b.keys())]
    return [(key, left, right) for key, left, right in pairs if left != right]


def _is_lasting(key: str) -> bool:
    return key != GIT_DIFF and key not in OF_THE_MOMENT


def diff_runs(a: RunFolder, b: RunFolder) -> RunDiff:
    """What differs: config keys, the software and machine of the last attempts, and all final metrics."""
    newest = [run.attempts[-1] if run.attempts else {} for run in (a, b)]
    versions = [row for row in _differences(newest[0], newest[1]) if _is_lasting(row[0])]
    left, right = a.last_metrics, b.last_metrics
    metrics = [(name, left.get(name), right.get(name)) for name in sorted(left.keys() | right.keys())]
    return RunDiff(a.name, b.name, _differences(a.config, b.config), versions, metrics)


def show_diff(diff: RunDiff) -> str:
    """Tables of the differences; a part without any says so."""
    parts = []
    for title, rows in (("config", diff.config), ("environment", diff.versions), ("final metrics", diff.metrics)):
        if rows:
            parts.append(render_table([title, diff.a, diff.b], rows))
        else:
            parts.append(f"{title}: no difference" if title != "final metrics" else "final metrics: none")
    return "\n\n".join(parts)


def show_list(rows: list[RunRow]) -> str:
    """The table of `nanochat runs ls`."""
    columns = ["run", "status", "step", "loss", "val/bpb", "updated"]
    now = time.time()
    cells = [
        (f"{r.stage}/{r.run}", r.status, _progress(r), r.loss, r.bpb, f"{format_seconds(now - r.updated)} ago")
        for r in rows
    ]
    return render_table(columns, cells)


def _progress(row: RunRow) -> str | None:
    if row.step is None:
        return None
    return f"{row.step}/{row.steps}" if row.steps else str(row.step)

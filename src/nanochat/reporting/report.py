"""report.md: what a run was, how it went and how to do it again, from the files of its folder.

Notable: written from the disk alone, so it can be written again at any time; a file that is missing
leaves its section out.
"""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanochat.reporting.plots import median_throughput, plot_learning_rate, plot_loss, plot_throughput, series
from nanochat.reporting.runfolder import GIT_DIFF, RunFolder
from nanochat.reporting.tables import format_time, format_value, markdown_table
from nanochat.tracking.atomic import write_bytes
from nanochat.tracking.console import format_count, format_seconds

PLOTS: tuple[tuple[str, str, Callable[..., bool]], ...] = (
    ("loss.png", "Loss", plot_loss),
    ("learning_rate.png", "Learning rate", plot_learning_rate),
    ("throughput.png", "Throughput", plot_throughput),
)


def _summary(run: RunFolder) -> str:
    """The table at the top: the few numbers one looks for first."""
    losses, bits = series(run.metrics, "train/loss")[1], series(run.metrics, "val/bpb")[1]
    speeds = series(run.metrics, "train/tokens_per_second")[1]
    done, steps = run.last_metrics.get("step"), run.recipe.get("steps")
    rows: list[tuple[str, Any]] = [("status", run.status)]
    if done is not None:
        rows.append(("steps", f"{done:,} of {steps:,}" if steps else f"{done:,}"))
    if counts := [count for key, count in run.recipe.items() if key.startswith("params.")]:
        rows.append(("parameters", sum(counts)))
    if "tokens" in run.recipe:
        rows.append(("training tokens", format_count(run.recipe["tokens"])))
    if losses:
        rows.append(("train/loss, first -> last", _from_to(losses)))
    if bits:
        rows.append(("val/bpb, first -> last", f"{_from_to(bits)} (least {min(bits):.4g})"))
    if speeds:
        rows.append(("tokens per second, median", median_throughput(speeds)))
    if "seconds" in run.result:
        rows.append(("time", format_seconds(run.result["seconds"])))
    return markdown_table(["", run.name], rows)


def _from_to(values: list[float]) -> str:
    return f"{format_value(values[0])} -> {format_value(values[-1])}"


def _curves(run: RunFolder) -> str:
    """Draw the plots beside the report; the Markdown that shows those that had something to draw."""
    drawn = [
        f"![{title} of {run.name}]({name})"
        for name, title, plot in PLOTS
        if plot(run.metrics, run.path / name, f"{title}: {run.name}")
    ]
    return "\n\n".join(drawn)


def _metrics(run: RunFolder) -> str:
    """The last value of every metric."""
    last: dict[str, Any] = {}
    for row in run.metrics:
        last.update(row)
    last = {**last, **run.result.get("metrics", {})}
    shown = [name for name in sorted(last) if name != "step" and not (run.core and name.startswith("eval/core/"))]
    return markdown_table(["metric", "last value"], [(name, last[name]) for name in shown]) if shown else ""


def _core(run: RunFolder) -> str:
    """The tasks of the last CORE evaluation."""
    if not run.core:
        return ""
    columns = {"label": "task", "n": "problems", "accuracy": "accuracy", "accuracy_error": "+-", "baseline": "baseline"}
    columns |= {"centred": "centred", "centred_error": "+-"}
    rows = [[task.get(key) for key in columns] for task in run.core.get("tasks", [])]
    rows.append(["CORE", *[None] * (len(columns) - 3), run.core.get("core"), run.core.get("core_error")])
    note = f"Of {run.core.get('checkpoint')}; +- is one standard error; core.csv and core_items.jsonl hold the same."
    return f"{note}\n\n{markdown_table(list(columns.values()), rows)}"


def _plan(run: RunFolder) -> str:
    rules = run.plan.get("rules") or []
    return markdown_table(["name", "value", "where it comes from"], rules) if rules else ""


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any run of backticks in the text, so it cannot be closed by it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def _samples(run: RunFolder) -> str:
    """The samples of the last step that has any."""
    if not run.samples:
        return ""
    last = run.samples[-1]["step"]
    shown = [row for row in run.samples if row["step"] == last]
    blocks = [_fenced(f"{row.get('prompt', '')}{row.get('sample', '')}") for row in shown]
    return f"Step {last}, prompt and continuation.\n\n" + "\n\n".join(blocks)


def _quote(word: str) -> str:
    """As a shell takes it; double quotes where they are enough, because overrides are full of single ones."""
    if "'" in word and not set(word) & set('"$`\\!'):
        return f'"{word}"'
    return shlex.quote(word)


def _again(run: RunFolder) -> str:
    """The command that was given."""
    if not run.overrides:
        return ""
    return _fenced("nanochat " + " ".join(_quote(word) for word in run.overrides))


def _environment(run: RunFolder) -> str:
    """Versions and machine of the last attempt; a git diff is in environment.json and too long for here."""
    if not run.attempts:
        return ""
    rows = [(key, value) for key, value in sorted(run.attempts[-1].items()) if key != GIT_DIFF]
    note = f"{len(run.attempts)} attempts; this is the last.\n\n" if len(run.attempts) > 1 else ""
    return note + markdown_table(["what", "value"], rows)


def _config(run: RunFolder) -> str:
    rows = sorted(run.config.items())
    if not rows:
        return ""
    return f"<details><summary>all keys</summary>\n\n{markdown_table(['key', 'value'], rows)}\n\n</details>"


SECTIONS: tuple[tuple[str, Callable[[RunFolder], str]], ...] = (
    ("Curves", _curves),
    ("Results", _metrics),
    ("CORE", _core),
    ("Samples", _samples),
    ("Plan", _plan),
    ("The command", _again),
    ("Environment", _environment),
    ("Configuration", _config),
)


def write_report(run_dir: Path) -> Path:
    """Write report.md and its plots into the run's folder; returns the report's path.

    Raises CorruptError naming the file if one of the run's files cannot be read.
    """
    run = RunFolder(run_dir)
    parts = [f"# {run.name}", _summary(run)]
    for title, section in SECTIONS:
        if body := section(run):
            parts.append(f"## {title}\n\n{body}")
    parts.append(f"Written {format_time(time.time())} from the files of this folder.")
    path = run_dir / "report.md"
    write_bytes(path, ("\n\n".join(parts) + "\n").encode())
    return path

"""How well a tokenizer compresses, by domain: prose, code, digits, other languages. Kept beside the tokenizer."""

import json
import random
import sysconfig
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from nanochat.data.stdlib import SOURCES_EVERY, module_files
from nanochat.reporting.tables import markdown_table, render_table
from nanochat.stages.learning import Learned
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.compression import CompressionReport, compare
from nanochat.tracking.atomic import write_json

REPORT_JSON, REPORT_MD = "report.json", "report.md"
_CHARS = 200_000  # of each domain, at most
_UNSEEN = 2  # sources that leave this remainder are not in the embedded corpus
_SUMS = 4000


def domains(prose: str) -> dict[str, str]:
    """Domain -> text. Code is Python's own, digits are sums that are drawn, the languages come with the package."""
    languages = (files("nanochat.tokenizer") / "resources" / "languages.txt").read_text(encoding="utf-8")
    return {
        "prose (validation text)": prose[:_CHARS],
        "code (Python)": "\n".join(_sources())[:_CHARS],
        "digits (sums)": "\n".join(_sums())[:_CHARS],
        "12 other languages": "\n".join(line for line in languages.splitlines() if not line.startswith("#")),
    }


def _sources() -> Iterator[str]:
    """Sources of the standard library, as many as are needed."""
    held = 0
    for number, (_, path) in enumerate(module_files(Path(sysconfig.get_paths()["stdlib"]))):
        if number % SOURCES_EVERY == _UNSEEN and held < _CHARS:
            text = path.read_text(encoding="utf-8", errors="replace")[: _CHARS // 10]
            held += len(text)
            yield text


def _sums() -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(_SUMS):
        a, b = rng.randrange(10 ** rng.randint(1, 8)), rng.randrange(10 ** rng.randint(1, 8))
        yield f"{a} + {b} = {a + b}"


def make_report(tokenizer: Tokenizer, prose: str, learned: Learned) -> dict[str, Any]:
    """JSON-able: bytes per token of each domain and encoding, why an encoding is left out, how it was trained."""
    comparison: CompressionReport = compare(tokenizer, domains(prose))
    return {
        "bytes_per_token": [
            {"domain": row.domain, "bytes": row.num_bytes, "ours": row.ours, "gpt2": row.gpt2, "cl100k": row.cl100k}
            for row in comparison.rows
        ],
        "not_compared": comparison.skipped,
        "vocab_size": tokenizer.vocab_size,
        "characters": learned.chars,
        "words_about": learned.words,
        "seconds": round(learned.seconds, 1),
        "peak_memory": learned.peak,
    }


def _table(report: dict[str, Any], name: str) -> tuple[list[str], list[list[Any]]]:
    rows = [
        [row["domain"], row["bytes"], _ratio(row["ours"]), _ratio(row["gpt2"]), _ratio(row["cl100k"])]
        for row in report["bytes_per_token"]
    ]
    return ["bytes per token", "bytes", name, "gpt2", "cl100k"], rows


def _notes(report: dict[str, Any]) -> list[str]:
    trained = (
        f"learnt {report['vocab_size']:,} tokens from {report['characters']:,} characters (about "
        f"{report['words_about']:,} different words) in {report['seconds']:.0f} seconds, with "
        f"{report['peak_memory'] / 1e6:,.0f} MB of memory at most"
    )
    return [trained, *(f"{name} is not compared: {reason}" for name, reason in report["not_compared"].items())]


def show_report(report: dict[str, Any], name: str) -> str:
    """For the screen."""
    return "\n".join([render_table(*_table(report, name)), *_notes(report)])


def save_report(report: dict[str, Any], name: str, folder: Path) -> None:
    """report.json and report.md; the folder is there."""
    write_json(folder / REPORT_JSON, report)
    notes = "\n\n".join(_notes(report))
    text = f"# tokenizer/{name}\n\n{markdown_table(*_table(report, name))}\n\n{notes}\n"
    (folder / REPORT_MD).write_text(text, encoding="utf-8")


def read_report(folder: Path) -> dict[str, Any] | None:
    """What save_report wrote; None if there is none, or none that can be read: it is only shown."""
    try:
        report: dict[str, Any] = json.loads((folder / REPORT_JSON).read_text(encoding="utf-8"))
        return report if {"bytes_per_token", "characters", "words_about"} <= set(report) else None
    except (OSError, ValueError):
        return None


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

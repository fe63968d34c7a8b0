"""metrics.jsonl and samples.jsonl: one JSON object a line, each with its `step`.

Notable: a line counts once its newline is written, so what kill -9 leaves of the last line is no
line: readers skip it, and opening the log or cutting it removes it. Non-finite numbers are the strings
"NaN", "Infinity" and "-Infinity" in the file (still JSON) and floats again for readers.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

from nanochat.errors import CorruptError
from nanochat.tracking.atomic import decode, encode, write_bytes

TAIL_BYTES = 1 << 16  # about 250 lines of metrics, so usually one read finds the last validation


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object of one line; None if it is not an object with a whole number as `step`."""
    try:
        row = json.loads(line)
    except ValueError:  # also UnicodeDecodeError
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return dict(decode(row))


def _whole_lines(content: bytes) -> list[bytes]:
    """The lines that end with a newline; what follows the last newline is a half-written line."""
    return content.split(b"\n")[:-1]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows in file order; [] if there is no file; a damaged last line is skipped.

    Raises CorruptError with file and line number for a damaged line before the last.
    """
    if not path.exists():
        return []
    lines = _whole_lines(path.read_bytes())
    rows = []
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif line.strip() and number < len(lines):
            raise CorruptError(f"{path}:{number} is not a JSON object with a `step`: {line[:80]!r}; remove that line")
    return rows


def _read_tail(path: Path, count: int) -> list[dict[str, Any]]:
    """The readable rows among the last `count` bytes."""
    with path.open("rb") as file:
        start = max(0, file.seek(0, 2) - count)
        file.seek(start)
        lines = _whole_lines(file.read())
    whole = lines[1:] if start else lines  # the first line of a tail lacks its beginning
    return [row for row in map(_parse, whole) if row is not None]


def last_values(path: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """The last value of each metric, and the last `step`; {} if there is no file.

    `names`: stop reading backwards once these are found; None: every metric of the file.
    """
    if not path.exists():
        return {}
    size = path.stat().st_size
    count = size if names is None else TAIL_BYTES
    while True:
        values: dict[str, Any] = {}
        for row in _read_tail(path, count):
            values.update(row)
        if count >= size or (names is not None and set(names) <= values.keys()):
            return values
        count *= 8


def cut_jsonl(path: Path, step: int) -> int:
    """Keep the rows with `step` at most the given one; returns how many lines went, damaged ones included."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    lines = [line for line in content.split(b"\n") if line.strip()]
    rows = [(line, _parse(line)) for line in _whole_lines(content)]
    kept = [line + b"\n" for line, row in rows if row is not None and row["step"] <= step]
    if b"".join(kept) != content:
        write_bytes(path, b"".join(kept))
    return len(lines) - len(kept)


def _drop_half_line(path: Path) -> None:
    """Truncate after the last newline, so that the next line does not continue a broken one."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


class MetricsLog:
    """An append-only log of `{"step": n, name: value, ...}`; each line is flushed, so kill -9 loses at most one."""

    def __init__(self, path: Path) -> None:
        """Open for appending, repairing the last line if an earlier process was killed in it."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _drop_half_line(path)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line. Step n is the state after n updates, counted from 1."""
        row = {"step": step, **metrics}
        self._file.write(json.dumps(encode(row), ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def cut(self, step: int) -> int:
        """Forget what came after `step`, as a resume from its checkpoint must; returns the number of lines cut."""
        self._file.close()
        removed = cut_jsonl(self.path, step)
        self._file = self.path.open("a", encoding="utf-8")
        return removed

    def finish(self, ok: bool = True) -> None:
        """Close the file; whether the run ended well stands in result.json."""
        self._file.close()

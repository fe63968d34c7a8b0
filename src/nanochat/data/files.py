"""Text files as blocks of documents that can be read in any order: parquet, jsonl, txt.

Notable: opening a file learns how many documents each of its blocks holds, and finds malformed lines before
training begins (jsonl and txt are read once for that; parquet keeps its counts in the footer). A block is
read whole when one of its documents is wanted; who keeps it is the caller's business (data/corpus.py).
"""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.data.parquet_check import check_strings
from nanochat.errors import CorruptError, nearest

LINES_PER_BLOCK = 256
CHARS_PER_DOCUMENT = 4000  # of a .txt file; about the mean of web documents (FineWeb-Edu, 2406.17557)
MAX_CHARS = 4 * CHARS_PER_DOCUMENT  # a paragraph longer than this is cut at the end of a line


class TextFile(Protocol):
    """A file of documents. `block_sizes[i]` documents are in block i."""

    block_sizes: list[int]

    def read_block(self, block: int) -> Sequence[str]:
        """The documents of one block."""


class ArrowTexts(Sequence[str]):
    """A string column that becomes Python strings one at a time (a row group can hold gigabytes).

    Notable: the usual column (one chunk, no nulls) is decoded straight from its buffers; `as_py` of a pyarrow scalar
    takes three times as long, which is two percent of what tokenising the text takes.
    """

    def __init__(self, column: Any) -> None:
        """`column` is a pyarrow ChunkedArray of strings."""
        self._column = column.chunk(0) if column.num_chunks == 1 else column
        self._ends, self._raw = _buffers(self._column) if column.num_chunks == 1 else (None, None)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._column)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One text, or those of a slice."""
        if isinstance(index, slice):
            return [text or "" for text in self._column[index].to_pylist()]
        if self._ends is None or self._raw is None or index < 0:
            return self._column[index].as_py() or ""
        return str(self._raw[self._ends[index] : self._ends[index + 1]], "utf-8")

    @property
    def size(self) -> int:
        """Bytes held."""
        return int(self._column.nbytes)


def _buffers(array: Any) -> tuple[memoryview | None, memoryview | None]:
    """Where each text begins and ends, and the bytes of all; None for an array that is not laid out like that."""
    wide = {pa.string(): "i", pa.large_string(): "q"}.get(array.type)
    if wide is None or array.null_count or not len(array):
        return None, None
    _, ends, raw = array.buffers()
    if raw is None:  # all are empty
        return None, None
    bounds: memoryview = memoryview(ends).cast("B").cast(wide)  # type: ignore[call-overload]
    return bounds[array.offset : array.offset + len(array) + 1], memoryview(raw).cast("B")


class ParquetFile:
    """Column `text`; a block is a row group. Null is an empty document."""

    def __init__(self, path: Path) -> None:
        """Read the footer. Raises CorruptError without a column `text` of strings."""
        self._path = path
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise CorruptError(f"{path} is no readable parquet file ({error}); fetch or write it again") from error
        schema = file.schema_arrow
        if "text" not in schema.names:
            raise CorruptError(f"{path} has no column 'text'; {nearest('text', schema.names)}; rename the column")
        check_strings(path, schema)
        self._footer = file.metadata
        self.block_sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]

    def read_block(self, block: int) -> ArrowTexts:
        """The documents of one row group."""
        try:
            with pq.ParquetFile(self._path, metadata=self._footer) as file:
                column = file.read_row_group(block, columns=["text"], use_threads=False).column("text")
            column.validate(full=True)  # UTF-8 included; under one percent of what tokenising takes
        except (pa.ArrowException, OSError) as error:
            raise CorruptError(f"{self._path}: row group {block} is unreadable ({error}); fetch it again") from error
        return ArrowTexts(column)


class JsonlFile:
    """One `{"text": "..."}` a line; other keys are ignored, blank lines skipped."""

    def __init__(self, path: Path) -> None:
        """Read the whole file once. Raises CorruptError naming the first malformed line and how many there are."""
        self._path = path
        self._starts: list[int] = []
        self.block_sizes: list[int] = []
        wrong: list[str] = []
        position = lines = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    lines += 1
                    self._enter(position)
                    reason = _wrong_with(line)
                    if reason is not None:
                        wrong.append(f"{path}:{number}: {reason}")
                position += len(line)
        self._end = position
        if wrong:
            count = f"{len(wrong)} of {lines} lines {'is' if len(wrong) == 1 else 'are'} wrong"
            raise CorruptError(f'{wrong[0]}; {count}; each line must be {{"text": "..."}}')

    def _enter(self, position: int) -> None:
        """Count the document at byte `position` into the last block, or begin another."""
        if not self.block_sizes or self.block_sizes[-1] == LINES_PER_BLOCK:
            self._starts.append(position)
            self.block_sizes.append(0)
        self.block_sizes[-1] += 1

    def read_block(self, block: int) -> list[str]:
        """The documents of up to LINES_PER_BLOCK lines."""
        end = self._starts[block + 1] if block + 1 < len(self._starts) else self._end
        with self._path.open("rb") as file:
            file.seek(self._starts[block])
            raw = file.read(end - self._starts[block])
        return [json.loads(line)["text"] for line in raw.split(b"\n") if line.strip()]


def _wrong_with(line: bytes) -> str | None:
    """What is wrong with one line of a jsonl corpus, or None."""
    try:
        record = json.loads(line)
    except ValueError as error:  # also covers bytes that are not UTF-8
        return f"not JSON ({error})"
    if not isinstance(record, dict):
        return f"{type(record).__name__} instead of an object"
    text = record.get("text")
    if not isinstance(text, str):
        return "no key 'text'" if "text" not in record else f"'text' is {type(text).__name__}, not a string"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "'text' holds half of a surrogate pair, which is no character"
    return None


class TxtFile:
    """Plain text: paragraphs, set apart by blank lines, joined to documents of about 4000 characters."""

    def __init__(self, path: Path) -> None:
        """Read the whole file once. Raises CorruptError for bytes that are not UTF-8."""
        self._path = path
        self._bounds = _document_bounds(path)
        count = len(self._bounds) - 1
        self.block_sizes = [min(LINES_PER_BLOCK, count - i) for i in range(0, count, LINES_PER_BLOCK)]

    def read_block(self, block: int) -> list[str]:
        """The documents between two byte positions, stripped, with \\n as line ends."""
        first = block * LINES_PER_BLOCK
        bounds = self._bounds[first : first + self.block_sizes[block] + 1].tolist()
        with self._path.open("rb") as file:
            file.seek(bounds[0])
            raw = file.read(bounds[-1] - bounds[0])
        pieces = (raw[a - bounds[0] : b - bounds[0]] for a, b in pairwise(bounds))
        return [piece.decode().lstrip("\ufeff").replace("\r\n", "\n").strip() for piece in pieces]


def _document_bounds(path: Path) -> np.ndarray:
    """Byte positions where documents begin, and where the last one ends; (documents + 1,) int64."""
    bounds = [0]
    chars = position = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise CorruptError(
                    f"{path}:{number}: byte {position + error.start} is not UTF-8; convert the file, for example "
                    f"with iconv -f latin1 -t utf-8"
                ) from error
            position += len(line)
            blank = not text.strip("\ufeff \t\r\n\f\v")
            chars += 0 if blank else len(text)
            if (blank and chars >= CHARS_PER_DOCUMENT) or chars >= MAX_CHARS:
                bounds.append(position)
                chars = 0
    if chars:
        bounds.append(position)
    return np.array(bounds, dtype=np.int64)


READERS: dict[str, Callable[[Path], TextFile]] = {".parquet": ParquetFile, ".jsonl": JsonlFile, ".txt": TxtFile}

"""The conversations made so far, one line each, written the moment they are accepted.

Notable: a line counts once it ends. What a kill left of one is cut off when the file is opened, and that number is
asked for again; nothing else is.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.errors import CorruptError
from nanochat.tasks.base import Conversation

WORK_FILE = "conversations.jsonl"  # in the run folder


@dataclass(frozen=True)
class Entry:
    """What became of one number: a conversation, or why there is none. Tokens are those of the whole request."""

    number: int
    by: str
    messages: list[dict[str, str]] | None = None
    refused: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def conversation(self) -> Conversation | None:
        """As the tasks read it; None if it was refused."""
        return {"messages": self.messages} if self.messages is not None else None


@dataclass
class WorkFile:
    """The file at `path`; `durable` also survives the machine's end, at the price of a sync for every line."""

    path: Path
    durable: bool
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Reads what is there. Raises CorruptError naming a whole line that cannot be read."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            _cut_unfinished(self.path)
            self.entries = list(_read(self.path))
        self._file = self.path.open("ab")

    def append(self, entry: Entry) -> None:
        """Writes one entry and keeps it."""
        shown = {key: value for key, value in vars(entry).items() if value is not None}
        self._file.write(json.dumps(shown, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        if self.durable:
            os.fsync(self._file.fileno())
        self.entries.append(entry)

    def close(self) -> None:
        """No more entries."""
        self._file.close()

    @property
    def accepted(self) -> list[Entry]:
        """The entries with a conversation, by number."""
        return sorted((e for e in self.entries if e.messages is not None), key=lambda e: e.number)


def count_accepted(path: Path) -> int:
    """Conversations in a work file, which is only read; 0 if there is none."""
    return sum(entry.messages is not None for entry in _read(path)) if path.is_file() else 0


def _cut_unfinished(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def _read(path: Path) -> Iterator[Entry]:
    """The entries of the lines that end."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        yield _entry(path, number, line)


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        value: dict[str, Any] = json.loads(line)
        return Entry(**value)
    except (ValueError, TypeError) as error:
        raise CorruptError(
            f"{path}:{number} is not a line that this stage wrote ({error}); delete that line to have it made again"
        ) from error

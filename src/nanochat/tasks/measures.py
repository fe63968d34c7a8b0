"""A number for every row of a task, such as its length: what orders and weights need before anything is read.

Notable: the rows pass by once and only the numbers stay, 8 bytes each. They are kept in a file under a hash of the
task's fingerprint, so that the next start need not read everything again.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np

from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.shares import Ints
from nanochat.tracking.atomic import write_shared


@dataclass(frozen=True)
class Measure:
    """`count(conversation)`, called `name`: of equal names, equal numbers. `folder` None: nothing is kept."""

    name: str
    count: Callable[[Conversation], int]
    folder: Path | None = None

    def cached(self, folder: Path) -> "Measure":
        """The same, its numbers kept in `folder`."""
        return replace(self, folder=folder)

    def of(self, task: Task) -> Ints:
        """The number of each row, (len(task),)."""
        path = self._path(task)
        found = _read(path, len(task)) if path is not None else None
        if found is not None:
            return found
        made = np.fromiter((self.count(task[row]) for row in range(len(task))), np.int64, len(task))
        if path is not None:
            content = BytesIO()
            np.save(content, made, allow_pickle=False)
            with suppress(OSError):  # a folder that refuses costs time only
                write_shared(path, content.getvalue())
        return made

    def _path(self, task: Task) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(json.dumps([self.name, task.fingerprint()], sort_keys=True).encode())
        return self.folder / f"{digest.hexdigest()[:32]}.npy"


def characters(conversation: Conversation) -> int:
    """Characters of all messages."""
    return sum(len(text) for _, text in _texts(conversation))


def supervised_bytes(conversation: Conversation) -> int:
    """UTF-8 bytes of what the assistant writes."""
    taught = ("assistant", "python")
    return sum(len(text.encode("utf-8", "replace")) for kind, text in _texts(conversation) if kind in taught)


def _texts(conversation: Conversation) -> list[tuple[str, str]]:
    """Who or what speaks (a role; python and python_output for the calculator), and the text."""
    found = []
    for message in conversation["messages"]:
        content, role = message["content"], str(message["role"])
        if isinstance(content, str):
            found.append((role, content))
        else:
            found += [(role if part["type"] == "text" else part["type"], part["text"]) for part in content]
    return found


def _read(path: Path, size: int) -> Ints | None:
    """The numbers in a file; None if there is none or it is not whole, and then they are counted again."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == (size,) and found.dtype == np.int64 else None

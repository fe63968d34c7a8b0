"""What a corpus was made of, so that a run is not continued on another one unnoticed.

A fingerprint is JSON: `{"tokenizer": hex, "parts": {name: {"size": ..., "sha256": ...}}}`, where a part is a
file of a corpus or a task of a mixture, or None for a file that is not opened yet. Notable: files over 16 MiB are
hashed at 16 evenly spread places (start and end included) together with their size: a 25 GB corpus is fingerprinted
in seconds, and any change of length, any re-encoding of a parquet file (its footer is at the end) is seen.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from nanochat.errors import MismatchError

CHUNK = 1 << 20
CHUNKS = 16
ROWS = 20_000  # conversations of a mixture that are hashed, evenly spread: a few seconds


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Size in bytes and sha256 of the content (of 16 MiB of it when the file is larger)."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    if size <= CHUNK * CHUNKS:
        starts = list(range(0, size, CHUNK))
    else:
        starts = [(size - CHUNK) * i // (CHUNKS - 1) for i in range(CHUNKS)]
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(CHUNK))
    return {"size": size, "sha256": digest.hexdigest()}


class Rows(Protocol):
    """What is needed of a Mixture here (tasks/mixture.py)."""

    def __len__(self) -> int:
        """Number of conversations, repeats included."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One conversation."""

    def origin(self, index: int) -> tuple[str, int]:
        """Task name and row in the task."""


def digest_rows(mixture: Rows) -> dict[str, Any]:
    """Task name -> number of conversations and sha256 of them in mixture order.

    Of more than ROWS conversations the order of all is hashed, but the contents of ROWS only.
    """
    stride = max(1, -(-len(mixture) // ROWS))
    sizes: dict[str, int] = {}
    digests: dict[str, Any] = {}
    for index in range(len(mixture)):
        name, row = mixture.origin(index)
        sizes[name] = sizes.get(name, 0) + 1
        digest = digests.setdefault(name, hashlib.sha256())
        digest.update(f"{index} {row}\n".encode())
        if index % stride == 0:
            digest.update(json.dumps(mixture[index], sort_keys=True).encode())
    return {name: {"size": sizes[name], "sha256": digests[name].hexdigest()} for name in sizes}


def mixture_parts(mixture: Rows) -> dict[str, Any]:
    """The parts of a mixture: one for each task, and one for how they are joined.

    A mixture that has a `fingerprint()` knows them without rendering a conversation; of any other the
    conversations are hashed.
    """
    describe = getattr(mixture, "fingerprint", None)
    if describe is None:
        return digest_rows(mixture)
    found = dict(describe())
    tasks = found.pop("tasks")
    return {**tasks, "the order of the tasks": {**found, "names": list(tasks)}}


def merge_fingerprints(fingerprints: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What any of the ranks of one run knows: each opens only the files of its own documents."""
    merged = dict(fingerprints[0])
    for other in fingerprints[1:]:
        parts = {name: part or other["parts"].get(name) for name, part in merged["parts"].items()}
        merged |= {"documents": merged["documents"] or other["documents"], "parts": parts}
    return merged


def known_parts(fingerprint: dict[str, Any]) -> list[str]:
    """Names of the parts whose content is known."""
    return [name for name, part in fingerprint.get("parts", {}).items() if part is not None]


def refuse_changed(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """MismatchError naming the first part that is missing, new or different, or the tokenizer.

    What is None on either side (a file not opened yet) is not known, and so no change.
    """
    if saved.get("tokenizer") != now.get("tokenizer"):
        raise MismatchError(
            "the tokenizer has changed since the checkpoint, so its data position means nothing now; "
            "put the tokenizer back that the run began with, or begin another run with run=NAME"
        )
    changes = _changes(saved.get("parts", {}), now.get("parts", {}))
    if not changes and _differ(saved.get("documents"), now.get("documents")):
        changes = ["the split of the documents differs"]
    if changes:
        shown = "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
        raise MismatchError(
            f"the data have changed since the checkpoint: {shown}; "
            "put them back as they were, or begin another run with run=NAME"
        )


def _differ(then: Any, now: Any) -> bool:
    """Both are known, and not the same."""
    return then is not None and now is not None and then != now


def _changes(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One clause for every part that differs, in order of names."""
    clauses = []
    for name in sorted(saved.keys() | now.keys()):
        if name not in now:
            clauses.append(f"{name} is missing")
        elif name not in saved:
            clauses.append(f"{name} is new")
        elif _differ(saved[name], now[name]):
            clauses.append(f"{name} differs ({_difference(saved[name], now[name])})")
    return clauses


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """How a part differs: by its size, in bytes or rows, or else in what it holds."""
    for key in ("size", "rows"):
        if then.get(key) != now.get(key):
            return f"{key} {then.get(key)} then, {now.get(key)} now"
    return "same size, other content"

"""Files that are whole or absent: written beside their place, synced, then renamed over it.

Notable: the rename is atomic on one machine only. What several machines read (checkpoints) is
additionally proved by a manifest of sizes and hashes (checkpoint/manifest.py).
"""

import json
import math
import os
from pathlib import Path
from typing import Any

# Strict JSON has no word for these; strings keep which one it was, where null would lose it.
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """`value` as strict JSON can hold it: non-finite floats become "NaN", "Infinity", "-Infinity".

    Scalars of numpy and torch become Python numbers. `decode` is the inverse.
    """
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, str | bool | int | None):
        return value
    number = value if isinstance(value, float) else value.item()
    if not isinstance(number, float) or math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def decode(value: Any) -> Any:
    """The inverse of `encode`, for what json.loads returned."""
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (new names, renames) durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`; a reader sees the old file or the new one, never a part."""
    beside = path.with_name(path.name + ".partial")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def write_shared(path: Path, content: bytes) -> None:
    """`write_bytes` for what can be made again and several processes may make at once: unsynced, each beside its own.

    Makes the folder. Raises OSError, and leaves nothing then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of `value` as indented strict JSON (see `encode`)."""
    text = json.dumps(encode(value), indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")

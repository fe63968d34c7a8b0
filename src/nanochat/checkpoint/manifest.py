"""manifest.json: the sizes and hashes of a checkpoint's files, written last and synced.

Notable: a checkpoint exists if its manifest does and the sizes agree; a rename proves nothing on a
network file system. No torch here, so that commands that only look are quick.
"""

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

from nanochat.errors import CorruptError
from nanochat.tracking.atomic import write_json

MANIFEST = "manifest.json"
STEP_FOLDER = re.compile(r"step_(\d{6,})")


@dataclass(frozen=True)
class Manifest:
    """`files`: name -> (bytes, sha256). `created`: seconds since 1970, which copying does not change."""

    step: int
    world: int
    created: float
    files: dict[str, tuple[int, str]]


def step_of(folder: Path) -> int | None:
    """500 of a folder named step_000500; None of any other."""
    match = STEP_FOLDER.fullmatch(folder.name)
    return int(match[1]) if match else None


def sha256(path: Path) -> str:
    """Hash of the file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, step: int, world: int) -> None:
    """Describe every file of the folder; from here on the checkpoint is complete."""
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths}
    write_json(folder / MANIFEST, {"step": step, "world": world, "created": time.time(), "files": files})


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest; None if there is none. Raises CorruptError if it is no manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_bytes())
        files = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in raw["files"].items()}
        return Manifest(int(raw["step"]), int(raw["world"]), float(raw["created"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{path} is not a checkpoint manifest ({error!r}); take another checkpoint") from error


def damage(folder: Path, manifest: Manifest) -> str | None:
    """What is missing or has another size than the manifest says; None if all is there."""
    for name, (size, _) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if (found := path.stat().st_size) != size:
            return f"{path} has {found} bytes, its manifest says {size}"
    return None


def check_hash(folder: Path, manifest: Manifest, name: str) -> None:
    """Raise CorruptError unless the file's content is what was saved."""
    if sha256(folder / name) != manifest.files[name][1]:
        raise CorruptError(f"{folder / name} is not what was saved (sha256 differs); take another checkpoint")

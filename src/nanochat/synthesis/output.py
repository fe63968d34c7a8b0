"""The finished file: whose it is, whether it may be replaced, and writing it at once.

Notable: a run knows its own files by their hash, noted before they are written. A file that no run of this persona
wrote is somebody's work and is not touched unasked.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nanochat.config.fields import Role
from nanochat.config.identity import IdentityConfig
from nanochat.config.persona import PersonaConfig
from nanochat.config.validate import flatten
from nanochat.errors import CorruptError, MismatchError
from nanochat.synthesis.duplicates import normalised
from nanochat.synthesis.starters import Line
from nanochat.tasks.base import Conversation
from nanochat.tasks.custom_json import parse_jsonl
from nanochat.tracking.atomic import write_bytes, write_json

RECORD_FILE = "identity.json"
BEFORE_FILE = "before.jsonl"  # what the file held before, with append=true
_WHO_WRITES = ("mode", "model", "temperature")  # may change while the conversations stay those of one persona


@dataclass
class Record:
    """What a run folder's conversations are of, by what they are made, and hashes of the files written from them."""

    of: dict[str, Any]
    mode: str
    wrote: list[str] = field(default_factory=list)


def signature(persona: PersonaConfig, config: IdentityConfig, starters: Sequence[Line], seed: int) -> dict[str, Any]:
    """What the wishes and the persona depend on; a file of starters by its content."""
    asked = {key: value for key, value in flatten(config, Role.identity).items() if key not in _WHO_WRITES}
    lines = "\n".join(f"{line.about}/{line.language}/{line.text}" for line in starters)
    asked["starters"] = hashlib.sha256(lines.encode()).hexdigest()[:16]
    of = {f"persona.{key}": value for key, value in flatten(persona).items()}
    return {**of, **{f"identity.{key}": value for key, value in asked.items()}, "seed": seed}


def read_record(folder: Path) -> Record | None:
    """The record of a run folder; None if there is none. Raises CorruptError."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CorruptError(f"{path} cannot be read ({error}); delete the folder, or give overwrite=true") from error


def write_record(folder: Path, record: Record) -> None:
    """Writes it; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD_FILE, asdict(record))


def check_same(folder: Path, saved: Record, of: Mapping[str, Any], mode: str) -> None:
    """Raises MismatchError if the folder's conversations are of another persona, or made in another way."""
    now = json.loads(json.dumps(of))
    differing = [key for key in sorted({*saved.of, *now}) if saved.of.get(key) != now.get(key)]
    again = "Name this run differently by run= (and its file by identity.out=), or delete the former by overwrite=true"
    if differing:
        raise MismatchError(f"{folder} holds conversations made with another {', '.join(differing)}. {again}")
    if saved.mode != mode:
        raise MismatchError(
            f"{folder} holds conversations made by identity.mode={saved.mode}, and now it would be {mode}. Give "
            f"identity.mode={saved.mode} (an endpoint needs its key in the environment) to go on. {again}"
        )


def owner_problem(out: Path, record: Record, runs: Path) -> str | None:
    """Whose file `out` is, in words, unless it is absent, this run's, or another run's of the very same persona."""
    if not out.exists():
        return None
    digest = digest_of(out.read_bytes())
    for path in sorted(runs.glob(f"*/{RECORD_FILE}")):
        other = read_record(path.parent)
        if other is not None and digest in other.wrote:
            if other.of == json.loads(json.dumps(record.of)):
                return None
            return f"was made by the run identity/{path.parent.name}, of the persona {other.of.get('persona.name')}"
    return "was not made by this run; it may be your own"


def digest_of(content: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def render(conversations: Sequence[Conversation], before: bytes) -> bytes:
    """The finished file: the lines that were there before, then the conversations that are not among them."""
    there = {normalised(c) for c in _plain(before)}
    lines = [json.dumps(c, ensure_ascii=False).encode() for c in conversations if normalised(c) not in there]
    return before + (b"" if not before or before.endswith(b"\n") else b"\n") + b"".join(line + b"\n" for line in lines)


def _plain(data: bytes) -> list[Conversation]:
    """The conversations of a file. Raises ConfigError naming the line that is wrong."""
    return parse_jsonl(data, BEFORE_FILE) if data.strip() else []


def publish(out: Path, content: bytes, folder: Path, record: Record) -> None:
    """Notes the hash, then puts the file in place by a rename: a kill in between is recognised by the next attempt."""
    record.wrote = [*dict.fromkeys([*record.wrote, digest_of(content)])]
    write_record(folder, record)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, content)

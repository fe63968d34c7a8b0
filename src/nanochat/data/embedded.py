"""The embedded corpus: a few megabytes of text that need no network and no files of others.

| part                                       | characters, about |
|--------------------------------------------|-------------------|
| documentation of the standard library      | 2.0 M             |
| sources of the standard library            | 0.9 M             |
| generated tasks, training split only       | 1.2 M             |
| identity conversations, word list          | 0.2 M             |

Notable: it is built in seconds and kept under `{base_dir}/embedded/`, under a name that changes with the version of
Python and with everything the package puts in; the file is checked against its hash when read, and made
again if it is not whole. No document occurs twice, so none is in both training and validation.
"""

import hashlib
import json
import os
import platform
import random
from collections.abc import Iterator
from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path
from typing import Any

from nanochat.data.stdlib import standard_library
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.base import Task
from nanochat.tasks.custom_json import IDENTITY_FILE, Identity, packaged_identity
from nanochat.tasks.plain import as_text
from nanochat.tasks.simple_spelling import SimpleSpelling
from nanochat.tasks.spelling_bee import SpellingBee
from nanochat.tasks.words import clean

TASK_SEED = 42  # of what is generated; the run's seed only orders the documents
ROWS = {"spelling_bee": 4000, "simple_spelling": 4000, "arithmetic": 6000}
WORDS_PER_DOCUMENT = 100


def embedded_texts(base_dir: Path, seed: int) -> tuple[list[str], dict[str, Any]]:
    """The documents in an order drawn from `seed`, and their fingerprint (data/manifest.py)."""
    path = base_dir / "embedded" / f"{_key()}.jsonl"
    texts = _read(path)
    if texts is None:
        texts = build()
        _write(path, texts)
    digest = hashlib.sha256(f"{seed}\n".encode())
    for text in texts:
        digest.update(text.encode())
    part = {"size": sum(map(len, texts)), "sha256": digest.hexdigest()}
    random.Random(seed).shuffle(texts)
    return texts, {"embedded": part}


def build() -> list[str]:
    """All documents, each once, none empty."""
    texts = [*standard_library(), *generated()]
    encodable = (text.encode("utf-8", "replace").decode() for text in texts)
    return [text for text in dict.fromkeys(encodable) if text.strip()]


def generated() -> Iterator[str]:
    """Tasks as plain text, one conversation a document, and the word list."""
    words = clean((files("nanochat.tasks") / "resources" / "words.txt").read_text(encoding="utf-8").splitlines())
    tasks: list[Task] = [
        SpellingBee(words, size=ROWS["spelling_bee"], seed=TASK_SEED),
        SimpleSpelling(words, size=ROWS["simple_spelling"], seed=TASK_SEED),
        Arithmetic(size=ROWS["arithmetic"], seed=TASK_SEED),
        Identity(packaged_identity(), IDENTITY_FILE),
    ]
    for task in tasks:
        yield from (as_text(task[row]) for row in range(len(task)))
    for start in range(0, len(words), WORDS_PER_DOCUMENT):
        yield " ".join(words[start : start + WORDS_PER_DOCUMENT])


def _key() -> str:
    """Changes with whatever the documents are made by: the version of Python, these sources, the package's files."""
    digest = hashlib.sha256(platform.python_version().encode())
    digest.update(Path(__file__).read_bytes())
    digest.update(Path(__file__).with_name("stdlib.py").read_bytes())
    _digest_folder(files("nanochat.tasks"), digest)
    return digest.hexdigest()[:16]


def _digest_folder(folder: Traversable, digest: Any) -> None:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            if item.name != "__pycache__":
                _digest_folder(item, digest)
        else:
            digest.update(item.name.encode() + b"\0" + item.read_bytes())


def _read(path: Path) -> list[str] | None:
    """The documents of the file; None if it is missing or not what its first line says."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if json.loads(head)["sha256"] != hashlib.sha256(body).hexdigest():
            return None
        return [json.loads(line) for line in body.splitlines()]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, texts: list[str]) -> None:
    """First line the hash of the rest; written beside and renamed, so that no one reads half of it."""
    body = b"".join(json.dumps(text).encode() + b"\n" for text in texts)
    head = json.dumps({"documents": len(texts), "sha256": hashlib.sha256(body).hexdigest()})
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_bytes(head.encode() + b"\n" + body)
    beside.replace(path)

"""Documents to pretrain on: a folder of text files, or the embedded corpus, split into train and validation.

Notable: random access, since lanes (data/cursor.py) read documents in strides and a resumed run starts in the
middle; memory is bounded by a cache of blocks (row groups). Files are opened in order, each when a document of it is
first asked for, so training can begin while later ones are still arriving; only the length of the whole needs them
all. Validation is the last of several files; of one file, or of the embedded corpus, every `val_every`-th document.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from nanochat.config.data import DataKind, LocalConfig
from nanochat.data.documents import Documents, EveryNth, Part, TextList
from nanochat.data.embedded import embedded_texts
from nanochat.data.files import READERS, ArrowTexts
from nanochat.data.lru import LRU
from nanochat.data.manifest import file_fingerprint
from nanochat.errors import ConfigError, MissingError

CACHE_BYTES = 128 << 20  # of text held; lanes drift apart by a few row groups of 1024 documents (3 MB each)


class FilePart:
    """One opened file. Raises CorruptError if it cannot be read."""

    def __init__(self, name: str, path: Path) -> None:
        """`name` is its path below the corpus."""
        self.name = name
        self._path = path
        self._file = READERS[path.suffix](path)
        self._ends = list(accumulate(self._file.block_sizes))
        self._fingerprint: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Number of documents."""
        return self._ends[-1] if self._ends else 0

    def place(self, number: int) -> tuple[int, int]:
        """The block that a document is in, and its place there."""
        block = bisect_right(self._ends, number)
        return block, number - (self._ends[block - 1] if block else 0)

    def read(self, block: int) -> tuple[Sequence[str], int]:
        """The documents of a block, and about how much memory they take."""
        texts = self._file.read_block(block)
        return texts, texts.size if isinstance(texts, ArrowTexts) else sum(map(len, texts))

    def blocks(self) -> Iterator[Sequence[str]]:
        """Read past the cache: who wants all of them does not come back."""
        return (self._file.read_block(block) for block in range(len(self._ends)))

    def digest(self) -> str:
        """sha256 of how the file is read and of all of it, where the fingerprint takes samples of a large one."""
        digest = hashlib.sha256(self._path.suffix.encode())  # the same bytes are other documents in .jsonl and .txt
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, lambda: digest).hexdigest()

    def fingerprint(self) -> dict[str, Any]:
        """Computed once, since it reads up to 16 MiB."""
        if self._fingerprint is None:
            self._fingerprint = file_fingerprint(self._path)
        return self._fingerprint


class FileDocuments:
    """The documents of files, in the order of the files; part names are paths relative to `root`.

    With `wait` the files may still be arriving: it is called with a path before that file is opened, and returns
    when it is there and whole. Progress then counts each file the same, as their lengths are not known.
    """

    def __init__(self, paths: Sequence[Path], root: Path, wait: Callable[[Path], None] | None = None) -> None:
        """Opens nothing yet."""
        self.name = f"data.root={root}"
        base = root.parent if root.is_file() else root
        self._paths = {path.relative_to(base).as_posix(): path for path in paths}
        self._wait = wait
        self._parts: list[FilePart] = []
        self._ends: list[int] = []  # documents up to the end of each opened file
        self._cache: LRU[tuple[int, int], Sequence[str]] = LRU(CACHE_BYTES)
        self._near: tuple[int, int, Sequence[str]] = 0, 0, ()  # the block last read from, and its documents' numbers

    def __len__(self) -> int:
        """Number of documents; opens all files."""
        while self._open_next():
            pass
        return self._seen

    @property
    def _seen(self) -> int:
        """Documents in the opened files."""
        return self._ends[-1] if self._ends else 0

    def _open_next(self) -> bool:
        """Open one file more; False if there is none. Raises CorruptError for one that cannot be read."""
        if len(self._parts) == len(self._paths):
            return False
        name, path = list(self._paths.items())[len(self._parts)]
        if self._wait is not None:
            self._wait(path)
        part = FilePart(name, path)
        self._ends.append(self._seen + len(part))
        self._parts.append(part)
        return True

    def has(self, index: int) -> bool:
        """Opens files up to the one with that document."""
        while index >= self._seen:
            if not self._open_next():
                return False
        return True

    def known_length(self) -> int | None:
        """None while files are unopened."""
        return self._seen if len(self._parts) == len(self._paths) else None

    def _find(self, index: int) -> tuple[int, int]:
        """Number of the file, and of the document in it."""
        if index < 0 or not self.has(index):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def __getitem__(self, index: int) -> str:
        """One document; IndexError past the end."""
        first, end, texts = self._near  # the lanes stand close together, mostly in one block
        if not first <= index < end:
            number, inside = self._find(index)
            block, place = self._parts[number].place(inside)
            texts = self._block(number, block)
            first = index - place
            self._near = first, first + len(texts), texts
        return texts[index - first]

    def _block(self, number: int, block: int) -> Sequence[str]:
        texts = self._cache.get((number, block))
        if texts is None:
            texts, size = self._parts[number].read(block)
            self._cache.put((number, block), texts, size)
        return texts

    def __iter__(self) -> Iterator[str]:
        """All documents in order; later files are opened when they are reached."""
        number = 0
        while number < len(self._parts) or self._open_next():
            for texts in self._parts[number].blocks():
                yield from texts
            number += 1

    def locate(self, index: int) -> tuple[Part, int]:
        """The file that a document is in, and its number there."""
        number, inside = self._find(index)
        return self._parts[number], inside

    def progress(self, position: float) -> float:
        """Share of the documents; while files may be arriving, of the files."""
        if self._wait is None:
            return position / len(self)
        passes = 0.0
        if self.known_length() is not None and self._seen and position >= self._seen:
            passes, position = divmod(position, self._seen)
        number = min(bisect_right(self._ends, position), len(self._parts) - 1)
        start = self._ends[number - 1] if number else 0
        inside = (position - start) / max(1, len(self._parts[number]))
        return passes + (number + min(1.0, inside)) / len(self._paths)

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        """Of every file; None for one that is not opened. Hashing reads them, so each is hashed once."""
        names = list(self._paths)
        last = max((number for number, name in enumerate(names) if name in known), default=-1)
        while len(self._parts) <= last:
            self._open_next()
        found = {part.name: part.fingerprint() for part in list(self._parts)}
        return {name: found.get(name) for name in names}


def open_corpus(config: LocalConfig, split: str, base_dir: Path, seed: int) -> Documents:
    """The documents of `split` ("train" or "val").

    `seed` orders the embedded corpus; files keep their order, and are all opened: what is wrong with one is said
    before training. Raises MissingError when nothing is there, ConfigError when the split would be empty,
    CorruptError naming file and line for malformed content.
    """
    assert split in ("train", "val"), split
    documents: Documents
    if config.kind is DataKind.embedded:
        texts, part = embedded_texts(base_dir, seed)
        whole: Documents = TextList(texts, "data=embedded", part)
        documents = _every_nth(whole, config.val_every, split)
    else:
        documents = _open_files(config, split)
    if len(documents) == 0:
        raise ConfigError(f"{documents.name} gives no document for the {split} split; add text to it")
    return documents


def _open_files(config: LocalConfig, split: str) -> Documents:
    """Several files: the last is validation. One: every `val_every`-th of its documents."""
    if config.root is None:
        raise ConfigError("data.root=null: data=text needs data.root=FOLDER with .parquet, .jsonl or .txt files")
    root = Path(config.root).expanduser().absolute()
    paths = find_files(root)
    wanted = config.num_shards if isinstance(config.num_shards, int) else None  # auto: all that are there
    if len(paths) == 1:
        _check_shards(wanted, 1, root)
        return _every_nth(FileDocuments(paths, root), config.val_every, split)
    _check_shards(wanted, len(paths) - 1, root)
    return FileDocuments(paths[-1:] if split == "val" else paths[:-1][:wanted], root)


def _check_shards(wanted: int | None, available: int, root: Path) -> None:
    if wanted is not None and wanted > available:
        raise ConfigError(
            f"data.num_shards={wanted}, but {root} holds {available} training file{'s' if available > 1 else ''} "
            f"(the last of several is validation); at most {available}, or null for all"
        )


def _every_nth(documents: Documents, every: int, split: str) -> EveryNth:
    if len(documents) < every:
        fix = f"lower it to at most {len(documents)}, or add text" if len(documents) > 1 else "add text"
        raise ConfigError(
            f"data.val_every={every}, but {documents.name} has only {len(documents)} documents, so none would be "
            f"validation; {fix}"
        )
    return EveryNth(documents, every, others=split == "train")


def find_files(root: Path) -> list[Path]:
    """The parquet, jsonl and txt files of a folder and its subfolders by name, or the one file itself."""
    known = ", ".join(READERS)
    if root.is_file():
        if root.suffix not in READERS:
            raise ConfigError(f"data.root={root} is no file of a known kind; known: {known}")
        return [root]
    if not root.is_dir():
        raise MissingError(f"data.root={root} does not exist; {_beside(root)}")
    inside = sorted(path for path in root.rglob("*") if path.is_file())
    paths = [p for p in inside if p.suffix in READERS and not any(x.startswith(".") for x in p.relative_to(root).parts)]
    if not paths:
        listed = ", ".join(path.name for path in inside[:8]) or "nothing"
        raise MissingError(f"data.root={root} holds no file ending in {known}; it holds {listed}")
    return paths


def _beside(root: Path) -> str:
    """What exists where a missing path was looked for."""
    parent = next((folder for folder in root.parents if folder.is_dir()), Path("/"))
    names = sorted(path.name for path in parent.iterdir())[:8]
    return f"{parent} holds {', '.join(names) or 'nothing'}"

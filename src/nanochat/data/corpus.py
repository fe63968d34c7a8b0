"""Documents to pretrain on: a folder of text files, or the embedded corpus, split into train and validation.

Notable: random access, since lanes (data/cursor.py) read documents in strides and a resumed run starts in the
middle; memory is bounded by a cache of blocks (row groups). Validation is the last of several files; of one
file, or of the embedded corpus, every `val_every`-th document.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from nanochat.config.data import CorpusConfig, DataKind
from nanochat.data.embedded import embedded_texts
from nanochat.data.files import READERS, ArrowTexts, TextFile
from nanochat.data.lru import LRU
from nanochat.data.manifest import file_fingerprint
from nanochat.errors import ConfigError, MissingError

CACHE_BYTES = 128 << 20  # of text held; lanes drift apart by a few row groups of 1024 documents (3 MB each)


class Documents(Protocol):
    """Texts in a fixed order. `name` is what an error calls them."""

    name: str

    def __len__(self) -> int:
        """Number of documents."""

    def __getitem__(self, index: int) -> str:
        """One document; IndexError past the end."""

    def __iter__(self) -> Iterator[str]:
        """All documents in order."""

    def fingerprint(self) -> dict[str, Any]:
        """Part name -> size and hash (data/manifest.py)."""


class TextList:
    """Documents in memory. `part` is the name its fingerprint goes by."""

    def __init__(self, texts: Sequence[str], name: str, part: dict[str, Any]) -> None:
        """`name` is what errors call it."""
        self.name = name
        self._texts = texts
        self._part = part

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._texts)

    def __getitem__(self, index: int) -> str:
        """One document."""
        return self._texts[index]

    def __iter__(self) -> Iterator[str]:
        """All documents in order."""
        return iter(self._texts)

    def fingerprint(self) -> dict[str, Any]:
        """One part, as given."""
        return dict(self._part)


class FileDocuments:
    """The documents of files, in the order of the files; part names are paths relative to `root`."""

    def __init__(self, paths: Sequence[Path], root: Path) -> None:
        """Raises CorruptError for a file that cannot be read."""
        self.name = f"data.root={root}"
        self._paths = {path.relative_to(root if root.is_dir() else root.parent).as_posix(): path for path in paths}
        self._blocks: list[tuple[TextFile, int]] = []
        sizes = []
        for path in paths:
            file = READERS[path.suffix](path)
            self._blocks += [(file, block) for block in range(len(file.block_sizes))]
            sizes += file.block_sizes
        self._ends = list(accumulate(sizes))
        self._cache: LRU[int, Sequence[str]] = LRU(CACHE_BYTES)
        self._fingerprint: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Number of documents."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> str:
        """One document; IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        block = bisect_right(self._ends, index)
        start = self._ends[block - 1] if block else 0
        return self._block(block)[index - start]

    def __iter__(self) -> Iterator[str]:
        """All documents in order."""
        return (self[index] for index in range(len(self)))

    def _block(self, block: int) -> Sequence[str]:
        texts = self._cache.get(block)
        if texts is None:
            file, number = self._blocks[block]
            texts = file.read_block(number)
            size = texts.size if isinstance(texts, ArrowTexts) else sum(map(len, texts))
            self._cache.put(block, texts, size)
        return texts

    def fingerprint(self) -> dict[str, Any]:
        """Of every file; computed once, since hashing reads them."""
        if self._fingerprint is None:
            self._fingerprint = {name: file_fingerprint(path) for name, path in self._paths.items()}
        return self._fingerprint


class EveryNth:
    """Every `every`-th document of `documents`, or all the others."""

    def __init__(self, documents: Documents, every: int, others: bool) -> None:
        """The documents every-1, 2*every-1, ... or, with `others`, all but these."""
        self.name = documents.name
        self._documents = documents
        self._every = every
        self._others = others

    def __len__(self) -> int:
        """Number of documents."""
        chosen = len(self._documents) // self._every
        return len(self._documents) - chosen if self._others else chosen

    def __getitem__(self, index: int) -> str:
        """One document; IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._others:
            return self._documents[index + index // (self._every - 1)]
        return self._documents[(index + 1) * self._every - 1]

    def __iter__(self) -> Iterator[str]:
        """All documents in order."""
        return (self[index] for index in range(len(self)))

    def fingerprint(self) -> dict[str, Any]:
        """Of the whole: both splits change with any part."""
        return self._documents.fingerprint()


def open_corpus(config: CorpusConfig, split: str, base_dir: Path, seed: int) -> Documents:
    """The documents of `split` ("train" or "val").

    `seed` orders the embedded corpus; files keep their order. Raises MissingError when nothing is there,
    ConfigError when the split would be empty, CorruptError naming file and line for malformed content.
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


def _open_files(config: CorpusConfig, split: str) -> Documents:
    """Several files: the last is validation. One: every `val_every`-th of its documents."""
    if config.root is None:
        raise ConfigError("data.root=null: data=text needs data.root=FOLDER with .parquet, .jsonl or .txt files")
    root = Path(config.root).expanduser().absolute()
    paths = find_files(root)
    if len(paths) == 1:
        _check_shards(config.num_shards, 1, root)
        return _every_nth(FileDocuments(paths, root), config.val_every, split)
    _check_shards(config.num_shards, len(paths) - 1, root)
    return FileDocuments(paths[-1:] if split == "val" else paths[:-1][: config.num_shards], root)


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

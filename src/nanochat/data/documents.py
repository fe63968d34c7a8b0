"""What a corpus is to its readers: documents by number, in parts; the one that is a list, and a split of any other.

Notable: `has` and `known_length` let a reader begin while the length of the whole is unknown (files may still be
arriving, data/corpus.py), and `locate` lets tokens be kept by part, whatever split a document is in.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol


class Part(Protocol):
    """A piece of a corpus that does not change: a file, or a list of texts. Its tokens are kept together."""

    name: str

    def __len__(self) -> int:
        """Number of documents."""

    def digest(self) -> str:
        """Hash of the whole content."""

    def blocks(self) -> Iterator[Sequence[str]]:
        """All its documents in order, a block at a time."""


class Documents(Protocol):
    """Texts in a fixed order. `name` is what an error calls them."""

    name: str

    def __len__(self) -> int:
        """Number of documents; all files must be there for it."""

    def __getitem__(self, index: int) -> str:
        """One document; IndexError past the end."""

    def __iter__(self) -> Iterator[str]:
        """All documents in order."""

    def has(self, index: int) -> bool:
        """Whether there is a document of that number; opens no more than what is needed to know."""

    def known_length(self) -> int | None:
        """The number of documents, None while files are unopened."""

    def progress(self, position: float) -> float:
        """Passes over the documents that `position` documents are; never falls as the position rises."""

    def locate(self, index: int) -> tuple[Part, int]:
        """The part that a document is in, and its number there."""

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        """Part name -> size and hash (data/manifest.py), None for one not opened yet; those in `known` are opened."""


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

    def has(self, index: int) -> bool:
        """All are there."""
        return index < len(self._texts)

    def known_length(self) -> int:
        """Number of documents."""
        return len(self._texts)

    def progress(self, position: float) -> float:
        """Share of the documents."""
        return position / len(self._texts)

    def locate(self, index: int) -> tuple[Part, int]:
        """The list is its own only part."""
        return self, index

    def digest(self) -> str:
        """Hash of the fingerprint, which covers the texts and their order."""
        return hashlib.sha256(json.dumps(self._part, sort_keys=True).encode()).hexdigest()

    def blocks(self) -> Iterator[Sequence[str]]:
        """All at once."""
        yield self._texts

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        """One part, as given."""
        return dict(self._part)


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
        if index < 0 or not self.has(index):
            raise IndexError(index)
        return self._documents[self._inner(index)]

    def _inner(self, index: int) -> int:
        """The number that a document has in the whole."""
        return index + index // (self._every - 1) if self._others else (index + 1) * self._every - 1

    def __iter__(self) -> Iterator[str]:
        """All documents in order."""
        return (self[index] for index in range(len(self)))

    def has(self, index: int) -> bool:
        """Whether the whole has the document behind it."""
        return self._documents.has(self._inner(index))

    def known_length(self) -> int | None:
        """None while the length of the whole is unknown."""
        return None if self._documents.known_length() is None else len(self)

    def progress(self, position: float) -> float:
        """Share of the split."""
        return position / len(self)

    def locate(self, index: int) -> tuple[Part, int]:
        """Where the document lies in the whole: both splits share its parts."""
        return self._documents.locate(self._inner(index))

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        """Of the whole: both splits change with any part."""
        return self._documents.fingerprint(known)

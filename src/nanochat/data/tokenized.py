"""Documents and conversations as token ids: what the packers draw from.

Notable: nothing is tokenised before it is needed; a lane asks for a block of its next documents at once
(data/cursor.py), so with many ranks each tokenises only its own share. What was tokenised is kept up to a
budget, which spares small corpora the work in every epoch after the first. A document with nothing in it
comes out with no tokens at all, and the packers pass over it.
"""

from collections.abc import Callable, Collection, Sequence
from enum import StrEnum, auto
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nanochat.config.data import Supervise, TooLong
from nanochat.data.documents import Documents
from nanochat.data.encoding import DocEncoder, Ids, TextEncoder
from nanochat.data.lru import LRU
from nanochat.data.manifest import mixture_parts
from nanochat.data.token_cache import TokenCache
from nanochat.tokenizer.chat import render as render_chat

Mask = npt.NDArray[np.uint8]
CACHE_TOKENS = 16 << 20  # 64 MiB of ids


class Tokens(NamedTuple):
    """One document: ids (n,) and mask (n,), 1 where the token is a target; mask None: all are."""

    ids: Ids
    mask: Mask | None


NOTHING = Tokens(np.empty(0, np.uint32), None)


class TokenDocs(Protocol):
    """Tokenised documents in a fixed order. `all_supervised`: every mask is None."""

    all_supervised: bool

    def __len__(self) -> int:
        """Number of documents, those that come out empty included; waits for all files."""

    def has(self, index: int) -> bool:
        """Whether there is a document of that number."""

    def progress(self, position: float) -> float:
        """Passes over the documents that `position` documents are."""

    def get(self, index: int) -> Tokens:
        """One document; no tokens: nothing to train on."""

    def get_many(self, indices: Sequence[int]) -> list[Tokens]:
        """Several documents, tokenised together."""

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        """Of the tokenizer and of every part of the data (data/manifest.py); those in `known` are opened for it."""

    def why_empty(self) -> str:
        """For an error message: why all documents can have come out empty, and the fix."""


class CorpusTokens:
    """Documents as DocEncoder makes them, from memory, from the token cache on disk, or encoded now."""

    all_supervised = True

    def __init__(
        self, documents: Documents, tokenizer: TextEncoder, workers: int = 1, stored: TokenCache | None = None
    ) -> None:
        """`workers` threads encode the documents of one call; with `stored` the tokens are kept on disk."""
        self._documents = documents
        self._tokenizer = tokenizer
        self._encoder = DocEncoder(tokenizer, workers)
        self._stored = stored
        self._mark: str | None = None
        self._cache: LRU[int, Tokens] = LRU(CACHE_TOKENS)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._documents)

    def has(self, index: int) -> bool:
        """As the documents say."""
        return self._documents.has(index)

    def progress(self, position: float) -> float:
        """As the documents say."""
        return self._documents.progress(position)

    def get(self, index: int) -> Tokens:
        """One document."""
        return self.get_many([index])[0]

    def get_many(self, indices: Sequence[int]) -> list[Tokens]:
        """Several documents; those that are in no cache are encoded in one call."""
        if self._stored is not None:
            found = [self._from_disk(self._stored, index) for index in indices]
        else:
            found = [self._cache.get(index) for index in indices]
        missing = list(dict.fromkeys(i for i, tokens in zip(indices, found, strict=True) if tokens is None))
        if not missing:
            return found  # type: ignore[return-value]
        encoded = self._encoder.encode([self._documents[index] for index in missing])
        fresh = {index: Tokens(ids, None) for index, ids in zip(missing, encoded, strict=True)}
        for index, tokens in fresh.items():
            self._cache.put(index, tokens, len(tokens.ids) + 32)  # 32: about what an empty array costs
        return [tokens or fresh[index] for index, tokens in zip(indices, found, strict=True)]

    def _from_disk(self, stored: TokenCache, index: int) -> Tokens | None:
        """None where the disk does not keep them; then memory may."""
        part, number = self._documents.locate(index)
        file = stored.open(part, self._encoder)
        return self._cache.get(index) if file is None else Tokens(file[number], None)

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        """Of the tokenizer and the documents, their number None while it is unknown."""
        if self._mark is None:
            self._mark = self._tokenizer.fingerprint()  # hashes the whole vocabulary
        parts = self._documents.fingerprint(known)
        return {
            "tokenizer": self._mark,
            "documents": self._documents.known_length(),
            "parts": parts,
        }

    def why_empty(self) -> str:
        """All documents are white space."""
        return f"{self._documents.name}: all {len(self)} documents are empty; add text to it"


class Conversations(Protocol):
    """What is needed of a Mixture here (tasks/mixture.py)."""

    def __len__(self) -> int:
        """Number of conversations, repeats included."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One conversation."""

    def origin(self, index: int) -> tuple[str, int]:
        """Task name and row in the task."""


class Fate(StrEnum):
    """What became of a conversation on its way to a row."""

    whole = auto()
    truncated = auto()
    dropped = auto()
    unsupervised = auto()


Render = Callable[[Any, dict[str, Any]], tuple[list[int], list[int]]]


class MixtureTokens:
    """Conversations rendered by `render` (tokenizer/chat.py: ids and loss mask).

    `supervise` all: every token is a target; assistant: those of the mask. A conversation of more than
    `max_len` tokens (T+1 for rows of T targets; None: no limit) is cut there or dropped, as `too_long` says;
    one with no target left is passed over too. data/survey.py counts them.
    """

    def __init__(
        self,
        mixture: Conversations,
        tokenizer: Any,
        supervise: Supervise,
        too_long: TooLong,
        max_len: int | None,
        render: Render = render_chat,
    ) -> None:
        """`render` is replaced in tests only."""
        self.mixture = mixture
        self.all_supervised = supervise is Supervise.all
        self.too_long = too_long
        self.max_len = max_len
        self._tokenizer = tokenizer
        self._render = render
        self._cache: LRU[int, tuple[Tokens, Fate]] = LRU(CACHE_TOKENS)
        self._fingerprint: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Number of conversations."""
        return len(self.mixture)

    def has(self, index: int) -> bool:
        """All are there."""
        return index < len(self.mixture)

    def progress(self, position: float) -> float:
        """Share of the conversations."""
        return position / len(self.mixture)

    def get(self, index: int) -> Tokens:
        """One conversation; no tokens if it is passed over."""
        return self.judge(index)[0]

    def get_many(self, indices: Sequence[int]) -> list[Tokens]:
        """Several conversations."""
        return [self.get(index) for index in indices]

    def judge(self, index: int) -> tuple[Tokens, Fate]:
        """One conversation and what became of it."""
        entry = self._cache.get(index)
        if entry is None:
            entry = self._make(index)
            self._cache.put(index, entry, 2 * len(entry[0].ids) + 64)
        return entry

    def _make(self, index: int) -> tuple[Tokens, Fate]:
        return self.fit(*self.rendered(self.mixture[index]))

    def rendered(self, conversation: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Ids and loss mask of a conversation at its full length."""
        return self._render(self._tokenizer, conversation)

    def fit(self, id_list: list[int], mask_list: list[int]) -> tuple[Tokens, Fate]:
        """What is trained on of a rendered conversation, and what became of it."""
        fate = Fate.whole
        if self.max_len is not None and len(id_list) > self.max_len:
            if self.too_long is TooLong.drop:
                return NOTHING, Fate.dropped
            id_list, mask_list, fate = id_list[: self.max_len], mask_list[: self.max_len], Fate.truncated
        ids = np.array(id_list, np.uint32)
        if self.all_supervised:
            return Tokens(ids, None), fate
        mask = np.array(mask_list, np.uint8)
        if not mask[1:].any():
            return NOTHING, Fate.unsupervised
        return Tokens(ids, mask), fate

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        """Of the tokenizer and of each task; computed once."""
        if self._fingerprint is None:
            self._fingerprint = {
                "tokenizer": self._tokenizer.fingerprint(),
                "documents": len(self),
                "parts": mixture_parts(self.mixture),
            }
        return self._fingerprint

    def why_empty(self) -> str:
        """All conversations are too long, or have nothing supervised within the limit."""
        if self.max_len is None:
            return f"data.tasks: none of the {len(self)} conversations has a token to learn from; look into them"
        if self.too_long is TooLong.drop:
            fix = "data.too_long=truncate, or a larger model.max_seq_len"
        else:
            fix = "a larger model.max_seq_len, or data.supervise=all"
        return (
            f"data.too_long={self.too_long}: none of the {len(self)} conversations of data.tasks has a token to learn "
            f"from within {self.max_len} tokens; use {fix}"
        )

"""Texts to ids, on as many threads as are given: what turns documents into tokens, for rows and for the cache.

Notable: tiktoken lets go of Python's lock while it encodes, so threads help, and no text is copied to another
process. The pieces that the threads get are small, so that none waits long for the others.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.unsignedinteger[Any]]
FEWEST = 8  # documents worth handing to threads: below it they cost more than they save
SHARES = 4  # pieces for each thread


class TextEncoder(Protocol):
    """What is needed of a Tokenizer here."""

    @property
    def bos(self) -> int:
        """The id in front of every document."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        """Ids of a text, without specials."""

    def fingerprint(self) -> str:
        """Hash of the vocabulary."""


class DocEncoder:
    """A document is bos and its ids; one of nothing but white space has no ids at all."""

    def __init__(self, tokenizer: TextEncoder, workers: int = 1) -> None:
        """`workers` threads; up to 1: the calling one."""
        self.tokenizer = tokenizer
        self.dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, in order."""
        if self._workers <= 1 or len(texts) < FEWEST:
            return self._encode(texts)
        size = max(1, len(texts) // (self._workers * SHARES))
        pieces = [texts[i : i + size] for i in range(0, len(texts), size)]
        return [ids for piece in self._threads().map(self._encode, pieces) for ids in piece]

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        bos, dtype, encode = self.tokenizer.bos, self.dtype, self.tokenizer.encode_array
        nothing: Ids = np.empty(0, dtype)
        found = []
        for text in texts:
            if not text or text.isspace():
                found.append(nothing)
                continue
            ids = encode(text)
            document = np.empty(len(ids) + 1, dtype)
            document[0] = bos
            document[1:] = ids
            found.append(document)
        return found

    def _threads(self) -> ThreadPoolExecutor:
        """The pool, made when first needed, and again in a forked process, which has none of its parent's threads."""
        if self._pool is None or self._pid != os.getpid():
            self._pool, self._pid = ThreadPoolExecutor(self._workers, "tokenizer"), os.getpid()
        return self._pool

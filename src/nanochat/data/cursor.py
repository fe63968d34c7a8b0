"""A lane's place in the endless sequence of documents.

Position p of the endless sequence is document p % n; lane l of L reads positions l, l+L, l+2L, ..., so a
corpus smaller than a batch works, and what a lane reads depends on nothing but n and L. Notable: when n
and L share a factor a lane would see the same fraction of the corpus for ever, so the sequence is turned by
one document each time all lanes are back at their first ones (every lcm(n, L) positions); an epoch remains
exactly one pass over the documents. n itself is asked for when a lane first comes to the end: before, position p is
document p, and later files may still be missing.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from math import gcd
from typing import NamedTuple

from nanochat.data.encoding import Ids
from nanochat.data.tokenized import Mask, TokenDocs
from nanochat.errors import ConfigError

BLOCK = 8  # documents a lane has tokenised at once where its lanes do not ask together (data/lanes.py)


class Doc(NamedTuple):
    """A document of a lane: its number in the lane (0, 1, ...), its source (index in the corpus), its tokens."""

    number: int
    source: int
    ids: Ids
    mask: Mask | None


class LaneCursor:
    """Hands out the documents of one lane in order, passing over empty ones.

    `number` counts the documents handed out or passed over. `endless` false: one pass over the corpus.
    """

    def __init__(self, docs: TokenDocs, lane: int, lanes: int, endless: bool = True) -> None:
        """Stands at the first document of lane `lane`. ConfigError if there are no documents."""
        assert 0 <= lane < lanes, (lane, lanes)
        if not docs.has(0):
            raise ConfigError(docs.why_empty())
        self._docs = docs
        self._lane = lane
        self._lanes = lanes
        self._count: int | None = None  # documents of the corpus, asked for at the end of the first pass
        self._end = None if endless else -(-(len(docs) - lane) // lanes)
        self._ahead: deque[Doc] = deque()
        self.number = 0

    def seek(self, number: int) -> None:
        """Go to the lane's document `number`."""
        self.number = number
        self._ahead.clear()

    def next(self) -> Doc | None:
        """The next document with tokens; None at the end of the pass.

        ConfigError if no document of the corpus has any: an endless search is never begun.
        """
        passed = 0
        while self._end is None or self.number < self._end:
            if not self._ahead:
                self._ahead.extend(self.read(self.missing(BLOCK)))
            doc = self._ahead.popleft()
            self.number += 1
            if len(doc.ids):
                return doc
            passed += 1
            # In its first pass a lane comes to an end; within 2n reads after it, it meets every document.
            if self._count is not None and passed > 2 * self._count:
                raise ConfigError(self._docs.why_empty())
        return None

    def missing(self, count: int) -> range:
        """The numbers to be read for `count` documents to lie ready."""
        start, end = self.number + len(self._ahead), self.number + count
        return range(start, max(start, end if self._end is None else min(end, self._end)))

    def supply(self, docs: Iterable[Doc]) -> None:
        """Take the documents that `missing` asked for."""
        self._ahead.extend(docs)

    def read(self, numbers: Sequence[int]) -> list[Doc]:
        """The lane's documents of these numbers; the cursor stays where it is."""
        indices = self.indices_of(numbers)
        tokens = self._docs.get_many(indices)
        return [Doc(n, i, t.ids, t.mask) for n, i, t in zip(numbers, indices, tokens, strict=True)]

    def indices_of(self, numbers: Sequence[int]) -> list[int]:
        """Indices in the corpus of these documents of the lane."""
        positions = [self._lane + number * self._lanes for number in numbers]
        if self._count is None:
            if not positions or self._docs.has(max(positions)):
                return positions  # the first pass: the length of the corpus is not needed
            self._count = len(self._docs)
        count, common = self._count, gcd(self._count, self._lanes)
        period = count * self._lanes // common
        return [(p + (p // period if common > 1 else 0)) % count for p in positions]

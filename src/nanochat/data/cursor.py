"""A lane's place in the endless sequence of documents.

Position p of the endless sequence is document p % n; lane l of L reads positions l, l+L, l+2L, ..., so a
corpus smaller than a batch works, and what a lane reads depends on nothing but n and L. Notable: when n
and L share a factor a lane would see the same fraction of the corpus for ever, so the sequence is turned by
one document each time all lanes are back at their first ones (every lcm(n, L) positions); an epoch remains
exactly one pass over the documents.
"""

from collections import deque
from collections.abc import Sequence
from math import gcd
from typing import NamedTuple

from nanochat.data.tokenized import Ids, Mask, TokenDocs
from nanochat.errors import ConfigError

BLOCK = 8  # documents a lane has tokenised at once: with 64 lanes, a second before the first step


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
        if len(docs) == 0:
            raise ConfigError(docs.why_empty())
        self._docs = docs
        self._lane = lane
        self._lanes = lanes
        self._common = gcd(len(docs), lanes)
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
                self._ahead.extend(self.read(self._upcoming()))
            doc = self._ahead.popleft()
            self.number += 1
            if len(doc.ids):
                return doc
            passed += 1
            if passed > 2 * len(self._docs):  # within 2n reads a lane meets every document
                raise ConfigError(self._docs.why_empty())
        return None

    def read(self, numbers: Sequence[int]) -> list[Doc]:
        """The lane's documents of these numbers; the cursor stays where it is."""
        indices = [self.index_of(number) for number in numbers]
        tokens = self._docs.get_many(indices)
        return [Doc(n, i, t.ids, t.mask) for n, i, t in zip(numbers, indices, tokens, strict=True)]

    def index_of(self, number: int) -> int:
        """Index in the corpus of the lane's document `number`."""
        count = len(self._docs)
        position = self._lane + number * self._lanes
        turns = position // (count * self._lanes // self._common) if self._common > 1 else 0
        return (position + turns) % count

    def _upcoming(self) -> range:
        end = self.number + BLOCK
        return range(self.number, end if self._end is None else min(end, self._end))

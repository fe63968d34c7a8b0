"""How full the rows of a packing are, from the lengths of the documents alone."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.config.data import Packing
from nanochat.data.lanes import LaneStream
from nanochat.data.tokenized import Tokens


@dataclass(frozen=True)
class Filled:
    """`rows` of one pass; `used`: share of their tokens that is text, not padding; `cropped`: of the text, cut off."""

    rows: int
    used: float
    cropped: float

    def scaled(self, factor: float) -> "Filled":
        """The same for so many times the documents."""
        return replace(self, rows=max(1, round(self.rows * factor)))


class Lengths:
    """Documents that are nothing but long: what the packers need to show how they fill rows."""

    all_supervised = True

    def __init__(self, lengths: npt.NDArray[np.int64]) -> None:
        """`lengths` in tokens; 0 is passed over."""
        self._lengths = lengths
        self._blank = np.zeros(int(lengths.max(initial=0)), np.uint32)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._lengths)

    def has(self, index: int) -> bool:
        """All are known."""
        return index < len(self._lengths)

    def progress(self, position: float) -> float:
        """Share of the documents."""
        return position / len(self._lengths)

    def get(self, index: int) -> Tokens:
        """One document."""
        return Tokens(self._blank[: self._lengths[index]], None)

    def get_many(self, indices: Sequence[int]) -> list[Tokens]:
        """Several."""
        return [self.get(index) for index in indices]

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        """Nothing: no position in them is ever saved."""
        return {}

    def why_empty(self) -> str:
        """All have length 0."""
        return "all documents are empty"


def fill(packing: Packing, lengths: npt.NDArray[np.int64], seq_len: int) -> Filled:
    """One pass over documents of these lengths through the packer, in one lane with the buffer of all lanes.

    How many lanes a run has changes the rows of bestfit by less than one percent (data/lanes.py).
    """
    text = int(lengths.sum())
    if text == 0:
        return Filled(0, 0.0, 0.0)
    stream = LaneStream(Lengths(lengths), packing, seq_len, lanes=1, pad_id=0, endless=False)
    rows = used = 0
    while (row := stream.next_row(0)) is not None:
        rows += 1
        used += row.length
    return Filled(rows, used / (rows * (seq_len + 1)), 1 - used / text)

"""Rows to tensors: micro-batches of inputs and targets.

B rows of a micro-batch, T positions. Target t of a row is its token t+1, or -1 (`ignore_index` of the loss) where
that token is not supervised. Notable: to fill up uneven shares there are rows of padding with no target at all;
they add nothing to any sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nanochat.data.packing import Row

NO_TARGET = -1


@dataclass(frozen=True)
class MicroBatch:
    """inputs_BT and targets_BT, int64 on the CPU; a target of -1 does not count."""

    inputs_BT: Tensor
    targets_BT: Tensor

    def to(self, device: str) -> "MicroBatch":
        """The same batch on `device`."""
        return MicroBatch(self.inputs_BT.to(device, non_blocking=True), self.targets_BT.to(device, non_blocking=True))

    def pinned(self) -> "MicroBatch":
        """The same batch in memory that a GPU can copy from while it computes."""
        return MicroBatch(self.inputs_BT.pin_memory(), self.targets_BT.pin_memory())


@dataclass(frozen=True)
class StepBatch:
    """One optimizer step's share of a rank.

    `weight` is the number of targets of the step over all ranks: what the sum of losses is divided by; 0 when
    no row of the step has a target. `row_ids` are the global numbers of the rows in `micro_batches`, in order.
    `epoch` is the number of passes over the data when the step is done, `rows` and `documents` what was read for it
    and for all steps before it, over all ranks.
    """

    weight: float
    micro_batches: list[MicroBatch]
    epoch: float
    row_ids: list[int]
    rows: int = 0
    documents: int = 0

    def pinned(self) -> "StepBatch":
        """The same step in page-locked memory."""
        return replace(self, micro_batches=[batch.pinned() for batch in self.micro_batches])


def split_evenly(count: int, most: int) -> tuple[int, int]:
    """(number, size) of equally large micro-batches of at most `most` rows that hold `count` rows."""
    number = -(-count // most)
    return (number, -(-count // number)) if number else (0, 0)


def collate(rows: Sequence[Row], size: int, seq_len: int, pad_id: int, trim_to: int | None = None) -> MicroBatch:
    """A micro-batch of `size` rows, the missing ones padding.

    T is `seq_len`, or with `trim_to` the longest row rounded up to a multiple of it, and at most `seq_len`: right
    padding never changes what comes before it, so only the time it costs is lost.
    """
    width = seq_len
    if trim_to is not None:
        longest = max((row.length - 1 for row in rows), default=1)
        width = min(seq_len, max(1, -(-longest // trim_to)) * trim_to)
    inputs = np.empty((size, width), np.int64)
    targets = np.empty((size, width), np.int64)
    inputs[len(rows) :] = pad_id
    if len(rows) < size or not all(row.plain and row.length == seq_len + 1 for row in rows):
        targets.fill(NO_TARGET)
    for i, row in enumerate(rows):
        inputs[i] = row.ids[:width]
        if row.plain:
            targets[i, : row.length - 1] = row.ids[1 : row.length]
        else:
            targets[i] = np.where(row.mask[1 : width + 1] != 0, row.ids[1 : width + 1].astype(np.int64), NO_TARGET)
    return MicroBatch(torch.from_numpy(inputs), torch.from_numpy(targets))

"""Targets are the tokens one further on, and only where the mask says so."""

import numpy as np
import pytest

from nanochat.data.batches import collate, split_evenly
from nanochat.data.packing import Row


def row(ids: list[int], mask: list[int], length: int) -> Row:
    return Row(np.array(ids, np.uint32), np.array(mask, np.uint8), length, (0,))


def test_golden() -> None:
    batch = collate([row([7, 1, 2, 3, 9], [1, 0, 1, 1, 0], 4)], size=2, seq_len=4, pad_id=9)
    assert batch.inputs_BT.tolist() == [[7, 1, 2, 3], [9, 9, 9, 9]]
    assert batch.targets_BT.tolist() == [[-1, 2, 3, -1], [-1, -1, -1, -1]]
    assert str(batch.inputs_BT.dtype) == str(batch.targets_BT.dtype) == "torch.int64"


@pytest.mark.parametrize(("length", "width"), [(1, 4), (5, 4), (6, 8), (9, 8), (10, 10), (11, 10)])
def test_trimmed_to_a_multiple_and_no_target_is_lost(length: int, width: int) -> None:
    ids = [*range(100, 100 + length), *([9] * (11 - length))]
    one = row(ids, [1] * length + [0] * (11 - length), length)
    whole = collate([one], 2, 10, 9)
    trimmed = collate([one], 2, 10, 9, trim_to=4)
    assert trimmed.inputs_BT.shape == trimmed.targets_BT.shape == (2, width)
    assert (trimmed.targets_BT != -1).sum() == (whole.targets_BT != -1).sum() == length - 1


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 4, (0, 0)), (1, 4, (1, 1)), (8, 4, (2, 4)), (9, 8, (2, 5)), (10, 4, (3, 4)), (32, 1, (32, 1))],
)
def test_split_evenly(count: int, most: int, expected: tuple[int, int]) -> None:
    assert split_evenly(count, most) == expected
    assert expected[0] * expected[1] >= count

"""What only a GPU shows."""

import pytest
import torch
from data_stand_ins import MadeUpDocs, make_source

from nanochat.data.prefetch import Prefetch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_pinned_and_the_same() -> None:
    plain = make_source(MadeUpDocs([9, 30, 4]))
    with Prefetch(make_source(MadeUpDocs([9, 30, 4])), 2, pin=True) as ahead:
        for _ in range(5):
            for one, two in zip(plain.next_step().micro_batches, ahead.next_step().micro_batches, strict=True):
                assert two.inputs_BT.is_pinned() and two.targets_BT.is_pinned()
                assert two.to("cuda").inputs_BT.cpu().equal(one.inputs_BT) and two.targets_BT.equal(one.targets_BT)

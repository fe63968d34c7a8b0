"""Bits per byte: the loss in a unit that does not depend on the vocabulary.

    bpb = sum(nll over targets of more than 0 bytes) / (ln 2 * sum of those bytes)

Special tokens stand for no bytes and are left out of both sums; so are ignored targets.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from nanochat.data.batches import MicroBatch
from nanochat.model.head import Headed, token_nll
from nanochat.runtime.dist import all_reduce_sum


@dataclass(frozen=True)
class BpbResult:
    """`bpb` in bits per byte, `loss` in nats per target (specials included), over `targets` targets."""

    bpb: float
    loss: float
    targets: int


@torch.no_grad()
def evaluate_bpb(
    model: Headed, batches: Iterable[MicroBatch], token_bytes: Sequence[int], device: str, compile: bool = False
) -> BpbResult:
    """Bits per byte over all batches and ranks; nan where there is no target. `compile`: by torch.compile, once."""
    sizes, nll = torch.tensor(token_bytes), _compiled() if compile else token_nll
    sums = torch.zeros(4, dtype=torch.float64)
    for batch in batches:
        here = batch.to(device)
        sums += _batch_sums(nll(model, here.inputs_BT, here.targets_BT), here.targets_BT, sizes)
    nats, size, all_nats, targets = all_reduce_sum(sums).tolist()
    bpb = nats / (math.log(2) * size) if size else math.nan
    return BpbResult(bpb, all_nats / targets if targets else math.nan, int(targets))


@cache
def _compiled() -> Callable[[Headed, Tensor, Tensor], Tensor]:
    """One for the whole process: what was compiled at one evaluation is there at the next."""
    return torch.compile(token_nll, dynamic=False, fullgraph=True)


def _batch_sums(nll_BT: Tensor, targets_BT: Tensor, sizes: Tensor) -> Tensor:
    """(nll of targets with bytes, their bytes, nll of all targets, number of targets), float64 on the CPU.

    Summed on the CPU: not every device has float64, and a sum over a whole validation set needs it.
    """
    nll, targets = nll_BT.flatten().cpu().double(), targets_BT.flatten().cpu()
    valid = targets >= 0
    size = torch.where(valid, sizes[targets.clamp(min=0)], 0)
    return torch.stack([nll[size > 0].sum(), size.sum().double(), nll[valid].sum(), valid.sum().double()])

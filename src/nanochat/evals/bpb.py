"""Bits per byte: the loss in a unit that does not depend on the vocabulary.

    bpb = sum(nll over targets of more than 0 bytes) / (ln 2 * sum of those bytes)

Special tokens stand for no bytes and are left out of both sums; so are ignored targets.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.data.batches import MicroBatch
from nanochat.runtime.dist import all_reduce_sum


@dataclass(frozen=True)
class BpbResult:
    """`bpb` in bits per byte, `loss` in nats per target (specials included), over `targets` targets."""

    bpb: float
    loss: float
    targets: int


@torch.no_grad()
def evaluate_bpb(model: nn.Module, batches: Iterable[MicroBatch], token_bytes: Sequence[int], device: str) -> BpbResult:
    """Bits per byte over all batches and ranks; nan where there is no target."""
    sizes = torch.tensor(token_bytes)
    sums = torch.zeros(4, dtype=torch.float64)
    for batch in batches:
        here = batch.to(device)
        sums += _batch_sums(model(here.inputs_BT), here.targets_BT, sizes)
    nats, size, all_nats, targets = all_reduce_sum(sums).tolist()
    bpb = nats / (math.log(2) * size) if size else math.nan
    return BpbResult(bpb, all_nats / targets if targets else math.nan, int(targets))


def _batch_sums(logits_BTV: Tensor, targets_BT: Tensor, sizes: Tensor) -> Tensor:
    """(nll of targets with bytes, their bytes, nll of all targets, number of targets), float64 on the CPU.

    Summed on the CPU: not every device has float64, and a sum over a whole validation set needs it.
    """
    flat = targets_BT.flatten()
    nll = F.cross_entropy(logits_BTV.flatten(0, 1), flat, ignore_index=-1, reduction="none").cpu().double()
    targets = flat.cpu()
    valid = targets >= 0
    size = torch.where(valid, sizes[targets.clamp(min=0)], 0)
    return torch.stack([nll[size > 0].sum(), size.sum().double(), nll[valid].sum(), valid.sum().double()])

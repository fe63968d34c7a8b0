"""What is minimised: a sum over the valid targets of a micro-batch, and how many there were.

B batch, T time, V vocabulary. Notable: an objective never divides. The loop divides the gradient by the weight
of the whole step over all micro-batches and ranks, so that one rank and many take the same step, and a
micro-batch without a single target is 0, not 0/0.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.config.objective import LabelSmoothingConfig, ObjectiveConfig, ZLossConfig

IGNORE = -1  # in targets: not a target


class Targets(Protocol):
    """The part of a micro-batch that an objective reads: token ids (B, T), targets -1 where nothing is asked."""

    @property
    def inputs_BT(self) -> Tensor:
        """Token ids."""

    @property
    def targets_BT(self) -> Tensor:
        """The token that follows each input, or IGNORE."""


Objective = Callable[[nn.Module, Targets], tuple[Tensor, Tensor]]
"""(model, micro_batch) -> (sum of the loss over valid targets, number of valid targets), both 0-d tensors."""


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective that the `objective` group describes."""
    if isinstance(config, ZLossConfig):
        return partial(z_loss, coefficient=config.coefficient)
    if isinstance(config, LabelSmoothingConfig):
        return partial(label_smoothing, smoothing=config.smoothing)
    return next_token


def next_token(model: nn.Module, batch: Targets) -> tuple[Tensor, Tensor]:
    """Cross-entropy -log p(target) in nats."""
    logits, targets = _flat(model, batch)
    return _cross_entropy(logits, targets), _valid(targets)


def z_loss(model: nn.Module, batch: Targets, *, coefficient: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy + coefficient * log(Z)^2, Z the sum of exp(logits) (PaLM, 2204.02311, section 5)."""
    logits, targets = _flat(model, batch)
    log_z = logits.logsumexp(dim=-1)
    penalty = (log_z.square() * (targets != IGNORE)).sum()
    return _cross_entropy(logits, targets) + coefficient * penalty, _valid(targets)


def label_smoothing(model: nn.Module, batch: Targets, *, smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy against (1 - smoothing) on the target + smoothing/V on every token (1512.00567, section 7)."""
    logits, targets = _flat(model, batch)
    return _cross_entropy(logits, targets, label_smoothing=smoothing), _valid(targets)


def _flat(model: nn.Module, batch: Targets) -> tuple[Tensor, Tensor]:
    """Logits (B*T, V) in fp32 and targets (B*T,)."""
    return model(batch.inputs_BT).flatten(0, 1), batch.targets_BT.flatten()


def _cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    return F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing)


def _valid(targets: Tensor) -> Tensor:
    return (targets != IGNORE).sum()

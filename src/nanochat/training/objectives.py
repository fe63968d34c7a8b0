"""What is minimised: a sum over the valid targets of a micro-batch, and how many there were.

B batch, T time. Notable: an objective never divides. The loop divides the gradient by the weight of the whole step over
all micro-batches and ranks, so that one rank and many take the same step, and a micro-batch without a single target is
0, not 0/0. Network, head and loss are one function of tensors (model/head.py), and that is what is compiled: so the
compiler sees the loss, and the model that a hook or a checkpoint sees is the plain one.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from nanochat.config.objective import LabelSmoothingConfig, ObjectiveConfig, ZLossConfig
from nanochat.model.head import IGNORE, Headed, summed_loss


class Targets(Protocol):
    """The part of a micro-batch that an objective reads: token ids (B, T), targets -1 where nothing is asked."""

    @property
    def inputs_BT(self) -> Tensor:
        """Token ids."""

    @property
    def targets_BT(self) -> Tensor:
        """The token that follows each input, or IGNORE."""


Objective = Callable[[Headed, Targets], tuple[Tensor, Tensor]]
"""(model, micro_batch) -> (sum of the loss over valid targets, number of valid targets), both 0-d tensors."""


def build_objective(config: ObjectiveConfig, *, compile: bool = False) -> Objective:
    """The objective that the `objective` group describes.

    next_token: cross-entropy -log p(target) in nats. z_loss: and coefficient * log(Z)^2, Z the sum of exp(logits)
    (PaLM, 2204.02311, section 5). label_smoothing: cross-entropy against (1 - smoothing) on the target + smoothing/V on
    every token (1512.00567, section 7).
    """
    loss: Callable[..., Tensor] = summed_loss
    if compile:  # every shape is compiled for itself, and a graph break is an error
        # It warns of all recomputation with a policy; what is written in place there does no harm (model/recompute.py).
        logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
        loss = torch.compile(summed_loss, dynamic=False, fullgraph=True)
    if isinstance(config, ZLossConfig):
        loss = partial(loss, z=config.coefficient)
    if isinstance(config, LabelSmoothingConfig):
        loss = partial(loss, smoothing=config.smoothing)
    return partial(_objective, loss)


def _objective(loss: Callable[..., Tensor], model: Headed, batch: Targets) -> tuple[Tensor, Tensor]:
    return loss(model, batch.inputs_BT, batch.targets_BT), (batch.targets_BT != IGNORE).sum()

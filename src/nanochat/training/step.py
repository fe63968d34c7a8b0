"""One optimizer step: gradients of all micro-batches, the global norm, the update.

Notable: the sum of the losses is divided by the weight of the whole step over all ranks and micro-batches,
so that how the rows are cut into pieces does not change the gradient.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from nanochat.config.guards import OnNonFinite
from nanochat.data.batches import MicroBatch
from nanochat.errors import NanochatError
from nanochat.model.head import Headed
from nanochat.optim.optimizer import Optimizer
from nanochat.plan.schedules import StepRates
from nanochat.runtime.dist import all_reduce_sum
from nanochat.training.loss_scale import LossScale
from nanochat.training.objectives import Objective


@dataclass
class NonFiniteGuard:
    """Decides whether a step may change the weights, and says what it decides by `say`.

    `skipped` counts the steps left out in a row; it belongs to the state of the run.
    """

    action: OnNonFinite
    max_skips: int
    say: Callable[[str], None]
    skipped: int = 0

    def allows(self, loss: float, grad_norm: float, step: int) -> bool:
        """True to update. Raises NanochatError where the run is to end."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.skipped = 0
            return True
        found = f"step {step}: loss {loss}, gradient norm {grad_norm}"
        if self.action == OnNonFinite.warn:
            self.say(f"warning: {found}; updated all the same (guards.non_finite=warn)")
            return True
        self.skipped += 1
        if self.action == OnNonFinite.stop or self.skipped >= self.max_skips:
            raise NanochatError(self._stopped(found))
        self.say(f"warning: {found}; the weights were left alone ({self.skipped} of guards.max_skips={self.max_skips})")
        return False

    def _stopped(self, found: str) -> str:
        limit = f", guards.max_skips={self.max_skips}" if self.action == OnNonFinite.skip else ""
        return (
            f"{found}; stopped by guards.non_finite={self.action}{limit}. Nothing was saved after the last checkpoint; "
            f"a run with lower learning rates, or with optim.grad_clip=1.0, needs a name of its own (run=) or "
            f"overwrite=true"
        )


def accumulate_gradients(
    model: Headed,
    objective: Objective,
    batches: Iterable[MicroBatch],
    weight: float,
    device: str,
    scale: LossScale | None = None,
) -> torch.Tensor:
    """Adds the gradient of sum(loss) / weight over the micro-batches to .grad; returns that mean loss, 0-d fp32.

    With a `scale` the gradients are that many times as large until `take_step`.
    """
    total = torch.zeros((), device=device)
    factor = scale.value if scale is not None else 1.0
    weight = max(weight, 1.0)  # a step without a single target has loss 0 and gradient 0, not 0/0
    for batch in batches:
        loss_sum, _ = objective(model, batch.to(device))
        torch.autograd.backward(loss_sum * (factor / weight))
        total += loss_sum.detach()
    return all_reduce_sum(total) / weight


def unscale_gradients(parameters: Iterable[nn.Parameter], scale: float) -> None:
    """Divides the gradients by `scale`."""
    torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / scale)


def clip_gradients(parameters: Iterable[nn.Parameter], bound: float) -> torch.Tensor:
    """The global L2 norm of the gradients, 0-d; scales them down to `bound` where it is larger and `bound` > 0."""
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if bound > 0:
        scale = torch.clamp(bound / (norm + 1e-6), max=1.0)
        torch._foreach_mul_(grads, scale)
    return norm


def take_step(
    model: Headed,
    optimizer: Optimizer,
    loss: torch.Tensor,
    guard: NonFiniteGuard,
    *,
    step: int,
    grad_clip: float,
    rates: StepRates,
    scale: LossScale | None = None,
) -> tuple[float, float]:
    """Unscales, clips and updates from .grad; returns (loss, gradient norm before clipping)."""
    if scale is not None:
        unscale_gradients(model.parameters(), scale.value)
    norm = clip_gradients(model.parameters(), grad_clip)
    loss_value, norm_value = torch.stack([loss, norm.to(loss.dtype)]).tolist()  # the one host synchronisation
    left_out = scale is not None and math.isfinite(loss_value) and scale.overflowed(math.isfinite(norm_value), step)
    if not left_out and guard.allows(loss_value, norm_value, step):
        optimizer.update(rates)
    optimizer.zero_grad()
    return loss_value, norm_value

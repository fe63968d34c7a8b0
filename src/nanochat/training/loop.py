"""The one loop of base, mid and sft: a Source yields steps, an Objective gives losses, hooks do the rest.

Notable: it does not know what it trains. What varies between stages is in the parts it is given; resuming is
the same loop started at another step with the parts in the state they were saved in.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from nanochat.data.source import Source
from nanochat.optim.optimizer import Optimizer
from nanochat.runtime.device import synchronize
from nanochat.training.hooks import Hook, StepInfo
from nanochat.training.objectives import Objective
from nanochat.training.step import NonFiniteGuard, accumulate_gradients, take_step


@dataclass(frozen=True)
class Parts:
    """What the loop trains with. `lr_at` and `momentum_at` take the number of updates done so far."""

    model: nn.Module
    optimizer: Optimizer
    objective: Objective
    source: Source
    lr_at: Callable[[int], float]
    momentum_at: Callable[[int], float | None]
    grad_clip: float
    guard: NonFiniteGuard
    device: str


@dataclass(frozen=True)
class LoopEnd:
    """Where the loop stopped; `signal` names what interrupted it, None at the natural end."""

    step: int
    signal: str | None


def train_loop(
    parts: Parts,
    *,
    start: int,
    total: int,
    hooks: Sequence[Hook],
    report: Callable[[StepInfo], None],
    interrupted: Callable[[], str | None],
) -> LoopEnd:
    """Runs the updates start+1 .. total. The hooks due at `start` are called first, but for those that save:
    after a kill between a save and the evaluation behind it, nothing is missing from the record."""
    for hook in hooks:
        if not hook.saves and hook.due(start, total):
            hook.fn(start)
    for step in range(start + 1, total + 1):
        report(_one_step(parts, step, total))
        signal = interrupted() if step < total else None
        for hook in hooks:
            if hook.due(step, total) if signal is None else hook.saves:
                hook.fn(step)
        if signal is not None:
            return LoopEnd(step, signal)
    return LoopEnd(total, None)


def _one_step(parts: Parts, step: int, total: int) -> StepInfo:
    began = time.perf_counter()
    batch = parts.source.next_step()
    factor = parts.lr_at(step - 1)
    loss = accumulate_gradients(parts.model, parts.objective, batch.micro_batches, batch.weight, parts.device)
    loss_value, norm = take_step(
        parts.model,
        parts.optimizer,
        loss,
        parts.guard,
        step=step,
        grad_clip=parts.grad_clip,
        lr_factor=factor,
        momentum=parts.momentum_at(step - 1),
    )
    synchronize(parts.device)
    seconds = time.perf_counter() - began
    return StepInfo(step, total, loss_value, norm, factor, batch.weight, seconds, batch.epoch)

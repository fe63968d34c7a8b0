"""The one loop of base, mid and sft: a Source yields steps, an Objective gives losses, hooks do the rest.

Notable: it does not know what it trains. What varies between stages is in the parts it is given; resuming is
the same loop started at another step with the parts in the state they were saved in.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from nanochat.data.batches import StepBatch
from nanochat.errors import NanochatError
from nanochat.model.head import Headed
from nanochat.optim.optimizer import Optimizer
from nanochat.plan.schedules import StepRates
from nanochat.training.garbage import HeldGarbage
from nanochat.training.hooks import Hook, StepInfo
from nanochat.training.loss_scale import LossScale
from nanochat.training.objectives import Objective
from nanochat.training.step import NonFiniteGuard, accumulate_gradients, take_step
from nanochat.training.timer import StepTimer


class StepSource(Protocol):
    """Where the steps come from (data/prefetch.py); within `with` it makes them ahead."""

    def __enter__(self) -> Any:
        """Begin to make steps."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """End that."""

    def next_step(self, unless: Callable[[], object]) -> StepBatch | None:
        """The next optimizer step; None if `unless()` turns true while it is waited for."""

    def state_dict(self) -> dict[str, Any]:
        """JSON from which the steps after the last one follow."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""


@dataclass(frozen=True)
class Parts:
    """What the loop trains with.

    `rates_at` takes the steps of this run done so far, and the updates that the optimizer has seen, which are more
    where the run branches off another. `model` is the plain one: what is compiled is the objective.
    `loss_scale` is for float16 only.
    """

    model: Headed
    optimizer: Optimizer
    objective: Objective
    source: StepSource
    rates_at: Callable[[int, int], StepRates]
    grad_clip: float
    guard: NonFiniteGuard
    device: str
    loss_scale: LossScale | None = None


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
    """Runs the updates start+1 .. total, until `interrupted` names a signal; then the step is saved.

    The hooks due at `start` are called first, but for those that save: what a kill, or an interruption, left out
    between a save and the evaluations behind it is made up for. Where the data of a step cannot be had, the steps
    before it are saved and the error goes on.
    """
    timer = StepTimer(parts.device)
    with HeldGarbage() as garbage:
        hooks = [replace(hook, fn=_aside(hook.fn, timer, garbage)) for hook in hooks]
        signal = _call(hooks, start, start, total, interrupted)
        step = start
        while step < total and signal is None:
            asked = time.perf_counter()
            batch = _next_batch(parts.source, hooks, step, start, total, interrupted)
            if batch is None:
                _save(hooks, step, start, total)
                return LoopEnd(step, interrupted())
            step += 1
            report(_one_step(parts, batch, time.perf_counter() - asked, timer, step, total))
            garbage.after_step()
            signal = _call(hooks, step, start, total, interrupted)
    return LoopEnd(step, signal)


def _aside(fn: Callable[[int], None], timer: StepTimer, garbage: HeldGarbage) -> Callable[[int], None]:
    """A hook's function outside of the steps: not timed, and garbage may be collected."""

    def hook(step: int) -> None:
        with timer.aside(), garbage.released():
            fn(step)

    return hook


def _next_batch(
    source: StepSource,
    hooks: Sequence[Hook],
    step: int,
    start: int,
    total: int,
    interrupted: Callable[[], str | None],
) -> StepBatch | None:
    """The batch of step+1, None if a signal came first. A shard that never arrives must not cost hours of training."""
    try:
        return source.next_step(unless=interrupted)
    except NanochatError as error:
        if not _save(hooks, step, start, total):
            raise
        raise type(error)(f"{error}. Step {step} is saved; the same command continues from there") from error
    except Exception:
        _save(hooks, step, start, total)
        raise


def _call(
    hooks: Sequence[Hook], step: int, start: int, total: int, interrupted: Callable[[], str | None]
) -> str | None:
    """Calls the hooks that are due; returns the signal if the run is to end here.

    A signal leaves out the evaluations still to come and has the step saved, whenever it arrives. After the last
    step nothing is left out: the run ends there anyway.
    """
    for hook in hooks:
        wanted = step > start if hook.saves else step == total or interrupted() is None
        if wanted and hook.due(step, total):
            hook.fn(step)
    signal = interrupted() if step < total else None
    if signal is not None:
        _save(hooks, step, start, total)
    return signal


def _save(hooks: Sequence[Hook], step: int, start: int, total: int) -> bool:
    """Saves the step unless its turn to be saved has come already; whether it is on disk now."""
    saves = [hook for hook in hooks if hook.saves] if step > start else []
    for hook in saves:
        if not hook.due(step, total):
            hook.fn(step)
    return bool(saves)


def _one_step(parts: Parts, batch: StepBatch, waited: float, timer: StepTimer, step: int, total: int) -> StepInfo:
    """One update of a batch that was `waited` for so many seconds."""
    rates = parts.rates_at(step - 1, parts.optimizer.step)
    loss = accumulate_gradients(
        parts.model, parts.objective, batch.micro_batches, batch.weight, parts.device, parts.loss_scale
    )
    loss_value, norm = take_step(
        parts.model,
        parts.optimizer,
        loss,
        parts.guard,
        step=step,
        grad_clip=parts.grad_clip,
        rates=rates,
        scale=parts.loss_scale,
    )
    seconds = timer.lap()
    return StepInfo(
        step,
        total,
        loss_value,
        norm,
        rates.lr_factor,
        batch.weight,
        seconds,
        batch.epoch,
        data_wait=waited / seconds,
        rows=batch.rows,
        documents=batch.documents,
    )

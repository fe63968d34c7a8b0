"""Learning-rate factor, momentum and weight-decay factor as pure functions of the step.

s counts the updates done so far (0 for the first step), N is their number in all. Every factor lies in
[0, 1]; after the warm-up none ever rises, which `tests/plan/test_schedules.py` checks for all of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from nanochat.config.optim import MomentumConfig, MuonAdamWConfig, MuonModernConfig, OptimConfig
from nanochat.config.schedule import (
    CosineConfig,
    DecayConfig,
    LinearConfig,
    ScheduleConfig,
    ScheduleName,
    StepConfig,
    TrapezoidConfig,
)


@dataclass(frozen=True)
class StepRates:
    """What an optimizer is told for one update, beside the gradients.

    `lr_factor` multiplies all learning rates; `momentum` is Muon's, None where no group has one; `decay_factor`
    multiplies the weight decay of the matrices.
    """

    lr_factor: float
    momentum: float | None = None
    decay_factor: float = 1.0


def step_rates(schedule: ScheduleConfig, optim: OptimConfig, s: int, total: int, updates: int) -> StepRates:
    """The rates for the update after `s` updates of a run of `total`.

    `updates` is how many the momentum counts as done: more than `s` where the run goes on with another's optimizer.
    """
    factor = lr_factor(schedule, s, total)
    if isinstance(optim, MuonModernConfig):
        momentum, end = momentum_at(optim.momentum, updates), optim.momentum.final
        if end is not None and updates >= optim.momentum.warmup_steps:
            start = warmdown_start(schedule, total)
            p = max(0.0, (s - start) / max(1, total - start))
            momentum = (1 - p) * optim.momentum.end + p * end
        return StepRates(factor, momentum, (1 + math.cos(math.pi * s / total)) / 2)
    return StepRates(factor, momentum_at(optim.momentum, updates) if isinstance(optim, MuonAdamWConfig) else None)


def warmdown_start(schedule: ScheduleConfig, total: int) -> int:
    """The update count from which the rate falls in a line or a curve; `total` where it never does."""
    if isinstance(schedule, TrapezoidConfig):
        return total - round(schedule.warmdown_ratio * total)
    falling = isinstance(schedule, CosineConfig | LinearConfig | DecayConfig)
    return min(warmup_length(schedule, total), total) if falling else total


def warmup_length(schedule: ScheduleConfig, total: int) -> int:
    """Steps of linear warm-up: `warmup_steps` if set, else `warmup_ratio` of the run.

    They may be more than the run has: then it ends below the peak, as the first steps of a longer run do.
    """
    return schedule.warmup_steps if schedule.warmup_steps is not None else round(schedule.warmup_ratio * total)


def lr_factor(schedule: ScheduleConfig, s: int, total: int) -> float:
    """The factor on every learning rate for the update after `s` updates out of `total`."""
    w = warmup_length(schedule, total)
    if s < w:
        return (s + 1) / w
    return _SHAPES[schedule.name](schedule, s, w, total)


def _trapezoid(schedule: ScheduleConfig, s: int, w: int, total: int) -> float:
    shape = cast(TrapezoidConfig, schedule)
    d = round(shape.warmdown_ratio * total)
    if d == 0 or s <= total - d:
        return 1.0
    p = max(0.0, (total - s) / d)
    return shape.final_lr_frac + (1 - shape.final_lr_frac) * p  # in this form rounding never makes it rise


def _cosine(schedule: ScheduleConfig, s: int, w: int, total: int) -> float:
    final = cast(CosineConfig, schedule).final_lr_frac
    p = min(1.0, (s - w) / max(1, total - w))
    return final + (1 - final) * (1 + math.cos(math.pi * p)) / 2


def _step(schedule: ScheduleConfig, s: int, w: int, total: int) -> float:
    shape = cast(StepConfig, schedule)
    factor = 1.0
    for milestone, value in zip(shape.milestones, shape.factors, strict=True):
        if s >= milestone * total:
            factor = value
    return factor


def _linear(schedule: ScheduleConfig, s: int, w: int, total: int) -> float:
    final = cast(LinearConfig | DecayConfig, schedule).final_lr_frac
    p = max(0.0, (total - s) / max(1, total - w))
    return final + (1 - final) * p


def _constant(schedule: ScheduleConfig, s: int, w: int, total: int) -> float:
    return 1.0


_SHAPES: dict[ScheduleName, Callable[[ScheduleConfig, int, int, int], float]] = {
    ScheduleName.trapezoid: _trapezoid,
    ScheduleName.cosine: _cosine,
    ScheduleName.step: _step,
    ScheduleName.linear: _linear,
    ScheduleName.constant: _constant,
    ScheduleName.decay: _linear,
}


def momentum_at(momentum: MomentumConfig, s: int) -> float:
    """Muon's momentum for the update after `s` updates: linear from start to end over warmup_steps."""
    p = 1.0 if momentum.warmup_steps == 0 else min(1.0, s / momentum.warmup_steps)
    return (1 - p) * momentum.start + p * momentum.end

"""`schedule=`: the learning-rate factor as a function of the step (plan/schedules.py)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import identity


class ScheduleName(StrEnum):
    """Which class of this file the `schedule` group holds."""

    trapezoid = auto()
    cosine = auto()
    step = auto()
    linear = auto()
    constant = auto()
    decay = auto()


@dataclass(kw_only=True)
class ScheduleConfig:
    """What every schedule has: a linear warm-up, `warmup_steps` if set, else `warmup_ratio` of the run."""

    name: ScheduleName = identity()
    warmup_ratio: float = identity(ge=0, le=1)
    warmup_steps: int | None = identity(ge=0)


@dataclass(kw_only=True)
class TrapezoidConfig(ScheduleConfig):
    """Flat, then linear to `final_lr_frac` over the last `warmdown_ratio` of the run."""

    warmdown_ratio: float = identity(ge=0, le=1)
    final_lr_frac: float = identity(ge=0, le=1)


@dataclass(kw_only=True)
class CosineConfig(ScheduleConfig):
    """Half a cosine from 1 to `final_lr_frac`."""

    final_lr_frac: float = identity(ge=0, le=1)


@dataclass(kw_only=True)
class StepConfig(ScheduleConfig):
    """`factors[i]` from the fraction `milestones[i]` of the run on."""

    milestones: list[float] = identity(ge=0, le=1)
    factors: list[float] = identity(ge=0, le=1)


@dataclass(kw_only=True)
class LinearConfig(ScheduleConfig):
    """A straight line from 1 to `final_lr_frac`."""

    final_lr_frac: float = identity(ge=0, le=1)


@dataclass(kw_only=True)
class ConstantConfig(ScheduleConfig):
    """1 after the warm-up."""


@dataclass(kw_only=True)
class DecayConfig(ScheduleConfig):
    """From 1 to `final_lr_frac`, for branching off the trunk of another run."""

    final_lr_frac: float = identity(ge=0, le=1)

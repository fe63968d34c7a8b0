"""`train.*`: how long, in what batches, and how often saved. Set by the stage."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import cosmetic, identity, placement


class ParamCount(StrEnum):
    """Which parameters `target_param_data_ratio` multiplies: all, or transformer matrices + lm_head."""

    total = auto()
    scaling = auto()


@dataclass(kw_only=True)
class TrainConfig:
    """The horizon is the first that is set of num_iterations, target_flops, target_param_data_ratio, num_epochs.

    Upper bounds are far beyond any run; they keep sums of the plan finite.
    """

    num_iterations: int | None = identity(ge=1, le=10**9)
    target_flops: float | None = identity(gt=0, le=1e30)
    target_param_data_ratio: float | None = identity(gt=0, le=1e6)
    param_count: ParamCount = identity()
    num_epochs: int | None = identity(ge=1, le=10**6)
    total_batch_size: int | str | None = identity(ge=1, le=2**40, words=("auto",))
    target_examples_per_step: int | None = identity(ge=1, le=2**30)
    device_batch_size: int | str = placement(ge=1, words=("auto",))
    init_lr_frac: float = identity(gt=0, le=1)
    init_optimizer: bool = identity()
    save_every: int = cosmetic(ge=-1)

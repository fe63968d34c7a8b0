"""`tracking=`: where metrics go besides metrics.jsonl, which is always written."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import cosmetic, group


class WandbMode(StrEnum):
    """online needs a login; offline writes a folder that `wandb sync` uploads later."""

    online = auto()
    offline = auto()


@dataclass(kw_only=True)
class WandbConfig:
    """Weights & Biases."""

    enabled: bool = cosmetic()
    mode: WandbMode = cosmetic()
    project: str = cosmetic()
    group: str | None = cosmetic()


@dataclass(kw_only=True)
class TensorboardConfig:
    """Event files in the run folder, for `tensorboard --logdir`."""

    enabled: bool = cosmetic()


@dataclass(kw_only=True)
class TrackingConfig:
    """Any number of trackers at once: `tracking=[wandb,tensorboard]`."""

    wandb: WandbConfig = group()
    tensorboard: TensorboardConfig = group()

"""`objective=`: what the loss is."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import identity


class ObjectiveName(StrEnum):
    """Which class of this file the `objective` group holds."""

    next_token = auto()
    z_loss = auto()
    label_smoothing = auto()


@dataclass(kw_only=True)
class ObjectiveConfig:
    """Cross-entropy of the next token."""

    name: ObjectiveName = identity()


@dataclass(kw_only=True)
class ZLossConfig(ObjectiveConfig):
    """Cross-entropy + `coefficient` * log(Z)^2, which keeps the logits' normaliser near 1."""

    coefficient: float = identity(ge=0)


@dataclass(kw_only=True)
class LabelSmoothingConfig(ObjectiveConfig):
    """Cross-entropy against a target that gives `smoothing` of its mass to all tokens alike."""

    smoothing: float = identity(ge=0, lt=1)

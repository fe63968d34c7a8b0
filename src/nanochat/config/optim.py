"""`optim=`: the optimizer. Learning rates are those of width 768; the plan scales them."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import group, identity


class OptimName(StrEnum):
    """Which class of this file the `optim` group holds."""

    muon_adamw = auto()
    adamw = auto()


class NSDtype(StrEnum):
    """Precision of the Newton-Schulz iteration."""

    bfloat16 = auto()
    float32 = auto()


@dataclass(kw_only=True)
class OptimConfig:
    """What every optimizer has."""

    name: OptimName = identity()
    embedding_lr: float = identity(gt=0, le=100)
    unembedding_lr: float = identity(gt=0, le=100)
    matrix_lr: float = identity(gt=0, le=100)
    scalar_lr: float = identity(gt=0, le=100)
    smear_lr: float = identity(gt=0, le=100)
    weight_decay: float = identity(ge=0, lt=100)
    grad_clip: float = identity(ge=0)
    beta1: float = identity(ge=0, lt=1)
    beta2: float = identity(ge=0, lt=1)
    eps: float = identity(gt=0, lt=1)
    batch_lr_scaling: bool = identity()


@dataclass(kw_only=True)
class MomentumConfig:
    """Muon's momentum, moving linearly from `start` to `end` over `warmup_steps`."""

    start: float = identity(ge=0, lt=1)
    end: float = identity(ge=0, lt=1)
    warmup_steps: int = identity(ge=0)


@dataclass(kw_only=True)
class MuonAdamWConfig(OptimConfig):
    """Muon on the matrices, AdamW on embeddings, head and scalars."""

    momentum: MomentumConfig = group()
    ns_steps: int = identity(ge=1, le=20)
    ns_dtype: NSDtype = identity()


@dataclass(kw_only=True)
class AdamWConfig(OptimConfig):
    """AdamW on everything, for comparisons."""

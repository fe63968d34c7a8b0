"""`optim=`: the optimizer. Learning rates are those of width 768; the plan scales them."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import group, identity


class OptimName(StrEnum):
    """Which class of this file the `optim` group holds."""

    muon_adamw = auto()
    muon_modern = auto()
    adamw = auto()


class NSDtype(StrEnum):
    """Precision of the Newton-Schulz iteration."""

    bfloat16 = auto()
    float32 = auto()


@dataclass(kw_only=True)
class OptimConfig:
    """What every optimizer has. `weight_decay` is of other parameters in each: see the options in conf/optim."""

    name: OptimName = identity()
    embedding_lr: float = identity(gt=0, le=100)
    unembedding_lr: float = identity(gt=0, le=100)
    matrix_lr: float = identity(gt=0, le=100)
    scalar_lr: float = identity(gt=0, le=100)
    smear_lr: float = identity(gt=0, le=100)
    weight_decay: float = identity(ge=0, lt=100)
    grad_clip: float = identity(ge=0)
    eps: float = identity(gt=0, lt=1)
    batch_lr_scaling: bool = identity()


@dataclass(kw_only=True)
class MomentumConfig:
    """Muon's momentum, moving linearly from `start` to `end` over `warmup_steps`."""

    start: float = identity(ge=0, lt=1)
    end: float = identity(ge=0, lt=1)
    warmup_steps: int = identity(ge=0)


@dataclass(kw_only=True)
class FallingMomentumConfig(MomentumConfig):
    """And to `final` while the schedule's rate goes down; null: it stays at `end`."""

    final: float | None = identity(ge=0, lt=1)


@dataclass(kw_only=True)
class OneAdamWConfig(OptimConfig):
    """One pair of betas for all that AdamW updates."""

    beta1: float = identity(ge=0, lt=1)
    beta2: float = identity(ge=0, lt=1)


@dataclass(kw_only=True)
class MuonAdamWConfig(OneAdamWConfig):
    """Muon on the matrices, AdamW on embeddings, head and scalars."""

    momentum: MomentumConfig = group()
    ns_steps: int = identity(ge=1, le=20)
    ns_dtype: NSDtype = identity()


@dataclass(kw_only=True)
class AdamWConfig(OneAdamWConfig):
    """AdamW on everything, for comparisons."""


@dataclass(kw_only=True)
class AdamWGroupConfig:
    """AdamW of one group of parameters. The decay is not scaled."""

    beta1: float = identity(ge=0, lt=1)
    beta2: float = identity(ge=0, lt=1)
    weight_decay: float = identity(ge=0, lt=100)


@dataclass(kw_only=True)
class MuonModernConfig(OptimConfig):
    """Muon as of 2026 on the matrices, with `weight_decay` there; AdamW with settings of their own on the others."""

    momentum: FallingMomentumConfig = group()
    ns_steps: int = identity(ge=1, le=5)
    ns_dtype: NSDtype = identity()
    variance_beta: float = identity(ge=0, lt=1)
    embedding: AdamWGroupConfig = group()
    unembedding: AdamWGroupConfig = group()
    value_embedding: AdamWGroupConfig = group()
    residual_a: AdamWGroupConfig = group()
    residual_b: AdamWGroupConfig = group()
    smear: AdamWGroupConfig = group()
    backout: AdamWGroupConfig = group()

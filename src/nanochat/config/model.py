"""`model=`: the network's shape, derived from one dial, `depth`."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import identity


class ModelName(StrEnum):
    """Which network of this family."""

    gpt = auto()


class RopeDtype(StrEnum):
    """Precision of the rotary tables."""

    float32 = auto()
    bfloat16 = auto()


@dataclass(kw_only=True)
class ModelConfig:
    """Null in a size means: derive it from `depth` (plan/dims.py)."""

    name: ModelName = identity()
    depth: int = identity(ge=1, le=1000)
    aspect_ratio: int = identity(ge=1)
    head_dim: int = identity(ge=2)
    gqa_ratio: int = identity(ge=1)
    max_seq_len: int = identity(ge=2)
    n_layer: int | None = identity(ge=1)
    n_head: int | None = identity(ge=1)
    n_kv_head: int | None = identity(ge=1)
    n_embd: int | None = identity(ge=2)
    round_width: bool = identity()
    rope_base: float = identity(gt=1)
    rope_dtype: RopeDtype = identity()
    norm_eps: float = identity(gt=0, lt=1)
    logit_softcap: float = identity(ge=0)

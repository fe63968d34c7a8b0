"""`model=`: the network's shape, derived from one dial, `depth`."""

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from nanochat.config.fields import identity


class ModelName(StrEnum):
    """Which network of this family."""

    gpt = auto()
    modern = auto()


class RopeDtype(StrEnum):
    """Precision of the rotary tables."""

    float32 = auto()
    bfloat16 = auto()


class InitName(StrEnum):
    """How the first weights are drawn (model/init.py)."""

    gpt = auto()
    modern = auto()


# Of runs that are older than these keys: what the network was before it had them.
BEFORE: dict[str, Any] = {
    "vocab_multiple": 1,
    "qk_scale": 1.0,
    "window_pattern": None,
    "value_embeds": False,
    "residual_scalars": False,
    "smear": False,
    "backout": False,
    "init": "gpt",
    "document_mask": False,
}


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
    vocab_multiple: int = identity(ge=1, le=65536)
    qk_scale: float = identity(gt=0, le=100)
    window_pattern: str | None = identity()
    value_embeds: bool = identity()
    residual_scalars: bool = identity()
    smear: bool = identity()
    backout: bool = identity()
    init: InitName = identity()
    document_mask: bool = identity()

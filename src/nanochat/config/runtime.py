"""`runtime=`: the machine. Nothing here is part of what a run is."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import placement


class Device(StrEnum):
    """auto: cuda if there is one, else mps, else cpu."""

    auto = auto()
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class ComputeDtype(StrEnum):
    """auto: bfloat16 on cuda, float32 elsewhere."""

    auto = auto()
    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(kw_only=True)
class RuntimeConfig:
    """`compile` null: on cuda only. `num_threads` null: what torch takes."""

    device: Device = placement()
    dtype: ComputeDtype = placement()
    compile: bool | None = placement()
    activation_checkpointing: bool = placement()
    num_threads: int | None = placement(ge=1)

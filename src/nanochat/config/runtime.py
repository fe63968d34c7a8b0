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
    """auto: bfloat16 on a CUDA device that computes in it, float16 on an older one, float32 elsewhere."""

    auto = auto()
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class AttentionBackend(StrEnum):
    """How attention is computed (model/attention_backends.py); auto: the fastest that is there and can do it."""

    auto = auto()
    flash4 = "flash4"
    flex = "flex"
    cudnn = "cudnn"
    flash = "flash"
    efficient = "efficient"
    sdpa = "sdpa"
    plain = "plain"


@dataclass(kw_only=True)
class RuntimeConfig:
    """`compile` null: on cuda only. `num_threads` null: what torch takes."""

    device: Device = placement()
    dtype: ComputeDtype = placement()
    compile: bool | None = placement()
    attention: AttentionBackend = placement()
    fp8: bool = placement()
    activation_checkpointing: bool = placement()
    recompute_cheap: bool | None = placement()
    fused_kernels: bool | None = placement()
    num_threads: int | None = placement(ge=1)
    gpu_memory: float | None = placement(gt=0)


def inference_runtime(device: Device, dtype: ComputeDtype) -> RuntimeConfig:
    """For a model that only answers: nothing compiled, nothing recomputed, the rest as it comes."""
    return RuntimeConfig(
        device=device,
        dtype=dtype,
        compile=False,
        attention=AttentionBackend.auto,
        fp8=False,
        activation_checkpointing=False,
        recompute_cheap=False,
        fused_kernels=False,
        num_threads=None,
        gpu_memory=None,
    )

"""The device, its precision and its ceilings. The only place that asks what hardware there is."""

from dataclasses import dataclass

import torch

from nanochat.config.runtime import ComputeDtype, Device, RuntimeConfig
from nanochat.errors import ConfigError

# Dense bf16 FLOP/s from the vendors' datasheets, for model FLOP utilisation.
_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "4090": 165e12, "3090": 71e12, "L40S": 362e12}

# CUDA compute capabilities. Older GPUs imitate bfloat16, slowly.
_BF16_FROM, _FP8_FROM = (8, 0), (8, 9)


@dataclass(frozen=True)
class Machine:
    """`memory` in bytes, `peak_flops` dense bf16; None where unknown."""

    device: str
    dtype: str
    compile: bool
    name: str
    memory: int | None
    peak_flops: float | None


def detect(runtime: RuntimeConfig) -> Machine:
    """What the runtime group means on this machine. Raises ConfigError for what it does not have."""
    device = _device(runtime.device)
    compile_model = runtime.compile if runtime.compile is not None else device == "cuda"
    name, memory, capability = device, None, (0, 0)
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        name, memory, capability = properties.name, properties.total_memory, (properties.major, properties.minor)
    dtype = _usual_dtype(device, capability) if runtime.dtype == ComputeDtype.auto else str(runtime.dtype)
    if runtime.fp8:
        _check_fp8(capability, dtype, name)
    peak = next((flops for key, flops in _PEAK_FLOPS.items() if key in name), None)
    return Machine(device, dtype, compile_model, name, memory, peak)


def _usual_dtype(device: str, capability: tuple[int, int]) -> str:
    """bfloat16 on a GPU that computes in it, float16 on an older one, float32 elsewhere."""
    if device != "cuda":
        return "float32"
    return "bfloat16" if capability >= _BF16_FROM or torch.version.hip else "float16"


def _check_fp8(capability: tuple[int, int], dtype: str, name: str) -> None:
    """Raises ConfigError where there are no products of 8-bit floats, or nothing to round them to."""
    if capability < _FP8_FROM or torch.version.hip:
        raise ConfigError(
            f"runtime.fp8=true needs an NVIDIA GPU with products of 8-bit floats (compute capability "
            f"{'.'.join(map(str, _FP8_FROM))} or later: Ada, Hopper, Blackwell), and this run is on {name}; "
            f"take runtime.fp8=false"
        )
    if dtype != "bfloat16":
        raise ConfigError(
            f"runtime.fp8=true rounds its products to bfloat16, but runtime.dtype is {dtype}; take "
            f"runtime.dtype=bfloat16 or runtime.fp8=false"
        )


def _device(asked: Device) -> str:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if asked == Device.auto:
        return next(name for name, present in there.items() if present)
    if not there[str(asked)]:
        present = ", ".join(name for name, ok in there.items() if ok)
        raise ConfigError(f"runtime.device={asked} is not on this machine; it has {present}; take runtime=auto")
    return str(asked)


def set_threads(runtime: RuntimeConfig) -> None:
    """CPU threads of this process, if asked for."""
    if runtime.num_threads is not None:
        torch.set_num_threads(runtime.num_threads)


def synchronize(device: str) -> None:
    """Waits for the device, so that a clock read next is true."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()

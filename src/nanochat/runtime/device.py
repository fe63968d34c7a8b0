"""The device, its precision and its ceilings. The only place that asks what hardware there is."""

from dataclasses import dataclass

import torch

from nanochat.config.runtime import ComputeDtype, Device, RuntimeConfig
from nanochat.errors import ConfigError

# Dense bf16 FLOP/s from the vendors' datasheets, for model FLOP utilisation.
_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "4090": 165e12, "3090": 71e12, "L40S": 362e12}


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
    """What the runtime group means on this machine. Raises ConfigError for a device that is not there."""
    device = _device(runtime.device)
    dtype = str(runtime.dtype)
    if runtime.dtype == ComputeDtype.auto:
        dtype = "bfloat16" if device == "cuda" else "float32"
    compile_model = runtime.compile if runtime.compile is not None else device == "cuda"
    name, memory = device, None
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        name, memory = properties.name, properties.total_memory
    peak = next((flops for key, flops in _PEAK_FLOPS.items() if key in name), None)
    return Machine(device, dtype, compile_model, name, memory, peak)


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

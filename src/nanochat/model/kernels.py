"""Whether the decode kernels of this project run on a device. No import of Triton, which is there with CUDA only."""

import importlib.util
from functools import cache

import torch


@cache
def fast_on(device: torch.device) -> bool:
    """CUDA with Triton; everything else goes through plain operations of torch."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None

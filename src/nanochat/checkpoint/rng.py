"""The state of every random number generator, as JSON: Python, numpy, torch on the CPU and on CUDA."""

import base64
import random
from typing import Any

import numpy as np
import torch


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _tensor_text(state: torch.Tensor) -> str:
    return _text(state.cpu().numpy().tobytes())


def _tensor(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype=np.uint8).copy())


def capture_rng() -> dict[str, Any]:
    """The states of this process, JSON-able; `restore_rng` takes it back."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, _text(np.asarray(keys, dtype="<u4").tobytes()), int(position), int(has_gauss), float(cached)],
        "torch": _tensor_text(torch.get_rng_state()),
        "cuda": [_tensor_text(state) for state in cuda],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Continue every generator where `capture_rng` saw it. CUDA states beyond this machine's devices are left out."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.frombuffer(base64.b64decode(keys), dtype="<u4"), position, has_gauss, cached))
    torch.set_rng_state(_tensor(state["torch"]))
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device, text in enumerate(state["cuda"][:devices]):
        torch.cuda.set_rng_state(_tensor(text), device)

"""Compiles the kernels of FlashAttention-4 in processes of their own, while torch.compile does its work in this one.

The package compiles each kernel when it is first called, one after another: inside of the first step all else would
wait for it. It also keeps what it compiled in a folder, and on fake tensors its functions compile and run nothing, for
which they need no GPU. So a process for each kind of window calls forward and backward on fake tensors, and what it
leaves in the folder is found there by the first step. It has to be what the step will ask for: the package
distinguishes dtypes, widths of heads, queries to a key, whether there is a window, and whether the rows are more than
one tile long; not rows, heads or the size of the window. Notable: all of this is only to be faster. Whatever fails
here, fails in silence, and the step compiles for itself.

    python -m nanochat.model.flash4_ahead '{...}'    compiles what the fields of Kernels say
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nanochat.model.attention_choice import AttentionChoice
from nanochat.model.attention_flash4 import call_backward, call_forward, flash4_cache
from nanochat.plan.dims import ModelDims
from nanochat.runtime.parent import PARENT, follow_parent

_PACKAGES = ("flash-attn-4", "nvidia-cutlass-dsl", "apache-tvm-ffi", "torch")


@dataclass(frozen=True)
class Kernels:
    """Forward and backward of one kind of layer. `capability` and `processors` are those of the GPU."""

    length: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    window: int | None
    capability: tuple[int, int]
    processors: int


@contextmanager
def compiled_ahead(choice: AttentionChoice, dims: ModelDims, dtype: str) -> Iterator[None]:
    """Starts what is not in the folder yet; what still compiles when the block ends is ended."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with suppress(OSError, RuntimeError):
            for kernels in needed(choice, dims, dtype):
                if not _mark(kernels).exists():
                    processes.append(_start(kernels))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def needed(choice: AttentionChoice, dims: ModelDims, dtype: str) -> list[Kernels]:
    """Nothing where another kernel was chosen."""
    chosen = {window: choice.full if window is None else choice.short for window in dims.windows}
    windows = [window for window, name in chosen.items() if name == "flash4"]
    if not windows:
        return []
    gpu = torch.cuda.get_device_properties(0)
    shape = (dims.seq_len, dims.n_head, dims.n_kv_head, dims.head_dim, dtype)
    capability = (gpu.major, gpu.minor)
    return [Kernels(*shape, window, capability, gpu.multi_processor_count) for window in windows]


def _start(kernels: Kernels) -> subprocess.Popen[bytes]:
    major, minor = kernels.capability
    env = os.environ | {
        # It is told of the GPU instead of seeing it: to see it would take half a gigabyte of its memory.
        "CUDA_VISIBLE_DEVICES": "",
        "FLASH_ATTENTION_ARCH": f"sm_{major}{minor}",
        "FLASH_ATTENTION_NUM_SMS": str(kernels.processors),
        "CUTE_DSL_ARCH": f"sm_{major}{minor}a",
        "OMP_NUM_THREADS": "1",
        PARENT: str(os.getpid()),
    }
    command = [sys.executable, "-P", "-m", "nanochat.model.flash4_ahead", json.dumps(asdict(kernels))]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=env, stdin=quiet, stdout=quiet, stderr=quiet)


def _mark(kernels: Kernels) -> Path:
    """An empty file that says that these were compiled, by these versions."""
    known = [sys.version, *map(_version, _PACKAGES), asdict(kernels) | {"window": kernels.window is not None}]
    return flash4_cache() / "ahead" / sha256(json.dumps(known).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def compile_kernels(kernels: Kernels) -> None:
    """Calls both on fake tensors, which compiles them and runs nothing; then leaves the mark."""
    dtype = getattr(torch, kernels.dtype)
    with FakeTensorMode():
        q = torch.empty(1, kernels.length, kernels.heads, kernels.head_dim, dtype=dtype, device="cuda")
        k = torch.empty(1, kernels.length, kernels.kv_heads, kernels.head_dim, dtype=dtype, device="cuda")
        out, lse = call_forward(q, k, k, kernels.window)
        call_backward(q, q, k, k, out, lse, kernels.window)
    mark = _mark(kernels)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


if __name__ == "__main__":
    follow_parent()
    fields = json.loads(sys.argv[1])
    compile_kernels(Kernels(**fields | {"capability": tuple(fields["capability"])}))

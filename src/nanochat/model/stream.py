"""What stands between the products of a block, in plain operations or, where it pays, in fused ones (stream_ops.py).

B batch, T time, D width, H query heads, K key/value heads, E head width. Notable: the plain operations are the
definition, and what runs without gradients, with a cache, uncompiled, and on other devices than CUDA. The fused ones
give the same numbers up to the rounding of what is between them.
"""

from enum import StrEnum, auto

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.errors import ConfigError
from nanochat.model import stream_ops
from nanochat.model.extras import Mix, mixed
from nanochat.model.kernels import fast_on
from nanochat.model.layers import apply_rotary, rms_norm
from nanochat.plan.dims import ModelDims

# Numbers of (B, T, D) from which fused kernels are taken unasked. A call costs the host some 30 us, more than one of
# the compiler's kernels, and a layer has 13 of them; with fewer numbers an H200 would be done with the layer before.
FEWEST = 2**23
WIDEST = 8192  # numbers of a row that a program holds in registers
HEADS = (32, 64, 128, 256)  # widths of heads that a program of the turn can hold; others are turned by plain operations
_DTYPES = ("bfloat16", "float32")  # in float16 the square that is kept of the relu would be 0 too often

# What is cheap to compute again from what is kept anyway. The square of the relu is not: it is kept instead.
_own = torch.ops.nanochat
RECOMPUTED = {op.default for op in (_own.turn, _own.norm, _own.add_norm, _own.mix_norm)}

Pair = tuple[Tensor, Tensor]


class Fused(StrEnum):
    """Where fused kernels are taken when gradients are wanted: nowhere, where tensors are large, everywhere."""

    never = auto()
    large = auto()
    always = auto()

    def here(self, numbers: int) -> bool:
        """For tensors (B, T, D) of so many numbers."""
        return self != Fused.never and torch.is_grad_enabled() and (self == Fused.always or numbers >= FEWEST)


def fused_for(asked: bool | None, dims: ModelDims, device: str, dtype: str, compiled: bool) -> Fused:
    """What runtime.fused_kernels means for this network on this machine. Raises ConfigError for what cannot be."""
    problem = _problem(dims, device, dtype, compiled)
    if asked and problem is not None:
        raise ConfigError(f"runtime.fused_kernels=true cannot be used here: {problem}; take runtime.fused_kernels=null")
    if asked is False or problem is not None:
        return Fused.never
    return Fused.always if asked else Fused.large


def _problem(dims: ModelDims, device: str, dtype: str, compiled: bool) -> str | None:
    if device != "cuda":
        return f"they need device cuda, and this run is on {device}"
    if not fast_on(torch.device(device)):
        return "they need Triton, which is not installed"
    if not compiled:
        return "they are for compiled runs (runtime.compile=true)"
    if dtype not in _DTYPES:
        return f"they compute in {' or '.join(_DTYPES)}, and this run in {dtype}"
    if dims.n_embd > WIDEST:
        return f"they hold rows of {WIDEST} numbers at most, and this model is {dims.n_embd} wide"
    return None


def mix_norm(x_BTD: Tensor, mix: Mix | None, eps: float, fused: bool) -> Pair:
    """(m, rms_norm(m)) of m = a * x + b * x0, or of x without residual scalars. Go on with this m, not with x."""
    if not fused:
        m_BTD = mixed(x_BTD, mix)
        return m_BTD, rms_norm(m_BTD, eps)
    if mix is None:
        return stream_ops.fork_norm(x_BTD, eps)
    a, b, first_BTD = mix
    out: Pair = stream_ops.mix_norm(x_BTD, first_BTD, a, b, eps)
    return out


def add_norm(x_BTD: Tensor, y_BTD: Tensor, eps: float, fused: bool) -> Pair:
    """(x + y, rms_norm(x + y))."""
    if fused:
        out: Pair = stream_ops.add_norm(x_BTD, y_BTD, eps)
        return out
    sum_BTD = x_BTD + y_BTD
    return sum_BTD, rms_norm(sum_BTD, eps)


def turned(q_BTHE: Tensor, k_BTKE: Tensor, rope: Pair, eps: float, scale: float, fused: bool) -> Pair:
    """Queries and keys after rotary, then norm, then scale, in the tables' precision; returned in the dtype of q."""
    if fused and q_BTHE.shape[-1] in HEADS:
        out: Pair = stream_ops.turn(q_BTHE, k_BTKE, *rope, eps, scale)
        return out
    return _turned(q_BTHE, rope, eps, scale), _turned(k_BTKE, rope, eps, scale)


def _turned(x: Tensor, rope: Pair, eps: float, scale: float) -> Tensor:
    out = rms_norm(apply_rotary(x, *rope), eps)
    if scale != 1.0:
        out = out * scale
    return out.to(x.dtype)


def relu_squared(u: Tensor, fused: bool) -> Tensor:
    """relu(u)^2 (Primer, 2109.08668). May overwrite u, which must not be used afterwards."""
    if fused:
        out: Tensor = stream_ops.relu_squared(u)
        return out
    return F.relu(u, inplace=not torch.compiler.is_compiling()).square()

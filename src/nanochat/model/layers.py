"""The pieces without a state of their own: cast-on-use linear layer, root-mean-square norm, rotary embedding, softcap.

Shapes: B batch, T time, D width, H heads, E head width. Notable: weights stay in the precision that the
optimizer wants and are cast to the activations' precision where they are used, so that one rule, "compute
in the dtype of the activations", holds for the whole network.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.fp8 import fits, fp8_linear


class Linear(nn.Linear):
    """y = x W^T without bias; W is cast to the dtype of x when used, its gradient comes back in its own dtype.

    `fp8` (build.use_fp8): where gradients are wanted, the products are in 8 bits, if the number of tokens allows it.
    """

    fp8 = False

    def __init__(self, fan_in: int, fan_out: int) -> None:
        """W is (fan_out, fan_in), not filled."""
        super().__init__(fan_in, fan_out, bias=False)

    def reset_parameters(self) -> None:
        """Nothing: GPT.init_weights is the only place that draws numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., fan_in) -> (..., fan_out) in the dtype of x."""
        if self.fp8 and torch.is_grad_enabled() and fits(x.shape[:-1].numel()):
            return fp8_linear(x, self.weight)
        return F.linear(x, self.weight.to(x.dtype))


class Embedding(nn.Embedding):
    """A table of V rows of width D, not filled when built."""

    def reset_parameters(self) -> None:
        """Nothing: GPT.init_weights is the only place that draws numbers."""


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last axis, no learned weight (1910.07467); computed in fp32 inside."""
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


def rotary_tables(positions: int, head_dim: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines for `apply_rotary`, both (positions, E), rounded from float64.

    Pair i of the E/2 pairs turns by base^(-2i/E) radians a position (RoFormer, 2104.09864).
    """
    frequencies = base ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], dim=-1).to(dtype), torch.cat([sin, -sin], dim=-1).to(dtype)


def apply_rotary(x_BTHE: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Turns the pairs (x1, x2) = (first half, second half): y1 = x1 cos + x2 sin, y2 = -x1 sin + x2 cos.

    The tables broadcast against x: (T, 1, E), or (B, T, 1, E) where rows stand at different positions.
    One roll and one fused multiply-add instead of four products: the same numbers, fewer passes over memory.
    """
    swapped = x_BTHE.roll(x_BTHE.shape[-1] // 2, dims=-1)
    return torch.addcmul(x_BTHE * cos, swapped, signed_sin)


def softcap(x: Tensor, cap: float) -> Tensor:
    """cap * tanh(x / cap) in fp32; cap 0 means none. May overwrite x, which must not be used afterwards."""
    x = x.float()
    return x.div_(cap).tanh_() * cap if cap > 0 else x

"""What stands between the library's matrix products when many rows are decoded on a GPU, one pass each.

B rows, D width.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.model.skinny import Tail, alone


def apply_tail(y: Tensor, tail: Tail, cap: float = 0.0) -> Tensor:
    """relu_squared or softcap of a product, contiguous."""
    out = torch.empty_like(y, dtype=torch.float32 if tail == Tail.softcap else y.dtype)
    _tail_kernel[(triton.cdiv(y.numel(), 2048),)](y, out, y.numel(), cap, TAIL=int(tail), BLOCK=2048, num_warps=8)
    return out


def add_norm(x_BD: Tensor, y_BD: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """(x + y, rms_norm(x + y)); without a y the first is x itself. Contiguous; the sum is rounded before the norm."""
    rows, width = x_BD.shape
    sum_BD = x_BD if y_BD is None else torch.empty_like(x_BD)
    normed_BD = torch.empty_like(x_BD)
    _norm_kernel[(rows,)](
        x_BD, x_BD if y_BD is None else y_BD, sum_BD, normed_BD, width, eps,
        ADD=y_BD is not None, BLOCK=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return sum_BD, normed_BD


@triton.jit
def _tail_kernel(y_ptr, out_ptr, size, cap, TAIL: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    y = alone(tl.load(y_ptr + i, mask=i < size, other=0.0).to(tl.float32), cap, TAIL)
    tl.store(out_ptr + i, y.to(out_ptr.dtype.element_ty), mask=i < size)


@triton.jit
def _norm_kernel(x_ptr, y_ptr, sum_ptr, normed_ptr, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    d = tl.arange(0, BLOCK)
    at = tl.program_id(0) * width + d
    x = tl.load(x_ptr + at, mask=d < width, other=0.0).to(tl.float32)
    if ADD:
        x += tl.load(y_ptr + at, mask=d < width, other=0.0).to(tl.float32)
        x = x.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + at, x, mask=d < width)
        x = x.to(tl.float32)
    normed = x * tl.rsqrt(tl.sum(x * x, 0) / width + eps)
    tl.store(normed_ptr + at, normed.to(normed_ptr.dtype.element_ty), mask=d < width)

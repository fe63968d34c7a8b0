"""Triton kernels of what stands between the products of a training step: each reads and writes every number once.

N rows, D width, E head width. Notable: all of it is bound by memory, so arithmetic is fp32 and free, and a kernel is
good if its loads are 16 bytes wide and enough of them are under way. A program of a norm has one row in registers, so
nothing is read a second time; one of the turn has a few heads, both halves of each. Nothing is tuned at run time: that
would be paid at every start. stream_ops.py says what each computes, and imports this only where it runs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_FLAT = 4096  # numbers of a program without rows: two loads of 16 bytes a thread
_HEADS = 2048  # numbers of a program of the turn: a load of 16 bytes of each half a thread
_ALONE, _ADD, _MIX = (tl.constexpr(how) for how in range(3))  # what is normed: x, x + y, a x + b y


def turn(q: Tensor, k: Tensor, cos: Tensor, signed_sin: Tensor, eps: float, scale: float) -> tuple[Tensor, Tensor]:
    """stream_ops.turn."""
    return _turn_one(q, None, cos, signed_sin, eps, scale), _turn_one(k, None, cos, signed_sin, eps, scale)


def turn_backward(
    grad_q: Tensor, grad_k: Tensor, q: Tensor, k: Tensor, cos: Tensor, signed_sin: Tensor, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    """stream_ops.turn_backward."""
    return _turn_one(q, grad_q, cos, signed_sin, eps, scale), _turn_one(k, grad_k, cos, signed_sin, eps, scale)


def _turn_one(x: Tensor, grad: Tensor | None, cos: Tensor, signed_sin: Tensor, eps: float, scale: float) -> Tensor:
    """Of queries or keys; with a gradient of the result, that of x instead."""
    x, cos, signed_sin = x.contiguous(), cos.contiguous(), signed_sin.contiguous()
    out = torch.empty_like(x)
    length, heads, width = x.shape[-3:]
    rows, block = x.numel() // width, _HEADS // width
    _turn_kernel[(triton.cdiv(rows, block),)](
        x, x if grad is None else grad.contiguous(), cos, signed_sin, out, rows, heads, length, eps, scale,
        BACKWARD=grad is not None, HALF=width // 2, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return out


def norm(x: Tensor, eps: float) -> Tensor:
    """stream_ops.norm."""
    return _summed_norm(x, None, None, eps)[1]


def add_norm(x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """stream_ops.add_norm."""
    return _summed_norm(x, y, None, eps)


def mix_norm(x: Tensor, first: Tensor, a: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """stream_ops.mix_norm."""
    return _summed_norm(x, first, (a, b), eps)


def _summed_norm(
    x: Tensor, y: Tensor | None, factors: tuple[Tensor, Tensor] | None, eps: float
) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    other = x if y is None else y.contiguous()
    total = x if y is None else torch.empty_like(x)
    normed = torch.empty_like(x)
    a, b = (x, x) if factors is None else factors
    width = x.shape[-1]
    _norm_kernel[(x.numel() // width,)](
        x, other, a, b, total, normed, eps,
        HOW=(_ALONE if y is None else _ADD if factors is None else _MIX).value, **_row(width),
    )  # fmt: skip
    return total, normed


def norm_backward(grad: Tensor, grad_normed: Tensor, x: Tensor, eps: float) -> Tensor:
    """stream_ops.norm_backward."""
    grad, grad_normed, x = grad.contiguous(), grad_normed.contiguous(), x.contiguous()
    out = torch.empty_like(x)
    width = x.shape[-1]
    _norm_backward_kernel[(x.numel() // width,)](
        grad, grad_normed, x, x, x, x, out, out, out, out, eps, MIX=False, **_row(width)
    )
    return out


def mix_norm_backward(
    grad: Tensor, grad_normed: Tensor, x: Tensor, first: Tensor, a: Tensor, b: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """stream_ops.mix_norm_backward."""
    grad, grad_normed, x, first = (t.contiguous() for t in (grad, grad_normed, x, first))
    out, out_first = torch.empty_like(x), torch.empty_like(x)
    width = x.shape[-1]
    rows = x.numel() // width
    parts_2N = x.new_empty((2, rows), dtype=torch.float32)
    _norm_backward_kernel[(rows,)](
        grad, grad_normed, x, first, a, b, out, out_first, parts_2N[0], parts_2N[1], eps, MIX=True, **_row(width)
    )
    return out, out_first, parts_2N


def relu_squared(u: Tensor) -> Tensor:
    """stream_ops.relu_squared."""
    return _elementwise(u, u, backward=False)


def relu_squared_backward(grad: Tensor, squared: Tensor) -> Tensor:
    """stream_ops.relu_squared_backward."""
    return _elementwise(squared, grad, backward=True)


def _elementwise(x: Tensor, grad: Tensor, backward: bool) -> Tensor:
    x, grad = x.contiguous(), grad.contiguous()
    out = torch.empty_like(x)
    _relu_squared_kernel[(triton.cdiv(x.numel(), _FLAT),)](
        x, grad, out, x.numel(), BACKWARD=backward, BLOCK=_FLAT, num_warps=8
    )
    return out


def _row(width: int) -> dict[str, int]:
    """A program a row: the row in registers, 16 numbers a thread."""
    block = triton.next_power_of_2(width)
    return {"WIDTH": width, "BLOCK": block, "num_warps": min(16, max(1, block // 512))}


@triton.jit
def _turn_kernel(
    x_ptr, grad_ptr, cos_ptr, sin_ptr, out_ptr, rows, heads, length, eps, scale,
    BACKWARD: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    e = tl.arange(0, HALF)[None, :]
    inside = (row < rows)[:, None]
    at = row.to(tl.int64)[:, None] * (2 * HALF) + e
    table = ((row // heads) % length)[:, None] * (2 * HALF) + e
    x1 = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    x2 = tl.load(x_ptr + at + HALF, mask=inside, other=0.0).to(tl.float32)
    cos = tl.load(cos_ptr + table, mask=inside, other=0.0).to(tl.float32)  # the second half repeats the first
    sin = tl.load(sin_ptr + table, mask=inside, other=0.0).to(tl.float32)
    y1 = x1 * cos + x2 * sin
    y2 = x2 * cos - x1 * sin
    size = tl.rsqrt(tl.sum(y1 * y1 + y2 * y2, 1) / (2 * HALF) + eps)[:, None]
    if BACKWARD:
        g1 = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
        g2 = tl.load(grad_ptr + at + HALF, mask=inside, other=0.0).to(tl.float32)
        along = tl.sum(g1 * y1 + g2 * y2, 1)[:, None] / (2 * HALF) * size * size
        g1 = (g1 - y1 * along) * size * scale
        g2 = (g2 - y2 * along) * size * scale
        y1 = g1 * cos - g2 * sin  # turned back
        y2 = g1 * sin + g2 * cos
    else:
        y1 = y1 * size * scale
        y2 = y2 * size * scale
    tl.store(out_ptr + at, y1.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(out_ptr + at + HALF, y2.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _norm_kernel(
    x_ptr, y_ptr, a_ptr, b_ptr, sum_ptr, normed_ptr, eps, HOW: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    d = tl.arange(0, BLOCK)
    inside = d < WIDTH
    at = tl.program_id(0).to(tl.int64) * WIDTH + d
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if HOW != _ALONE:
        y = tl.load(y_ptr + at, mask=inside, other=0.0).to(tl.float32)
        if HOW == _MIX:
            x = tl.load(a_ptr).to(tl.float32) * x
            y = tl.load(b_ptr).to(tl.float32) * y
        rounded = (x + y).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + at, rounded, mask=inside)
        x = rounded.to(tl.float32)
    normed = x * tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)
    tl.store(normed_ptr + at, normed.to(normed_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _norm_backward_kernel(
    grad_ptr, grad_normed_ptr, x_ptr, first_ptr, a_ptr, b_ptr, out_ptr, out_first_ptr, a_part_ptr, b_part_ptr, eps,
    MIX: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    d = tl.arange(0, BLOCK)
    inside = d < WIDTH
    row = tl.program_id(0).to(tl.int64)
    at = row * WIDTH + d
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad_normed_ptr + at, mask=inside, other=0.0).to(tl.float32)
    through = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    normed = x
    if MIX:
        first = tl.load(first_ptr + at, mask=inside, other=0.0).to(tl.float32)
        a = tl.load(a_ptr).to(tl.float32)
        b = tl.load(b_ptr).to(tl.float32)
        normed = (a * x + b * first).to(x_ptr.dtype.element_ty).to(tl.float32)
    size = tl.rsqrt(tl.sum(normed * normed, 0) / WIDTH + eps)
    along = tl.sum(g * normed, 0) / WIDTH * size * size
    slope = through + (g - normed * along) * size
    if MIX:
        tl.store(out_first_ptr + at, (b * slope).to(out_first_ptr.dtype.element_ty), mask=inside)
        tl.store(a_part_ptr + row, tl.sum(slope * x, 0))
        tl.store(b_part_ptr + row, tl.sum(slope * first, 0))
        slope = a * slope
    tl.store(out_ptr + at, slope.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _relu_squared_kernel(x_ptr, grad_ptr, out_ptr, size, BACKWARD: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < size, other=0.0).to(tl.float32)
    if BACKWARD:  # x is the square: the relu was its root
        out = tl.load(grad_ptr + i, mask=i < size, other=0.0).to(tl.float32) * 2.0 * tl.sqrt(x)
    else:
        out = tl.where(x < 0.0, 0.0, x)  # what is not a number stays so
        out = out * out
    tl.store(out_ptr + i, out.to(out_ptr.dtype.element_ty), mask=i < size)

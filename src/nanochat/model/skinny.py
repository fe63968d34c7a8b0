"""Matrix products of very few rows on a GPU, with what stands before and behind them, in one kernel each.

M rows, N outputs, D inputs. Notable: with so few rows a product costs the time that its weights take to be read, so the
kernel does nothing but stream them. The norm in front needs no pass of its own: it only scales a row, and the sum of
squares falls off while the row is read. The first weights are fetched before the kernel waits for its input
(programmatic dependent launch), which hides most of the time between two kernels. Sums are fp32.
"""

from enum import IntEnum

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_ROWS = 2  # beyond, the library's tensor-core products are faster


class Tail(IntEnum):
    """What is done to a product y before it is stored."""

    none = 0
    relu_squared = 1
    add = 2  # y + other
    softcap = 3  # cap * tanh(y / cap), stored in fp32


def skinny_linear(
    x_MD: Tensor,
    weight_ND: Tensor,
    eps: float | None,
    tail: Tail,
    other_MN: Tensor | None = None,
    cap: float = 0.0,
) -> Tensor:
    """tail(norm(x) W^T); without an `eps` there is no norm. All contiguous; M a power of two, up to MAX_ROWS."""
    rows, depth = x_MD.shape
    outputs = weight_ND.shape[0]
    overlap = overlaps(x_MD)
    out_MN = x_MD.new_empty(rows, outputs, dtype=torch.float32 if tail == Tail.softcap else x_MD.dtype)
    block_n, block_d, warps = _blocks(rows, outputs, depth)
    _kernel[(triton.cdiv(outputs, block_n),)](
        x_MD, weight_ND, out_MN, out_MN if other_MN is None else other_MN, outputs, eps or 0.0, cap,
        M=rows, D=depth, NORM=eps is not None, TAIL=int(tail), BLOCK_N=block_n, BLOCK_D=block_d,
        OVERLAP=overlap, num_warps=warps, **({"launch_pdl": True} if overlap else {}),
    )  # fmt: skip
    return out_MN


def _blocks(rows: int, outputs: int, depth: int) -> tuple[int, int, int]:
    """(outputs of a program, inputs of a turn, warps): the best of those tried on an H200 (docs/performance.md)."""
    if outputs > 8192 or (outputs > 2048 and rows > 1):
        return 4, 256, 2
    if outputs > 2048:
        return 8, 512, 4
    if depth <= 2048:
        return 2, triton.next_power_of_2(depth), 8
    return (1, 2048, 4) if rows == 1 else (2, 1024, 4)


def overlaps(x: Tensor) -> bool:
    """Whether kernels on this device may begin before the one before them has ended (Hopper and later)."""
    return x.is_cuda and torch.cuda.get_device_capability(x.device) >= (9, 0)


@triton.jit
def alone(y, cap, TAIL: tl.constexpr):
    """The tails that need nothing but y, in fp32."""
    if TAIL == 1:
        y = tl.maximum(y, 0.0)
        y = y * y
    if TAIL == 3:
        y = cap * (2.0 / (1.0 + tl.exp(-2.0 * y / cap)) - 1.0)
    return y


@triton.jit
def _kernel(
    x_ptr, weight_ptr, out_ptr, other_ptr, outputs, eps, cap,
    M: tl.constexpr, D: tl.constexpr, NORM: tl.constexpr, TAIL: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    m = tl.arange(0, M)
    rows_at = weight_ptr + n[:, None] * D
    weight = tl.load(rows_at + d[None, :], mask=(n < outputs)[:, None] & (d < D)[None, :], other=0.0)
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    if M == 1:  # two dimensions instead of three, for which the compiler finds the better layout
        x = tl.load(x_ptr + d, mask=d < D, other=0.0).to(tl.float32)
        acc = weight.to(tl.float32) * x[None, :]
    else:
        x = tl.load(x_ptr + m[:, None] * D + d[None, :], mask=(d < D)[None, :], other=0.0).to(tl.float32)
        acc = weight.to(tl.float32)[None, :, :] * x[:, None, :]
    squares = x * x
    for first in tl.static_range(BLOCK_D, D, BLOCK_D):
        at = first + d
        weight = tl.load(rows_at + at[None, :], mask=(n < outputs)[:, None] & (at < D)[None, :], other=0.0)
        if M == 1:
            x = tl.load(x_ptr + at, mask=at < D, other=0.0).to(tl.float32)
            acc += weight.to(tl.float32) * x[None, :]
        else:
            x = tl.load(x_ptr + m[:, None] * D + at[None, :], mask=(at < D)[None, :], other=0.0).to(tl.float32)
            acc += weight.to(tl.float32)[None, :, :] * x[:, None, :]
        squares += x * x
    if M == 1:
        y = tl.sum(acc, 1)[None, :]
        mean = tl.sum(squares, 0) / D
    else:
        y = tl.sum(acc, 2)
        mean = (tl.sum(squares, 1) / D)[:, None]
    if NORM:
        y *= tl.rsqrt(mean + eps)
    where = m[:, None] * outputs + n[None, :]
    y = y.to(weight_ptr.dtype.element_ty).to(tl.float32)  # as the plain product rounds it
    if TAIL == 2:
        y += tl.load(other_ptr + where, mask=(n < outputs)[None, :], other=0.0).to(tl.float32)
    y = alone(y, cap, TAIL)
    tl.store(out_ptr + where, y.to(out_ptr.dtype.element_ty), mask=(n < outputs)[None, :])

"""The loss of a chunk of logits and its derivative in one kernel, for GPUs: head_terms.py in a pass over memory.

C tokens of a chunk, V vocabulary, R rows of the head. Notable: a program has one token. It reads the logits for the
sum of their exponentials, and again for the slope, which it may write where the logits were: what one thread reads in
the second turn is what it then writes. Arithmetic is fp32. With a cap it is three special functions a logit and turn,
and they, 16 a cycle of a multiprocessor, take longer than memory does.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.model.head_terms import Terms

_BLOCK, _WARPS = 4096, 8  # words of a turn: 16 a thread, two reads of 16 bytes
_TILE = 128  # of a transpose
_LOG2_E = tl.constexpr(1.4426950408889634)


def pass_over(
    logits_CR: Tensor,
    targets_C: Tensor,
    terms: Terms,
    found_C: Tensor,
    slope_CR: Tensor | None = None,
    counts_C: Tensor | None = None,
) -> None:
    """Writes the terms, and counts * their derivative by the logits, for which there may be 16 or 8 bits.

    All contiguous; `found` and `counts` fp32. `slope` may be the logits. Spare rows of the head have slope 0.
    """
    tokens, rows = logits_CR.shape
    slope = slope_CR is not None
    _terms_kernel[(tokens,)](
        logits_CR, targets_C, found_C, slope_CR if slope else logits_CR, counts_C if slope else found_C,
        V=terms.vocab, R=rows, CAP=float(terms.cap), Z=float(terms.z), SMOOTHING=float(terms.smoothing),
        SLOPE=slope, BLOCK=min(_BLOCK, triton.next_power_of_2(rows)), num_warps=_WARPS,
    )  # fmt: skip


def transpose(x_MN: Tensor, out_NM: Tensor) -> None:
    """Writes x^T of 8-bit numbers; both contiguous."""
    rows, columns = x_MN.shape
    grid = (triton.cdiv(rows, _TILE), triton.cdiv(columns, _TILE))
    _transpose_kernel[grid](x_MN.view(torch.uint8), out_NM.view(torch.uint8), rows, columns, TILE=_TILE, num_warps=4)


@triton.jit
def _bits(x, CAP: tl.constexpr):
    """(the capped logit times log2 e, h = 1 / (1 + exp(2 x / CAP)), by which tanh is 1 - 2h and its slope 4h (1 - h)).

    Powers of two are one instruction. The reciprocal is the square of what is one instruction too.
    """
    if CAP > 0:
        root = tl.rsqrt(1.0 + tl.exp2(x * (2 * _LOG2_E / CAP)))
        half = root * root
        y = CAP * _LOG2_E - half * (2 * CAP * _LOG2_E)
    else:
        half = x
        y = x * _LOG2_E
    return y, half


@triton.jit
def _read(ptr, at, R: tl.constexpr, BLOCK: tl.constexpr):
    """Logits in fp32; of no meaning from R on."""
    if R % BLOCK == 0:
        return tl.load(ptr + at).to(tl.float32)
    return tl.load(ptr + at, mask=at < R, other=0.0).to(tl.float32)


@triton.jit
def _terms_kernel(
    logits_ptr, targets_ptr, found_ptr, slope_ptr, counts_ptr,
    V: tl.constexpr, R: tl.constexpr, CAP: tl.constexpr, Z: tl.constexpr, SMOOTHING: tl.constexpr,
    SLOPE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    logits_ptr += token * R
    target = tl.load(targets_ptr + token)
    y_target, half_target = _bits(tl.load(logits_ptr + tl.maximum(target, 0)).to(tl.float32), CAP)
    words = tl.arange(0, BLOCK)
    # Capped logits cannot exceed the cap, so that it serves as the largest; else each lane keeps the largest it saw.
    BOUNDED: tl.constexpr = CAP > 0 and CAP <= 40  # exp(-2 * 40) is not yet 0
    top = tl.full((BLOCK,), CAP * _LOG2_E if BOUNDED else -3e38, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    sums = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, V, BLOCK):
        at = first + words
        y, _ = _bits(_read(logits_ptr, at, R, BLOCK), CAP)
        if SMOOTHING > 0:
            sums += tl.where(at < V, y, 0.0)
        if V % BLOCK != 0:
            y = tl.where(at < V, y, float("-inf"))
        if not BOUNDED:
            higher = tl.maximum(top, y)
            total *= tl.exp2(top - higher)
            top = higher
        total += tl.exp2(y - top)
    highest = tl.max(top, 0)
    bits_z = highest + tl.log2(tl.sum(total * tl.exp2(top - highest), 0))
    log_z = bits_z / _LOG2_E
    found = (bits_z - y_target) / _LOG2_E
    if SMOOTHING > 0:
        found = (1.0 - SMOOTHING) * found + SMOOTHING * (bits_z - tl.sum(sums, 0) / V) / _LOG2_E
    tl.store(found_ptr + token, found + Z * log_z * log_z)
    if SLOPE:
        slope_ptr += token * R
        count = tl.load(counts_ptr + token)
        steeper = 1.0 + 2.0 * Z * log_z
        for first in range(0, R, BLOCK):
            at = first + words
            y, half = _bits(_read(logits_ptr, at, R, BLOCK), CAP)
            slope = tl.exp2(y - bits_z) * (count * steeper)
            if SMOOTHING > 0:
                slope -= count * (SMOOTHING / V)
            if CAP > 0:
                slope *= 4.0 * (half - half * half)
            if V < R:
                slope = tl.where(at < V, slope, 0.0)
            slope = slope.to(slope_ptr.dtype.element_ty)
            if R % BLOCK == 0:
                tl.store(slope_ptr + at, slope)
            else:
                tl.store(slope_ptr + at, slope, mask=at < R)
        slope = tl.exp2(y_target - bits_z) * steeper - SMOOTHING / V - (1.0 - SMOOTHING)
        if CAP > 0:
            slope *= 4.0 * (half_target - half_target * half_target)
        tl.debug_barrier()  # the target's slope without that one-hot is written by then
        tl.store(slope_ptr + target, (slope * count).to(slope_ptr.dtype.element_ty), mask=target >= 0)


@triton.jit
def _transpose_kernel(x_ptr, out_ptr, rows, columns, TILE: tl.constexpr):
    m = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64)
    n = (tl.program_id(1) * TILE + tl.arange(0, TILE)).to(tl.int64)
    x = tl.load(x_ptr + m[:, None] * columns + n[None, :], mask=(m < rows)[:, None] & (n < columns)[None, :])
    tl.store(out_ptr + n[:, None] * rows + m[None, :], tl.trans(x), mask=(n < columns)[:, None] & (m < rows)[None, :])

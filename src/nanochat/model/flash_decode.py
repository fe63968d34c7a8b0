"""Attention of one new position a row over its cached keys, on a GPU, in one kernel.

B rows, H query heads, K key/value heads, E head width, S capacity, C splits of a row. Notable: how many keys a row has
is read from the device, so a captured CUDA graph serves every length; only keys inside the window are loaded; the
query heads that share a key head share its loads. With few rows the keys of a row are split over several programs
(Flash-Decoding, https://pytorch.org/blog/flash-decoding/), and whichever of them comes last merges their results.
Rotary positions and the norm of queries and keys (stream.turned) are done in passing, and the new key and value are
written to the cache. The arithmetic is fp32 inside.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.model.kv_cache import KVCache
from nanochat.model.skinny import overlaps

_PROGRAMS = 640  # about five for each of the 132 multiprocessors of an H100 or H200
_MAX_SPLITS = 32
# (keys of a turn, warps, stages of the software pipeline), the best of those tried on an H200 (docs/performance.md)
_WHOLE_ROW = (16, 1, 3)
_PART = (32, 2, 2)
_ALL_KEYS = 1 << 30  # a window that no row fills
_LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Turning:
    """What stream.turned needs: tables (positions, E), the norm's eps, and what is multiplied to the result."""

    cos: Tensor
    signed_sin: Tensor
    eps: float
    scale: float


def splits_for(rows: int, kv_heads: int) -> int:
    """Programs for each row and key head, so that all multiprocessors have work; a power of two."""
    wanted = max(1, min(_MAX_SPLITS, _PROGRAMS // (rows * kv_heads)))
    return 1 << (wanted.bit_length() - 1)


def flash_decode(
    q_BHE: Tensor,
    k_BKE: Tensor,
    v_BKE: Tensor,
    turning: Turning,
    cache: KVCache,
    counters: Tensor,
    layer: int,
    window: int | None,
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v over the keys of each row and the new one, (B, H * E); the cache gets the new one.

    q and k come straight from their projections. B may be less or more than the rows that the cache's host side has in
    use: its tensors count. With a `window` the query at i sees the keys i - window .. i. `counters` (>= B*K) are int32
    zeros, and zeros again afterwards.
    """
    rows, heads, width = q_BHE.shape
    kv_heads, splits = k_BKE.shape[1], splits_for(rows, k_BKE.shape[1])
    dot = rows > 1  # for one row the products are so small that tensor cores only add latency
    group, wide = heads // kv_heads, max(16 if dot else 1, triton.next_power_of_2(width))
    padded = max(16 if dot else 1, triton.next_power_of_2(group))
    block, warps, stages = (_WHOLE_ROW if splits == 1 else _PART) if dot else (max(4, 16 // padded), 2, 1)
    out_BD = q_BHE.new_empty(rows, heads * width)
    parts = q_BHE.new_empty(rows * heads * splits, wide + 2, dtype=torch.float32) if splits > 1 else out_BD
    overlap = overlaps(q_BHE)
    _, row_stride, head_stride, position_stride, _ = cache.k.stride()
    _kernel[(rows * kv_heads, splits)](
        q_BHE, k_BKE, v_BKE, cache.k[layer], cache.v[layer], cache.all_lengths_R, turning.cos, turning.signed_sin,
        out_BD, parts, counters,
        row_stride, head_stride, position_stride,
        q_BHE.stride(0), k_BKE.stride(0), v_BKE.stride(0), turning.eps, turning.scale,
        width**-0.5 * _LOG2_E, _ALL_KEYS if window is None else window,
        KV_HEADS=kv_heads, GROUP=group, PADDED=padded, WIDTH=width, WIDE=wide,
        BLOCK=block, SPLITS=splits, DOT=dot, OVERLAP=overlap,
        PRECISION="ieee" if q_BHE.dtype == torch.float32 else "tf32",
        num_warps=warps, num_stages=stages, **({"launch_pdl": True} if overlap else {}),
    )  # fmt: skip
    return out_BD


@triton.jit
def _turned(at, cos, sin, there, e, eps, factor, WIDTH: tl.constexpr):
    """Rows `at` (n, 1) + e (1, WIDE), turned by the position, normed and scaled."""
    x = tl.load(at + e, mask=there, other=0.0).to(tl.float32)
    swapped = tl.load(at + tl.where(e < WIDTH // 2, e + WIDTH // 2, e - WIDTH // 2), mask=there, other=0.0)
    y = x * cos + swapped.to(tl.float32) * sin
    return y * tl.rsqrt(tl.sum(y * y, 1) / WIDTH + eps)[:, None] * factor


@triton.jit
def _through_tensor_cores(
    q, keys_at, values_at, start, end, stride_position, n, e, scale,
    PADDED: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(largest score, mass, weighted values) of the keys start..end; -inf, 0 and 0 without any."""
    top = tl.full([PADDED], float("-inf"), tl.float32)
    mass = tl.zeros([PADDED], tl.float32)
    acc = tl.zeros([PADDED, WIDE], tl.float32)
    for first in range(start, end, BLOCK):
        there = first + n < end
        where = (first + n) * stride_position + e
        k = tl.load(keys_at + where, mask=there & (e < WIDTH), other=0.0)
        v = tl.load(values_at + where, mask=there & (e < WIDTH), other=0.0)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        score = tl.where(tl.trans(there), score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(top - higher)
        mass = mass * shrink + tl.sum(weight, 1)
        acc = acc * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=PRECISION)
        top = higher
    return top, mass, acc


@triton.jit
def _place_by_place(
    q, k, v, keys_at, values_at, start, end, stride_position, n, e, scale,
    PADDED: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The same, where every place of a block has a softmax of its own: threads exchange nothing until the end. `k` and
    `v` are the first block, already loaded.
    """
    scaled = q.to(tl.float32) * scale
    top = tl.full([PADDED, BLOCK], float("-inf"), tl.float32)
    mass = tl.zeros([PADDED, BLOCK], tl.float32)
    acc = tl.zeros([PADDED, BLOCK, WIDE], tl.float32)
    for first in range(start, end, BLOCK):
        behind = first + BLOCK + n
        where = behind * stride_position + e
        k_next = tl.load(keys_at + where, mask=(behind < end) & (e < WIDTH), other=0.0)
        v_next = tl.load(values_at + where, mask=(behind < end) & (e < WIDTH), other=0.0)
        score = tl.sum(scaled[:, None, :] * k.to(tl.float32)[None, :, :], 2)
        there = (first + tl.arange(0, BLOCK) < end)[None, :]
        higher = tl.maximum(top, tl.where(there, score, float("-inf")))
        weight = tl.where(there, tl.exp2(score - higher), 0.0)
        shrink = tl.where(there, tl.exp2(top - higher), 1.0)
        mass = mass * shrink + weight
        acc = acc * shrink[:, :, None] + weight[:, :, None] * v.to(tl.float32)[None, :, :]
        top = higher
        k = k_next
        v = v_next
    highest = tl.max(top, 1)
    place = tl.where(top > float("-inf"), tl.exp2(top - highest[:, None]), 0.0)
    return highest, tl.sum(place * mass, 1), tl.sum(place[:, :, None] * acc, 1)


@triton.jit
def _with_one_more(q, k, v, scale, highest, total, out):
    """(largest score, mass, weighted values) with one more key (1, WIDE) and its value."""
    score = tl.sum(q.to(tl.float32) * k.to(tl.float32), 1) * scale
    higher = tl.maximum(highest, score)
    shrink = tl.exp2(highest - higher)
    weight = tl.exp2(score - higher)
    return higher, total * shrink + weight, out * shrink[:, None] + weight[:, None] * v.to(tl.float32)


@triton.jit
def _hand_in(
    out, highest, total, out_at, parts_at, counter, split, e,
    GROUP: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Stores the result of one split; the last one to do so merges all of them."""
    columns: tl.constexpr = WIDE + 2
    mine = parts_at + (split * GROUP + tl.arange(0, PADDED)) * columns
    real = tl.arange(0, PADDED) < GROUP
    tl.store(mine[:, None] + e, out, mask=real[:, None])
    tl.store(mine + WIDE, highest, mask=real)
    tl.store(mine + WIDE + 1, total, mask=real)
    tl.debug_barrier()  # all threads have written before one of them says so
    before = tl.atomic_add(counter, 1, sem="acq_rel")
    if before == SPLITS - 1:
        tl.store(counter, 0)
        for member in range(GROUP):
            theirs = parts_at + (tl.arange(0, SPLITS) * GROUP + member) * columns
            tops = tl.load(theirs + WIDE, cache_modifier=".cg")
            weights = tl.exp2(tops - tl.max(tops, 0))  # 0 for a split without keys; split 0 always has one
            mass = tl.sum(weights * tl.load(theirs + WIDE + 1, cache_modifier=".cg"), 0)
            accs = tl.load(theirs[:, None] + e, cache_modifier=".cg")
            merged = tl.sum(weights[:, None] * accs, 0)[None, :] / mass
            tl.store(out_at + member * WIDTH + e, merged.to(out_at.dtype.element_ty), mask=e < WIDTH)


@triton.jit
def _kernel(
    q_ptr, k_ptr, v_ptr, keys_ptr, values_ptr, lengths_ptr, cos_ptr, sin_ptr, out_ptr, parts_ptr, counters_ptr,
    stride_row, stride_head, stride_position,
    q_row, k_row, v_row, eps, factor, scale, window,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0)
    split = tl.program_id(1)
    row = pair // KV_HEADS
    head = pair % KV_HEADS
    length = tl.load(lengths_ptr + row).to(tl.int32)
    low = tl.maximum(0, length - window)
    share = tl.cdiv(tl.cdiv(length - low, SPLITS), BLOCK) * BLOCK
    start = low + split * share
    end = tl.minimum(length, start + share)

    e = tl.arange(0, WIDE)[None, :]
    g = tl.arange(0, PADDED)[:, None]
    n = tl.arange(0, BLOCK)[:, None]
    base = row.to(tl.int64) * stride_row + head * stride_head
    if not DOT:  # keys of earlier steps: nothing that still runs writes them, so they are fetched before the wait
        where = base + (start + n) * stride_position + e
        k = tl.load(keys_ptr + where, mask=(start + n < end) & (e < WIDTH), other=0.0)
        v = tl.load(values_ptr + where, mask=(start + n < end) & (e < WIDTH), other=0.0)
    cos = tl.load(cos_ptr + length * WIDTH + e, mask=e < WIDTH, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + length * WIDTH + e, mask=e < WIDTH, other=0.0).to(tl.float32)
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
    inside = (g < GROUP) & (e < WIDTH)
    q_at = q_ptr + row * q_row + (head * GROUP + g) * WIDTH
    q = _turned(q_at, cos, sin, inside, e, eps, factor, WIDTH).to(keys_ptr.dtype.element_ty)

    if DOT:
        highest, total, out = _through_tensor_cores(
            q, keys_ptr + base, values_ptr + base, start, end, stride_position, n, e, scale,
            PADDED, WIDTH, WIDE, BLOCK, PRECISION,
        )  # fmt: skip
    else:
        highest, total, out = _place_by_place(
            q, k, v, keys_ptr + base, values_ptr + base, start, end, stride_position, n, e, scale,
            PADDED, WIDTH, WIDE, BLOCK,
        )  # fmt: skip
    if split == 0:  # the new position, which goes to the cache in passing
        k_at = k_ptr + row * k_row + head * WIDTH + tl.zeros([1, 1], tl.int32)
        k_new = _turned(k_at, cos, sin, e < WIDTH, e, eps, factor, WIDTH).to(keys_ptr.dtype.element_ty)
        v_new = tl.load(v_ptr + row * v_row + head * WIDTH + e, mask=e < WIDTH, other=0.0)
        tl.store(keys_ptr + base + length * stride_position + e, k_new, mask=e < WIDTH)
        tl.store(values_ptr + base + length * stride_position + e, v_new, mask=e < WIDTH)
        highest, total, out = _with_one_more(q, k_new, v_new, scale, highest, total, out)

    out_at = out_ptr + (row * KV_HEADS + head) * GROUP * WIDTH
    if SPLITS == 1:
        tl.store(out_at + g * WIDTH + e, (out / total[:, None]).to(out_ptr.dtype.element_ty), mask=inside)
    else:
        parts_at = parts_ptr + pair * SPLITS * GROUP * (WIDE + 2)
        _hand_in(
            out, highest, total, out_at, parts_at, counters_ptr + pair, split, e, GROUP, PADDED, WIDTH, WIDE, SPLITS
        )

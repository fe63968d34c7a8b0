"""The last part of `sampling.draw` on a GPU: noise, threshold and argmax over the vocabulary, in two kernels.

B rows, V vocabulary. Notable: the same random bits as engine/noise.py, in 32-bit arithmetic that wraps around instead
of 64-bit arithmetic that does not; tests/engine/test_cuda.py compares the draws. Without it every operation of the hash
would pass over (B, V) on its own, which with 128 rows takes longer than the network.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

_BLOCK = 2048  # logits of a program


def pick(
    logits_BV: Tensor, temperature_B: Tensor, floor_B: Tensor | None, keys_B: Tensor, positions_B: Tensor, random: bool
) -> Tensor:
    """argmax of logits / temperature + Gumbel noise over the logits >= floor, (B,) int64; -1 where they are not finite.

    Rows of temperature 0, and all without `random`, take the largest logit.
    """
    rows, vocab_size = logits_BV.shape
    chunks = triton.cdiv(vocab_size, _BLOCK)
    scores = torch.empty(rows, chunks, dtype=torch.float32, device=logits_BV.device)
    ids = torch.empty(rows, chunks, dtype=torch.int32, device=logits_BV.device)
    out_B = torch.empty(rows, dtype=torch.int64, device=logits_BV.device)
    _best_of_chunk[(rows, chunks)](
        logits_BV, temperature_B, temperature_B if floor_B is None else floor_B, keys_B, positions_B, scores, ids,
        logits_BV.stride(0), vocab_size, chunks,
        RANDOM=random, FLOORED=floor_B is not None, BLOCK=_BLOCK, num_warps=8,
    )  # fmt: skip
    _best_of_row[(rows,)](scores, ids, out_B, chunks, BLOCK=triton.next_power_of_2(chunks), num_warps=1)
    return out_B


@triton.jit
def _mix(x):
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0x735A2D97
    return x ^ (x >> 15)


@triton.jit
def _gumbel(key, position, ids):
    place = _mix(position.to(tl.uint32) * 0x9E3779B9)
    first = _mix((key >> 31).to(tl.uint32) ^ place)
    second = _mix(key.to(tl.uint32) + place)
    bits = _mix(_mix(ids.to(tl.uint32) ^ first) + second)
    u = tl.minimum((bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.99999994)
    return -tl.log(-libdevice.log1p(-u))


@triton.jit
def _best_of_chunk(
    logits_ptr, temperature_ptr, floor_ptr, keys_ptr, positions_ptr, scores_ptr, ids_ptr,
    stride, vocab_size, chunks,
    RANDOM: tl.constexpr, FLOORED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    i = chunk * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + row * stride + i, mask=i < vocab_size, other=float("-inf"))
    score = x
    if RANDOM:
        temperature = tl.load(temperature_ptr + row)
        noise = _gumbel(tl.load(keys_ptr + row), tl.load(positions_ptr + row), i)
        # below 1e-6 no noise reaches the distance of two different logits any more
        score = tl.where(temperature > 0, x / tl.maximum(temperature, 1e-6) + noise, x)
        if FLOORED:
            score = tl.where(x >= tl.load(floor_ptr + row), score, float("-inf"))
    bad = tl.max(((x != x) | (x == float("inf"))).to(tl.int32), 0)
    best, at = tl.max(score, 0, return_indices=True)
    tl.store(scores_ptr + row * chunks + chunk, tl.where(bad > 0, float("inf"), best))
    tl.store(ids_ptr + row * chunks + chunk, tl.where(bad > 0, -1, chunk * BLOCK + at))


@triton.jit
def _best_of_row(scores_ptr, ids_ptr, out_ptr, chunks, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    score = tl.load(scores_ptr + row * chunks + c, mask=c < chunks, other=float("-inf"))
    best, at = tl.max(score, 0, return_indices=True)
    chosen = tl.load(ids_ptr + row * chunks + at)
    tl.store(out_ptr + row, tl.where(best == float("-inf"), -1, chosen).to(tl.int64))

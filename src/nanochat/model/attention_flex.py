"""Attention by torch's FlexAttention: a kernel made for the mask, which leaves out whole tiles of it.

B batch, T time, N tiles of 128 in T, H query heads, K key/value heads, E head width. Notable: which tiles are needed
follows from a few comparisons for each pair of tiles, so the T x T mask never exists; torch's create_block_mask looks
at every pair of positions. Only in a compiled graph is this a kernel: outside of one torch computes all scores.
"""

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

TILE = 128  # flex_attention's own size of a tile


def flex(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, blocks: BlockMask) -> Tensor:
    """softmax(q k^T / sqrt(E)) v where `blocks` allows it: (B, T, H, E)."""
    q, k, v = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
    y_BHTE = flex_attention(q, k, v, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])
    assert isinstance(y_BHTE, Tensor)
    return y_BHTE.transpose(1, 2)


def block_mask(length: int, window: int | None, documents_BT: Tensor | None, device: torch.device) -> BlockMask:
    """Which tiles flex reads: causal, within the window, within the document."""
    some, whole = tiles(length, window, documents_BT, device)
    part_counts, part_order = _ordered(some & ~whole)
    whole_counts, whole_order = _ordered(whole)

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        allowed = j <= i
        if window is not None:
            allowed = allowed & (i - j <= window)
        if documents_BT is not None:
            allowed = allowed & (documents_BT[b, i] == documents_BT[b, j])
        return allowed

    return BlockMask.from_kv_blocks(
        part_counts,
        part_order,
        whole_counts,
        whole_order,
        BLOCK_SIZE=TILE,
        mask_mod=seen,
        seq_lengths=(length, length),
    )


def tiles(length: int, window: int | None, documents_BT: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B or 1, 1, N, N) twice: tiles (of queries, of keys) that may hold an allowed pair, and those that hold no other.

    Document numbers never fall along a row, so the first and the last of a tile say which documents are in it.
    """
    first_N = torch.arange(0, length, TILE, device=device)
    last_N = first_N + TILE - 1  # also of the last tile, which may be cut: its spare part is allowed nowhere
    some = first_N[None, :] <= last_N[:, None]
    whole = last_N[None, :] <= first_N[:, None]
    if window is not None:
        some = some & (first_N[:, None] - last_N[None, :] <= window)
        whole = whole & (last_N[:, None] - first_N[None, :] <= window)
    if documents_BT is None:
        return some[None, None], whole[None, None]
    low_BN, high_BN = documents_BT[:, first_N], documents_BT[:, last_N.clamp(max=length - 1)]
    some_BNN = some & (high_BN[:, None, :] >= low_BN[:, :, None])
    whole_BNN = whole & (low_BN[:, None, :] == high_BN[:, :, None])
    return some_BNN[:, None], whole_BNN[:, None]


def _ordered(wanted: Tensor) -> tuple[Tensor, Tensor]:
    """For each tile of queries: how many tiles of keys are wanted, and all of them, the wanted ones first."""
    counts = wanted.sum(-1, dtype=torch.int32)
    order = wanted.to(torch.int32).argsort(dim=-1, descending=True, stable=True)
    return counts, order.to(torch.int32)

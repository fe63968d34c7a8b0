"""Causal attention, one function for every kernel that can compute it; which one is a name (runtime.attention).

B batch, T time, H query heads, K key/value heads, E head width. Notable: what may be looked at is worked out once in a
forward pass, as a `Sight`, in the form that the kernel reads, and all layers of the same window share it. A query at i
sees the keys i - window .. i, or all up to i, and with a document mask only those of its own document: a token that
starts one begins a new run, and what stands before the first of a row is a run too. Scores are q k^T / sqrt(E) with a
softmax in fp32 in every kernel. `plain` is what the others are tested against (tests/model/test_attention.py).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask

from nanochat.model.attention_flash4 import flash4
from nanochat.model.attention_flex import block_mask, flex
from nanochat.model.wide import wide


class Sight(NamedTuple):
    """What a query may look at, for one kernel. `window` None: all before it.

    `mask` is True where a query may look, (T, T) or (B, 1, T, T), for kernels that read one and where causality alone
    does not say it; `blocks` is what flex reads instead.
    """

    backend: str
    window: int | None
    mask: Tensor | None
    blocks: BlockMask | None


def document_numbers(idx_BT: Tensor, bos_id: int) -> Tensor:
    """(B, T): the number of documents that have started in the row up to each token."""
    return (idx_BT == bos_id).cumsum(1, dtype=torch.int32)


def sight_mask(length: int, window: int | None, documents_BT: Tensor | None, device: torch.device) -> Tensor:
    """True where the query i may look at the key j: (T, T), or (B, 1, T, T) with documents."""
    positions = torch.arange(length, device=device)
    back = positions[:, None] - positions
    seen = back >= 0 if window is None else (back >= 0) & (back <= window)
    if documents_BT is None:
        return seen
    return (seen & (documents_BT[:, :, None] == documents_BT[:, None]))[:, None]


def look(backend: str, length: int, window: int | None, documents_BT: Tensor | None, device: torch.device) -> Sight:
    """The sight of rows of this length. A window that cuts nothing is none."""
    window = None if window is not None and window >= length - 1 else window
    mask = blocks = None
    if backend == "flex":
        blocks = block_mask(length, window, documents_BT, device)
    elif backend == "flash4":
        assert documents_BT is None, "flash4 has no document mask"  # choose_attention refuses it
    elif window is not None or documents_BT is not None:
        mask = sight_mask(length, window, documents_BT, device)
    return Sight(backend, window, mask, blocks)


def attend(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, sight: Sight) -> Tensor:
    """softmax(q k^T / sqrt(E)) v over what `sight` shows: (B, T, H, E). H/K query heads share a key head."""
    return _BACKENDS[sight.backend](q_BTHE, k_BTKE, v_BTKE, sight)


def _plain(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, sight: Sight) -> Tensor:
    """Products and softmax in fp32 (fp64 stays fp64), all scores at once."""
    q, k, v = (x.transpose(1, 2).to(wide(x)) for x in (q_BTHE, k_BTKE, v_BTKE))
    k, v = (_for_every_query(x, q.shape[1]) for x in (k, v))
    mask = sight.mask if sight.mask is not None else sight_mask(q.shape[2], None, None, q.device)
    scores = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).masked_fill(~mask, float("-inf"))
    y_BHTE: Tensor = scores.softmax(-1) @ v
    return y_BHTE.transpose(1, 2).to(q_BTHE.dtype)


def _sdpa(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, sight: Sight) -> Tensor:
    """Torch's own attention, with the kernel that torch takes."""
    q, k, v = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
    y = F.scaled_dot_product_attention(
        q, k, v, attn_mask=sight.mask, is_causal=sight.mask is None, enable_gqa=q.shape[1] != k.shape[1]
    )
    return y.transpose(1, 2)


def _fixed(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, sight: Sight, *, kernel: SDPBackend) -> Tensor:
    """Torch's attention by one kernel alone; torch raises where it cannot. The efficient one has no shared heads."""
    if kernel == SDPBackend.EFFICIENT_ATTENTION:
        heads = q_BTHE.shape[2]
        k_BTKE, v_BTKE = (_for_every_query(x.transpose(1, 2), heads).transpose(1, 2) for x in (k_BTKE, v_BTKE))
    with sdpa_kernel(kernel):
        return _sdpa(q_BTHE, k_BTKE, v_BTKE, sight)


def _flash4(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, sight: Sight) -> Tensor:
    out: Tensor = flash4(q_BTHE, k_BTKE, v_BTKE, sight.window)[0]
    return out


def _flex(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, sight: Sight) -> Tensor:
    assert sight.blocks is not None
    return flex(q_BTHE, k_BTKE, v_BTKE, sight.blocks)


def _for_every_query(x_BKTE: Tensor, heads: int) -> Tensor:
    """The key head k is read by the query heads k*H/K .. (k+1)*H/K - 1."""
    shared = heads // x_BKTE.shape[1]
    return x_BKTE if shared == 1 else x_BKTE.repeat_interleave(shared, dim=1)


_Attend = Callable[[Tensor, Tensor, Tensor, Sight], Tensor]
_BACKENDS: dict[str, _Attend] = {
    "flash4": _flash4,
    "flex": _flex,
    "cudnn": partial(_fixed, kernel=SDPBackend.CUDNN_ATTENTION),
    "flash": partial(_fixed, kernel=SDPBackend.FLASH_ATTENTION),
    "efficient": partial(_fixed, kernel=SDPBackend.EFFICIENT_ATTENTION),
    "sdpa": _sdpa,
    "plain": _plain,
}

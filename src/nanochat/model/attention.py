"""Causal self-attention with rotary positions, normed queries and keys, and grouped key/value heads.

B batch, T time, S keys, D width, H query heads, K key/value heads, E head width. Notable: without a cache
this is one fused causal call, or, for a window shorter than the row, one with a mask that all such layers share;
with a cache, new queries look at the cached keys of their own row.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.extras import ValueEmbedding
from nanochat.model.kv_cache import KVCache
from nanochat.model.layers import Linear, apply_rotary, rms_norm
from nanochat.plan.dims import ModelDims

Rope = tuple[Tensor, Tensor]


class Shared(NamedTuple):
    """What all blocks of one forward pass read. `short_mask` (T, T): where short windows may look; None: everywhere."""

    idx_BT: Tensor
    rope: Rope
    cache: KVCache | None
    short_mask: Tensor | None


def window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """(T, T), True where the query i may look at the key j: i - window <= j <= i."""
    positions = torch.arange(length, device=device)
    back = positions[:, None] - positions
    return (back >= 0) & (back <= window)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(E)) v with q, k turned by position, normed and scaled; H/K queries share a key head."""

    def __init__(self, dims: ModelDims, layer: int) -> None:
        """`layer` is the index of the block, which is its place in a cache."""
        super().__init__()
        self.layer = layer
        self.head_dim = dims.head_dim
        self.grouped = dims.n_head != dims.n_kv_head
        self.norm_eps = dims.norm_eps
        self.qk_scale = dims.qk_scale
        self.window = dims.windows[layer]
        self.q_proj = Linear(dims.n_embd, dims.n_head * dims.head_dim)
        self.k_proj = Linear(dims.n_embd, dims.n_kv_head * dims.head_dim)
        self.v_proj = Linear(dims.n_embd, dims.n_kv_head * dims.head_dim)
        self.o_proj = Linear(dims.n_head * dims.head_dim, dims.n_embd)
        self.value_embed = ValueEmbedding(dims) if layer in dims.value_layers else None

    def forward(self, x_BTD: Tensor, shared: Shared) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k = (self._turned(project(x_BTD), shared.rope) for project in (self.q_proj, self.k_proj))
        v = self._heads(self.v_proj(x_BTD))
        if self.value_embed is not None:
            v = self.value_embed(v, x_BTD, shared.idx_BT)
        v = v.transpose(1, 2)
        if shared.cache is not None:
            y_BHTE = shared.cache.attend(self.layer, q, k, v, self.window)
        else:
            mask = shared.short_mask if self.window is not None else None
            y_BHTE = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=self.grouped
            )
        out_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).flatten(2))
        return out_BTD

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim)

    def _turned(self, x: Tensor, rope: Rope) -> Tensor:
        """Rotary, then norm, then scale, in the tables' precision; returns (B, heads, T, E) in the dtype of x."""
        turned = rms_norm(apply_rotary(self._heads(x), *rope), self.norm_eps)
        if self.qk_scale != 1.0:
            turned = turned * self.qk_scale
        return turned.to(x.dtype).transpose(1, 2)

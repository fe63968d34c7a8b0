"""Causal self-attention with rotary positions, normed queries and keys, and grouped key/value heads.

B batch, T time, S keys, D width, H query heads, K key/value heads, E head width. Notable: without a cache
this is one fused causal call; with one, new queries look at all cached keys of their own row.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.kv_cache import KVCache
from nanochat.model.layers import Linear, apply_rotary, rms_norm
from nanochat.plan.dims import ModelDims

Rope = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """softmax(q k^T / sqrt(E)) v with q, k turned by position and then normed; H/K queries share a key head."""

    def __init__(self, dims: ModelDims, layer: int) -> None:
        """`layer` is the index of the block, which is its place in a cache."""
        super().__init__()
        self.layer = layer
        self.head_dim = dims.head_dim
        self.grouped = dims.n_head != dims.n_kv_head
        self.norm_eps = dims.norm_eps
        self.q_proj = Linear(dims.n_embd, dims.n_head * dims.head_dim)
        self.k_proj = Linear(dims.n_embd, dims.n_kv_head * dims.head_dim)
        self.v_proj = Linear(dims.n_embd, dims.n_kv_head * dims.head_dim)
        self.o_proj = Linear(dims.n_head * dims.head_dim, dims.n_embd)

    def forward(self, x_BTD: Tensor, rope: Rope, cache: KVCache | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k = (self._turned(project(x_BTD), rope) for project in (self.q_proj, self.k_proj))
        v = self._heads(self.v_proj(x_BTD)).transpose(1, 2)
        if cache is None:
            y_BHTE = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        else:
            y_BHTE = cache.attend(self.layer, q, k, v)
        out_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).flatten(2))
        return out_BTD

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim)

    def _turned(self, x: Tensor, rope: Rope) -> Tensor:
        """Rotary, then norm, in the tables' precision; returns (B, heads, T, E) in the dtype of x."""
        turned = rms_norm(apply_rotary(self._heads(x), *rope), self.norm_eps)
        return turned.to(x.dtype).transpose(1, 2)

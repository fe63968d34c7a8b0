"""Causal self-attention with rotary positions, normed queries and keys, and grouped key/value heads.

B batch, T time, D width, H query heads, K key/value heads, E head width. Notable: without a cache this is one
call of the kernel that was chosen (attention_backends.py), with what may be seen worked out once for all layers; with
a cache, new queries look at the cached keys of their own row, which holds one document.
"""

from typing import NamedTuple

from torch import Tensor, nn

from nanochat.model.attention_backends import Sight, attend
from nanochat.model.extras import ValueEmbedding
from nanochat.model.kv_cache import KVCache
from nanochat.model.layers import Linear
from nanochat.model.stream import turned
from nanochat.plan.dims import ModelDims

Rope = tuple[Tensor, Tensor]


class Shared(NamedTuple):
    """What all blocks of one forward pass read: what layers see, those with a short window and the others.

    With a cache there are no sights: it knows the positions of its rows. `fused`: with the kernels of stream_ops.py.
    """

    idx_BT: Tensor
    rope: Rope
    cache: KVCache | None
    full: Sight | None
    short: Sight | None
    fused: bool


class Attention(nn.Module):
    """softmax(q k^T / sqrt(E)) v with q, k turned by position, normed and scaled; H/K queries share a key head."""

    def __init__(self, dims: ModelDims, layer: int) -> None:
        """`layer` is the index of the block, which is its place in a cache."""
        super().__init__()
        self.layer = layer
        self.head_dim = dims.head_dim
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
        q, k, v = (self._heads(project(x_BTD)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = turned(q, k, shared.rope, self.norm_eps, self.qk_scale, shared.fused)
        if self.value_embed is not None:
            v = self.value_embed(v, x_BTD, shared.idx_BT)
        sight = shared.full if self.window is None else shared.short
        if shared.cache is not None:
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            y_BTHE = shared.cache.attend(self.layer, q, k, v, self.window).transpose(1, 2)
        else:
            assert sight is not None
            y_BTHE = attend(q, k, v, sight)
        out_BTD: Tensor = self.o_proj(y_BTHE.flatten(2))
        return out_BTD

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim)

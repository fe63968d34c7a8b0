"""The network: a decoder-only transformer with pre-norms, rotary positions and squared-ReLU MLPs.

B batch, T time, V vocabulary, D width. Notable: no biases, no learned norms, embedding and head untied,
queries and keys normed, logits softcapped in fp32. Compute happens in the dtype of the embedding table; all
other weights are fp32 masters, cast on use. The module is built without numbers (so also on the meta device)
and gets them from `init_weights` alone; `nanochat.model.build` does both.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nanochat.model.attention import Attention, Rope
from nanochat.model.kv_cache import KVCache
from nanochat.model.layers import Embedding, Linear, rms_norm, rotary_tables, softcap
from nanochat.plan.dims import ModelDims

ROPE_MARGIN = 10  # rotary tables reach this many times the trained length, so that generation may run past it


class MLP(nn.Module):
    """D -> 4D -> D with relu(x)^2 between (Primer, 2109.08668)."""

    def __init__(self, dims: ModelDims) -> None:
        """Not filled."""
        super().__init__()
        self.up = Linear(dims.n_embd, 4 * dims.n_embd)
        self.down = Linear(4 * dims.n_embd, dims.n_embd)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out_BTD: Tensor = self.down(F.relu(self.up(x_BTD), inplace=True).square())
        return out_BTD


class Block(nn.Module):
    """x += attn(norm(x)); x += mlp(norm(x))."""

    def __init__(self, dims: ModelDims, layer: int) -> None:
        """Not filled. `layer` is the block's index."""
        super().__init__()
        self.norm_eps = dims.norm_eps
        self.attn = Attention(dims, layer)
        self.mlp = MLP(dims)

    def forward(self, x_BTD: Tensor, rope: Rope, cache: KVCache | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x_BTD = x_BTD + self.attn(rms_norm(x_BTD, self.norm_eps), rope, cache)
        return x_BTD.add(self.mlp(rms_norm(x_BTD, self.norm_eps)))


class GPT(nn.Module):
    """idx (B, T) -> logits (B, T, V). `activation_checkpointing` trades recomputation of each block for memory."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, dims: ModelDims) -> None:
        """Not filled: call init_weights, also when a checkpoint is loaded afterwards (it fills the rotary tables)."""
        super().__init__()
        self.dims = dims
        self.activation_checkpointing = False
        self.wte = Embedding(dims.vocab_size, dims.n_embd)
        self.blocks = nn.ModuleList(Block(dims, layer) for layer in range(dims.n_layer))
        self.lm_head = Linear(dims.n_embd, dims.vocab_size)
        table = torch.empty(self.max_positions, dims.head_dim, dtype=getattr(torch, dims.rope_dtype))
        self.register_buffer("rope_cos", table, persistent=False)
        self.register_buffer("rope_sin", table.clone(), persistent=False)

    @property
    def max_positions(self) -> int:
        """Positions that the rotary tables reach; no sequence can be longer."""
        return ROPE_MARGIN * self.dims.seq_len

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of the activations, which is that of the embedding table."""
        return self.wte.weight.dtype

    def forward(self, idx_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V), fp32, softcapped. With a cache the T tokens follow what it holds, and it grows by T."""
        return self.logits(self.hidden(idx_BT, cache))

    def hidden(self, idx_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """The normed activations (B, T, D) that the head reads."""
        new = idx_BT.shape[1]
        rope = self._rope(new, cache)
        x_BTD = rms_norm(self.wte(idx_BT), self.dims.norm_eps)
        for block in self.blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, rope, cache, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, rope, cache)
        if cache is not None:
            cache.advance(idx_BT)
        return rms_norm(x_BTD, self.dims.norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) as `hidden` returns them -> (..., V) in fp32. The cap bounds every logit by +-logit_softcap."""
        return softcap(self.lm_head(hidden), self.dims.logit_softcap)

    def _rope(self, new: int, cache: KVCache | None) -> Rope:
        """Tables for the next `new` positions, to be broadcast over heads."""
        end = new if cache is None else cache.longest + new
        assert end <= self.max_positions, f"{end} positions, but the rotary tables end at {self.max_positions}"
        at = slice(0, new) if cache is None else cache.positions(new)
        return self.rope_cos[at].unsqueeze(-2), self.rope_sin[at].unsqueeze(-2)

    def parameter_roles(self) -> dict[str, str]:
        """Parameter name -> what it is to an optimizer: embedding, unembedding or matrix."""
        tables = {"wte.weight": "embedding", "lm_head.weight": "unembedding"}
        return {name: tables.get(name, "matrix") for name, _ in self.named_parameters()}

    def init_weights(self, seed: int) -> None:
        """Fill every parameter and table. The same seed gives the same numbers on every device.

        | parameter                    | distribution                                                        |
        |------------------------------|---------------------------------------------------------------------|
        | wte                          | normal, std 1                                                       |
        | q_proj, k_proj, v_proj, up   | normal, std min(1, sqrt(fan_out/fan_in)) / sqrt(fan_in) (2310.17813) |
        | o_proj, down, lm_head        | 0: every block starts as the identity, every token equally likely   |
        """
        generator = torch.Generator().manual_seed(seed)
        zero = ("o_proj.weight", "down.weight", "lm_head.weight")
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith(zero):
                    weight.zero_()
                else:
                    std = 1.0 if name == "wte.weight" else _matrix_std(*weight.shape)
                    # drawn on the CPU: generators of other devices give other numbers
                    weight.copy_(torch.randn(weight.shape, generator=generator).mul_(std))
        self._fill_rope()

    def _fill_rope(self) -> None:
        dims = self.dims
        cos, sin = rotary_tables(self.max_positions, dims.head_dim, dims.rope_base, self.rope_cos.dtype)
        self.rope_cos.copy_(cos)
        self.rope_sin.copy_(sin)


def _matrix_std(fan_out: int, fan_in: int) -> float:
    return min(1.0, sqrt(fan_out / fan_in)) / sqrt(fan_in)

"""The network: a decoder-only transformer with pre-norms, rotary positions and squared-ReLU MLPs.

B batch, T time, V vocabulary, D width. Notable: no biases, no learned norms, embedding and head untied, queries and
keys normed, logits softcapped in fp32. Weights are fp32 masters, cast on use to the dtype of the activations; embedding
tables alone are bfloat16 where that is computed in. The module is built without numbers (so also on the meta device)
and gets them from `init_weights` alone; `nanochat.model.build` does both. What `model=modern` adds (extras.py) is
there only where its key is on: a network without it has no parameter and no operation more.
"""

import torch
from torch import Tensor, nn

from nanochat.model.attention import Attention, Rope, Shared
from nanochat.model.attention_backends import Sight, document_numbers, look
from nanochat.model.attention_choice import AttentionChoice
from nanochat.model.extras import Backout, Mix, ResidualScalars, Smear
from nanochat.model.init import fill
from nanochat.model.kv_cache import KVCache
from nanochat.model.layers import Embedding, Linear, rms_norm, rotary_tables, softcap
from nanochat.model.recompute import Recompute, run_block
from nanochat.model.stream import Fused, add_norm, mix_norm, relu_squared
from nanochat.plan.dims import ModelDims

ROPE_MARGIN = 10  # rotary tables reach this many times the trained length, so that generation may run past it


class MLP(nn.Module):
    """D -> 4D -> D with relu(x)^2 between (Primer, 2109.08668)."""

    def __init__(self, dims: ModelDims) -> None:
        """Not filled."""
        super().__init__()
        self.up = Linear(dims.n_embd, 4 * dims.n_embd)
        self.down = Linear(4 * dims.n_embd, dims.n_embd)

    def forward(self, x_BTD: Tensor, fused: bool) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out_BTD: Tensor = self.down(relu_squared(self.up(x_BTD), fused))
        return out_BTD


class Block(nn.Module):
    """x = a*x + b*x0 where there are residual scalars; x += attn(norm(x)); x += mlp(norm(x))."""

    def __init__(self, dims: ModelDims, layer: int) -> None:
        """Not filled. `layer` is the block's index."""
        super().__init__()
        self.norm_eps = dims.norm_eps
        self.attn = Attention(dims, layer)
        self.mlp = MLP(dims)

    def forward(self, x_BTD: Tensor, mix: Mix | None, shared: Shared) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x_BTD, normed_BTD = mix_norm(x_BTD, mix, self.norm_eps, shared.fused)
        x_BTD, normed_BTD = add_norm(x_BTD, self.attn(normed_BTD, shared), self.norm_eps, shared.fused)
        return x_BTD.add(self.mlp(normed_BTD, shared.fused))


class GPT(nn.Module):
    """idx (B, T) -> logits (B, T, V). `recompute`: what time is traded for memory. `fused`: where own kernels are."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, dims: ModelDims) -> None:
        """Not filled: call init_weights, also when a checkpoint is loaded afterwards (it fills the rotary tables)."""
        super().__init__()
        self.dims = dims
        self.activation_checkpointing = False
        self.recompute_cheap = False
        self.attention = AttentionChoice()
        self.fused = Fused.never
        self.compute_as: torch.dtype | None = None  # where activations are of another dtype than the tables: float16
        self.wte = Embedding(dims.table_rows, dims.n_embd)
        self.smear = Smear() if dims.smear else None
        self.residual = ResidualScalars(dims) if dims.residual_scalars else None
        self.blocks = nn.ModuleList(Block(dims, layer) for layer in range(dims.n_layer))
        self.backout = Backout() if dims.backout else None
        self.lm_head = Linear(dims.n_embd, dims.table_rows)
        table = torch.empty(self.max_positions, dims.head_dim, dtype=getattr(torch, dims.rope_dtype))
        self.register_buffer("rope_cos", table, persistent=False)
        self.register_buffer("rope_sin", table.clone(), persistent=False)

    @property
    def recompute(self) -> Recompute:
        """What the backward pass computes again."""
        if self.activation_checkpointing:
            return Recompute.blocks
        return Recompute.cheap if self.recompute_cheap else Recompute.nothing

    @property
    def max_positions(self) -> int:
        """Positions that the rotary tables reach; no sequence can be longer."""
        return ROPE_MARGIN * self.dims.seq_len

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of the activations."""
        return self.compute_as or self.wte.weight.dtype

    def embed(self, idx: Tensor) -> Tensor:
        """The normed embeddings (..., D), in `compute_dtype`."""
        return rms_norm(self.wte(idx), self.dims.norm_eps).to(self.compute_dtype)

    def forward(self, idx_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V), fp32, softcapped. With a cache the T tokens follow what it holds, and it grows by T."""
        return self.logits(self.hidden(idx_BT, cache))

    def hidden(self, idx_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """The normed activations (B, T, D) that the head reads."""
        new = idx_BT.shape[1]
        fused = cache is None and self.fused.here(idx_BT.numel() * self.dims.n_embd)
        shared = Shared(idx_BT, self._rope(new, cache), cache, *self._sights(idx_BT, cache), fused)
        x_BTD = self.embed(idx_BT)
        if self.smear is not None:
            x_BTD = self.smear(x_BTD, self._previous(x_BTD, idx_BT, cache))
        x_BTD = self._through_blocks(x_BTD, shared)
        if cache is not None:
            cache.advance(idx_BT)
        return rms_norm(x_BTD, self.dims.norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) as `hidden` returns them -> (..., V) in fp32. The cap bounds every logit by +-logit_softcap."""
        logits = softcap(self.lm_head(hidden), self.dims.logit_softcap)
        return logits if self.dims.table_rows == self.dims.vocab_size else logits[..., : self.dims.vocab_size]

    def _through_blocks(self, x_BTD: Tensor, shared: Shared) -> Tensor:
        first_BTD = middle_BTD = x_BTD
        for layer, block in enumerate(self.blocks):
            mix = None if self.residual is None else self.residual.mix(layer, first_BTD)
            x_BTD = run_block(self.recompute, block, x_BTD, mix, shared)
            if layer == self.dims.n_layer // 2:
                middle_BTD = x_BTD
        return x_BTD if self.backout is None else self.backout(x_BTD, middle_BTD)

    def _previous(self, x_BTD: Tensor, idx_BT: Tensor, cache: KVCache | None) -> Tensor:
        """The normed embedding of the token before each, (B, T, D); 0 where there is none.

        With a document mask a document has none before it. A cached row holds one document.
        """
        if cache is None:
            previous_BTD = torch.cat([torch.zeros_like(x_BTD[:, :1]), x_BTD[:, :-1]], dim=1)
            if self.dims.document_mask and self.dims.bos_id is not None:
                previous_BTD = previous_BTD * (idx_BT != self.dims.bos_id).unsqueeze(-1)
            return previous_BTD
        ids_BT = cache.previous_ids(idx_BT)
        return self.embed(ids_BT.clamp(min=0)) * (ids_BT >= 0).unsqueeze(-1)

    def _sights(self, idx_BT: Tensor, cache: KVCache | None) -> tuple[Sight | None, Sight | None]:
        """What layers see that see everything, and what those with a short window see; None with a cache."""
        if cache is not None:
            return None, None
        dims, length, device = self.dims, idx_BT.shape[1], idx_BT.device
        documents_BT = None
        if dims.document_mask:
            assert dims.bos_id is not None, "model.document_mask needs the token that starts a document"
            documents_BT = document_numbers(idx_BT, dims.bos_id)
        full = look(self.attention.backend(short=False), length, None, documents_BT, device)
        if dims.window_pattern is None:
            return full, None
        return full, look(self.attention.backend(short=True), length, dims.short_window, documents_BT, device)

    def _rope(self, new: int, cache: KVCache | None) -> Rope:
        """Tables for the next `new` positions, to be broadcast over heads."""
        end = new if cache is None else cache.longest + new
        assert end <= self.max_positions, f"{end} positions, but the rotary tables end at {self.max_positions}"
        at = slice(0, new) if cache is None else cache.positions(new)
        return self.rope_cos[at].unsqueeze(-2), self.rope_sin[at].unsqueeze(-2)

    def parameter_roles(self) -> dict[str, str]:
        """Parameter name -> what it is to an optimizer. Value gates are matrices like those of the blocks."""
        roles = {
            "wte.weight": "embedding",
            "lm_head.weight": "unembedding",
            "residual.a": "residual_a",
            "residual.b": "residual_b",
            "smear.gate.weight": "smear",
            "smear.scale": "smear",
            "backout.scale": "backout",
        }
        table = ".value_embed.table.weight"
        return {
            name: "value_embedding" if name.endswith(table) else roles.get(name, "matrix")
            for name, _ in self.named_parameters()
        }

    def init_weights(self, seed: int) -> None:
        """Fill every parameter (init.py) and table. The same seed gives the same numbers on every device."""
        fill(self.named_parameters(), self.dims, seed)
        self._fill_rope()

    def _fill_rope(self) -> None:
        dims = self.dims
        cos, sin = rotary_tables(self.max_positions, dims.head_dim, dims.rope_base, self.rope_cos.dtype)
        self.rope_cos.copy_(cos)
        self.rope_sin.copy_(sin)

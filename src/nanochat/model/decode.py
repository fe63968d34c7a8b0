"""One new token a row through the network, on a GPU: GPT.hidden and GPT.logits for T = 1, in few kernels.

B rows, D width, H query heads, K key/value heads, E head width, V vocabulary. Notable: nothing here depends on a
number that only the host knows, so a step can be captured as a CUDA graph and replayed at any lengths. Weights are
copied, cast to the compute dtype, with queries, keys and values in one matrix; `refresh` follows a model that is being
trained. A layer is five kernels with one or two rows (skinny.py), nine with more, four or five of them the library's
products. tests/engine/test_cuda.py compares the tokens with those of GPT.forward.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.model.extras import mixed
from nanochat.model.flash_decode import Turning, flash_decode
from nanochat.model.gpt import GPT, Block
from nanochat.model.kv_cache import KVCache
from nanochat.model.layers import rms_norm
from nanochat.model.rowwise import add_norm, apply_tail
from nanochat.model.skinny import MAX_ROWS, Tail, skinny_linear


@dataclass(frozen=True)
class _Weights:
    """The matrices of one block, (outputs, inputs) each, in the compute dtype."""

    qkv: Tensor
    o: Tensor
    up: Tensor
    down: Tensor


class DecodeModel:
    """A GPT that takes one token a row and is fast at it."""

    def __init__(self, model: GPT, max_rows: int) -> None:
        """Copies the weights as they are now. `max_rows` bounds B."""
        self.model = model
        self._blocks: list[Block] = list(model.blocks)  # type: ignore[arg-type]
        dims, device = model.dims, model.wte.weight.device
        self._counters = torch.zeros(max_rows * dims.n_kv_head, dtype=torch.int32, device=device)
        self._turning = Turning(model.rope_cos, model.rope_sin, dims.norm_eps, dims.qk_scale)
        self._sources = [p for block in self._blocks for p in block.parameters()] + [model.lm_head.weight]
        self._seen = self._versions()
        self._layers = [_Weights(*self._matrices(block)) for block in self._blocks]
        self._head = model.lm_head.weight.detach().to(model.compute_dtype, copy=True)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the weights again if they have been written to; the copies stay where they are."""
        if self._seen == (seen := self._versions()):
            return
        self._seen = seen
        for block, weights in zip(self._blocks, self._layers, strict=True):
            copies = (weights.qkv, weights.o, weights.up, weights.down)
            for copy, matrix in zip(copies, self._matrices(block), strict=True):
                copy.copy_(matrix)
        self._head.copy_(self.model.lm_head.weight)

    def step(self, ids_B: Tensor, cache: KVCache, active_B: Tensor) -> Tensor:
        """The logits (B, V), fp32, that follow these tokens. The cache's device side grows by `active_B`, 0 or 1 a row;
        its host side learns nothing. A row that is not active is computed all the same.
        """
        model, dims, idx_B1 = self.model, self.model.dims, ids_B[:, None]
        last_ids_B = cache.all_last_ids_R[: len(ids_B)]
        x_B1D = model.embed(idx_B1)
        if model.smear is not None:
            before_B1D = model.embed(last_ids_B[:, None].clamp(min=0))
            x_B1D = model.smear(x_B1D, before_B1D * (last_ids_B >= 0)[:, None, None])
        first_B1D = middle_B1D = x_B1D
        for layer, block in enumerate(self._blocks):
            if model.residual is not None:
                x_B1D = mixed(x_B1D, model.residual.mix(layer, first_B1D))
            x_B1D = self._block(layer, block, x_B1D[:, 0], idx_B1, cache)[:, None]
            if layer == dims.n_layer // 2:
                middle_B1D = x_B1D
        if model.backout is not None:
            x_B1D = model.backout(x_B1D, middle_B1D)
        last_ids_B.copy_(ids_B)
        cache.all_lengths_R[: len(ids_B)].add_(active_B)
        return self._logits(x_B1D[:, 0])

    def _block(self, layer: int, block: Block, x_BD: Tensor, idx_B1: Tensor, cache: KVCache) -> Tensor:
        weights, eps = self._layers[layer], block.norm_eps
        if len(x_BD) <= MAX_ROWS:
            qkv_BN = skinny_linear(x_BD, weights.qkv, eps, Tail.none)
            y_BD = self._attend(layer, block, qkv_BN, x_BD, idx_B1, cache)
            x_BD = skinny_linear(y_BD, weights.o, None, Tail.add, x_BD)
            up_BF = skinny_linear(x_BD, weights.up, eps, Tail.relu_squared)
            return skinny_linear(up_BF, weights.down, None, Tail.add, x_BD)
        _, normed_BD = add_norm(x_BD, None, eps)
        y_BD = self._attend(layer, block, F.linear(normed_BD, weights.qkv), x_BD, idx_B1, cache)
        x_BD, normed_BD = add_norm(x_BD, F.linear(y_BD, weights.o), eps)
        up_BF = apply_tail(F.linear(normed_BD, weights.up), Tail.relu_squared)
        return x_BD.addmm_(up_BF, weights.down.T)  # in place: torch.addmm would copy what it adds first

    def _attend(self, layer: int, block: Block, qkv_BN: Tensor, x_BD: Tensor, idx_B1: Tensor, cache: KVCache) -> Tensor:
        attn, dims = block.attn, self.model.dims
        qkv_BHE = qkv_BN.view(len(qkv_BN), -1, attn.head_dim)
        q_BHE, k_BKE, v_BKE = torch.split(qkv_BHE, [dims.n_head, dims.n_kv_head, dims.n_kv_head], dim=1)
        if attn.value_embed is not None:
            normed_B1D = rms_norm(x_BD, block.norm_eps)[:, None]
            v_BKE = attn.value_embed(v_BKE[:, None], normed_B1D, idx_B1)[:, 0]
        return flash_decode(q_BHE, k_BKE, v_BKE, self._turning, cache, self._counters, layer, attn.window)

    def _logits(self, x_BD: Tensor) -> Tensor:
        dims = self.model.dims
        tail = Tail.softcap if dims.logit_softcap > 0 else Tail.none
        if len(x_BD) <= MAX_ROWS:
            logits_BV = skinny_linear(x_BD, self._head, dims.norm_eps, tail, cap=dims.logit_softcap)
        else:
            logits_BV = F.linear(add_norm(x_BD, None, dims.norm_eps)[1], self._head)
            logits_BV = logits_BV if tail == Tail.none else apply_tail(logits_BV, tail, dims.logit_softcap)
        return logits_BV.float()[:, : dims.vocab_size]

    def _matrices(self, block: Block) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype, attn, mlp = self.model.compute_dtype, block.attn, block.mlp
        qkv = torch.cat([p.weight.detach() for p in (attn.q_proj, attn.k_proj, attn.v_proj)]).to(dtype)
        others = (attn.o_proj.weight, mlp.up.weight, mlp.down.weight)
        return (qkv, *(w.detach().to(dtype, copy=True) for w in others))  # type: ignore[return-value]

    def _versions(self) -> list[int]:
        return [source._version for source in self._sources]

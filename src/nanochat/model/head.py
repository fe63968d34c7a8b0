"""The head and its loss: logits, softcap and cross-entropy, a chunk of tokens at a time.

N tokens, C of them in a chunk, D width, V vocabulary, R rows of the head (the spare ones, R - V, have no logit).
The logits of a whole micro-batch are by far its largest tensor: 17 GB in fp32 at 32 rows of 2048 tokens and 65,536
words. Notable: the loss is a sum, so its gradient is that of the sum times one number. So the forward pass makes the
gradients too, while a chunk's logits are there, and the backward pass multiplies them by that number; no product is
computed twice. Softcap, softmax and the weight's gradient are fp32, the products in the dtype of the activations, or
in 8 bits (fp8.py). Padding of the vocabulary never reaches the softmax.

What is here, in plain operations of torch, is the definition and what runs everywhere; compiled for a GPU the same is
one operator (head_fused.py).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.fp8 import E4M3, E5M2, Quantized, fits, product, quantize
from nanochat.model.head_fused import CHUNK, chunk_tokens, loss_and_gradients, terms_of_tokens
from nanochat.model.head_terms import IGNORE as IGNORE
from nanochat.model.head_terms import Terms, terms_alone, terms_and_slope
from nanochat.model.layers import Linear
from nanochat.model.wide import wide, wide_product
from nanochat.plan.dims import ModelDims

_CHUNK = {"cuda": CHUNK}  # C * R at most
_CHUNK_ELSEWHERE = 2**22  # what stays in the cache of a CPU


class Headed(Protocol):
    """What training needs of a network: GPT."""

    dims: ModelDims
    lm_head: Linear

    def hidden(self, idx_BT: Tensor) -> Tensor:
        """The activations (B, T, D) that the head reads."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that is learned."""


def summed_loss(
    model: Headed,
    idx_BT: Tensor,
    targets_BT: Tensor,
    weights_BT: Tensor | None = None,
    *,
    z: float = 0.0,
    smoothing: float = 0.0,
) -> Tensor:
    """The loss summed over the targets, 0-d; `weights` are what each counts, 1 if None. This is what is compiled."""
    terms = Terms(model.dims.vocab_size, model.dims.logit_softcap, z, smoothing)
    hidden_ND, targets_N = model.hidden(idx_BT).flatten(0, 1), targets_BT.flatten()
    weights_N = None if weights_BT is None else weights_BT.flatten()
    return head_loss(hidden_ND, model.lm_head, targets_N, terms, weights_N)


def token_nll(model: Headed, idx_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """-log p(target) in nats (B, T), 0 where there is no target. Without gradients."""
    terms = Terms(model.dims.vocab_size, model.dims.logit_softcap)
    losses_N = _losses(model.hidden(idx_BT).flatten(0, 1), model.lm_head.weight, targets_BT.flatten(), terms)
    return losses_N.view(targets_BT.shape)


def head_loss(
    hidden_ND: Tensor, head: Linear, targets_N: Tensor, terms: Terms, weights_N: Tensor | None = None
) -> Tensor:
    """The sum over the tokens that have a target, 0-d, at least fp32."""
    if not torch.is_grad_enabled():
        losses_N = _losses(hidden_ND, head.weight, targets_N, terms)
        return losses_N.sum() if weights_N is None else (losses_N * weights_N).sum()
    fp8 = head.fp8 and fits(*hidden_ND.shape)
    loss: Tensor = _HeadLoss.apply(hidden_ND, head.weight, targets_N, weights_N, *terms, fp8)  # type: ignore[no-untyped-call]
    return loss


class _HeadLoss(torch.autograd.Function):
    """The sum of `head_loss`; both gradients are made on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_RD: Tensor,
        targets_N: Tensor,
        weights_N: Tensor | None,
        vocab: int,
        cap: float,
        z: float,
        smoothing: float,
        fp8: bool,
    ) -> Tensor:
        terms = Terms(vocab, cap, z, smoothing)
        counts_N = (targets_N != IGNORE).to(wide(hidden_ND))
        if weights_N is not None:
            counts_N = (counts_N * weights_N).to(counts_N.dtype)
        if _is_fused(hidden_ND):
            loss, grad_ND, grad_RD = loss_and_gradients(hidden_ND, weight_RD, targets_N, counts_N, *terms, fp8)
        else:
            products = _Products8.of(weight_RD) if fp8 else _Products.of(weight_RD, hidden_ND.dtype)
            loss, grad_ND, grad_RD = _loss_and_gradients(hidden_ND, products, targets_N, counts_N, terms)
        ctx.save_for_backward(grad_ND, grad_RD)
        ctx.weight_dtype = weight_RD.dtype
        total: Tensor = loss
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_ND, grad_RD = ctx.saved_tensors
        return grad_ND * grads[0], (grad_RD * grads[0]).to(ctx.weight_dtype), *[None] * 7


def _is_fused(hidden_ND: Tensor) -> bool:
    return torch.compiler.is_compiling() and hidden_ND.is_cuda and hidden_ND.dtype != torch.float64


def _loss_and_gradients(
    hidden_ND: Tensor, products: "_Products | _Products8", targets_N: Tensor, counts_N: Tensor, terms: Terms
) -> tuple[Tensor, Tensor, Tensor]:
    """(the sum of counts * terms, its gradient by the activations in their dtype, by the weight at least in fp32)."""
    loss = counts_N.new_zeros(())
    rows, width = products.shape
    grad_RD = counts_N.new_zeros(rows, width)
    grads: list[Tensor] = []
    for hidden_CD, targets_C, counts_C in _chunks(rows, hidden_ND, targets_N, counts_N):
        terms_C, slope_CR = terms_and_slope(products.logits(hidden_CD), targets_C, counts_C, terms)
        grad_CD, part_RD = products.gradients(slope_CR, hidden_CD)
        loss = loss + (terms_C * counts_C).sum()
        grad_RD += part_RD
        grads.append(grad_CD)
    return loss, torch.cat(grads), grad_RD


class _Products(NamedTuple):
    """The head's three products. `weight_RD` in the dtype of the activations."""

    weight_RD: Tensor

    @classmethod
    def of(cls, weight_RD: Tensor, dtype: torch.dtype) -> "_Products":
        return cls(weight_RD.to(dtype))

    @property
    def shape(self) -> torch.Size:
        return self.weight_RD.shape

    def logits(self, hidden_CD: Tensor) -> Tensor:
        return F.linear(hidden_CD, self.weight_RD)

    def gradients(self, slope_CR: Tensor, hidden_CD: Tensor) -> tuple[Tensor, Tensor]:
        """(of the activations in their dtype, of the weight in fp32)."""
        slope_CR = slope_CR.to(hidden_CD.dtype)
        return slope_CR @ self.weight_RD, wide_product(slope_CR.t(), hidden_CD)


class _Products8(NamedTuple):
    """The same in 8 bits. `across_DR` is the transpose, which the second product reads."""

    weight_RD: Quantized
    across_DR: Quantized

    @classmethod
    def of(cls, weight_RD: Tensor) -> "_Products8":
        weight = quantize(weight_RD, E4M3)
        return cls(weight, weight.transposed())

    @property
    def shape(self) -> torch.Size:
        return self.weight_RD.values.shape

    def logits(self, hidden_CD: Tensor) -> Tensor:
        return product(quantize(hidden_CD, E4M3), self.weight_RD, hidden_CD.dtype, fast=True)

    def gradients(self, slope_CR: Tensor, hidden_CD: Tensor) -> tuple[Tensor, Tensor]:
        slope = quantize(slope_CR, E5M2)
        grad_CD = product(slope, self.across_DR, hidden_CD.dtype)
        grad_RD = product(slope.transposed(), quantize(hidden_CD, E4M3).transposed(), torch.float32)
        return grad_CD, grad_RD


def _losses(hidden_ND: Tensor, weight_RD: Tensor, targets_N: Tensor, terms: Terms) -> Tensor:
    """The terms of each token (N,), 0 where there is no target; no gradients."""
    if _is_fused(hidden_ND):
        losses_N: Tensor = terms_of_tokens(hidden_ND, weight_RD, targets_N, *terms)
        return losses_N
    found = []
    weight_RD = weight_RD.to(hidden_ND.dtype)
    for hidden_CD, targets_C in _chunks(len(weight_RD), hidden_ND, targets_N):
        found.append(terms_alone(F.linear(hidden_CD, weight_RD), targets_C, terms) * (targets_C != IGNORE))
    return torch.cat(found)


def _chunks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Equal pieces, but for the last, of tensors of N tokens, so that piece * `rows` stays within the bound."""
    bound = _CHUNK.get(tensors[0].device.type, _CHUNK_ELSEWHERE)
    size = chunk_tokens(len(tensors[0]), rows, bound)
    return zip(*(torch.split(x, size) for x in tensors), strict=True)

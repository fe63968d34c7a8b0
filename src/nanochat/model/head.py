"""The head and its loss: logits, softcap and cross-entropy, a chunk of tokens at a time.

N tokens, C of them in a chunk, D width, V vocabulary, R rows of the head (the spare ones, R - V, have no logit).
The logits of a whole micro-batch are by far its largest tensor: 17 GB in fp32 at 32 rows of 2048 tokens and 65,536
words. Notable: the loss is a sum, so its gradient is that of the sum times one number. So the forward pass makes the
gradients too, while a chunk's logits are there, and the backward pass multiplies them by that number; no product is
computed twice. Softcap, softmax and the weight's gradient are fp32, the products in the dtype of the activations, or
in 8 bits (fp8.py). Padding of the vocabulary never reaches the softmax.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.model.fp8 import E4M3, E5M2, Quantized, fits, product, quantize
from nanochat.model.layers import Linear
from nanochat.plan.dims import ModelDims

IGNORE = -1  # in targets: not a target
# C * R at most. On a GPU 4096 tokens of 65,536 words: products large enough for full speed, 1 GiB of logits and
# gradients in 16 bits. On a CPU what stays in its cache.
_CHUNK = {"cuda": 2**28}
_CHUNK_ELSEWHERE = 2**22
_FEWEST = 256  # tokens of a chunk: each reads and writes the whole gradient of the weight
_ROWS = 128  # a chunk is a multiple of this: whole tiles of a product


class Headed(Protocol):
    """What training needs of a network: GPT."""

    dims: ModelDims
    lm_head: Linear

    def hidden(self, idx_BT: Tensor) -> Tensor:
        """The activations (B, T, D) that the head reads."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that is learned."""


class Terms(NamedTuple):
    """What is summed for a token: (1 - smoothing) * nll + smoothing * (mean nll of all words) + z * log(Z)^2.

    Z is the sum of exp(logits), the logits are cap * tanh(x / cap); cap 0: x itself.
    """

    vocab: int
    cap: float
    z: float = 0.0
    smoothing: float = 0.0


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
        terms, wide = Terms(vocab, cap, z, smoothing), _wide(hidden_ND)
        counts_N = (targets_N != IGNORE).to(wide)
        if weights_N is not None:
            counts_N = counts_N * weights_N
        products = _Products8.of(weight_RD) if fp8 else _Products.of(weight_RD, hidden_ND.dtype)
        loss = hidden_ND.new_zeros((), dtype=wide)
        grad_weight_RD = torch.zeros_like(weight_RD, dtype=wide)
        grads: list[Tensor] = []
        for hidden_CD, targets_C, counts_C in _chunks(len(weight_RD), hidden_ND, targets_N, counts_N):
            part, slope_CR = _loss_and_slope(products.logits(hidden_CD), targets_C, counts_C, terms)
            grad_CD, grad_RD = products.gradients(slope_CR, hidden_CD)
            loss = loss + part
            grad_weight_RD += grad_RD
            grads.append(grad_CD)
        ctx.save_for_backward(torch.cat(grads), grad_weight_RD)
        ctx.weight_dtype = weight_RD.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_ND, grad_RD = ctx.saved_tensors
        return grad_ND * grads[0], (grad_RD * grads[0]).to(ctx.weight_dtype), *[None] * 7


class _Products(NamedTuple):
    """The head's three products. `weight_RD` in the dtype of the activations."""

    weight_RD: Tensor

    @classmethod
    def of(cls, weight_RD: Tensor, dtype: torch.dtype) -> "_Products":
        return cls(weight_RD.to(dtype))

    def logits(self, hidden_CD: Tensor) -> Tensor:
        return F.linear(hidden_CD, self.weight_RD)

    def gradients(self, slope_CR: Tensor, hidden_CD: Tensor) -> tuple[Tensor, Tensor]:
        """(of the activations in their dtype, of the weight in fp32)."""
        slope_CR = slope_CR.to(hidden_CD.dtype)
        return slope_CR @ self.weight_RD, _wide_product(slope_CR.t(), hidden_CD)


class _Products8(NamedTuple):
    """The same in 8 bits. `across_DR` is the transpose, which the second product reads."""

    weight_RD: Quantized
    across_DR: Quantized

    @classmethod
    def of(cls, weight_RD: Tensor) -> "_Products8":
        weight = quantize(weight_RD, E4M3)
        return cls(weight, weight.transposed())

    def logits(self, hidden_CD: Tensor) -> Tensor:
        return product(quantize(hidden_CD, E4M3), self.weight_RD, hidden_CD.dtype, fast=True)

    def gradients(self, slope_CR: Tensor, hidden_CD: Tensor) -> tuple[Tensor, Tensor]:
        slope = quantize(slope_CR, E5M2)
        grad_CD = product(slope, self.across_DR, hidden_CD.dtype)
        grad_RD = product(slope.transposed(), quantize(hidden_CD, E4M3).transposed(), torch.float32)
        return grad_CD, grad_RD


def _wide_product(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """a b in fp32, as the hardware sums it: a rounding to 16 bits for each chunk would add up over the chunks."""
    if a_MK.element_size() > 2:
        return a_MK @ b_KN
    if a_MK.device.type == "cuda" and torch.version.hip is None:
        out_MN: Tensor = _wide_mm(a_MK, b_KN)
        return out_MN
    return a_MK.float() @ b_KN.float()  # there is no such product on a CPU, nor in every version for AMD's GPUs


@torch.library.custom_op("nanochat::wide_mm", mutates_args=(), schema="(Tensor a, Tensor b) -> Tensor")
def _wide_mm(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """Torch's product that returns fp32; an operator of its own since the compiler of torch 2.9 has no such product."""
    return torch.mm(a_MK, b_KN, out_dtype=torch.float32)


@_wide_mm.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((a.shape[0], b.shape[1]), dtype=torch.float32)


def _losses(hidden_ND: Tensor, weight_RD: Tensor, targets_N: Tensor, terms: Terms) -> Tensor:
    """The terms of each token (N,), 0 where there is no target; no gradients."""
    found = []
    weight_RD = weight_RD.to(hidden_ND.dtype)
    for hidden_CD, targets_C in _chunks(len(weight_RD), hidden_ND, targets_N):
        logits_CV, _ = _capped(F.linear(hidden_CD, weight_RD), terms)
        found.append(_terms(logits_CV, logits_CV.logsumexp(-1), targets_C, terms) * (targets_C != IGNORE))
    return torch.cat(found)


def _loss_and_slope(raw_CR: Tensor, targets_C: Tensor, counts_C: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """(counts * terms summed, its derivative by the raw logits), both at least fp32. Overwrites what it can."""
    rows = raw_CR.shape[1]
    logits_CV, bent_CV = _capped(raw_CR, terms)
    log_z_C = logits_CV.logsumexp(-1)
    loss = (_terms(logits_CV, log_z_C, targets_C, terms) * counts_C).sum()
    slope_CV = logits_CV.sub_(log_z_C[:, None]).exp_()
    if terms.z:
        slope_CV *= (1 + 2 * terms.z * log_z_C)[:, None]
    if terms.smoothing:
        slope_CV -= terms.smoothing / terms.vocab
    slope_CV = _subtracted_at(slope_CV, targets_C, 1 - terms.smoothing)
    slope_CV *= counts_C[:, None]
    if bent_CV is not None:
        slope_CV *= bent_CV.square_().neg_().add_(1)
    return loss, slope_CV if terms.vocab == rows else F.pad(slope_CV, (0, rows - terms.vocab))


def _subtracted_at(x_CV: Tensor, targets_C: Tensor, amount: float) -> Tensor:
    """x less `amount` at each token's target; what it does where there is none is not counted."""
    if torch.compiler.is_compiling():  # a comparison melts into the kernel around it, a write at an index does not
        words_V = torch.arange(x_CV.shape[1], device=x_CV.device)
        return torch.where(words_V == targets_C[:, None], x_CV - amount, x_CV)
    at_C1 = targets_C.clamp(min=0)[:, None]
    return x_CV.scatter_add_(1, at_C1, x_CV.new_full(at_C1.shape, -amount))


def _capped(raw_CR: Tensor, terms: Terms) -> tuple[Tensor, Tensor | None]:
    """(cap * tanh(x / cap), the tanh), without a cap (x, None); of the vocabulary, at least fp32. May overwrite x."""
    x_CV = raw_CR[:, : terms.vocab].to(_wide(raw_CR))
    if not terms.cap:
        return x_CV, None
    bent_CV = x_CV.div_(terms.cap).tanh_()
    return bent_CV * terms.cap, bent_CV


def _terms(logits_CV: Tensor, log_z_C: Tensor, targets_C: Tensor, terms: Terms) -> Tensor:
    """What `Terms` says, for each token (C,); of no meaning where there is no target."""
    nll_C = log_z_C - logits_CV.gather(1, targets_C.clamp(min=0)[:, None])[:, 0]
    if terms.smoothing:
        nll_C = (1 - terms.smoothing) * nll_C + terms.smoothing * (log_z_C - logits_CV.mean(-1))
    return nll_C + terms.z * log_z_C.square() if terms.z else nll_C


def _wide(x: Tensor) -> torch.dtype:
    """fp32, or the dtype of x where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def _chunks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Equal pieces, but for the last, of tensors of N tokens, so that piece * `rows` stays within the bound."""
    tokens = len(tensors[0])
    most = max(_FEWEST, _CHUNK.get(tensors[0].device.type, _CHUNK_ELSEWHERE) // rows)
    size = -(-tokens // -(-tokens // most))
    return zip(*(torch.split(x, -(-size // _ROWS) * _ROWS) for x in tensors), strict=True)

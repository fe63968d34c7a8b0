"""The head's loss and both its gradients as one operator that the compiler does not look into.

N tokens, C of them in a chunk, D width, V vocabulary, R rows of the head. Left to itself the compiler makes the logits
of all chunks before it uses the first (seen with torch 2.11). Here a chunk is three products with one pass between
them (head_kernel.py), which writes the slope where the logits were: beside what belongs to the weight, memory is one
chunk in 16 bits. In 8 bits it is half as much more: the slope and, in the place of the logits, its transpose.

The slope needs no search for its largest number: softmax less one-hot is within -1 .. 1 and the other factors are
bounded too, so one scale serves the whole micro-batch. e5m2 has 2^32 from its smallest number to its largest.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nanochat.model.fp8 import E4M3, E5M2, SMALLEST, Quantized, product, quantize
from nanochat.model.head_terms import IGNORE, Terms, terms_alone, terms_and_slope
from nanochat.model.kernels import fast_on
from nanochat.model.wide import add_product, wide

CHUNK = 2**28
"""C * R at most: 512 MiB of logits in 16 bits. Measured on an H200 at widths of 768 to 1536 and vocabularies of 32,768
and 65,536: twice or four times as much gains at most 3 % of the head's time, in 8 bits 6 and 11 %."""
_FEWEST = 256  # tokens of a chunk: each reads and writes the whole gradient of the weight
_ROWS = 128  # a chunk is a multiple of this: whole tiles of a product
_LOG_Z = 1000.0  # taken for the largest log Z where no cap bounds it


@torch.library.custom_op("nanochat::head_loss", mutates_args=())
def loss_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    counts: Tensor,
    vocab: int,
    cap: float,
    z: float,
    smoothing: float,
    fp8: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(sum of counts * terms, 0-d, its gradient by the activations (N, D) in their dtype, by the weight (R, D)).

    `hidden` (N, D), `weight` (R, D), `targets` (N,), `counts` (N,), 0 where there is no target, in fp32, as is what
    comes back; the numbers are `Terms`.
    """
    terms = Terms(vocab, cap, z, smoothing)
    hidden, targets, counts = hidden.contiguous(), targets.contiguous(), counts.contiguous()
    found_N = torch.empty_like(counts)
    grad_ND = hidden.new_empty(hidden.shape)
    grad_RD = counts.new_zeros(weight.shape)
    chunks = _in_8_bits if fp8 else _in_16_bits
    chunks(hidden, weight, targets, counts, terms, found_N, grad_ND, grad_RD)
    return (found_N * counts).sum(), grad_ND, grad_RD


@loss_and_gradients.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    counts: Tensor,
    vocab: int,
    cap: float,
    z: float,
    smoothing: float,
    fp8: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return counts.new_empty(()), hidden.new_empty(hidden.shape), counts.new_empty(weight.shape)


@torch.library.custom_op("nanochat::head_terms", mutates_args=())
def terms_of_tokens(
    hidden: Tensor, weight: Tensor, targets: Tensor, vocab: int, cap: float, z: float, smoothing: float
) -> Tensor:
    """The terms of each token (N,) in fp32, 0 where there is no target."""
    weight_RD, targets = weight.to(hidden.dtype), targets.contiguous()
    found_N = hidden.new_empty(len(hidden), dtype=wide(hidden))
    size = chunk_tokens(len(hidden), len(weight), CHUNK)
    buffer_CR = hidden.new_empty((size, len(weight)))
    for at in _slices(len(hidden), size):
        logits_CR = torch.mm(hidden[at], weight_RD.t(), out=_first(buffer_CR, at))
        _pass_over(logits_CR, targets[at], Terms(vocab, cap, z, smoothing), found_N[at])
    return found_N * (targets != IGNORE)


@terms_of_tokens.register_fake
def _(hidden: Tensor, weight: Tensor, targets: Tensor, vocab: int, cap: float, z: float, smoothing: float) -> Tensor:
    return hidden.new_empty(len(hidden), dtype=wide(hidden))


def _in_16_bits(
    hidden_ND: Tensor,
    weight_RD: Tensor,
    targets_N: Tensor,
    counts_N: Tensor,
    terms: Terms,
    found_N: Tensor,
    grad_ND: Tensor,
    grad_RD: Tensor,
) -> None:
    """Fills `found` and `grad_ND`, adds to `grad_RD`. In the dtype of the activations."""
    weight_RD = weight_RD.to(hidden_ND.dtype)
    size = chunk_tokens(len(hidden_ND), len(weight_RD), CHUNK)
    buffer_CR = hidden_ND.new_empty((size, len(weight_RD)))
    for at in _slices(len(hidden_ND), size):
        slope_CR = logits_CR = torch.mm(hidden_ND[at], weight_RD.t(), out=_first(buffer_CR, at))
        _pass_over(logits_CR, targets_N[at], terms, found_N[at], slope_CR, counts_N[at])
        torch.mm(slope_CR, weight_RD, out=grad_ND[at])
        add_product(grad_RD, slope_CR.t(), hidden_ND[at])


def _in_8_bits(
    hidden_ND: Tensor,
    weight_RD: Tensor,
    targets_N: Tensor,
    counts_N: Tensor,
    terms: Terms,
    found_N: Tensor,
    grad_ND: Tensor,
    grad_RD: Tensor,
) -> None:
    """The same with products in 8 bits; those of the weight's gradient are made beside it, then added."""
    weight = quantize(weight_RD, E4M3)
    across_DR = _transposed(weight)
    unit = slope_unit(counts_N, terms)
    size = chunk_tokens(len(hidden_ND), len(weight_RD), CHUNK)
    buffer_CR = hidden_ND.new_empty((size, len(weight_RD)))
    buffer8_CR = torch.empty_like(buffer_CR, dtype=E5M2)
    part_RD = torch.empty_like(grad_RD)
    for at in _slices(len(hidden_ND), size):
        hidden = quantize(hidden_ND[at], E4M3)
        logits_CR = product(hidden, weight, hidden_ND.dtype, fast=True, out=_first(buffer_CR, at))
        slope = Quantized(_first(buffer8_CR, at), unit)
        _pass_over(logits_CR, targets_N[at], terms, found_N[at], slope.values, counts_N[at] / unit)
        product(slope, across_DR, hidden_ND.dtype, out=grad_ND[at])
        across_RC = _transposed(slope, logits_CR.view(E5M2).flatten()[: slope.values.numel()])
        grad_RD += product(across_RC, _transposed(hidden), torch.float32, out=part_RD)


def slope_unit(counts_N: Tensor, terms: Terms) -> Tensor:
    """What 1 stands for, fp32 and 0-d, when counts * slope is written in e5m2 from a bound instead of its maximum."""
    log_z = terms.cap + math.log(terms.vocab) if terms.cap else _LOG_Z
    bound = 1 + 2 * terms.z * log_z + terms.smoothing / terms.vocab
    return counts_N.abs().amax().clamp(min=SMALLEST) * (bound / torch.finfo(E5M2).max)


def chunk_tokens(tokens: int, rows: int, bound: int) -> int:
    """C for equal chunks, but for the last, so that C * R stays within the bound."""
    most = max(_FEWEST, bound // rows)
    size = -(-tokens // -(-tokens // most))
    return -(-size // _ROWS) * _ROWS


def _slices(tokens: int, size: int) -> Iterator[slice]:
    return (slice(at, min(at + size, tokens)) for at in range(0, tokens, size))


def _first(buffer_CR: Tensor, at: slice) -> Tensor:
    return buffer_CR[: at.stop - at.start]


def _transposed(x: Quantized, out: Tensor | None = None) -> Quantized:
    """As x.transposed(), in the memory of `out`, if given."""
    rows, columns = x.values.shape
    values = (torch.empty_like(x.values) if out is None else out).view(columns, rows)
    if fast_on(values.device):
        from nanochat.model.head_kernel import transpose

        transpose(x.values, values)
    else:
        values.copy_(x.values.t())
    return Quantized(values, x.unit)


def _pass_over(
    logits_CR: Tensor,
    targets_C: Tensor,
    terms: Terms,
    found_C: Tensor,
    slope_CR: Tensor | None = None,
    counts_C: Tensor | None = None,
) -> None:
    """Writes the terms, and counts * their derivative, which may be where the logits are."""
    if fast_on(logits_CR.device):
        from nanochat.model.head_kernel import pass_over

        pass_over(logits_CR, targets_C, terms, found_C, slope_CR, counts_C)
    elif slope_CR is None or counts_C is None:
        found_C.copy_(terms_alone(logits_CR, targets_C, terms))
    else:
        found, slope = terms_and_slope(logits_CR, targets_C, counts_C, terms)
        found_C.copy_(found)
        slope_CR.copy_(slope)

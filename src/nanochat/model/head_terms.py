"""What the loss sums for a token and its derivative by the logits, in plain operations of torch: the definition.

C tokens of a chunk, V vocabulary, R rows of the head (the spare ones, R - V, have no logit). Softcap and softmax are
fp32, or wider. head_kernel.py does the same in one pass on a GPU.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.model.wide import wide

IGNORE = -1  # in targets: not a target


class Terms(NamedTuple):
    """What is summed for a token: (1 - smoothing) * nll + smoothing * (mean nll of all words) + z * log(Z)^2.

    Z is the sum of exp(logits), the logits are cap * tanh(x / cap); cap 0: x itself.
    """

    vocab: int
    cap: float
    z: float = 0.0
    smoothing: float = 0.0


def terms_and_slope(raw_CR: Tensor, targets_C: Tensor, counts_C: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """(terms (C,), the derivative of counts * terms by the raw logits), both at least fp32. May overwrite the logits.

    Terms are of no meaning where there is no target.
    """
    rows = raw_CR.shape[1]
    logits_CV, bent_CV = _capped(raw_CR, terms)
    log_z_C = logits_CV.logsumexp(-1)
    found_C = _terms(logits_CV, log_z_C, targets_C, terms)
    slope_CV = logits_CV.sub_(log_z_C[:, None]).exp_()
    if terms.z:
        slope_CV *= (1 + 2 * terms.z * log_z_C)[:, None]
    if terms.smoothing:
        slope_CV -= terms.smoothing / terms.vocab
    slope_CV = _subtracted_at(slope_CV, targets_C, 1 - terms.smoothing)
    slope_CV *= counts_C[:, None]
    if bent_CV is not None:
        slope_CV *= bent_CV.square_().neg_().add_(1)
    return found_C, slope_CV if terms.vocab == rows else F.pad(slope_CV, (0, rows - terms.vocab))


def terms_alone(raw_CR: Tensor, targets_C: Tensor, terms: Terms) -> Tensor:
    """The terms (C,) without a derivative. May overwrite the logits."""
    logits_CV, _ = _capped(raw_CR, terms)
    return _terms(logits_CV, logits_CV.logsumexp(-1), targets_C, terms)


def _subtracted_at(x_CV: Tensor, targets_C: Tensor, amount: float) -> Tensor:
    """x less `amount` at each token's target; what it does where there is none is not counted."""
    if torch.compiler.is_compiling():  # a comparison melts into the kernel around it, a write at an index does not
        words_V = torch.arange(x_CV.shape[1], device=x_CV.device)
        return torch.where(words_V == targets_C[:, None], x_CV - amount, x_CV)
    at_C1 = targets_C.clamp(min=0)[:, None]
    return x_CV.scatter_add_(1, at_C1, x_CV.new_full(at_C1.shape, -amount))


def _capped(raw_CR: Tensor, terms: Terms) -> tuple[Tensor, Tensor | None]:
    """(cap * tanh(x / cap), the tanh), without a cap (x, None); of the vocabulary, at least fp32. May overwrite x."""
    x_CV = raw_CR[:, : terms.vocab].to(wide(raw_CR))
    if not terms.cap:
        return x_CV, None
    bent_CV = x_CV.div_(terms.cap).tanh_()
    return bent_CV * terms.cap, bent_CV


def _terms(logits_CV: Tensor, log_z_C: Tensor, targets_C: Tensor, terms: Terms) -> Tensor:
    nll_C = log_z_C - logits_CV.gather(1, targets_C.clamp(min=0)[:, None])[:, 0]
    if terms.smoothing:
        nll_C = (1 - terms.smoothing) * nll_C + terms.smoothing * (log_z_C - logits_CV.mean(-1))
    return nll_C + terms.z * log_z_C.square() if terms.z else nll_C

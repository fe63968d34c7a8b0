"""From logits to a token: greedy, or drawn from the top k at a temperature.

B rows, V vocabulary. Notable: every row is drawn on its own, so N samples of one prompt differ from their
first token on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nanochat.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How an answer is drawn. `temperature` 0 is greedy; `top_k` None or 0 keeps the whole vocabulary."""

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0


def sample(logits_BV: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """One token id a row, (B,) int64, from softmax(logits / temperature) over the `top_k` largest logits.

    `generator` must live on the device of the logits. Raises ConfigError for a negative temperature or top_k.
    """
    check_sampling(temperature, top_k)
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    kept = min(top_k or logits_BV.shape[-1], logits_BV.shape[-1])
    if kept == logits_BV.shape[-1]:
        return _draw(logits_BV, temperature, generator)
    top_BK, ids_BK = logits_BV.topk(kept, dim=-1)
    return ids_BK.gather(-1, _draw(top_BK, temperature, generator)[:, None])[:, 0]


def check_sampling(temperature: float, top_k: int | None) -> None:
    """ConfigError for values that mean nothing."""
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"temperature={temperature} must be a number >= 0; 0 takes the likeliest token")
    if top_k is not None and top_k < 0:
        raise ConfigError(f"top_k={top_k} must be >= 1, or 0 for the whole vocabulary")


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    # the largest is moved to 0 before dividing, so that a tiny temperature gives -inf and never inf - inf
    shifted = (logits.float() - logits.float().amax(dim=-1, keepdim=True)) / temperature
    return torch.multinomial(shifted.softmax(dim=-1), 1, generator=generator)[:, 0]

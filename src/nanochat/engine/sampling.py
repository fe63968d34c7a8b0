"""From logits to a token: penalty, temperature, then what is left out by min-p, top-k and top-p, then a draw.

B rows, V vocabulary, C candidates. Notable: every row has settings and a stream of random numbers of its own
(engine/noise.py). What is kept is decided by a threshold on the logits, not by a list of places: of equal logits all
are kept or none, so the draw does not depend on how a device sorts them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import inf, isnan

import torch
from torch import Tensor

from nanochat.engine.noise import gumbel
from nanochat.errors import ConfigError
from nanochat.model.kernels import fast_on

PENALTIES = (0.01, 100)  # beyond, logits leave the range of fp32 or nothing is left to compare
REFUSED = -1  # in place of a token, where the logits were no numbers


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How an answer is drawn.

    temperature          0 takes the likeliest token
    top_k                keeps the k likeliest; None or 0 keeps all
    top_p                keeps the likeliest that together have this probability, among those of top_k (1904.09751)
    min_p                keeps those with at least this share of the likeliest one's probability (2407.01082)
    repetition_penalty   divides positive logits of tokens that occurred, prompt included, multiplies negative ones
                         (1909.05858, section 4.1)
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0


def check_params(params: SamplingParams) -> None:
    """ConfigError for values that mean nothing."""
    p = params
    _check("max_new_tokens", p.max_new_tokens, p.max_new_tokens >= 0, "must be >= 0")
    _check("temperature", p.temperature, 0 <= p.temperature < inf, "must be a number >= 0; 0 takes the likeliest token")
    known = p.top_k is None or 0 <= p.top_k < 2**31
    _check("top_k", p.top_k, known, "must be from 1 to 2,147,483,647, or 0 for the whole vocabulary")
    _check("top_p", p.top_p, 0 < p.top_p <= 1, "must be > 0 and at most 1, which keeps all")
    _check("min_p", p.min_p, 0 <= p.min_p <= 1, "must be from 0, which keeps all, to 1")
    penalty = p.repetition_penalty
    low, high = PENALTIES
    _check("repetition_penalty", penalty, low <= penalty <= high, f"must be from {low} to {high}; 1 changes nothing")
    _check("seed", p.seed, -(2**63) <= p.seed < 2**63, "must fit into 64 bits")


def _check(key: str, value: float | None, allowed: bool, bound: str) -> None:
    if not allowed or (isinstance(value, float) and isnan(value)):
        raise ConfigError(f"{key}={value} {bound}")


@dataclass(frozen=True)
class Settings:
    """SamplingParams of B rows as tensors."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    penalty: Tensor
    key: Tensor

    @classmethod
    def of(cls, rows: Sequence[SamplingParams], keys: Sequence[int], device: torch.device) -> "Settings":
        """From the params and the `stream_key` of each row."""
        floats = [[p.temperature, p.top_p, p.min_p, p.repetition_penalty] for p in rows]
        temperature, top_p, min_p, penalty = torch.tensor(floats).view(-1, 4).T.contiguous().to(device)
        top_k, key = torch.tensor([[p.top_k or 0 for p in rows], keys], dtype=torch.int64).to(device)
        return cls(temperature, top_k, top_p, min_p, penalty, key)

    @classmethod
    def room_for(cls, rows: int, device: torch.device) -> "Settings":
        """Of greedy rows, to be written over."""
        return cls.of([SamplingParams(max_new_tokens=0, temperature=0.0)] * rows, [0] * rows, device)

    def head(self, rows: int) -> "Settings":
        """Those of the first rows; shares memory."""
        return Settings(*(getattr(self, field.name)[:rows] for field in fields(self)))

    def copy_(self, other: "Settings") -> None:
        """Becomes equal to `other`, where it stands."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


@dataclass(frozen=True)
class Mode:
    """Which steps of `draw` the rows of a batch need at all; those left out would change nothing.

    `candidates`: how many of the largest logits top-k and top-p have to look at, 0 for none.
    """

    random: bool
    floored: bool
    candidates: int
    penalised: bool

    @classmethod
    def of(cls, rows: Sequence[SamplingParams], vocab_size: int) -> "Mode":
        """What the given rows need together. The candidates are rounded up, so that there are few different modes."""
        warm = [p for p in rows if p.temperature > 0]
        widest = max((_candidates(p, vocab_size) for p in warm), default=0)
        rounded = 0 if widest == 0 else min(vocab_size, max(64, 1 << (widest - 1).bit_length()))
        floored = rounded > 0 or any(p.min_p > 0 for p in warm)
        return cls(bool(warm), floored, rounded, any(p.repetition_penalty != 1 for p in rows))


def _candidates(params: SamplingParams, vocab_size: int) -> int:
    if params.top_k and params.top_k < vocab_size:
        return params.top_k
    return vocab_size if params.top_p < 1 else 0


def draw(logits_BV: Tensor, settings: Settings, positions_B: Tensor, seen_BV: Tensor | None, mode: Mode) -> Tensor:
    """One token id a row, (B,) int64, to stand at `positions_B`; REFUSED where the logits are not finite.

    `seen_BV` says which tokens occurred in each row; it is needed if a row is penalised.
    """
    logits_BV = logits_BV.float()
    if mode.penalised:
        assert seen_BV is not None
        logits_BV = _penalised(logits_BV, seen_BV, settings.penalty[:, None])
    temperature_B, floor_B = settings.temperature, None
    if mode.floored:
        # the largest becomes 0; then the rest is in units of the temperature, so that shares of probability show
        warm_B = torch.where(temperature_B > 0, temperature_B, 1.0)
        logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / warm_B[:, None]
        floor_B = torch.log(settings.min_p)
        if mode.candidates:
            floor_B = torch.maximum(floor_B, _floor(logits_BV, settings, mode.candidates))
        temperature_B = (temperature_B > 0).float()
    if fast_on(logits_BV.device):
        from nanochat.engine.pick import pick

        return pick(logits_BV, temperature_B, floor_B, settings.key, positions_B, mode.random)
    return _pick(logits_BV, temperature_B, floor_B, settings.key, positions_B, mode.random)


def _pick(
    logits_BV: Tensor, temperature_B: Tensor, floor_B: Tensor | None, keys_B: Tensor, positions_B: Tensor, random: bool
) -> Tensor:
    """argmax of logits / temperature + Gumbel noise over the logits >= floor; at temperature 0 of the logits."""
    largest_B, ids_B = logits_BV.max(dim=-1)
    if random:
        warm_B = torch.where(temperature_B > 0, temperature_B, 1.0)
        # the largest is moved to 0 before dividing, so that a tiny temperature gives -inf and never inf - inf
        scores_BV = (logits_BV - largest_B[:, None]) / warm_B[:, None]
        scores_BV = scores_BV + gumbel(keys_B, positions_B, logits_BV.shape[-1])
        if floor_B is not None:
            scores_BV = torch.where(logits_BV >= floor_B[:, None], scores_BV, -inf)
        ids_B = torch.where(temperature_B > 0, scores_BV.argmax(dim=-1), ids_B)
    return torch.where(largest_B.isfinite(), ids_B, REFUSED)


def _penalised(logits_BV: Tensor, seen_BV: Tensor, penalty_B1: Tensor) -> Tensor:
    changed = torch.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1)
    return torch.where(seen_BV, changed, logits_BV)


def _floor(scaled_BV: Tensor, settings: Settings, candidates: int) -> Tensor:
    """The smallest scaled logit that top-k and top-p keep, (B,); -inf where they keep all."""
    vocab_size = scaled_BV.shape[-1]
    top_BC = scaled_BV.topk(candidates, dim=-1).values
    top_k_B = torch.where(settings.top_k > 0, settings.top_k, vocab_size)
    inside_BC = torch.arange(candidates, device=top_BC.device) < top_k_B[:, None]
    mass_BC = torch.where(inside_BC, top_BC, -inf).softmax(dim=-1)
    before_BC = mass_BC.cumsum(dim=-1) - mass_BC
    top_p_B1 = settings.top_p[:, None]
    kept_BC = inside_BC & ((before_BC < top_p_B1) | (top_p_B1 >= 1))
    last_B1 = kept_BC.sum(dim=-1, keepdim=True).clamp(min=1) - 1
    limited_B = (settings.top_p < 1) | (top_k_B < vocab_size)
    return torch.where(limited_B, top_BC.gather(-1, last_B1)[:, 0], -inf)

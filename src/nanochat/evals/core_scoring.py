"""How likely a model finds the scored tokens of problems: their loss, and whether it would have written them.

B rows, T tokens, D width, V vocabulary, N scored tokens. Notable: what makes this fast is what is left out. Problems
of similar length share a forward pass; where the candidates of a problem begin alike (the shots, the question), that
is read once; and the head, which is most of the work of a small model with a large vocabulary, is asked for the
scored positions alone. Padding is on the right, where a causal model does not see it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.evals.core_forks import ForkedCache
from nanochat.evals.core_prompts import Problem, common_prefix
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer

_MIN_SHARED = 16  # tokens; a shorter common beginning is not worth a forward pass of its own
_LOGITS = 1 << 24  # numbers in a block of logits: 64 MB


class CoreModel(Protocol):
    """What CORE needs of a model, ours or another."""

    device: str

    @property
    def bos(self) -> int:
        """The token that begins every prompt."""

    @property
    def longest(self) -> int:
        """Tokens that it reads at most."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, without bos."""

    def scores(self, batch: Sequence[Problem]) -> tuple[Tensor, Tensor]:
        """Of all scored tokens, candidate after candidate: loss in nats, and whether it is the likeliest token."""

    def cost(self, problem: Problem) -> tuple[int, int]:
        """(rows, tokens a row) that a problem takes of a forward pass."""


class GptScorer:
    """A model of ours. `threads` are for the tokenizer."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, device: str, threads: int = 1) -> None:
        """Cut where the model's training ended: rows longer than it was trained on would measure something else."""
        self.device = device
        self._model, self._tokenizer, self._threads = model, tokenizer, threads
        self.bos, self.longest = tokenizer.bos, model.dims.seq_len

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text."""
        return self._tokenizer.encode_batch(texts, self._threads)

    def cost(self, problem: Problem) -> tuple[int, int]:
        """A prompt that is shared counts once, in a row with the longest tail."""
        shared, longest = shared_tokens(problem), max(len(c.tokens) for c in problem.candidates) - 1
        if shared < _MIN_SHARED:
            return len(problem.candidates), longest
        return 1, shared + len(problem.candidates) * (longest - shared)

    def scores(self, batch: Sequence[Problem]) -> tuple[Tensor, Tensor]:
        """Problems that share a prompt in two passes, the others in one."""
        forked = [shared_tokens(problem) >= _MIN_SHARED for problem in batch]
        hidden: list[list[Tensor]] = [[] for _ in batch]
        for way, kind in ((self._plain, False), (self._forked, True)):
            chosen = [i for i, each in enumerate(forked) if each == kind]
            found = iter(way([batch[i] for i in chosen]) if chosen else ())
            for i in chosen:
                hidden[i] = [next(found) for _ in batch[i].candidates]
        targets = scored_tokens(batch, self.device)
        return judge(torch.cat([each for of_problem in hidden for each in of_problem]), targets, self._model.logits)

    def _plain(self, batch: Sequence[Problem]) -> Iterator[Tensor]:
        """The activations (scored, D) that predict the scored tokens, candidate after candidate."""
        candidates = [c for problem in batch for c in problem.candidates]
        hidden_BTD = self._model.hidden(pad([c.tokens[:-1] for c in candidates], self.bos, self.device))
        for row_TD, candidate in zip(hidden_BTD, candidates, strict=True):
            yield row_TD[candidate.start - 1 : len(candidate.tokens) - 1]

    def _forked(self, batch: Sequence[Problem]) -> Iterator[Tensor]:
        """The same where the candidates of each problem share a prompt."""
        shared = [shared_tokens(problem) for problem in batch]
        prompts = [p.candidates[0].tokens[:n] for p, n in zip(batch, shared, strict=True)]
        ids_BP = pad(prompts, self.bos, self.device)
        cache = ForkedCache(shared, ids_BP.device)
        self._model.hidden(ids_BP, cache)
        owners = [i for i, problem in enumerate(batch) for _ in problem.candidates]
        candidates = [c for problem in batch for c in problem.candidates]
        cache.fork(owners, ids_BP)
        tails = [c.tokens[shared[i] : -1] for i, c in zip(owners, candidates, strict=True)]
        hidden_NTD = self._model.hidden(pad(tails, self.bos, self.device), cache)
        for row_TD, i, candidate in zip(hidden_NTD, owners, candidates, strict=True):
            yield row_TD[candidate.start - 1 - shared[i] : len(candidate.tokens) - 1 - shared[i]]


def shared_tokens(problem: Problem) -> int:
    """Tokens that all candidates begin with and that predict nothing scored; 0 for one that is alone."""
    candidates = problem.candidates
    if len(candidates) == 1:
        return 0
    before = min(candidate.start for candidate in candidates) - 1
    return min(common_prefix([c.tokens for c in candidates]), before)


def scored_tokens(batch: Sequence[Problem], device: str) -> Tensor:
    """The N tokens that are to be predicted, candidate after candidate."""
    ids = [token for problem in batch for c in problem.candidates for token in c.tokens[c.start :]]
    return torch.tensor(ids, dtype=torch.int64, device=device)


def pad(rows: Sequence[Sequence[int]], filler: int, device: str) -> Tensor:
    """(B, T): rows filled up on the right, at least one token wide."""
    longest = max(1, *(len(row) for row in rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows], device=device)


def judge(hidden_ND: Tensor, targets_N: Tensor, head: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(loss in nats, whether the target is the likeliest token) of N positions, a block of them at a time.

    `head` turns (N, D) into logits (N, V).
    """
    losses, hits = [], []
    start, block = 0, 64
    while start < len(targets_N):
        logits_NV = head(hidden_ND[start : start + block]).float()
        targets = targets_N[start : start + block]
        losses.append(F.cross_entropy(logits_NV, targets, reduction="none"))
        hits.append(logits_NV.argmax(dim=-1) == targets)
        start, block = start + len(targets), max(1, _LOGITS // logits_NV.shape[-1])
    if not losses:
        return torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    return torch.cat(losses).cpu(), torch.cat(hits).cpu()


def choose(problem: Problem, losses: Sequence[Tensor], hits: Sequence[Tensor]) -> int | None:
    """The candidate of the lowest mean loss, of equal ones the first; None where no candidate has a scored token.

    Where a single one is to be predicted exactly: 1 if it was, token for token, else 0. Means are taken in float64,
    in which equal losses have equal means whatever their number.
    """
    if problem.gold is None:
        return int(len(hits[0]) > 0 and bool(hits[0].all()))
    means = [loss.double().mean().item() if len(loss) else float("inf") for loss in losses]
    best = min(means)
    return means.index(best) if best < float("inf") else None


def split_scores(batch: Sequence[Problem], values: Tensor) -> list[list[Tensor]]:
    """N values as one tensor for each candidate of each problem."""
    parts = iter(torch.split(values, [c.scored for problem in batch for c in problem.candidates]))
    return [[next(parts) for _ in problem.candidates] for problem in batch]

"""Prompts on their way into a cache of their own, a bounded number of tokens at a time.

P prompts, T time, V vocabulary. Notable: short prompts of different lengths go through one forward pass, padded on the
right, where a causal model cannot see the padding; a long prompt takes several passes, between which others decode.
"""

from collections import deque

import torch
from torch import Tensor

from nanochat.engine.sequence import Sequence
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache


class Request:
    """One prompt and its samples."""

    def __init__(self, prompt_ids: list[int], sequences: list[Sequence]) -> None:
        """Waits."""
        self.prompt_ids = prompt_ids
        self.sequences = sequences

    @property
    def wanted(self) -> bool:
        """Whether any of its samples has not been cancelled."""
        return any(sequence.finish is None for sequence in self.sequences)


class Prefill:
    """The prompts of some requests; `cache` and `logits_PV` are complete once `done`."""

    def __init__(self, model: GPT, requests: list[Request], chunk: int, device: torch.device) -> None:
        """At most `chunk` tokens will be computed in one pass, so several prompts must fit into it together."""
        self.requests = requests
        self._prompts = [request.prompt_ids for request in requests]
        self._longest = max(map(len, self._prompts))
        assert len(requests) == 1 or len(requests) * self._longest <= chunk
        self._model, self._chunk, self._device = model, chunk, device
        self._at = 0
        self.cache = KVCache(model.dims, len(requests), self._longest, device, model.compute_dtype)
        self.logits_PV: Tensor | None = None

    @property
    def done(self) -> bool:
        """All prompts are in the cache."""
        return self._at == self._longest

    def step(self) -> None:
        """One forward pass."""
        end = min(self._longest, self._at + self._chunk)
        news = [len(prompt) for prompt in self._prompts] if len(self._prompts) > 1 else [end - self._at]
        padded = [prompt[self._at : end] + [0] * (end - max(self._at, len(prompt))) for prompt in self._prompts]
        self.cache.expect(news)
        hidden_PTD = self._model.hidden(torch.tensor(padded, device=self._device), self.cache)
        self._at = end
        if self.done:
            last_P = torch.tensor(news).to(self._device) - 1
            self.logits_PV = self._model.logits(hidden_PTD[torch.arange(len(news), device=self._device), last_P])


def next_group(waiting: "deque[Request]", rows: int, chunk: int) -> list[Request]:
    """Takes the requests from the queue, in order, that one forward pass of `chunk` tokens can hold; at least one.

    More than one only as long as all their samples fit into `rows`.
    """
    group: list[Request] = []
    longest = samples = 0
    while waiting:
        longest = max(longest, len(waiting[0].prompt_ids))
        samples += len(waiting[0].sequences)
        if group and (samples > rows or (len(group) + 1) * longest > chunk):
            break
        group.append(waiting.popleft())
    return group

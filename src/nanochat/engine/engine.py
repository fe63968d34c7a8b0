"""Text generation with a KV cache: one prompt many times, or many prompts of different lengths at once.

B rows, T time, V vocabulary. Notable: a prompt is computed once and its cache copied to all its samples; prompts of
different lengths are padded on the right, where a causal model cannot see the padding, and each row then goes on
at its own position. Rows that are finished leave the batch when half of it is. At temperature 0 all of
this gives the tokens of the plain forward pass.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from nanochat.engine.row import Row, Token
from nanochat.engine.sampling import check_sampling, sample
from nanochat.errors import ConfigError
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.tokenizer.bpe import Tokenizer

Column = list[Token | None]


class Engine:
    """A model that writes. `model` is the plain module (not its compiled wrapper) and lies on `device`."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, device: str | torch.device) -> None:
        """The tokenizer must be the one the model was trained with."""
        self.model = model
        self.tokenizer = tokenizer
        self.device = torch.device(device)

    def generate(
        self,
        prompt_ids: list[int],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> Iterator[Column]:
        """`num_samples` continuations of one prompt, a column a step: a Token a sample, None for those finished.

        The stop token is part of the column it stops. Ends when all have stopped, after `max_new_tokens` columns,
        or where the rotary tables end. Raises ConfigError (at once) for an empty or too long prompt.
        """
        check_sampling(temperature, top_k)
        room = self._room([prompt_ids], max_new_tokens)
        cache, logits_BV = self._prefill([prompt_ids], room)
        if num_samples > 1:
            cache, logits_BV = cache.select([0] * num_samples), logits_BV.expand(num_samples, -1)
        return self._decode(cache, logits_BV, room, temperature, top_k, seed)

    def generate_batch(
        self,
        prompts: list[list[int]],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
        rows: int = 32,
    ) -> list[list[int]]:
        """One continuation for each prompt, in their order: the new tokens, tool output included, the stop token not.

        Computed `rows` prompts at a time, the longest first. Raises ConfigError as `generate` does.
        """
        check_sampling(temperature, top_k)
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        answers: list[list[int]] = [[] for _ in prompts]
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            room = self._room([prompts[i] for i in chosen], max_new_tokens)
            cache, logits_BV = self._prefill([prompts[i] for i in chosen], room)
            for column in self._decode(cache, logits_BV, room, temperature, top_k, seed + start):
                for i, token in zip(chosen, column, strict=True):
                    if token is not None and not (token.id in self._stops and not token.forced):
                        answers[i].append(token.id)
        return answers

    @property
    def _stops(self) -> set[int]:
        return {self.tokenizer.special("<|assistant_end|>"), self.tokenizer.bos}

    def _room(self, prompts: list[list[int]], max_new_tokens: int) -> int:
        """How many tokens can follow the longest prompt."""
        longest, limit = max(map(len, prompts)), self.model.max_positions
        if min(map(len, prompts)) == 0:
            raise ConfigError("an empty prompt: it needs at least <|bos|>")
        if longest >= limit:
            raise ConfigError(f"a prompt of {longest} tokens is too long, this model reaches {limit} positions")
        return max(0, min(max_new_tokens, limit - longest))

    @torch.inference_mode()
    def _prefill(self, prompts: list[list[int]], room: int) -> tuple[KVCache, Tensor]:
        """The cache of all prompts, with `room` positions to spare, and the logits (B, V) that follow them."""
        lengths = [len(prompt) for prompt in prompts]
        longest = max(lengths)
        padded = [prompt + [0] * (longest - len(prompt)) for prompt in prompts]
        cache = KVCache(self.model.dims, len(prompts), longest + room, self.device, self.model.compute_dtype)
        cache.expect(lengths)
        hidden_BTD = self.model.hidden(torch.tensor(padded, device=self.device), cache)
        last = hidden_BTD[torch.arange(len(prompts), device=self.device), cache.lengths_B - 1]
        return cache, self.model.logits(last)

    def _decode(
        self, cache: KVCache, logits_BV: Tensor, steps: int, temperature: float, top_k: int | None, seed: int
    ) -> Iterator[Column]:
        """Columns until all rows are done. `live[i]` is the row that stands at place i of the cache."""
        generator = torch.Generator(self.device).manual_seed(seed)
        rows = [Row(self.tokenizer) for _ in range(cache.rows)]
        live = list(range(cache.rows))
        for step in range(steps):
            sampled = sample(logits_BV, temperature, top_k, generator).tolist()
            column: Column = [None] * len(rows)
            for place, row in enumerate(live):
                column[row] = rows[row].take(sampled[place])
            yield column
            keep = [place for place, row in enumerate(live) if not rows[row].done]
            if not keep or step == steps - 1:
                return
            if len(keep) <= len(live) // 2:
                cache, live = cache.select(keep), [live[place] for place in keep]
            logits_BV = self._next_logits(cache, [_id_of(column[row]) for row in live])

    @torch.inference_mode()
    def _next_logits(self, cache: KVCache, ids: list[int]) -> Tensor:
        """One token more in every row -> (B, V)."""
        idx_BT = torch.tensor(ids, device=self.device)[:, None]
        return self.model.logits(self.model.hidden(idx_BT, cache)[:, -1])


def _id_of(token: Token | None) -> int:
    """A finished row goes on with an arbitrary token until it leaves the batch."""
    return 0 if token is None else token.id

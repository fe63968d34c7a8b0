"""Text generation: requests come in, all that are live are written together, finished ones make room for waiting ones.

Notable: a prompt is computed once and its cache copied to all its samples; prompts of different lengths share a batch,
each row at its own position; a long prompt is read in pieces, between which the others go on. At temperature 0 all of
this gives the tokens of the plain forward pass. One thread owns an engine and calls it.
"""

from collections import deque
from collections.abc import Iterator

import torch

from nanochat.engine.batch import Batch
from nanochat.engine.prefill import Prefill, Request, next_group
from nanochat.engine.reading import Reading
from nanochat.engine.row import Token
from nanochat.engine.sampling import REFUSED, SamplingParams, check_params
from nanochat.engine.sequence import Sequence
from nanochat.errors import ConfigError, CorruptError
from nanochat.model.gpt import GPT
from nanochat.runtime.host_memory import available_memory
from nanochat.tokenizer.bpe import Tokenizer

Column = list[Token | None]
_UNKNOWN_MEMORY = 2 << 30  # bytes for keys and values where the system does not say what is free


class Engine:
    """A model that writes. `model` is the plain module (not its compiled wrapper) and lies on `device`."""

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        device: str | torch.device,
        *,
        max_rows: int = 128,
        prefill_tokens: int = 8192,
        cache_bytes: int | None = None,
        plain: bool = False,
    ) -> None:
        """The tokenizer must be the one the model was trained with.

        `max_rows`: how many sequences are written at a time. `prefill_tokens`: how many tokens of prompts are computed
        in one forward pass, which bounds both its memory and how long the others wait for it. `cache_bytes`: memory for
        keys and values at most; None takes what is sensible on the device. `plain`: no kernels of our own and no CUDA
        graphs, but one operation of torch after the other, which is what everything else is compared with.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self.prefill_tokens = prefill_tokens
        self._waiting: deque[Request] = deque()
        self._prefill: Prefill | None = None
        self._arrivals: deque[tuple[Prefill, int, Sequence]] = deque()  # prefilled, waiting for a row
        self._ended: list[Sequence] = []  # to be reported by the next step
        self._readings: deque[Reading] = deque()  # drawn, and not yet known to the host
        budget = _sensible(self.device) if cache_bytes is None else cache_bytes
        self._batch = Batch(model, self.device, max_rows, budget, plain)

    def submit(self, prompt_ids: list[int], params: SamplingParams, *, num_samples: int = 1) -> list[Sequence]:
        """`num_samples` continuations of a prompt, which the coming steps will write.

        Raises ConfigError at once for params that mean nothing and for an empty or too long prompt.
        """
        room = self._check(prompt_ids, params, num_samples)
        limit = min(params.max_new_tokens, room)
        sequences = [Sequence(self.tokenizer, prompt_ids, params, i, limit) for i in range(num_samples)]
        if limit:
            self._waiting.append(Request(prompt_ids, sequences))
        else:
            self._ended += sequences
        return sequences

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """One token more for all live sequences, after waiting ones were let in.

        Returns those that got tokens or ended; none, while a long prompt is being read and nothing else is live.
        Raises CorruptError if the model's logits are no numbers; all sequences are then cancelled.
        """
        touched = dict.fromkeys(self._ended)
        self._ended = []
        self._batch.leave()
        self._admit()
        if not self._behind:
            self._collect(0, touched)
            self._batch.leave()
        if self._batch.live:
            self._batch.force(self._corrections())
            self._readings.append(Reading(list(self._batch.live), self._batch.step()))
            self._collect(1 if self._behind else 0, touched)
        else:
            self._collect(0, touched)
        return list(touched)

    def cancel(self, sequence: Sequence) -> None:
        """It gets no more tokens, and its row is free for another."""
        if sequence.finish is None:
            sequence.finish = "cancelled"
            self._ended.append(sequence)

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        held = (self._ended, self._waiting, self._prefill, self._arrivals, self._readings)
        return any(held) or any(not sequence.leaving for sequence in self._batch.live)

    @property
    def _behind(self) -> bool:
        """On a GPU a step is launched before the tokens of the one before are read, so that it never waits for us."""
        return self.device.type == "cuda"

    def generate(self, prompt_ids: list[int], params: SamplingParams, *, num_samples: int = 1) -> Iterator[Column]:
        """`num_samples` continuations of one prompt, a column a step: a Token a sample, None for those finished.

        The stop token is part of the column it stops. Ends when all have stopped, after `max_new_tokens` columns,
        or where the rotary tables end. Closing the iterator cancels what is under way. Raises as `submit` does, at
        once; the work begins with the first column.
        """
        self._check(prompt_ids, params, num_samples)
        return self._columns(prompt_ids, params, num_samples)

    def generate_batch(
        self, prompts: list[list[int]], params: SamplingParams, *, num_samples: int = 1
    ) -> list[list[int]]:
        """`num_samples` continuations of each prompt, in the order of the prompts: the new tokens, tool output
        included, the stop token not.

        Raises ConfigError as `submit` does.
        """
        for prompt in prompts:
            self._check(prompt, params, num_samples)
        answers: dict[int, list[Sequence]] = {}
        for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):  # similar lengths are prefilled together
            answers[i] = self.submit(prompts[i], params, num_samples=num_samples)
        self._run([sequence for samples in answers.values() for sequence in samples])
        return [_answer(sequence) for i in range(len(prompts)) for sequence in answers[i]]

    def _columns(self, prompt_ids: list[int], params: SamplingParams, num_samples: int) -> Iterator[Column]:
        sequences = self.submit(prompt_ids, params, num_samples=num_samples)
        try:
            for i in range(sequences[0].limit):
                while any(s.finish is None and len(s.tokens) <= i for s in sequences):
                    self.step()
                column: Column = [s.tokens[i] if i < len(s.tokens) else None for s in sequences]
                if not any(column):
                    return
                yield column
        finally:
            for sequence in sequences:
                self.cancel(sequence)

    def _run(self, sequences: list[Sequence]) -> None:
        """Steps until all of these have ended."""
        try:
            while any(sequence.finish is None for sequence in sequences):
                self.step()
        finally:
            for sequence in sequences:
                self.cancel(sequence)

    def _check(self, prompt_ids: list[int], params: SamplingParams, num_samples: int) -> int:
        """How many tokens can follow the prompt."""
        check_params(params)
        limit, vocab_size = self.model.max_positions, self.model.dims.vocab_size
        if num_samples < 1:
            raise ConfigError(f"num_samples={num_samples} must be >= 1")
        if not prompt_ids:
            raise ConfigError("an empty prompt: it needs at least <|bos|>")
        if len(prompt_ids) >= limit:
            raise ConfigError(f"a prompt of {len(prompt_ids)} tokens is too long, this model reaches {limit} positions")
        low, high = min(prompt_ids), max(prompt_ids)
        if low < 0 or high >= vocab_size:
            raise ConfigError(f"token ids from {low} to {high} in a prompt; this model has 0 to {vocab_size - 1}")
        return limit - len(prompt_ids)

    def _admit(self) -> None:
        """Lets prefilled sequences into free rows; if there are none, does one forward pass of prefill."""
        if not self._arrivals and len(self._batch.live) < self._batch.max_rows:
            self._read_prompts()
        while self._arrivals:
            prefill = self._arrivals[0][0]
            group = [(row, s) for p, row, s in self._arrivals if p is prefill]
            wanted = [(row, s) for row, s in group if s.finish is None]
            entering = wanted[: self._batch.room([s for _, s in wanted])]
            if entering:
                sequences = [s for _, s in entering]
                self._readings.append(Reading(sequences, self._batch.enter(prefill, entering)))
            for _ in group:
                self._arrivals.popleft()
            if left := wanted[len(entering) :]:
                self._arrivals.extendleft((prefill, row, s) for row, s in reversed(left))
                return

    def _read_prompts(self) -> None:
        while self._waiting and not self._waiting[0].wanted:
            self._waiting.popleft()
        if self._prefill is None and self._waiting:
            free = self._batch.max_rows - len(self._batch.live)
            group = next_group(self._waiting, free, self.prefill_tokens)
            self._prefill = Prefill(self.model, group, self.prefill_tokens, self.device)
        if (prefill := self._prefill) is None:
            return
        if any(request.wanted for request in prefill.requests):
            prefill.step()
        else:
            self._prefill = None
        if prefill.done:
            self._prefill = None
            for row, request in enumerate(prefill.requests):
                self._arrivals.extend((prefill, row, sequence) for sequence in request.sequences)

    def _collect(self, left: int, touched: dict[Sequence, None]) -> None:
        """Hands out drawn tokens, the oldest first, until `left` readings are under way."""
        while len(self._readings) > left:
            reading = self._readings.popleft()
            for sequence, sampled in zip(reading.sequences, reading.ids(), strict=True):
                if sampled == REFUSED and sequence.finish is None:
                    self._refuse()
                if sequence.accept(sampled):
                    touched[sequence] = None

    def _corrections(self) -> list[tuple[int, int]]:
        """(slot, id) where the tool decided what the coming step has to read, whatever was sampled."""
        found = []
        for slot, sequence in enumerate(self._batch.live):
            if sequence.drawn > len(sequence.tokens):  # the token in question is under way
                if (forced := sequence.forced_next) is not None:
                    found.append((slot, forced))
            elif sequence.tokens[-1].forced:
                found.append((slot, sequence.tokens[-1].id))
        return found

    def _refuse(self) -> None:
        """Gives up: nothing that is asked of such a model has an answer."""
        prefilling = self._prefill.requests if self._prefill else []
        for sequence in [s for request in (*self._waiting, *prefilling) for s in request.sequences]:
            self.cancel(sequence)
        for sequence in [*self._batch.live, *(s for _, _, s in self._arrivals)]:
            self.cancel(sequence)
        self._readings.clear()
        raise CorruptError(
            "the model's logits are not finite numbers, so no token can be drawn: its weights are broken, "
            "take an earlier checkpoint"
        )


def _sensible(device: torch.device) -> int:
    """Bytes for keys and values: most of what is free on a GPU, half of what the processor's memory has free."""
    if device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    free = available_memory()
    return _UNKNOWN_MEMORY if free is None else free // 2


def _answer(sequence: Sequence) -> list[int]:
    tokens = sequence.tokens[:-1] if sequence.finish == "stop" else sequence.tokens
    return [token.id for token in tokens]

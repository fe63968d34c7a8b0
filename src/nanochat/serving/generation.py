"""One request from its prompts to the pieces of its answers, the same for both endpoints and both ways to send them.

Notable: leaving the `async with` cancels whatever still runs: after the end, at an error, and when the client has
gone, which cancels the coroutine.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType

from nanochat.engine.sampling import SamplingParams
from nanochat.serving.choice import Choice
from nanochat.serving.errors import invalid
from nanochat.serving.metrics import Metrics
from nanochat.serving.protocol import ChatRequest, Common
from nanochat.serving.service import Service
from nanochat.serving.ticket import Piece, Ticket


class Generation:
    """`choices` in OpenAI's order: all answers to the first prompt, then those to the second."""

    def __init__(self, service: Service, metrics: Metrics, request: Common, prompts: Sequence[list[int]]) -> None:
        """Raises ApiError for what cannot be asked of this server; nothing runs yet."""
        self._service = service
        self._metrics = metrics
        self._prompts = prompts
        self._rows = request.n or 1
        total, limit = self._rows * len(prompts), service.limits.max_choices
        if total > limit:
            raise invalid(f"n={self._rows}: {total} answers in all, this server gives at most {limit} a request", "n")
        self._params = [_sampling(service, request, prompt) for prompt in prompts]
        self.choices = [Choice(service.tokenizer, request.stops) for _ in range(total)]
        self._tickets: list[Ticket] = []

    async def __aenter__(self) -> "Generation":
        """Queues it and waits until the engine has taken it. Raises ApiError: full, loading, ending, refused."""
        self._began = time.perf_counter()
        seeded = zip(self._prompts, self._params, strict=True)
        self._tickets = self._service.submit(list(seeded), self._rows)
        try:
            for ticket in self._tickets:
                await ticket.until_accepted()
        except BaseException:
            self._leave()
            raise
        self._metrics.prompt_tokens.inc(self.prompt_tokens)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancels what still runs and counts what was written."""
        self._leave()
        self._metrics.generated_tokens.inc(self.completion_tokens)

    def _leave(self) -> None:
        self._service.leave(self._tickets)
        self._tickets = []

    @property
    def prompt_tokens(self) -> int:
        """Each prompt once, however many answers it gets."""
        return sum(map(len, self._prompts))

    @property
    def completion_tokens(self) -> int:
        """Of all answers together."""
        return sum(choice.tokens for choice in self.choices)

    def usage(self) -> dict[str, int]:
        """The counts as OpenAI's clients read them."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    async def pieces(self) -> AsyncGenerator[tuple[int, str], None]:
        """(number of the choice, text it has got), until all choices have their finish_reason. Raises ApiError."""
        waiting = {asyncio.ensure_future(t.take()): i for i, t in enumerate(self._tickets)}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    number = waiting.pop(future)
                    for piece in future.result():
                        index = number * self._rows + piece.index
                        if self.choices[index].finish_reason is None:
                            yield index, self._add(number, index, piece)
                    if not self._complete(number):
                        waiting[asyncio.ensure_future(self._tickets[number].take())] = number
        finally:
            for future in waiting:
                future.cancel()

    def _add(self, number: int, index: int, piece: Piece) -> str:
        if self.completion_tokens == 0 and piece.ids:
            self._metrics.first_token.observe(time.perf_counter() - self._began)
        choice = self.choices[index]
        text = choice.push(piece.ids, piece.finish)
        if choice.finish_reason is not None and piece.finish is None:
            self._service.stop_row(self._tickets[number], piece.index)  # a stop string: the engine does not know it
        return text

    def _complete(self, number: int) -> bool:
        own = self.choices[number * self._rows : (number + 1) * self._rows]
        return all(choice.finish_reason is not None for choice in own)


def _sampling(service: Service, request: Common, prompt: list[int]) -> SamplingParams:
    """What the request says, else the server's defaults; top_p=0 means the likeliest token, as temperature 0 does.

    A top_k beyond the vocabulary is cut: one that fits into no tensor would end the engine, for whoever else asks too.
    """
    defaults = service.defaults
    temperature = defaults.temperature if request.temperature is None else request.temperature
    top_k = defaults.top_k if request.top_k is None else request.top_k
    return SamplingParams(
        max_new_tokens=_answer_tokens(service, request, len(prompt)),
        temperature=0.0 if request.top_p == 0 else temperature,
        top_k=min(top_k, service.tokenizer.vocab_size) if top_k is not None and top_k > 0 else None,
        top_p=request.top_p or 1.0,
        min_p=request.min_p or 0.0,
        repetition_penalty=request.repetition_penalty or 1.0,
        seed=secrets.randbits(63) if request.seed is None else request.seed % 2**63,
    )


def _answer_tokens(service: Service, request: Common, prompt_length: int) -> int:
    """An upper bound: what is asked, but no further than the context reaches."""
    chat = isinstance(request, ChatRequest)
    asked = (request.max_completion_tokens if chat else None) or request.max_tokens  # type: ignore[attr-defined]
    if asked is not None and asked > service.max_tokens:
        name = "max_tokens" if request.max_tokens is not None else "max_completion_tokens"
        raise invalid(f"{name}={asked}: this server writes at most {service.max_tokens} tokens an answer", name)
    default = service.max_tokens if chat else service.defaults.completion_tokens
    return min(asked or default, service.max_tokens, service.context - prompt_length)

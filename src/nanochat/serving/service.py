"""The replicas together: who takes a request, when there is no room, loading and ending.

Notable: the queue's length is a matter of arithmetic. A replica holds `max_rows` answers being written and `max_queue`
that wait; one more is refused at once with 429, which does not depend on how fast the engine's thread looks.
"""

import asyncio
from collections.abc import Callable, Sequence

from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.serving.errors import ApiError, engine_failed, invalid, shutting_down
from nanochat.serving.limits import Defaults, Limits
from nanochat.serving.ticket import Ticket
from nanochat.serving.worker import Worker
from nanochat.tokenizer.bpe import Tokenizer


class Service:
    """A model behind an API. `model` is its name there, `context` the positions it was trained for."""

    def __init__(
        self,
        *,
        model: str,
        tokenizer: Tokenizer,
        context: int,
        engines: Sequence[Callable[[], Engine]],
        limits: Limits,
        defaults: Defaults,
        aliases: Sequence[str] = (),
        created: int = 0,
    ) -> None:
        """One replica for each of `engines`, which are called in the replica's own thread.

        `aliases` are further names of the model; `created` is in seconds since the epoch.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.context = context
        self.limits = limits
        self.defaults = defaults
        self.names = frozenset({model, *aliases})
        self.created = created
        self.workers = [Worker(f"engine-{i}", make) for i, make in enumerate(engines)]
        self.longest_token = max(tokenizer.token_bytes)
        self.closing = False
        self._homes: dict[Ticket, Worker] = {}
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Begins to load the replicas; returns at once."""
        for worker in self.workers:
            worker.start(self._changed.set)

    async def until_loaded(self) -> None:
        """Waits until no replica is loading. Raises what one of them failed with."""
        while any(worker.state == "loading" for worker in self.workers):
            await self._changed.wait()
            self._changed.clear()
        for worker in self.workers:
            if worker.failure is not None:
                raise worker.failure

    @property
    def max_tokens(self) -> int:
        """The most tokens that one answer may have."""
        return min(self.limits.max_tokens or self.context, self.context)

    @property
    def status(self) -> str:
        """ok, degraded (some replicas have failed), loading, failed or closing. The first two answer requests."""
        states = [worker.state for worker in self.workers]
        if self.closing:
            return "closing"
        if "ready" in states:
            return "degraded" if "failed" in states else "ok"
        return "loading" if "loading" in states else "failed"

    def submit(self, prompts: Sequence[tuple[list[int], SamplingParams]], rows: int) -> list[Ticket]:
        """A ticket a prompt (ids, how to draw), `rows` answers each, with the replicas that have the least to do.

        All of them or none. Raises ApiError: 503 while nobody can answer, 429 when the queue is full.
        """
        ready = self._ready()
        capacity = self.limits.max_rows + self.limits.max_queue
        if rows > capacity or rows * len(prompts) > capacity * len(self.workers):
            raise invalid(f"{rows * len(prompts)} answers are more than this server can hold at a time", "n")
        loads = {worker: worker.load for worker in ready}
        homes = []
        for _ in prompts:
            worker = min(ready, key=loads.__getitem__)
            loads[worker] += rows
            homes.append(worker)
        if max(loads[worker] for worker in homes) > capacity:
            raise ApiError(429, self._full(loads), code="queue_full", retry_after=1)
        tickets = [Ticket(ids, params, rows) for ids, params in prompts]
        for worker, ticket in zip(homes, tickets, strict=True):
            self._homes[ticket] = worker
            worker.submit(ticket)
        return tickets

    def _ready(self) -> list[Worker]:
        ready = [worker for worker in self.workers if worker.state == "ready"]
        if self.closing:
            raise shutting_down()
        if not ready:
            if self.status == "loading":
                raise ApiError(503, "the model is being loaded", code="loading", retry_after=5)
            raise ApiError(503, f"no replica can answer: {engine_failed().message}", code="engine")
        return ready

    def _full(self, loads: dict[Worker, int]) -> str:
        return (
            f"the queue is full: {self.limits.max_rows} answers are written at the same time on each of {len(loads)} "
            f"replicas and {self.limits.max_queue} more may wait; try again later"
        )

    def stop_row(self, ticket: Ticket, index: int) -> None:
        """The rest of this answer is not needed."""
        self._homes[ticket].cancel(ticket, index)

    def leave(self, tickets: Sequence[Ticket]) -> None:
        """The request is over; what its rows still do is cancelled."""
        for ticket in tickets:
            self._homes.pop(ticket).cancel(ticket)

    @property
    def live_rows(self) -> int:
        """Answers that are being written."""
        return sum(worker.load - worker.waiting for worker in self.workers)

    @property
    def waiting_rows(self) -> int:
        """Answers that wait for their first token."""
        return sum(worker.waiting for worker in self.workers)

    async def close(self) -> None:
        """Takes no more requests; those under way get `grace_seconds` and then an error."""
        self.closing = True
        end = asyncio.get_running_loop().time() + self.limits.grace_seconds
        while any(worker.load for worker in self.workers) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        for worker in self.workers:
            worker.fail_open(shutting_down())
            worker.stop()

    async def join(self, seconds: float = 3.0) -> None:
        """After `close`: waits for the threads, which end after the step they are in."""
        await asyncio.gather(*(asyncio.to_thread(worker.join, seconds) for worker in self.workers))

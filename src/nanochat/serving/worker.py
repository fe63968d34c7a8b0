"""One replica: an engine and the thread that owns it.

Notable: an Engine is not thread-safe, so nothing but its thread touches it. Orders come in through a thread-safe
queue and are read between two steps; tokens go out by `call_soon_threadsafe`, all of a step in one call. What the
event loop knows of the replica (`load`, `state`) is changed in the event loop's thread alone.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from nanochat.engine.engine import Engine
from nanochat.engine.sequence import Sequence
from nanochat.errors import ConfigError
from nanochat.serving.errors import ApiError, engine_failed, invalid, shutting_down
from nanochat.serving.ticket import Ticket

LOG = logging.getLogger("nanochat.serving")


class _Live(NamedTuple):
    """Whose a sequence is, and how many of its tokens have been delivered."""

    ticket: Ticket
    row: int
    sent: int


Delivery = tuple[Ticket, int, list[int], str | None]
Order = tuple[str, Ticket | None, int]  # what, whose, which of its rows


class Worker:
    """`state` is loading, ready, failed or stopped; `failure` the exception behind failed."""

    def __init__(self, name: str, make_engine: Callable[[], Engine]) -> None:
        """`make_engine` is called in the worker's thread."""
        self.name = name
        self.state = "loading"
        self.failure: BaseException | None = None
        self._make_engine = make_engine
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._open: set[Ticket] = set()  # those with pending rows
        self._live: dict[Sequence, _Live] = {}  # the thread's own
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # --- in the event loop's thread

    def start(self, on_change: Callable[[], None]) -> None:
        """Begins to load, in the running event loop. `on_change` is called in it when the state changes."""
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._thread.start()

    @property
    def load(self) -> int:
        """Rows that are being written or wait."""
        return sum(ticket.pending for ticket in self._open)

    @property
    def waiting(self) -> int:
        """Rows without a token yet."""
        return sum(ticket.pending for ticket in self._open if not ticket.started)

    def submit(self, ticket: Ticket) -> None:
        """Hands the ticket to the engine. It is told of everything else."""
        self._open.add(ticket)
        self._orders.put(("submit", ticket, 0))

    def cancel(self, ticket: Ticket, index: int | None = None) -> None:
        """Nobody wants the rest of this answer; of all the ticket's, without an index."""
        if ticket in self._open:
            for row in range(ticket.rows) if index is None else (index,):
                self._orders.put(("cancel", ticket, row))

    def fail_open(self, error: ApiError) -> None:
        """Ends all that is under way with this error; the engine stops working on it."""
        for ticket in list(self._open):
            self.cancel(ticket)
            ticket.fail(error)
        self._open.clear()

    def stop(self) -> None:
        """Asks the thread to end after its present step."""
        self._orders.put(("stop", None, 0))

    def join(self, seconds: float) -> None:
        """Waits for the thread, which is a daemon: one that hangs does not keep the process."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for ticket, index, ids, finish in deliveries:
            if ticket in self._open:
                ticket.deliver(index, ids, finish)
                if not ticket.pending:
                    self._open.discard(ticket)

    def _refuse(self, ticket: Ticket, error: ApiError) -> None:
        self._open.discard(ticket)
        ticket.fail(error)

    def _become(self, state: str, failure: BaseException | None = None) -> None:
        self.state, self.failure = state, failure
        if state in ("failed", "stopped"):
            self.fail_open(engine_failed() if failure else shutting_down())
        self._on_change()

    # --- in the replica's thread

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(function, *args)

    def _run(self) -> None:
        try:
            engine = self._make_engine()
        except BaseException as error:  # whoever waits for the model raises it
            self._tell(self._become, "failed", error)
            return
        try:
            self._tell(self._become, "ready")
            while self._obey(engine):
                if engine.busy:
                    self._send(engine.step())
            self._tell(self._become, "stopped")
        except BaseException as error:
            LOG.exception("replica %s failed", self.name)
            self._tell(self._become, "failed", error)

    def _obey(self, engine: Engine) -> bool:
        """Carries out the orders that lie there; waits for one if there is nothing else to do. False to end."""
        wait = not engine.busy
        while True:
            try:
                what, ticket, index = self._orders.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if ticket is None:
                return False
            if what == "submit":
                self._enter(engine, ticket)
            else:
                self._cancel(engine, ticket, index)

    def _enter(self, engine: Engine, ticket: Ticket) -> None:
        try:
            sequences = engine.submit(ticket.prompt_ids, ticket.params, num_samples=ticket.rows)
        except ConfigError as error:
            self._tell(self._refuse, ticket, invalid(str(error)))
            return
        for index, sequence in enumerate(sequences):
            self._live[sequence] = _Live(ticket, index, 0)
        self._tell(ticket.accept)

    def _cancel(self, engine: Engine, ticket: Ticket, index: int) -> None:
        found = [seq for seq, live in self._live.items() if live.ticket is ticket and live.row == index]
        for sequence in found:
            engine.cancel(sequence)
            del self._live[sequence]
            self._tell(self._deliver, [(ticket, index, [], "cancelled")])

    def _send(self, sequences: list[Sequence]) -> None:
        deliveries: list[Delivery] = []
        for sequence in sequences:
            live = self._live.get(sequence)
            if live is None:
                continue  # cancelled
            new = [token.id for token in sequence.tokens[live.sent :]]
            deliveries.append((live.ticket, live.row, new, sequence.finish))
            if sequence.finish is None:
                self._live[sequence] = live._replace(sent=len(sequence.tokens))
            else:
                del self._live[sequence]
        if deliveries:
            self._tell(self._deliver, deliveries)

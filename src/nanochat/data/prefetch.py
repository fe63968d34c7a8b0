"""Steps made ready ahead of the loop, in a thread of their own.

Notable: the state is that of the last step that was *taken*, not of the last one made, so a checkpoint does not know
how far ahead the thread was, and the rows after a resume are the same with any `depth`, 0 (no thread) included. What
goes wrong in the thread is raised by the `next_step` that would have returned the step.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Any, Protocol

from nanochat.data.batches import StepBatch

_LOOK = 0.2  # seconds between two looks whether a step is still waited for
_TICK = 0.1  # seconds after which a thread with a full queue looks whether it is to stop
_STOPPING = 5.0  # seconds that `stop` waits; a thread that hangs (on a download, say) ends with the process


class Steps(Protocol):
    """What is needed of a Source here."""

    def next_step(self) -> StepBatch:
        """The next optimizer step."""

    def position(self) -> dict[str, Any]:
        """Where it stands."""

    def state_of(self, position: dict[str, Any]) -> dict[str, Any]:
        """The state at a position."""

    def go_to(self, position: dict[str, Any]) -> None:
        """Continue from a position."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""


class Prefetch:
    """A Source that keeps `depth` steps ready; within `with` the thread runs, without it steps are made when asked for.

    `pin`: batches in page-locked memory, for a GPU to copy from.
    """

    def __init__(self, source: Steps, depth: int, pin: bool = False) -> None:
        """Nothing is read before the first step, or the `with` block."""
        self._source = source
        self._depth = depth
        self._pin = pin
        self._taken = source.position()
        self._ahead = False  # the source stands behind `_taken`, at a step that nobody took
        self._thread: Thread | None = None
        self._pid = os.getpid()
        self._stop = Event()
        self._ready: Queue[tuple[StepBatch, dict[str, Any]] | BaseException] = Queue()

    def __enter__(self) -> "Prefetch":
        """Begin to make steps."""
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread; steps not taken are forgotten."""
        self.stop()

    def _start(self) -> None:
        if self._depth and self._thread is None:
            self._go_back()
            self._stop, self._ready, self._pid = Event(), Queue(self._depth), os.getpid()
            self._thread = Thread(target=self._run, args=(self._stop, self._ready), name="prefetch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread. The source goes back to the step last taken when it is next used."""
        if self._thread is None:
            return
        self._stop.set()
        if self._pid == os.getpid():
            end = time.monotonic() + _STOPPING
            while self._thread.is_alive() and time.monotonic() < end:
                with suppress(Empty):  # room for a step that the thread is about to hand over
                    self._ready.get_nowait()
                self._thread.join(_TICK / 100)
            if self._thread.is_alive():
                return  # the source is still in its hands
        self._thread = None
        self._ahead = True

    def _go_back(self) -> None:
        if self._ahead:
            self._source.go_to(self._taken)
            self._ahead = False

    def _run(self, stop: Event, ready: "Queue[tuple[StepBatch, dict[str, Any]] | BaseException]") -> None:
        while not stop.is_set():
            made: tuple[StepBatch, dict[str, Any]] | BaseException
            try:
                made = self._make()
            except BaseException as error:
                made = error
            while not stop.is_set():
                try:
                    ready.put(made, timeout=_TICK)
                    break
                except Full:
                    continue
            if isinstance(made, BaseException):
                return

    def _make(self) -> tuple[StepBatch, dict[str, Any]]:
        step = self._source.next_step()
        return (step.pinned() if self._pin else step), self._source.position()

    def next_step(self, unless: Callable[[], object] = lambda: None) -> StepBatch | None:
        """The next step, waiting for it if it is not ready; None if `unless()` turns true before it is.

        Raises what went wrong in making it, at every call.
        """
        if self._thread is not None and self._pid != os.getpid():
            self.stop()  # a forked process has no thread, and begins one of its own
            self._start()
        if self._thread is None:
            self._go_back()
            step, self._taken = self._make()
            return step
        made = self._next(unless)
        if isinstance(made, BaseException):
            self._ready.put(made)
            raise made
        if made is None:
            return None
        step, self._taken = made
        return step

    def _next(self, unless: Callable[[], object]) -> tuple[StepBatch, dict[str, Any]] | BaseException | None:
        """In short waits: a thread that ended without a word (the process is going down) must not be waited for."""
        while True:
            with suppress(Empty):
                return self._ready.get(timeout=_LOOK)
            if unless():
                return None
            if self._thread is None or not self._thread.is_alive():
                raise RuntimeError("the prefetch thread has ended")

    def state_dict(self) -> dict[str, Any]:
        """As after the last step taken."""
        return self._source.state_of(self._taken)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; what was made ready is forgotten."""
        running = self._thread is not None
        self.stop()
        self._source.load_state_dict(state)
        self._ahead = False
        self._taken = self._source.position()
        if running:
            self._start()


def default_workers() -> int:
    """Threads for `data.workers=null`: the cores of this process, at most 16; beyond that one source is not faster."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cores)

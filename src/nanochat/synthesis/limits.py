"""How often an endpoint may be asked: a rate over all workers, waits that a stop ends, and growing pauses."""

import random
import threading
import time
from collections.abc import Callable

BACKOFF = 1.0  # seconds before the first repetition; doubled for each further one
LONGEST_BACKOFF = 60.0


class Stopped(Exception):
    """The run is to end; nothing new is begun."""


class Pace:
    """Gives each request its moment. `now` and `sleep` are a clock; tests put a false one there.

    `sleep(seconds)` returns True if the run is to stop.
    """

    def __init__(
        self,
        per_minute: float | None,
        stop: threading.Event,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], bool] | None = None,
    ) -> None:
        """`per_minute` None: no limit."""
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._stop = stop
        self._now = now
        self._sleep = sleep or stop.wait
        self._lock = threading.Lock()
        self._next = now()

    def wait_turn(self) -> None:
        """Returns when the next request may be sent: evenly spaced, never in bursts. Raises Stopped."""
        with self._lock:
            moment = max(self._next, self._now())
            self._next = moment + self._gap
        self._wait(moment)

    def hold_all(self, seconds: float) -> None:
        """No request of any worker for so long: the endpoint asked for it."""
        with self._lock:
            self._next = max(self._next, self._now() + seconds)

    def pause(self, seconds: float) -> None:
        """One worker waits. Raises Stopped."""
        self._wait(self._now() + seconds)

    def _wait(self, moment: float) -> None:
        left = moment - self._now()
        if self._stop.is_set() or (left > 0 and self._sleep(left)):
            raise Stopped


def backoff(attempt: int) -> float:
    """Seconds before attempt `attempt` + 1 (0: the first has failed): doubled, up to half of it taken off at random."""
    longest = min(LONGEST_BACKOFF, BACKOFF * 2.0**attempt)
    return longest * random.uniform(0.5, 1.0)

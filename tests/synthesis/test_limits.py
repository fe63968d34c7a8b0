"""The pace of requests, on a clock of the test's own."""

import threading

import pytest

from nanochat.synthesis.limits import LONGEST_BACKOFF, Pace, Stopped, backoff


class Clock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> bool:
        self.time += seconds
        return False


def test_requests_are_evenly_spaced() -> None:
    clock = Clock()
    pace = Pace(30.0, threading.Event(), clock.now, clock.sleep)
    moments = []
    for _ in range(31):
        pace.wait_turn()
        moments.append(clock.time)
    assert moments == [pytest.approx(2.0 * i) for i in range(31)]
    clock.time += 100  # time not used is not saved up for a burst
    pace.wait_turn()
    first = clock.time
    pace.wait_turn()
    assert clock.time - first == pytest.approx(2.0)


def test_no_limit_never_waits_and_retry_after_holds_everybody() -> None:
    clock = Clock()
    pace = Pace(None, threading.Event(), clock.now, clock.sleep)
    for _ in range(100):
        pace.wait_turn()
    assert clock.time == 0.0
    pace.hold_all(7.5)
    pace.wait_turn()
    assert clock.time == 7.5


def test_a_stop_ends_waits_and_begins_nothing() -> None:
    stop = threading.Event()
    pace = Pace(None, stop, sleep=lambda seconds: stop.set() or True)
    with pytest.raises(Stopped):
        pace.pause(1000.0)
    with pytest.raises(Stopped):
        pace.wait_turn()


def test_backoff_grows_to_a_bound() -> None:
    for attempt in range(20):
        longest = min(LONGEST_BACKOFF, 2.0**attempt)
        assert longest / 2 <= backoff(attempt) <= longest

import time

import pytest

from nanochat.training import timer as timing
from nanochat.training.timer import StepTimer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time is what its only number says."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_what_hooks_take_is_left_out(clock: list[float]) -> None:
    timer = StepTimer("cpu")
    clock[0] += 2
    assert timer.lap() == 2
    clock[0] += 3
    with timer.aside():
        clock[0] += 1000
    clock[0] += 4
    assert timer.lap() == 7
    assert timer.lap() == 0


def test_the_device_is_waited_for_on_both_sides(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that still runs counts, an evaluation that still runs does not."""

    busy = [5.0]  # seconds that the device has still to do

    def wait(device: str) -> None:
        clock[0] += busy[0]
        busy[0] = 0.0

    monkeypatch.setattr(timing, "synchronize", wait)
    timer = StepTimer("cuda")
    with timer.aside():
        busy[0] = 1000.0
    assert timer.lap() == 5 and busy[0] == 0


def test_an_error_in_a_hook_does_not_stop_the_clock(clock: list[float]) -> None:
    timer = StepTimer("cpu")
    with pytest.raises(ValueError), timer.aside():
        clock[0] += 9
        raise ValueError
    assert timer.lap() == 0

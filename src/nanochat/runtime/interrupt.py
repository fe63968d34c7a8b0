"""Ctrl-C, SIGTERM and SIGUSR1 as a flag that is looked at between steps.

The first signal asks the run to finish its step and save; a second Ctrl-C ends it at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class InterruptFlag:
    """`name` is the signal that arrived, or None."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        return self.name is not None


@contextmanager
def watch_signals() -> Iterator[InterruptFlag]:
    """Within the block the signals set the flag; the former handlers come back after it."""
    flag = InterruptFlag()
    wanted = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]

    def handle(number: int, frame: FrameType | None) -> None:
        if flag and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.name = signal.Signals(number).name

    former = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield flag
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

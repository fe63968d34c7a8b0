"""Ctrl-C, SIGTERM and SIGUSR1 as a flag that is looked at between steps.

The first signal asks the run to finish its step and save, and says so at once; a second Ctrl-C ends it.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the keyboard, the system, a batch queue's warning


class InterruptFlag:
    """`name` is the first signal that arrived, or None."""

    def __init__(self) -> None:
        """Nothing has arrived."""
        self.name: str | None = None


@contextmanager
def watch_signals(doing: str = "finishing this step, then saving") -> Iterator[InterruptFlag]:
    """Within the block the signals set the flag; the former handlers come back after it. Main thread only.

    `doing` is what the user is told to wait for.
    """
    flag = InterruptFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.name is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        flag.name = signal.Signals(number).name
        _announce(f"\n{flag.name}: {doing} (Ctrl-C again ends at once)\n")

    former = {number: signal.signal(number, handle) for number in WATCHED}
    try:
        yield flag
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _announce(text: str) -> None:
    """Past Python's buffers: a handler may run in the middle of a print, which must not be entered twice."""
    try:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
    except (OSError, ValueError):
        return  # nobody is listening

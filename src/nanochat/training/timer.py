"""How long a step takes, from one to the next, without waiting for the device a second time.

Notable: a step's numbers are read from the device once, before its update (step.py), and the update still runs while
the host goes on. So a step is timed from update launched to update launched: in the long run the same as from end to
end, and all that the host does in between counts, since the device may wait for it. What hooks take is left out.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from nanochat.runtime.device import synchronize


class StepTimer:
    """A clock that stands still within `aside`."""

    def __init__(self, device: str) -> None:
        """Starts."""
        self._device = device
        self._began = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the lap before."""
        now = time.perf_counter()
        seconds, self._began = now - self._began, now
        return seconds

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leaves the block out. The device is waited for on both sides: what it still does before belongs to a step."""
        synchronize(self._device)
        so_far = time.perf_counter() - self._began
        try:
            yield
        finally:
            synchronize(self._device)
            self._began = time.perf_counter() - so_far

"""Keeps Python's garbage collector out of the steps: it runs between them, at times that are the same on all ranks.

Notable: a collection walks all objects of the process, which takes 0.2 s once torch and what it needs are imported,
while the device has nothing to do; with many ranks each waits for the one that collects. What is alive after the first
collection (modules, compiled code) is frozen, so that later ones do not walk it again.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

FIRST = 20  # steps before the first collection: by then all kinds of steps have been compiled
EVERY = 100  # steps between collections


class HeldGarbage:
    """Within `with` nothing is collected but by `after_step` and in blocks of `released`."""

    def __enter__(self) -> "HeldGarbage":
        """The collector is off, if it was on."""
        self._was_on = gc.isenabled()
        self._steps = 0
        gc.disable()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """As it was before."""
        gc.unfreeze()
        if self._was_on:
            gc.enable()

    def after_step(self) -> None:
        """Collects if it is time to."""
        self._steps += 1
        if self._steps % EVERY == FIRST:
            gc.collect()
            gc.freeze()

    @contextmanager
    def released(self) -> Iterator[None]:
        """For what is not a step: an evaluation may make any amount of garbage."""
        if self._was_on:
            gc.enable()
        try:
            yield
        finally:
            gc.disable()

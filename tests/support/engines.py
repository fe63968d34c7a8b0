"""Engines that a test can hold, slow down or break."""

import threading
import time
from collections.abc import Callable
from typing import Any

from nanochat.engine.engine import Engine
from nanochat.engine.sequence import Sequence


class HeldEngine(Engine):
    """Takes no step while `go` is not set, and `pause` seconds for each; fails at the next one if `broken`."""

    def __init__(self, *args: Any, pause: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.go = threading.Event()
        self.go.set()
        self.pause = pause
        self.broken = False
        self.steps = 0
        self.most_live = 0

    def step(self) -> list[Sequence]:
        assert self.go.wait(20)
        time.sleep(self.pause)
        if self.broken:
            raise RuntimeError("a fault of the device")
        self.steps += 1
        touched = super().step()
        self.most_live = max(self.most_live, len(self._batch.live))
        return touched


def ready_made(engine: Engine) -> Callable[[], Engine]:
    """As a factory."""
    return lambda: engine

"""What happens between steps: saving, evaluating, sampling, each every so many steps.

Hooks are called in list order, the save first: an evaluation that fails must not cost the run.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepInfo:
    """The state after `step` updates. Loss in nats per target; seconds are wall time of the step alone.

    `data_wait` is the share of them that the step waited for its batch. `epoch`, `rows` and `documents` say how far the
    data are read.
    """

    step: int
    total: int
    loss: float
    grad_norm: float
    lr_factor: float
    targets: float
    seconds: float
    epoch: float
    data_wait: float = 0.0
    rows: int = 0
    documents: int = 0

    @property
    def last(self) -> bool:
        """Whether the run ends with this step."""
        return self.step == self.total


@dataclass(frozen=True)
class Hook:
    """`fn` is called with the number of updates done; every -1 disables it, save for `always_last`."""

    name: str
    every: int
    fn: Callable[[int], None]
    always_last: bool = False
    at_start: bool = False
    saves: bool = False

    def due(self, step: int, total: int) -> bool:
        """Whether it is to be called after `step` of `total` updates."""
        if step == 0:
            return self.at_start and self.every > 0
        if step == total and (self.always_last or self.every > 0):
            return True
        return self.every > 0 and step % self.every == 0

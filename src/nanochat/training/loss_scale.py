"""Loss scaling for float16, whose smallest numbers are reached by gradients (Micikevicius et al., 1710.03740).

The loss is multiplied before the backward pass and the gradients are divided after it. Notable: the factor is found by
trying, so a step whose gradients overflow now and then is no fault; it is left out, and no guard counts it.
"""

from collections.abc import Callable
from dataclasses import dataclass

START = 2.0**16
GROW_AFTER = 2000  # good steps in a row, as published
_LEAST = 1.0  # what overflows unscaled is no matter of the scale


@dataclass
class LossScale:
    """`value` is a power of two, so that scaling and unscaling round nothing; `good` counts steps since it changed.

    Both belong to the state of the run.
    """

    say: Callable[[str], None]
    value: float = START
    good: int = 0

    def overflowed(self, finite: bool, step: int) -> bool:
        """Takes notice of a step's gradients; True where the step is to be left out because of the scale."""
        if finite:
            self.good += 1
            if self.good == GROW_AFTER:
                self.value, self.good = self.value * 2, 0
            return False
        if self.value <= _LEAST:
            return False
        self.value, self.good = self.value / 2, 0
        self.say(f"step {step}: gradients overflow float16; left out, the loss scale is {self.value:g} from here on")
        return True

    def state(self) -> dict[str, float]:
        """JSON to be saved."""
        return {"value": self.value, "good": self.good}

    def load(self, state: dict[str, float] | None) -> None:
        """Continues from `state()`; None, of a run that had no scale before, changes nothing."""
        if state is not None:
            self.value, self.good = float(state["value"]), int(state["good"])

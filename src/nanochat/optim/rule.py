"""An update rule, run as it is written or compiled.

Notable: a rule is a function of tensors, of settings that never change, and of numbers that change from step to step.
As written it gets the numbers as floats. Compiled it gets them as 0-d tensors on the group's device, since a float is
part of the compiled code, and each new value would compile it anew. Filling a tensor waits for nothing.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

Number = float | Tensor
"""What changes from step to step: a float, or a 0-d tensor where the rule is compiled."""


class Rule:
    """`fn(*tensors and settings, **numbers)`, for one group of parameters."""

    def __init__(self, fn: Callable[..., None], device: torch.device, compiled: bool) -> None:
        """`device`: that of the group's parameters."""
        self._fn = _compile(fn) if compiled else fn
        self._compiled = compiled
        self._device = device
        self._filled: dict[str, Tensor] = {}

    def __call__(self, *fixed: Any, **numbers: float) -> None:
        """Applies the rule in place."""
        self._fn(*fixed, **(self._fill(numbers) if self._compiled else numbers))

    def _fill(self, numbers: dict[str, float]) -> dict[str, Tensor]:
        if not self._filled:
            self._filled = {name: torch.zeros((), device=self._device) for name in numbers}
        return {name: self._filled[name].fill_(value) for name, value in numbers.items()}


def _compile(fn: Callable[..., None]) -> Callable[..., None]:
    """A copy of `fn`, compiled: torch allows one function a few sets of shapes only, and counts by its code object."""
    assert isinstance(fn, FunctionType)
    own = FunctionType(fn.__code__.replace(), fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    own.__kwdefaults__ = fn.__kwdefaults__
    # Without that option the compiler of torch 2.11 fails on lists of small matrices (an assertion of its scheduler).
    options: dict[str, str | int | bool | Callable[..., Any]] = {"loop_ordering_after_fusion": False}
    compiled: Callable[..., None] = torch.compile(own, dynamic=False, fullgraph=True, options=options)
    return compiled

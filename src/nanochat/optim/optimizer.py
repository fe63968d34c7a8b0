"""The optimizer that the training loop sees: groups of parameters, one `update` a step.

Notable: nothing here reads a number back from the device, and one code path serves every number of ranks:
gradients are expected to be averaged already. All groups share one count of steps.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from nanochat.errors import MismatchError, nearest
from nanochat.plan.schedules import StepRates

STEP_KEY = "step"


class Group(Protocol):
    """What an update rule offers: AdamWGroup, MuonGroup, MuonModernGroup."""

    members: dict[str, Tensor]

    def update(self, grads: dict[str, Tensor], step: int, rates: StepRates) -> None:
        """Apply one step in place; `step` counts from 1."""

    def state_tensors(self) -> dict[str, Tensor]:
        """The live state tensors by name."""


class Optimizer:
    """Parameters in groups. `groups` together must hold every parameter of `params` exactly once."""

    def __init__(self, params: dict[str, nn.Parameter], groups: list[Group]) -> None:
        """AssertionError naming the parameters that are in no group or in two."""
        check_cover(set(params), groups)
        self.params = params
        self.groups = groups
        self.step = 0

    @torch.no_grad()
    def update(self, rates: StepRates) -> None:
        """One step from the `.grad`s."""
        self.step += 1
        for group in self.groups:
            grads = dict(self._grads(group))
            group.update(grads, self.step, rates)

    def zero_grad(self) -> None:
        """Forget the gradients (their memory is given back, and the next backward pass need not add to zeros)."""
        for p in self.params.values():
            p.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, as "{parameter}/{what}" and "step". Views of live state, not copies."""
        state = {STEP_KEY: torch.tensor(self.step, dtype=torch.int64)}
        for group in self.groups:
            state |= group.state_tensors()
        return state

    @torch.no_grad()
    def load_state_tensors(self, saved: dict[str, Tensor]) -> None:
        """Copy a saved state in. Raises MismatchError when names or shapes are not those of this optimizer."""
        own = self.state_tensors()
        _check_same(own, saved)
        for name, tensor in own.items():
            tensor.copy_(saved[name])
        self.step = int(saved[STEP_KEY])

    def _grads(self, group: Group) -> Iterator[tuple[str, Tensor]]:
        for name in group.members:
            grad = self.params[name].grad
            assert grad is not None, f"no gradient for {name}: backward did not reach it"
            yield name, grad


def check_cover(names: set[str], groups: list[Group]) -> None:
    """Every parameter in exactly one group; the offenders are named."""
    grouped = [name for group in groups for name in group.members]
    twice = sorted({name for name in grouped if grouped.count(name) > 1})
    missing, unknown = sorted(names - set(grouped)), sorted(set(grouped) - names)
    assert not twice, f"in more than one optimizer group: {', '.join(twice)}"
    assert not missing, f"in no optimizer group: {', '.join(missing)}"
    assert not unknown, f"in an optimizer group but not in the model: {', '.join(unknown)}"


def _check_same(own: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    for name in sorted(set(own) ^ set(saved)):
        where, other = ("this optimizer", saved) if name in own else ("the saved state", own)
        raise MismatchError(
            f"optimizer state {name} is only in {where} ({nearest(name, other)}); "
            f"the checkpoint was made with another optim= or model=: use the same, or start another run"
        )
    for name, tensor in own.items():
        here, there = tuple(tensor.shape), tuple(saved[name].shape)
        if here != there:
            raise MismatchError(
                f"optimizer state {name} has shape {there} in the checkpoint and {here} here; "
                f"use the model.* of the checkpoint, or start another run"
            )

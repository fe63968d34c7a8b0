"""Muon: momentum, then the nearest orthogonal matrix, by a few Newton-Schulz steps (Jordan et al. 2024).

N matrices of a stack, R rows, C columns. Notable: matrices of equal shape are stacked and orthogonalised by
batched products, which costs a handful of calls a step instead of hundreds; stacks are kept below
STACK_ELEMENTS so that the temporary copies stay small beside the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from nanochat.optim.rule import Number, Rule
from nanochat.plan.schedules import StepRates

NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of kellerjordan.github.io/posts/muon: steepest at 0, settles in 0.7..1.2
NS_EPS = 1e-7
STACK_ELEMENTS = 2**26  # 256 MB of fp32 a stack


@dataclass(frozen=True)
class MuonSettings:
    """What stays the same over a run. `lr` is the peak learning rate; `momentum` is used when a step names none."""

    lr: float
    momentum: float
    ns_steps: int
    ns_dtype: torch.dtype


class MuonGroup:
    """Matrices of one shape and their momentum, one stacked tensor (N, R, C). `members`: name -> parameter (R, C)."""

    def __init__(self, members: dict[str, Tensor], settings: MuonSettings, compiled: bool = False) -> None:
        """All members have one shape (see `stacks`); momentum starts at 0."""
        self.members = members
        self.settings = settings
        self.buffer_NRC = zeros_for(members)
        self._rule = Rule(muon_, self.buffer_NRC.device, compiled)

    def update(self, grads: dict[str, Tensor], step: int, rates: StepRates) -> None:
        """One step in place. A momentum of None means the settings' value."""
        settings = self.settings
        self._rule(
            list(self.members.values()),
            [grads[name] for name in self.members],
            self.buffer_NRC,
            settings.ns_steps,
            settings.ns_dtype,
            momentum=settings.momentum if rates.momentum is None else rates.momentum,
            rate=settings.lr * rates.lr_factor * shape_factor(self.buffer_NRC),
        )

    def state_tensors(self) -> dict[str, Tensor]:
        """ "{parameter}/momentum", shaped like the parameter; views of the stack, not copies."""
        return {f"{name}/momentum": self.buffer_NRC[i] for i, name in enumerate(self.members)}


def muon_(
    params: list[Tensor],
    grads: list[Tensor],
    buffer_NRC: Tensor,
    ns_steps: int,
    ns_dtype: torch.dtype,
    *,
    momentum: Number,
    rate: Number,
) -> None:
    """p -= rate * orthogonalized momentum, in place."""
    direction_NRC = nesterov_(buffer_NRC, torch.stack(grads), momentum)
    update_NRC = orthogonalize(direction_NRC, [NS_COEFFICIENTS] * ns_steps, ns_dtype).to(buffer_NRC.dtype) * rate
    torch._foreach_sub_(params, list(update_NRC.unbind(0)))


def zeros_for(members: Mapping[str, Tensor]) -> Tensor:
    """(N, R, C) of zeros for matrices of one shape; nothing of them is read."""
    first = next(iter(members.values()))
    return torch.zeros(len(members), *first.shape, dtype=first.dtype, device=first.device)


def shape_factor(x_NRC: Tensor) -> float:
    """sqrt(max(1, rows / columns)): what a tall matrix's rate is multiplied by."""
    return sqrt(max(1.0, x_NRC.shape[-2] / x_NRC.shape[-1]))


def stacks(members: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split matrices into groups of one shape, dtype and device of at most STACK_ELEMENTS numbers (or one matrix)."""
    alike: dict[tuple[torch.Size, torch.dtype, torch.device], list[str]] = {}
    for name, p in members.items():
        assert p.ndim == 2, f"Muon takes matrices, {name} has shape {tuple(p.shape)}"
        alike.setdefault((p.shape, p.dtype, p.device), []).append(name)
    groups = []
    for (shape, _, _), names in alike.items():
        size = max(1, STACK_ELEMENTS // shape.numel())
        parts = [names[i : i + size] for i in range(0, len(names), size)]
        groups += [{name: members[name] for name in part} for part in parts]
    return groups


def nesterov_(buffer: Tensor, grad: Tensor, momentum: Number) -> Tensor:
    """buffer = lerp(buffer, grad, 1 - momentum) in place; returns lerp(grad, buffer, momentum). `grad` is consumed."""
    buffer.lerp_(grad, 1 - momentum)
    return grad.lerp_(buffer, momentum)


def orthogonalize(
    x_NRC: Tensor,
    coefficients: Sequence[tuple[float, float, float]],
    dtype: torch.dtype,
    *,
    margin: float = 1.0,
    eps: float = NS_EPS,
) -> Tensor:
    """Every matrix U S V^T of the stack -> about U V^T, in `dtype`; a step for each (a, b, c) of `coefficients`.

    Each step maps a singular value s to a s + b s^3 + c s^5, after division by (margin * Frobenius norm + eps), which
    bounds them by 1. Works on the transpose of tall matrices, so that the Gram matrix is the smaller one.
    """
    tall = x_NRC.shape[-2] > x_NRC.shape[-1]
    x = x_NRC.mT if tall else x_NRC
    x = (x / (torch.linalg.matrix_norm(x, keepdim=True) * margin + eps)).to(dtype)
    for a, b, c in coefficients:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x

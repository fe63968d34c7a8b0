"""Muon: momentum, then the nearest orthogonal matrix, by a few Newton-Schulz steps (Jordan et al. 2024).

N matrices of a stack, R rows, C columns. Notable: matrices of equal shape are stacked and orthogonalised by
batched products, which costs a handful of calls a step instead of hundreds; stacks are kept below
STACK_ELEMENTS so that the temporary copies stay small beside the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

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

    def __init__(self, members: dict[str, Tensor], settings: MuonSettings) -> None:
        """All members have one shape (see `stacks`); momentum starts at 0."""
        self.members = members
        self.settings = settings
        self.buffer_NRC = torch.zeros_like(torch.stack([p.detach() for p in members.values()]))

    def update(self, grads: dict[str, Tensor], step: int, lr_factor: float, momentum: float | None) -> None:
        """One step in place. `momentum` None means the settings' value."""
        params = list(self.members.values())
        rows, cols = params[0].shape
        stacked = torch.stack([grads[name] for name in self.members])
        beta = self.settings.momentum if momentum is None else momentum
        direction = nesterov_(self.buffer_NRC, stacked, beta)
        direction = orthogonalize(direction, self.settings.ns_steps, self.settings.ns_dtype).to(params[0].dtype)
        lr = self.settings.lr * lr_factor * sqrt(max(1.0, rows / cols))
        torch._foreach_add_(params, list(direction.unbind(0)), alpha=-lr)

    def state_tensors(self) -> dict[str, Tensor]:
        """ "{parameter}/momentum", shaped like the parameter; views of the stack, not copies."""
        return {f"{name}/momentum": self.buffer_NRC[i] for i, name in enumerate(self.members)}


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


def nesterov_(buffer: Tensor, grad: Tensor, momentum: float) -> Tensor:
    """buffer = lerp(buffer, grad, 1 - momentum) in place; returns lerp(grad, buffer, momentum). `grad` is consumed."""
    buffer.lerp_(grad, 1 - momentum)
    return grad.lerp_(buffer, momentum)


def orthogonalize(x_NRC: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Every matrix U S V^T of the stack -> about U V^T, in `dtype`; singular values land between about 0.7 and 1.2.

    Each step maps a singular value s to a s + b s^3 + c s^5, after division by (Frobenius norm + 1e-7), which
    bounds them by 1. Works on the transpose of tall matrices, so that the Gram matrix is the smaller one.
    """
    a, b, c = NS_COEFFICIENTS
    tall = x_NRC.shape[-2] > x_NRC.shape[-1]
    x = x_NRC.mT if tall else x_NRC
    x = (x / (torch.linalg.matrix_norm(x, keepdim=True) + NS_EPS)).to(dtype)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x

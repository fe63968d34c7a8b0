"""AdamW (Loshchilov & Hutter, 1711.05101), for any number of parameters at once.

Notable: the order of operations is that of torch.optim.AdamW; in particular the second moment is corrected
for bias before eps is added, which matters with an eps of 1e-10 and rows of an embedding that are rarely seen.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor


@dataclass(frozen=True)
class AdamWSettings:
    """What stays the same over a run. `lr` is the peak learning rate, already scaled."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


class AdamWGroup:
    """Parameters that share their settings, and their moments. `members` maps name -> parameter."""

    def __init__(self, members: dict[str, Tensor], settings: AdamWSettings) -> None:
        """Moments start at 0, in the dtype of their parameter."""
        self.members = members
        self.settings = settings
        self.exp_avg = {name: torch.zeros_like(p) for name, p in members.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in members.items()}

    def update(self, grads: dict[str, Tensor], step: int, lr_factor: float, momentum: float | None) -> None:
        """One step in place; `step` counts from 1. `momentum` is Muon's and not used here."""
        params, moments = list(self.members.values()), list(self.exp_avg.values())
        adamw_(
            params,
            [grads[n] for n in self.members],
            moments,
            list(self.exp_avg_sq.values()),
            self.settings,
            step,
            self.settings.lr * lr_factor,
        )

    def state_tensors(self) -> dict[str, Tensor]:
        """ "{parameter}/exp_avg" and "{parameter}/exp_avg_sq", shaped like the parameter; not copies."""
        first = {f"{name}/exp_avg": moment for name, moment in self.exp_avg.items()}
        return first | {f"{name}/exp_avg_sq": moment for name, moment in self.exp_avg_sq.items()}


def adamw_(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    settings: AdamWSettings,
    step: int,
    lr: float,
) -> None:
    """p -= lr*wd*p; m = lerp(m, g, 1-b1); v = lerp(v, g^2, 1-b2); p -= lr * m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps)."""
    if settings.weight_decay:
        torch._foreach_mul_(params, 1 - lr * settings.weight_decay)
    torch._foreach_lerp_(exp_avgs, grads, 1 - settings.beta1)
    torch._foreach_mul_(exp_avg_sqs, settings.beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - settings.beta2)
    denominators = torch._foreach_sqrt(exp_avg_sqs)
    torch._foreach_div_(denominators, sqrt(1 - settings.beta2**step))
    torch._foreach_add_(denominators, settings.eps)
    torch._foreach_addcdiv_(params, exp_avgs, denominators, -lr / (1 - settings.beta1**step))

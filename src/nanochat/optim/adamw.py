"""AdamW (Loshchilov & Hutter, 1711.05101), for any number of parameters at once.

Notable: the order of operations is that of torch.optim.AdamW; in particular the second moment is corrected
for bias before eps is added, which matters with an eps of 1e-10 and rows of an embedding that are rarely seen.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from nanochat.optim.rule import Number, Rule
from nanochat.plan.schedules import StepRates


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

    def __init__(self, members: dict[str, Tensor], settings: AdamWSettings, compiled: bool = False) -> None:
        """Moments start at 0, in the dtype of their parameter."""
        self.members = members
        self.settings = settings
        self.exp_avg = {name: torch.zeros_like(p) for name, p in members.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in members.items()}
        self._rule = Rule(adamw_, next(iter(members.values())).device, compiled)

    def update(self, grads: dict[str, Tensor], step: int, rates: StepRates) -> None:
        """One step in place; `step` counts from 1."""
        settings, lr = self.settings, self.settings.lr * rates.lr_factor
        self._rule(
            list(self.members.values()),
            [grads[name] for name in self.members],
            list(self.exp_avg.values()),
            list(self.exp_avg_sq.values()),
            settings.beta1,
            settings.beta2,
            settings.eps,
            kept=1 - lr * settings.weight_decay,
            rate=lr / (1 - settings.beta1**step),
            bias=sqrt(1 - settings.beta2**step),
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
    beta1: float,
    beta2: float,
    eps: float,
    *,
    kept: Number,
    rate: Number,
    bias: Number,
) -> None:
    """p *= kept; m = lerp(m, g, 1-b1); v = b2*v + (1-b2)*g^2; p -= rate * m / (sqrt(v)/bias + eps), all in place.

    kept = 1 - lr*wd, rate = lr / (1 - b1^t), bias = sqrt(1 - b2^t).
    """
    for p, grad, first, second in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        p.mul_(kept)
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        p.addcdiv_(first, second.sqrt().div_(bias).add_(eps).div_(-rate))  # a rate of 0: divided by infinity

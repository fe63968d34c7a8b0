"""From config and parameter roles to an optimizer: which parameter is updated by which rule.

| optim       | matrix | embedding, value_embedding, unembedding | residual_a, residual_b, smear, backout |
|-------------|--------|-----------------------------------------|----------------------------------------|
| muon_adamw  | Muon   | AdamW, decayed                          | AdamW                                  |
| adamw       | AdamW, decayed | AdamW, decayed                  | AdamW                                  |

Scalars and the smear's gate are never decayed: 0 is no neutral value for what multiplies a stream.
"""

from collections.abc import Mapping

import torch
from torch import nn

from nanochat.config.optim import MuonAdamWConfig, OptimConfig
from nanochat.optim.adamw import AdamWGroup, AdamWSettings
from nanochat.optim.muon import MuonGroup, MuonSettings, stacks
from nanochat.optim.optimizer import Group, Optimizer

MATRIX = "matrix"
UNDECAYED = ("residual_a", "residual_b", "smear", "backout")


def build_optimizer(
    params: dict[str, nn.Parameter], roles: Mapping[str, str], config: OptimConfig, lrs: Mapping[str, float]
) -> Optimizer:
    """`roles`: parameter -> role; `lrs`: role -> peak learning rate, already scaled for width and batch.

    Asserts that every parameter has a role with a learning rate and lands in exactly one group.
    """
    by_role: dict[str, dict[str, nn.Parameter]] = {}
    for name, p in params.items():
        assert name in roles, f"parameter {name} has no role, so no optimizer group"
        assert roles[name] in lrs, f"no learning rate for role {roles[name]} of {name}"
        by_role.setdefault(roles[name], {})[name] = p
    groups: list[Group] = []
    for role, members in by_role.items():
        groups += _groups(role, members, config, lrs[role])
    return Optimizer(params, groups)


def _groups(role: str, members: dict[str, nn.Parameter], config: OptimConfig, lr: float) -> list[Group]:
    if role == MATRIX and isinstance(config, MuonAdamWConfig):
        muon = MuonSettings(
            lr=lr,
            momentum=config.momentum.end,
            ns_steps=config.ns_steps,
            ns_dtype=getattr(torch, str(config.ns_dtype)),
        )
        return [MuonGroup(stack, muon) for stack in stacks(members)]
    decay = 0.0 if role in UNDECAYED else config.weight_decay
    adamw = AdamWSettings(lr, config.beta1, config.beta2, config.eps, decay)
    return [AdamWGroup(dict(members), adamw)]

"""From config and parameter roles to an optimizer: which parameter is updated by which rule.

| optim       | matrix                | embedding, value_embedding, unembedding | residual_*, smear, backout |
|-------------|-----------------------|-----------------------------------------|----------------------------|
| muon_adamw  | Muon                  | AdamW, decayed                          | AdamW                      |
| muon_modern | Muon of 2026, decayed | AdamW, each role with its own settings  | likewise                   |
| adamw       | AdamW, decayed        | AdamW, decayed                          | AdamW                      |

Of muon_adamw and adamw, scalars and the smear's gate are never decayed: 0 is no neutral value for what multiplies a
stream. muon_modern says each decay by a key.
"""

from collections.abc import Mapping

import torch
from torch import nn

from nanochat.config.optim import AdamWGroupConfig, MuonAdamWConfig, MuonModernConfig, OneAdamWConfig, OptimConfig
from nanochat.optim.adamw import AdamWGroup, AdamWSettings
from nanochat.optim.muon import MuonGroup, MuonSettings, stacks
from nanochat.optim.muon_modern import MuonModernGroup, MuonModernSettings
from nanochat.optim.optimizer import Group, Optimizer

MATRIX = "matrix"
UNDECAYED = ("residual_a", "residual_b", "smear", "backout")


def build_optimizer(
    params: dict[str, nn.Parameter],
    roles: Mapping[str, str],
    config: OptimConfig,
    lrs: Mapping[str, float],
    compile: bool = False,
) -> Optimizer:
    """`roles`: parameter -> role; `lrs`: role -> peak learning rate, already scaled for width and batch.

    `compile` has torch compile the update of each group. Asserts that every parameter has a role with a learning rate
    and lands in exactly one group.
    """
    by_role: dict[str, dict[str, nn.Parameter]] = {}
    for name, p in params.items():
        assert name in roles, f"parameter {name} has no role, so no optimizer group"
        assert roles[name] in lrs, f"no learning rate for role {roles[name]} of {name}"
        by_role.setdefault(roles[name], {})[name] = p
    groups: list[Group] = []
    for role, members in by_role.items():
        groups += _groups(role, members, config, lrs[role], compile)
    return Optimizer(params, groups)


def _groups(role: str, members: dict[str, nn.Parameter], config: OptimConfig, lr: float, compile: bool) -> list[Group]:
    if role == MATRIX and isinstance(config, MuonAdamWConfig):
        dtype = getattr(torch, str(config.ns_dtype))
        muon = MuonSettings(lr, config.momentum.end, config.ns_steps, dtype)
        return [MuonGroup(stack, muon, compile) for stack in stacks(members)]
    if role == MATRIX and isinstance(config, MuonModernConfig):
        modern = MuonModernSettings(
            lr=lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum.end,
            ns_steps=config.ns_steps,
            ns_dtype=getattr(torch, str(config.ns_dtype)),
            variance_beta=config.variance_beta,
        )
        return [MuonModernGroup(stack, modern, compile) for stack in stacks(members)]
    return [AdamWGroup(dict(members), _adamw(role, config, lr), compile)]


def _adamw(role: str, config: OptimConfig, lr: float) -> AdamWSettings:
    if isinstance(config, MuonModernConfig):
        own: AdamWGroupConfig = getattr(config, role)
        return AdamWSettings(lr, own.beta1, own.beta2, config.eps, own.weight_decay)
    assert isinstance(config, OneAdamWConfig)
    decay = 0.0 if role in UNDECAYED else config.weight_decay
    return AdamWSettings(lr, config.beta1, config.beta2, config.eps, decay)

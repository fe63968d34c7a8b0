"""Peak learning rates by parameter role, and the weight decay, scaled for the run's width and batch.

| role             | asked                   | (width/768)^-0.5 | sqrt(batch/2^19), if asked |
|------------------|-------------------------|------------------|----------------------------|
| embedding        | embedding_lr            | yes              | yes                        |
| value_embedding  | embedding_lr / 2        | yes              | yes                        |
| unembedding      | unembedding_lr          | yes              | yes                        |
| matrix           | matrix_lr               | no               | yes                        |
| residual_a       | scalar_lr / 100         | no               | yes                        |
| residual_b       | scalar_lr               | no               | yes                        |
| smear, backout   | smear_lr                | no               | no                         |

Notable: only roles that the network has get a rate, so that a key nothing reads is no part of a run's identity.
The divisors and exceptions are those of the newest published system of this family.
"""

import math
from dataclasses import dataclass

from nanochat.config.optim import OptimConfig
from nanochat.config.root import RunConfig
from nanochat.plan.batch import REFERENCE_BATCH, REFERENCE_DEPTH, Batch, horizon_tokens, reference_tokens
from nanochat.plan.dims import ModelDims
from nanochat.plan.rule import Rule

REFERENCE_WIDTH = 768  # the width that the rates of tables were tuned at
LATER_ROLES = ("value_embedding", "residual_a", "residual_b", "smear", "backout")  # that not every network has


@dataclass(frozen=True)
class Rates:
    """Peak learning rate of each role, the weight decay, and the rules that scaled them."""

    lrs: dict[str, float]
    weight_decay: float
    rules: tuple[Rule, ...]


def scale_rates(config: RunConfig, dims: ModelDims, batch: Batch) -> Rates:
    """Peak learning rate of each role that the network has, and the weight decay, with the rules that scaled them."""
    optim, start = config.optim, config.train.init_lr_frac
    width = (dims.n_embd / REFERENCE_WIDTH) ** -0.5
    grown = math.sqrt(batch.tokens / REFERENCE_BATCH) if optim.batch_lr_scaling else 1.0
    lrs, rules = {}, []
    for role, rate in _asked(optim, dims).items():
        by_width = width if rate.by_width else 1.0
        by_batch = grown if rate.by_batch else 1.0
        lrs[role] = rate.peak * by_width * by_batch * start
        said = f"{rate.peak:g}" + (f" * (width / {REFERENCE_WIDTH})^-0.5 = {width:.4g}" if rate.by_width else "")
        said += f" * sqrt(batch / 2^19) = {grown:.4g}" if by_batch != 1.0 else ""
        said += f" * {start:g}" if start != 1.0 else ""
        rules.append(Rule(f"{role.replace('_', ' ')} lr", lrs[role], said))
    decay, said = optim.weight_decay, "optim.weight_decay"
    if optim.batch_lr_scaling:
        shrunk, horizon = _shrunk(config, dims)
        said = f"{decay:g} * sqrt(batch / 2^19) = {grown:.4g}{horizon}"
        decay *= grown * shrunk
    return Rates(lrs, decay, (*rules, Rule("weight decay", decay, said)))


def _shrunk(config: RunConfig, dims: ModelDims) -> tuple[float, str]:
    """D_ref / D: how much longer the horizon is than that of the reference depth, and its part of the rule.

    D is the horizon that was asked for, by ratio or FLOPs, as in the rule of the batch. A run cut short by
    train.num_iterations is the beginning of that one: by its own few tokens its decay would be hundreds of times as
    strong. Where no horizon is asked for there is nothing to scale by.
    """
    tokens = horizon_tokens(config.train, dims)
    if tokens is None:
        return 1.0, ""
    shrunk = reference_tokens(config, dims.vocab_size) / tokens
    return shrunk, f" * tokens of d{REFERENCE_DEPTH} / {tokens:,.0f} tokens = {shrunk:.4g}"


@dataclass(frozen=True)
class _Rate:
    peak: float
    by_width: bool
    by_batch: bool = True


def _asked(optim: OptimConfig, dims: ModelDims) -> dict[str, _Rate]:
    """The rate of each role that the network has."""
    rates = {
        "embedding": _Rate(optim.embedding_lr, by_width=True),
        "unembedding": _Rate(optim.unembedding_lr, by_width=True),
        "matrix": _Rate(optim.matrix_lr, by_width=False),
    }
    if dims.value_embeds:
        rates["value_embedding"] = _Rate(optim.embedding_lr / 2, by_width=True)
    if dims.residual_scalars:
        rates["residual_a"] = _Rate(optim.scalar_lr / 100, by_width=False)
        rates["residual_b"] = _Rate(optim.scalar_lr, by_width=False)
    extras = [role for role, on in (("smear", dims.smear), ("backout", dims.backout)) if on]
    return rates | dict.fromkeys(extras, _Rate(optim.smear_lr, by_width=False, by_batch=False))

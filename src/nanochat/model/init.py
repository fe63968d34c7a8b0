"""The first numbers of every parameter, by its name: `model.init` chooses the rule for tables and matrices.

| parameter                    | init=gpt                                          | init=modern                    |
|------------------------------|---------------------------------------------------|--------------------------------|
| wte                          | normal, std 1                                     | normal, std 0.8                |
| q_proj, k_proj, v_proj       | normal, std min(1, sqrt(out/in)) / sqrt(in)       | uniform, std 1 / sqrt(D)       |
| mlp.up                       | likewise (2310.17813)                             | uniform, std 0.4 / sqrt(D)     |
| o_proj, mlp.down             | 0: every block starts as the identity             | 0                              |
| lm_head                      | 0: every token equally likely                     | normal, std 0.001              |
| value embeddings             | uniform, std 1 / sqrt(D)                          | likewise                       |
| gates                        | uniform between 0 and 0.02                        | likewise                       |
| residual a, b                | 1.15 to 1.05 and 0.20 to 0.05, linear in the layer | likewise                       |
| smear scale, backout scale   | 0, 0.2                                            | likewise                       |

D is the width. The numbers of `modern` are those of the newest published network of this family. Notable: what no
rule knows is an error, so a new parameter cannot stay as the allocator left it.
"""

from collections.abc import Callable, Iterable
from math import sqrt

import torch
from torch import Generator, Tensor, nn

from nanochat.plan.dims import ModelDims

Draw = Callable[[torch.Size, Generator], Tensor]


def fill(parameters: Iterable[tuple[str, nn.Parameter]], dims: ModelDims, seed: int) -> None:
    """Every parameter in place, in the order given. The same seed gives the same numbers on every device."""
    generator = Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in parameters:
            # drawn on the CPU: generators of other devices give other numbers
            weight.copy_(rule_of(name, dims)(weight.shape, generator))


def rule_of(name: str, dims: ModelDims) -> Draw:
    """How the parameter of this name is drawn."""
    rules = _common(dims) | (_modern(dims) if dims.init == "modern" else _GPT)
    found = [rule for ending, rule in rules.items() if name == ending or name.endswith("." + ending)]
    assert len(found) == 1, f"parameter {name} has {len(found)} rules for its first numbers"
    return found[0]


def _normal(std: float) -> Draw:
    return lambda shape, generator: torch.randn(shape, generator=generator).mul_(std)


def _uniform(std: float) -> Draw:
    """Between -sqrt(3) std and sqrt(3) std."""
    return lambda shape, generator: torch.rand(shape, generator=generator).mul_(2).sub_(1).mul_(sqrt(3) * std)


def _between(low: float, high: float) -> Draw:
    return lambda shape, generator: torch.rand(shape, generator=generator).mul_(high - low).add_(low)


def _line(first: float, last: float) -> Draw:
    return lambda shape, _: torch.linspace(first, last, shape[0])


def _constant(value: float) -> Draw:
    return lambda shape, _: torch.full(shape, value)


def _by_shape(shape: torch.Size, generator: Generator) -> Tensor:
    fan_out, fan_in = shape
    return torch.randn(shape, generator=generator).mul_(min(1.0, sqrt(fan_out / fan_in)) / sqrt(fan_in))


def _common(dims: ModelDims) -> dict[str, Draw]:
    return {
        "attn.o_proj.weight": _constant(0.0),
        "mlp.down.weight": _constant(0.0),
        "value_embed.table.weight": _uniform(dims.n_embd**-0.5),
        "value_embed.gate.weight": _between(0.0, 0.02),
        "smear.gate.weight": _between(0.0, 0.02),
        "smear.scale": _constant(0.0),
        "backout.scale": _constant(0.2),
        "residual.a": _line(1.15, 1.05),
        "residual.b": _line(0.20, 0.05),
    }


_PROJECTIONS = [f"attn.{name}_proj.weight" for name in "qkv"]
_GPT: dict[str, Draw] = {
    "wte.weight": _normal(1.0),
    "lm_head.weight": _constant(0.0),
    "mlp.up.weight": _by_shape,
    **dict.fromkeys(_PROJECTIONS, _by_shape),
}


def _modern(dims: ModelDims) -> dict[str, Draw]:
    std = dims.n_embd**-0.5
    return {
        "wte.weight": _normal(0.8),
        "lm_head.weight": _normal(0.001),
        "mlp.up.weight": _uniform(0.4 * std),
        **dict.fromkeys(_PROJECTIONS, _uniform(std)),
    }

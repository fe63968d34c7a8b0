"""Parameters and FLOPs per token by group, against a count of the modules and of the products that torch makes.

Notable: everything runs on the meta device, where products are counted and not computed. torch counts attention as if
every query looked at every key, which is what the formula says of a window over the whole row; what a short window
leaves out is subtracted here. A backward pass makes two products of the size of each of the forward pass.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import ceil

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nanochat.config.load import compose_run
from nanochat.config.model import ModelConfig
from nanochat.config.objective import ObjectiveConfig, ObjectiveName
from nanochat.data.batches import MicroBatch
from nanochat.model.gpt import GPT
from nanochat.model.layers import Linear
from nanochat.plan.dims import ModelDims, count_params, derive_dims, flops_by_group, flops_per_token
from nanochat.training.objectives import build_objective

ROWS = 2
Case = tuple[str, dict[str, int]]
CASES: list[Case] = [
    ("gpt", {"depth": 3, "head_dim": 64, "gqa_ratio": 3, "max_seq_len": 128}),
    ("modern", {"depth": 4, "gqa_ratio": 2, "max_seq_len": 512}),
    ("modern", {"depth": 5, "head_dim": 64, "max_seq_len": 1024}),
]


@cache
def model_group(name: str) -> ModelConfig:
    """As conf/model has it; composing takes longer than any of these tests."""
    return compose_run([f"model={name}"]).config.model


def dims_of(case: Case, vocab: int = 1000) -> ModelDims:
    name, changes = case
    return derive_dims(replace(model_group(name), **changes), vocab)


def on_meta(dims: ModelDims) -> GPT:
    with torch.device("meta"):
        return GPT(dims)


def group_of(name: str) -> str:
    """Of a linear layer."""
    return {"lm_head": "head", "smear.gate": "smear gate"}.get(name, "matrices")


def weights_in_products(model: nn.Module) -> dict[str, int]:
    """Elements of the weights that activations are multiplied by."""
    found = {"head": 0, "smear gate": 0, "matrices": 0}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            found[group_of(name)] += module.weight.numel()
    return found


def products(run: Callable[[], object]) -> dict[str, int]:
    """FLOPs by the name of a module, "Global" for all."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return {name.removeprefix("GPT."): sum(found.values()) for name, found in counter.get_flop_counts().items()}


def tokens(dims: ModelDims) -> Tensor:
    return torch.zeros(ROWS, dims.seq_len, dtype=torch.int64, device="meta")


def not_seen(dims: ModelDims) -> int:
    """Keys of a row that short windows leave out, over all layers; the window is a quarter, up to a multiple of 128."""
    pattern = (dims.window_pattern or "L") * dims.n_layer
    short = pattern[: dims.n_layer - 1].count("S")
    return short * (dims.seq_len - min(dims.seq_len, ceil(dims.seq_len / 4 / 128) * 128))


@pytest.mark.parametrize("case", CASES)
def test_parameters_by_group(case: Case) -> None:
    dims = dims_of(case)
    model, counts = on_meta(dims), count_params(dims)
    found = weights_in_products(model)
    assert (counts.unembedding, counts.smear_gate, counts.matrices) == tuple(found.values())
    tables = {name: m.weight.numel() for name, m in model.named_modules() if isinstance(m, nn.Embedding)}
    assert counts.embedding == tables.pop("wte") and counts.value_embeddings == sum(tables.values())
    assert counts.scalars == sum(p.numel() for p in model.parameters() if p.ndim < 2)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.scaling == found["matrices"] + found["head"]


@pytest.mark.parametrize("case", CASES)
def test_flops_of_the_forward_pass_by_group(case: Case) -> None:
    dims = dims_of(case)
    model = on_meta(dims).requires_grad_(False)
    found = products(lambda: model(tokens(dims)))
    layers = {name for name, module in model.named_modules() if isinstance(module, Linear)}
    by_group = dict.fromkeys(("head", "smear gate", "matrices"), 0)
    for name in layers:
        by_group[group_of(name)] += found[name]
    each = ROWS * dims.seq_len
    assert by_group == {group: 2 * number * each for group, number in weights_in_products(model).items()}
    attention = found["Global"] - sum(by_group.values())
    assert attention == 4 * dims.n_layer * dims.n_head * dims.head_dim * dims.seq_len * each
    said = flops_by_group(dims)
    left_out = 12 * dims.n_head * dims.head_dim * not_seen(dims)
    trained = {group: 3 * number // each for group, number in by_group.items()}
    assert said == {**trained, "attention": 3 * attention // each - left_out}


@pytest.mark.parametrize("case", CASES)
def test_flops_of_training(case: Case) -> None:
    """The loss and its gradient cost what the plan says: no product is made twice, the head's neither."""
    dims = dims_of(case)
    model = on_meta(dims)
    loss = build_objective(ObjectiveConfig(name=ObjectiveName.next_token))
    batch = MicroBatch(tokens(dims), tokens(dims))
    found = products(lambda: loss(model, batch)[0].backward())["Global"]
    left_out = 12 * dims.n_head * dims.head_dim * not_seen(dims)
    assert found == (flops_per_token(dims) + left_out) * ROWS * dims.seq_len
    assert (left_out > 0) == (dims.window_pattern is not None)


def test_the_published_numbers_of_d20() -> None:
    dims = dims_of(("gpt", {"depth": 20}), 65_536)
    assert count_params(dims).total == 560_988_160
    assert flops_per_token(dims) == 3_491_758_080

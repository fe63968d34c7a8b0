import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from bigram import Bigram
from torch import Tensor, nn
from torch._higher_order_ops import wrap

from nanochat.config.objective import LabelSmoothingConfig, ObjectiveConfig, ObjectiveName, ZLossConfig
from nanochat.training.objectives import build_objective

VOCAB = 13


@dataclass(frozen=True)
class Batch:
    inputs_BT: Tensor
    targets_BT: Tensor


CONFIGS = {
    "next_token": ObjectiveConfig(name=ObjectiveName.next_token),
    "z_loss": ZLossConfig(name=ObjectiveName.z_loss, coefficient=0.1),
    "label_smoothing": LabelSmoothingConfig(name=ObjectiveName.label_smoothing, smoothing=0.2),
}


@pytest.fixture
def model() -> Bigram:
    torch.manual_seed(0)
    return Bigram(VOCAB)


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randint(VOCAB, (4, 6), generator=generator) for _ in range(2))
    targets[0, 3:] = -1
    targets[2] = -1
    return Batch(inputs, targets)


def by_hand(name: str, model: nn.Module, batch: Batch) -> float:
    """Position by position in float64, from the definitions."""
    total = 0.0
    for x, y in zip(batch.inputs_BT.flatten().tolist(), batch.targets_BT.flatten().tolist(), strict=True):
        if y < 0:
            continue
        logits = model.weight[x].double()
        log_z = logits.exp().sum().log()
        nll = log_z - logits
        wanted = {
            "next_token": nll[y],
            "z_loss": nll[y] + 0.1 * log_z**2,
            "label_smoothing": 0.8 * nll[y] + 0.2 * nll.mean(),
        }
        total += float(wanted[name])
    return total


@pytest.mark.parametrize("name", CONFIGS)
def test_against_the_definition(name: str, model: nn.Module, batch: Batch) -> None:
    with torch.no_grad():
        loss, weight = build_objective(CONFIGS[name])(model, batch)
        assert int(weight) == 4 * 6 - 3 - 6
        assert float(loss) == pytest.approx(by_hand(name, model, batch), rel=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_add_up_to_the_whole(name: str, model: nn.Module, batch: Batch) -> None:
    """However the rows are cut into micro-batches, the summed gradient is the same."""
    objective = build_objective(CONFIGS[name])
    objective(model, batch)[0].backward()
    whole = model.weight.grad.clone()
    model.weight.grad = None
    for rows in ([0], [1, 2], [3]):
        objective(model, Batch(batch.inputs_BT[rows], batch.targets_BT[rows]))[0].backward()
    torch.testing.assert_close(model.weight.grad, whole)


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_supervised_is_zero_and_not_nan(name: str, model: nn.Module, batch: Batch) -> None:
    empty = Batch(batch.inputs_BT, torch.full_like(batch.targets_BT, -1))
    loss, weight = build_objective(CONFIGS[name])(model, empty)
    loss.backward()
    assert loss.item() == 0 and int(weight) == 0
    assert float(model.weight.grad.abs().max()) == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_compiled_is_one_graph_and_the_same(
    name: str, model: Bigram, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers, gradients too; what is asked of the compiler is one graph for each shape."""
    asked, graphs = [], []

    def note(graph: torch.fx.GraphModule, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def compile_(fn: Any, **options: Any) -> Any:
        asked.append(options)
        return compiler(fn, **options, backend=note)

    compiler = torch.compile
    wanted = build_objective(CONFIGS[name])(model, batch)[0]
    monkeypatch.setattr(torch, "compile", compile_)
    objective = build_objective(CONFIGS[name], compile=True)
    for _ in range(2):
        found = objective(model, batch)[0]
    torch.testing.assert_close(found, wanted)
    grads = [torch.autograd.grad(loss, model.weight) for loss in (found, wanted)]
    torch.testing.assert_close(*grads)
    assert asked == [{"dynamic": False, "fullgraph": True}] and len(graphs) == 1
    torch._dynamo.reset()


def test_the_compiler_does_not_warn_of_what_is_recomputed_in_every_run() -> None:
    build_objective(CONFIGS["next_token"], compile=True)
    assert not wrap.log.isEnabledFor(logging.WARNING)

"""A compiled update is the eager one, compiled once however the rates move and however many shapes there are."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import nn

from nanochat.config.optim import OptimConfig
from nanochat.optim.build import build_optimizer
from nanochat.optim.rule import Rule
from nanochat.plan.schedules import StepRates

Make = Callable[..., OptimConfig]
ROLES = {"wte": "embedding", "head": "unembedding", "a": "matrix", "b": "matrix", "tall": "matrix", "wide": "matrix"}
SHAPES = {"wte": (11, 8), "head": (11, 8), "a": (8, 8), "b": (8, 8), "tall": (16, 8), "wide": (8, 16)}


@pytest.fixture
def no_recompiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiles without a C++ compiler, and fails where anything is compiled twice."""
    torch._dynamo.reset()
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend="aot_eager"))
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


def five_updates(config: OptimConfig, compiled: bool) -> dict[str, torch.Tensor]:
    """The weights and the state after five updates with other rates each time."""
    draw = torch.Generator().manual_seed(0)
    params = {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in SHAPES.items()}
    lrs = dict.fromkeys(ROLES.values(), 0.02)
    optimizer = build_optimizer(params, ROLES, config, lrs, compile=compiled)
    for s in range(5):
        for p in params.values():
            p.grad = torch.randn(p.shape, generator=draw)
        optimizer.update(StepRates(1 - s / 10, 0.85 + s / 100, 1 - s / 5))
        optimizer.zero_grad()
    return {name: p.detach() for name, p in params.items()} | optimizer.state_tensors()


def test_compiled_equals_eager(make_config: Make, no_recompiles: None) -> None:
    """The rules of muon_modern and of AdamW; the test below has those of muon_adamw."""
    config = make_config("muon_modern")
    compiled, eager = five_updates(config, True), five_updates(config, False)
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch compiles by a C++ compiler, and there is none")
@pytest.mark.parametrize("name", ["muon_modern", "muon_adamw"])
def test_compiled_by_inductor_equals_eager(make_config: Make, name: str) -> None:
    config = make_config(name)
    compiled, eager = five_updates(config, True), five_updates(config, False)
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-6)


def grow_(p: torch.Tensor, *, by: float | torch.Tensor) -> None:
    p.add_(by)


def test_every_group_has_compiled_code_of_its_own(no_recompiles: None) -> None:
    """torch compiles one function for eight sets of shapes only, then gives up."""
    for length in range(1, 10):
        p = torch.zeros(length)
        rule = Rule(grow_, p.device, compiled=True)
        for by in (1.0, 2.0, 4.0):
            rule(p, by=by)
        assert p.tolist() == [7.0] * length

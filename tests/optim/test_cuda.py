"""What only a GPU can show. Skipped where there is none."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nanochat.config.optim import NSDtype, OptimConfig
from nanochat.optim.build import build_optimizer
from nanochat.plan.schedules import StepRates

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["muon_adamw", "muon_modern", "adamw"])
def test_a_step_never_waits_for_the_device(make_config: Callable[..., OptimConfig], name: str, compiled: bool) -> None:
    shapes = {"wte": (64, 32), "a": (32, 32), "b": (32, 32), "c": (128, 32), "head": (64, 32)}
    params = {n: nn.Parameter(torch.randn(shape, device="cuda")) for n, shape in shapes.items()}
    params["wte"] = nn.Parameter(params["wte"].detach().bfloat16())
    roles = {"wte": "embedding", "head": "unembedding"} | dict.fromkeys("abc", "matrix")
    changes = {} if name == "adamw" else {"ns_dtype": NSDtype.bfloat16}
    lrs = dict.fromkeys(("embedding", "unembedding", "matrix"), 0.01)
    optimizer = build_optimizer(params, roles, make_config(name, **changes), lrs, compile=compiled)
    for _ in range(2):  # the first update compiles, and may wait
        before = {n: p.detach().clone() for n, p in params.items()}
        for p in params.values():
            p.grad = torch.randn_like(p)
        if not compiled or optimizer.step == 1:
            break
        optimizer.update(StepRates(0.7, 0.88))
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.update(StepRates(0.5, 0.9))
        optimizer.zero_grad()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(not torch.equal(before[n], p) for n, p in params.items())

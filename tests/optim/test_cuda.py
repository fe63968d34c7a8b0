"""What only a GPU can show. Skipped where there is none."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from nanochat.config.optim import NSDtype, OptimConfig
from nanochat.optim.build import build_optimizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.parametrize("name", ["muon_adamw", "adamw"])
def test_a_step_never_waits_for_the_device(make_config: Callable[..., OptimConfig], name: str) -> None:
    shapes = {"wte": (64, 32), "a": (32, 32), "b": (32, 32), "c": (128, 32), "head": (64, 32)}
    params = {n: nn.Parameter(torch.randn(shape, device="cuda")) for n, shape in shapes.items()}
    params["wte"] = nn.Parameter(params["wte"].detach().bfloat16())
    roles = {"wte": "embedding", "head": "unembedding"} | dict.fromkeys("abc", "matrix")
    changes = {"ns_dtype": NSDtype.bfloat16} if name == "muon_adamw" else {}
    lrs = dict.fromkeys(("embedding", "unembedding", "matrix"), 0.01)
    optimizer = build_optimizer(params, roles, make_config(name, **changes), lrs)
    before = {n: p.detach().clone() for n, p in params.items()}
    for p in params.values():
        p.grad = torch.randn_like(p)
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.update(0.5, 0.9)
        optimizer.zero_grad()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(not torch.equal(before[n], p) for n, p in params.items())

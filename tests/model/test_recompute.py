"""What is recomputed changes what is kept, and no number."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from nanochat.model.gpt import GPT
from nanochat.model.head import summed_loss
from nanochat.model.recompute import Recompute

Make = Callable[..., GPT]
HOW = {"nothing": (False, False), "cheap": (False, True), "blocks": (True, False)}


def gradients(model: GPT, how: str, loss_of: Callable[..., Tensor] = summed_loss) -> list[Tensor]:
    model.activation_checkpointing, model.recompute_cheap = HOW[how]
    assert model.recompute == Recompute(how)
    idx = torch.randint(61, (2, 150), generator=torch.Generator().manual_seed(5))  # longer than a short window
    loss = loss_of(model, idx, idx)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("how", ["cheap", "blocks"])
@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
def test_it_changes_no_gradient(make_model: Make, modern: dict[str, Any], new: bool, how: str) -> None:
    features = modern if new else {}
    wanted = gradients(make_model(seq_len=160, **features), "nothing")
    found = gradients(make_model(seq_len=160, **features), how)
    assert len(found) == len(wanted) > 10
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def kept_tensors(model: GPT, how: str) -> tuple[list[int], list[Tensor]]:
    """The number of numbers in each tensor that the compiler keeps for the backward pass; and the gradients."""
    sizes: list[int] = []

    def keep(graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
        outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
        kept = {node for node in outputs if isinstance(node, torch.fx.Node) and node.op != "placeholder"}
        sizes.extend(int(node.meta["val"].numel()) for node in kept)
        return graph

    backend = aot_autograd(fw_compiler=keep, bw_compiler=lambda graph, example: graph)
    found = gradients(model, how, torch.compile(summed_loss, backend=backend, fullgraph=True, dynamic=False))
    return sizes, found


@pytest.mark.slow  # each compiles two networks
@pytest.mark.filterwarnings("ignore:Your compiler for AOTAutograd")
@pytest.mark.parametrize("how", ["cheap", "blocks"])
@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
def test_what_is_kept_is_what_the_plan_counts(make_model: Make, modern: dict[str, Any], new: bool, how: str) -> None:
    """A block more: 10 tensors of (B, T, D), 8.5 with one key head for four; or its input. No graph break either."""
    features = (modern if new else {}) | {"n_kv_head": 1}
    unit = 2 * 150 * 32
    counts = []
    for layers in (3, 5):  # the last layer of both has a value embedding
        model = make_model(seq_len=160, **(features | {"n_layer": layers}))
        sizes, found = kept_tensors(model, how)
        wanted = gradients(make_model(seq_len=160, **(features | {"n_layer": layers})), "nothing")
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        counts.append(sum(size for size in sizes if size >= unit // 4 and size % 300 == 0) / unit)
    assert (counts[1] - counts[0]) / 2 == pytest.approx({"cheap": 8.5, "blocks": 1.0}[how], abs=0.05)

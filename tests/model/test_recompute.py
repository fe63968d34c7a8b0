"""What is recomputed changes what is kept, and no number."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import min_cut_rematerialization_partition
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd

from nanochat.model.gpt import GPT
from nanochat.model.head import summed_loss
from nanochat.model.recompute import Recompute
from nanochat.model.stream import Fused

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


VIEWS = ("aten.view", "aten.detach", "aten.transpose", "aten.unsqueeze", "aten.expand", "aten.permute", "aten.t.")


def source(node: Any) -> Any:
    """What a view is of: only that is memory."""
    while isinstance(node, torch.fx.Node) and node.op == "call_function" and str(node.target).startswith(VIEWS):
        node = node.args[0]
    return node


def kept_tensors(model: GPT, how: str) -> tuple[list[int], list[Tensor]]:
    """The number of numbers in each tensor that the compiler keeps for the backward pass; and the gradients."""
    sizes: list[int] = []

    def keep(graph: torch.fx.GraphModule, example: list[Tensor]) -> Any:
        outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
        kept = {node for node in map(source, outputs) if isinstance(node, torch.fx.Node) and node.op != "placeholder"}
        sizes.extend(int(node.meta["val"].numel()) for node in kept)
        return graph

    backend = aot_autograd(
        fw_compiler=keep,
        bw_compiler=lambda graph, example: graph,
        partition_fn=min_cut_rematerialization_partition,  # as Inductor does
    )
    torch._dynamo.reset()  # or it counts all these networks as one that changes too often
    found = gradients(model, how, torch.compile(summed_loss, backend=backend, fullgraph=True, dynamic=False))
    return sizes, found


# Tensors of (B, T, D) that a block more keeps, with one key head for four: q is one, k and v a quarter each.
KEPT = {("cheap", False): 8.5, ("cheap", True): 8.5, ("blocks", False): 1.0, ("blocks", True): 1.0}
KEPT[("nothing", True)] = (
    4 + 3 * 1 + 3 * 0.25 + 4
)  # 2 sums and their norms, q and k twice, v, attention, 4 D of the MLP


@pytest.mark.slow  # each compiles two networks
@pytest.mark.filterwarnings("ignore:Your compiler for AOTAutograd")
@pytest.mark.parametrize(("how", "fused"), KEPT)
@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
def test_what_is_kept_is_what_the_plan_counts(
    make_model: Make, modern: dict[str, Any], new: bool, how: str, fused: bool
) -> None:
    """With fused kernels as without them, where something is recomputed. No graph break either."""
    sizes = {"n_embd": 128, "n_head": 4, "n_kv_head": 1, "head_dim": 32, "seq_len": 160}
    features = (modern if new else {}) | sizes
    unit = 2 * 150 * 128
    counts = []
    for layers in (3, 5):  # the last layer of both has a value embedding
        model = make_model(**(features | {"n_layer": layers}))
        model.fused = Fused.always if fused else Fused.never
        kept, found = kept_tensors(model, how)
        wanted = gradients(make_model(**(features | {"n_layer": layers})), "nothing")
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        counts.append(sum(size for size in kept if size >= unit // 4 and size % 300 == 0) / unit)
    embedded = 0.25 / 2 if new and how == "nothing" else 0.0  # its rows of the table, in every other layer
    assert (counts[1] - counts[0]) / 2 == pytest.approx(KEPT[how, fused] + embedded, abs=0.05)

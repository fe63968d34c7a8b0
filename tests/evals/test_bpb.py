import math
from functools import partial
from typing import Any

import pytest
import torch
from bigram import Bigram
from torch import Tensor, nn

from nanochat.data.batches import MicroBatch
from nanochat.evals.bpb import _compiled, evaluate_bpb

TOKEN_BYTES = [1, 1, 3, 7, 0, 0]  # ids 4 and 5 are specials
VOCAB = len(TOKEN_BYTES)


@pytest.fixture
def model() -> Bigram:
    torch.manual_seed(0)
    return Bigram(VOCAB)


def batch(inputs: list[list[int]], targets: list[list[int]]) -> MicroBatch:
    return MicroBatch(torch.tensor(inputs), torch.tensor(targets))


def nll(model: nn.Module, x: int, y: int) -> float:
    """-log p(y | x) in float64, from the definition."""
    logits: Tensor = model.weight[x].double()
    return (logits.exp().sum().log() - logits[y]).item()


def test_by_hand(model: nn.Module) -> None:
    """Specials and ignored targets are in neither sum; the loss has the specials."""
    batches = [batch([[0, 1, 2], [3, 4, 0]], [[1, 2, 4], [3, -1, 5]]), batch([[5, 5]], [[0, -1]])]
    found = evaluate_bpb(model, batches, TOKEN_BYTES, "cpu")
    counted = [(0, 1), (1, 2), (3, 3), (5, 0)]
    nats = sum(nll(model, x, y) for x, y in counted)
    assert found.bpb == pytest.approx(nats / (math.log(2) * (1 + 3 + 7 + 1)), rel=1e-6)
    everything = nats + nll(model, 2, 4) + nll(model, 0, 5)
    assert found.targets == 6 and found.loss == pytest.approx(everything / 6, rel=1e-6)


def test_a_model_that_knows_nothing(model: nn.Module) -> None:
    """Uniform over the vocabulary: log2(V) bits a token."""
    nn.init.zeros_(model.weight)  # type: ignore[arg-type]
    found = evaluate_bpb(model, [batch([[0, 1, 2, 3]], [[0, 1, 2, 3]])], TOKEN_BYTES, "cpu")
    assert found.bpb == pytest.approx(4 * math.log2(VOCAB) / (1 + 1 + 3 + 7))


def test_the_cut_into_batches_changes_nothing(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    inputs, targets = (torch.randint(VOCAB, (12, 5), generator=generator) for _ in range(2))
    whole = evaluate_bpb(model, [MicroBatch(inputs, targets)], TOKEN_BYTES, "cpu")
    parts = zip(inputs.split(5), targets.split(5), strict=True)
    assert evaluate_bpb(model, [MicroBatch(*p) for p in parts], TOKEN_BYTES, "cpu").bpb == pytest.approx(
        whole.bpb, rel=1e-12
    )


def test_nothing_to_measure_is_nan(model: nn.Module) -> None:
    found = evaluate_bpb(model, [batch([[0]], [[-1]]), batch([[0]], [[4]])], TOKEN_BYTES, "cpu")
    assert math.isnan(found.bpb) and found.targets == 1 and found.loss == pytest.approx(nll(model, 0, 4), rel=1e-6)
    assert math.isnan(evaluate_bpb(model, [], TOKEN_BYTES, "cpu").loss)


def test_leaves_no_gradient(model: nn.Module) -> None:
    evaluate_bpb(model, [batch([[0]], [[1]])], TOKEN_BYTES, "cpu")
    assert model.weight.grad is None


def test_compiled_it_is_the_same(model: Bigram, monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph, which the next evaluation finds again."""
    made: list[torch.fx.GraphModule] = []

    def note(graph: torch.fx.GraphModule, example: Any) -> Any:
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=note))
    _compiled.cache_clear()
    batches = [batch([[0, 1, 2], [3, 4, 0]], [[1, 2, 4], [3, -1, 5]])] * 2
    wanted = evaluate_bpb(model, batches, TOKEN_BYTES, "cpu")
    for _ in range(2):
        assert evaluate_bpb(model, batches, TOKEN_BYTES, "cpu", compile=True) == wanted
    assert len(made) == 1
    _compiled.cache_clear()
    torch._dynamo.reset()

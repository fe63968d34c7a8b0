import math

import pytest
import torch
from bigram import Bigram
from torch import nn

from nanochat.config.guards import OnNonFinite
from nanochat.config.objective import ObjectiveConfig, ObjectiveName
from nanochat.data.batches import MicroBatch
from nanochat.errors import NanochatError
from nanochat.plan.schedules import StepRates
from nanochat.training.objectives import build_objective
from nanochat.training.step import NonFiniteGuard, accumulate_gradients, clip_gradients, take_step

VOCAB = 11
next_token = build_objective(ObjectiveConfig(name=ObjectiveName.next_token))


@pytest.fixture
def model() -> Bigram:
    torch.manual_seed(0)
    return Bigram(VOCAB)


@pytest.fixture
def rows() -> MicroBatch:
    """Six rows with from 0 to 5 targets."""
    generator = torch.Generator().manual_seed(1)
    inputs, targets = (torch.randint(VOCAB, (6, 5), generator=generator) for _ in range(2))
    for i in range(6):
        targets[i, i:] = -1
    return MicroBatch(inputs, targets)


def cut(rows: MicroBatch, size: int) -> list[MicroBatch]:
    pairs = zip(rows.inputs_BT.split(size), rows.targets_BT.split(size), strict=True)
    return [MicroBatch(*pair) for pair in pairs]


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_gradient_of_the_mean_over_all_targets(model: nn.Module, rows: MicroBatch, size: int) -> None:
    """However the rows are cut, one of which has no target at all."""
    loss = accumulate_gradients(model, next_token, cut(rows, size), 15.0, "cpu")
    grad = model.weight.grad.clone()
    model.weight.grad = None
    flat = model(rows.inputs_BT).flatten(0, 1)
    whole = nn.functional.cross_entropy(flat, rows.targets_BT.flatten(), ignore_index=-1)  # the mean over 15 targets
    whole.backward()
    assert float(loss) == pytest.approx(whole.item(), abs=1e-6)
    torch.testing.assert_close(grad, model.weight.grad, atol=1e-7, rtol=1e-5)


def test_a_step_without_a_target_is_zero_and_not_nan(model: nn.Module) -> None:
    nothing = MicroBatch(torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 3), -1))
    loss = accumulate_gradients(model, next_token, [nothing], 0.0, "cpu")
    assert float(loss) == 0.0 and float(model.weight.grad.abs().max()) == 0.0


def test_clipping_is_of_the_global_norm() -> None:
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert float(clip_gradients([a, b], 1.0)) == pytest.approx(5.0)
    torch.testing.assert_close(torch.cat([a.grad, b.grad]), torch.tensor([0.6, 0.0, 0.0, 0.8]))


@pytest.mark.parametrize("bound", [0.0, 10.0])
def test_small_gradients_are_left_alone(bound: float) -> None:
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3.0, 4.0])
    assert float(clip_gradients([p], bound)) == pytest.approx(5.0)
    assert p.grad.tolist() == [3.0, 4.0]


class Counter:
    """An optimizer that counts."""

    updates = 0

    def update(self, rates: StepRates) -> None:
        self.updates += 1

    def zero_grad(self) -> None:
        pass


def step_with(guard: NonFiniteGuard, gradient: float, loss: float = 1.0) -> int:
    model, optimizer = nn.Linear(1, 1, bias=False), Counter()
    model.weight.grad = torch.tensor([[gradient]])
    take_step(
        model,
        optimizer,
        torch.tensor(loss),
        guard,
        step=7,
        grad_clip=1.0,
        rates=StepRates(1.0),
    )
    return optimizer.updates


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (1.0, math.nan), (1.0, math.inf), (math.inf, 0.0)])
def test_what_is_not_finite(loss: float, gradient: float) -> None:
    said: list[str] = []
    assert step_with(NonFiniteGuard(OnNonFinite.skip, 3, said.append), gradient, loss) == 0
    assert step_with(NonFiniteGuard(OnNonFinite.warn, 3, said.append), gradient, loss) == 1
    assert len(said) == 2 and "step 7" in said[0] and "left alone" in said[0] and "updated" in said[1]
    with pytest.raises(NanochatError, match=r"step 7: .*guards.non_finite=stop"):
        step_with(NonFiniteGuard(OnNonFinite.stop, 3, said.append), gradient, loss)


def test_only_skips_in_a_row_count() -> None:
    guard = NonFiniteGuard(OnNonFinite.skip, 3, lambda text: None)
    for gradient in (math.nan, math.nan, 1.0, math.nan, math.nan):
        step_with(guard, gradient)
    with pytest.raises(NanochatError, match="guards.max_skips=3"):
        step_with(guard, math.nan)

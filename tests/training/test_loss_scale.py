"""float16: the scale of the loss, and what it is for."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from workshop import Workshop, assert_same_run, steps_saved

from nanochat.config.guards import OnNonFinite
from nanochat.config.objective import ObjectiveConfig, ObjectiveName
from nanochat.config.runtime import ComputeDtype
from nanochat.data.batches import MicroBatch
from nanochat.errors import NanochatError
from nanochat.model.build import build_model
from nanochat.plan.dims import ModelDims
from nanochat.plan.schedules import StepRates
from nanochat.train import dispatch
from nanochat.training.loss_scale import GROW_AFTER, START, LossScale
from nanochat.training.objectives import build_objective
from nanochat.training.step import NonFiniteGuard, accumulate_gradients, clip_gradients, take_step

DIMS = ModelDims(2, 32, 2, 2, 16, 61, 16, 10_000.0, "float32", 1e-6, 15.0)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def scale(said: list[str]) -> LossScale:
    return LossScale(said.append)


class Counter:
    """An optimizer that notes the gradient it sees."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def take(self, gradient: float, scale: LossScale, guard: NonFiniteGuard, loss: float = 1.0) -> tuple[float, float]:
        """A step with the `gradient` of the scaled loss."""
        self.weight = nn.Parameter(torch.zeros(1))
        self.weight.grad = torch.tensor([gradient])
        model = nn.ParameterList([self.weight])
        return take_step(
            model,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            torch.tensor(loss),
            guard,
            step=7,
            grad_clip=1.0,
            rates=StepRates(1.0),
            scale=scale,
        )

    def update(self, rates: StepRates) -> None:
        assert self.weight.grad is not None
        self.seen.append(self.weight.grad.item())

    def zero_grad(self) -> None:
        pass


def guard_of(action: OnNonFinite = OnNonFinite.stop) -> NonFiniteGuard:
    return NonFiniteGuard(action, 3, lambda text: None)


def test_gradients_are_unscaled_before_they_are_clipped(scale: LossScale) -> None:
    counter = Counter()
    assert counter.take(0.5 * START, scale, guard_of()) == (1.0, 0.5)
    assert counter.take(4.0 * START, scale, guard_of()) == (1.0, 4.0)
    assert counter.seen == pytest.approx([0.5, 1.0])


def test_an_overflow_is_left_out_and_no_fault(scale: LossScale, said: list[str]) -> None:
    """More of them than guards.max_skips, with guards.non_finite=stop."""
    counter, guard = Counter(), guard_of()
    for gradient in (torch.inf, torch.nan, torch.inf, -torch.inf):
        counter.take(gradient, scale, guard)
    assert counter.seen == [] and guard.skipped == 0 and scale.value == START / 16
    assert said[0] == "step 7: gradients overflow float16; left out, the loss scale is 32768 from here on"
    counter.take(0.25 * scale.value, scale, guard)
    assert counter.seen == [0.25]


def test_what_no_scale_mends_is_the_guards(scale: LossScale) -> None:
    with pytest.raises(NanochatError, match="loss nan"):
        Counter().take(torch.nan, scale, guard_of(), loss=torch.nan)
    scale.value = 1.0
    with pytest.raises(NanochatError, match="gradient norm inf"):
        Counter().take(torch.inf, scale, guard_of())
    assert scale.value == 1.0


def test_the_scale_grows_after_many_good_steps(scale: LossScale) -> None:
    for _ in range(GROW_AFTER - 1):
        assert not scale.overflowed(True, 1)
    assert scale.value == START
    scale.overflowed(False, 1)  # the count begins anew
    for _ in range(GROW_AFTER):
        scale.overflowed(True, 1)
    assert (scale.value, scale.good) == (START, 0)


def test_state(scale: LossScale) -> None:
    other = LossScale(print, 8.0, 3)
    scale.load(json.loads(json.dumps(other.state())))
    assert (scale.value, scale.good) == (8.0, 3)
    scale.load(None)
    assert scale.value == 8.0


def gradients(dtype: str, weight: float, scale: LossScale | None) -> Tensor:
    """Of a small network; all in one vector, unscaled."""
    model = build_model(DIMS, "cpu", dtype, 0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=draw) * 0.1)
    ids = torch.randint(61, (4, 17), generator=draw)
    objective = build_objective(ObjectiveConfig(name=ObjectiveName.next_token))
    batch = MicroBatch(ids[:, :-1], ids[:, 1:])
    accumulate_gradients(model, objective, [batch], weight, "cpu", scale)
    factor = scale.value if scale is not None else 1.0
    return torch.cat([p.grad.flatten() / factor for p in model.parameters() if p.grad is not None])


def test_it_keeps_small_gradients(scale: LossScale) -> None:
    """Of a step of many tokens, each gradient is small: float16 alone loses them."""
    exact = gradients("float32", 1e7, None)
    lost, kept = (gradients("float16", 1e7, s) for s in (None, scale))
    assert float((kept - exact).norm() / exact.norm()) < 0.01
    assert float((lost - exact).norm() / exact.norm()) > 0.1
    assert exact.norm() < 1e-3


def test_activations_are_float16() -> None:
    model = build_model(DIMS, "cpu", "float16", 0)
    assert model.hidden(torch.zeros(1, 4, dtype=torch.int64)).dtype == model.compute_dtype == torch.float16
    assert model(torch.zeros(1, 4, dtype=torch.int64)).dtype == torch.float32


def test_a_run_in_float16_continues(workshop: Workshop) -> None:
    """The state is saved: good steps are counted on, and the run ends as one that was never interrupted."""
    folders = []
    for name in ("half", "half-again"):
        job = workshop.job("base", f"run={name}")
        config = replace(
            job.config,
            runtime=replace(job.config.runtime, dtype=ComputeDtype.float16),
            train=replace(job.config.train, num_iterations=3, save_every=2),
            eval=replace(job.config.eval, every=-1, sample_every=-1),
        )
        with patch("nanochat.reporting.report.PLOTS", ()):
            dispatch(config, job.overrides)
        folders.append(workshop.folder("base", name))
    whole, cut = folders
    remove_last(cut)
    with patch("nanochat.reporting.report.PLOTS", ()):
        dispatch(config, job.overrides)
    assert_same_run(cut, whole)
    state = json.loads((cut / "checkpoints" / "step_000003" / "state.json").read_text())
    assert state["loop"]["loss_scale"] == {"value": START, "good": 3}


def remove_last(run: Path) -> None:
    """As if the run had been killed behind its last checkpoint but one."""
    shutil.rmtree(run / "checkpoints" / f"step_{steps_saved(run)[-1]:06d}")
    (run / "result.json").unlink()


class Wide(TorchDispatchMode):
    """Refuses float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        assert not isinstance(out, Tensor) or out.dtype != torch.float64, f"{func} makes float64"
        return out


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_float64_in_a_step(dtype: str, scale: LossScale) -> None:
    """MPS has none."""
    model = build_model(DIMS, "cpu", dtype, 0)
    ids = torch.zeros(2, 16, dtype=torch.int64)
    objective = build_objective(ObjectiveConfig(name=ObjectiveName.next_token))
    with Wide():
        accumulate_gradients(model, objective, [MicroBatch(ids, ids)], 32.0, "cpu", scale)
        clip_gradients(model.parameters(), 1.0)

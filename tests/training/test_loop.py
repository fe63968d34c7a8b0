"""The loop against a script: what is called, in which order, and what a signal changes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nanochat.config.guards import OnNonFinite
from nanochat.data.batches import MicroBatch, StepBatch
from nanochat.errors import MissingError
from nanochat.plan.schedules import StepRates
from nanochat.training.hooks import Hook, StepInfo
from nanochat.training.loop import LoopEnd, Parts, train_loop
from nanochat.training.step import NonFiniteGuard

TARGETS = 6


class Script:
    """Stands for the source and the optimizer; `calls` is the order of everything."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.step = 0
        self.seen: list[tuple[float, float | None]] = []
        self.no_data_after: int | None = None
        self.failure: Exception | None = None

    def next_step(self, unless: Callable[[], object]) -> StepBatch | None:
        if self.step == self.no_data_after:
            self.calls.append("waiting")
            if self.failure is not None:
                raise self.failure
            assert unless(), "waits for ever"
            return None
        ids = torch.zeros(2, 3, dtype=torch.int64)
        return StepBatch(float(TARGETS), [MicroBatch(ids, ids)], 0.5, [0, 1])

    def update(self, rates: StepRates) -> None:
        self.step += 1
        self.calls.append(f"update {self.step}")
        self.seen.append((rates.lr_factor, rates.momentum))

    def zero_grad(self) -> None:
        pass


def parts_of(script: Script) -> Parts:
    model = nn.Linear(1, 1)

    def objective(_: nn.Module, batch: object) -> tuple[Tensor, Tensor]:
        return model(torch.ones(1, 1)).sum() * 0 + 2.0 * TARGETS, torch.tensor(TARGETS)

    return Parts(
        model=model,
        optimizer=script,  # type: ignore[arg-type]
        objective=objective,
        source=script,  # type: ignore[arg-type]
        rates_at=lambda s, updates: StepRates(10.0 + s, 100.0 + updates),
        grad_clip=0.0,
        guard=NonFiniteGuard(OnNonFinite.stop, 1, print),
        device="cpu",
    )


def run(
    script: Script, *, start: int = 0, total: int = 4, signal_after: str | None = None, save_every: int = 2
) -> tuple[LoopEnd, list[StepInfo]]:
    def hook(name: str, every: int, **options: bool) -> Hook:
        return Hook(name, every, lambda step: script.calls.append(f"{name} {step}"), **options)

    hooks = [
        hook("save", save_every, always_last=True, saves=True),
        hook("validate", 2, at_start=True),
        hook("sample", 2),
    ]
    infos: list[StepInfo] = []
    interrupted: Callable[[], str | None] = lambda: "SIGTERM" if signal_after in script.calls else None  # noqa: E731
    end = train_loop(
        parts_of(script), start=start, total=total, hooks=hooks, report=infos.append, interrupted=interrupted
    )
    return end, infos


def test_the_order_is_save_then_evaluate() -> None:
    script = Script()
    end, infos = run(script)
    assert end == LoopEnd(4, None)
    assert script.calls == [
        "validate 0",
        *("update 1", "update 2", "save 2", "validate 2", "sample 2"),
        *("update 3", "update 4", "save 4", "validate 4", "sample 4"),
    ]
    assert [info.step for info in infos] == [1, 2, 3, 4] and {info.loss for info in infos} == {2.0}
    assert [info.lr_factor for info in infos] == [10.0, 11.0, 12.0, 13.0]


def test_a_resume_evaluates_what_was_due_but_does_not_save_again() -> None:
    script = Script()
    script.step = 2
    end, infos = run(script, start=2)
    assert script.calls[:4] == ["validate 2", "sample 2", "update 3", "update 4"]
    assert end.step == 4 and [info.lr_factor for info in infos] == [12.0, 13.0]


def test_the_momentum_follows_the_optimizer_and_the_rate_the_run() -> None:
    """A branch off a trunk of 50 updates."""
    script = Script()
    script.step = 50
    run(script, total=2)
    assert script.seen == [(10.0, 150.0), (11.0, 151.0)]


@pytest.mark.parametrize(
    ("signal_after", "calls", "step"),
    [
        ("update 1", ["validate 0", "update 1", "save 1"], 1),
        ("update 2", ["validate 0", "update 1", "update 2", "save 2"], 2),
        ("validate 2", ["validate 0", "update 1", "update 2", "save 2", "validate 2"], 2),
        ("validate 0", ["validate 0"], 0),
    ],
)
def test_a_signal_saves_and_leaves_out_the_rest(signal_after: str, calls: list[str], step: int) -> None:
    script = Script()
    end, _ = run(script, signal_after=signal_after)
    assert end == LoopEnd(step, "SIGTERM") and script.calls == calls


def test_a_signal_in_an_evaluation_between_saves() -> None:
    script = Script()
    end, _ = run(script, signal_after="validate 2", save_every=-1)
    assert script.calls[-2:] == ["validate 2", "save 2"] and end.step == 2


@pytest.mark.parametrize(
    ("after", "save_every", "end_of_calls", "step"),
    [
        (3, 2, ["update 3", "waiting", "save 3"], 3),
        (2, 2, ["save 2", "validate 2", "sample 2", "waiting"], 2),  # saved already
        (0, 2, ["validate 0", "waiting"], 0),  # nothing to save
    ],
)
def test_a_signal_while_the_data_are_waited_for(
    after: int, save_every: int, end_of_calls: list[str], step: int
) -> None:
    script = Script()
    script.no_data_after = after
    end, _ = run(script, signal_after="waiting", save_every=save_every)
    assert end == LoopEnd(step, "SIGTERM")
    assert script.calls[-len(end_of_calls) :] == end_of_calls


@pytest.mark.parametrize("failure", [MissingError("shard_00002.parquet never came"), RuntimeError("a bug")])
def test_data_that_cannot_be_had_do_not_cost_the_steps_before(failure: Exception) -> None:
    script = Script()
    script.no_data_after, script.failure = 3, failure
    with pytest.raises(type(failure), match=str(failure)) as caught:
        run(script, save_every=-1)
    assert script.calls[-3:] == ["update 3", "waiting", "save 3"]
    assert ("Step 3 is saved" in str(caught.value)) == isinstance(failure, MissingError)


def test_data_that_fail_at_once_have_nothing_to_save() -> None:
    script = Script()
    script.no_data_after, script.failure = 0, MissingError("shard_00000.parquet never came")
    with pytest.raises(MissingError, match="never came$"):
        run(script)
    assert "save 0" not in script.calls


def test_at_the_last_step_nothing_is_left_out() -> None:
    script = Script()
    end, _ = run(script, signal_after="update 4")
    assert end == LoopEnd(4, None) and script.calls[-3:] == ["save 4", "validate 4", "sample 4"]


def test_nothing_left_to_train() -> None:
    script = Script()
    end, infos = run(script, start=4)
    assert end == LoopEnd(4, None) and infos == [] and script.calls == ["validate 4", "sample 4"]

"""Schedules: written-out values, end points, and that no rate rises after the warm-up."""

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nanochat.config.load import compose_run
from nanochat.config.optim import MomentumConfig
from nanochat.config.schedule import (
    ConstantConfig,
    CosineConfig,
    DecayConfig,
    LinearConfig,
    ScheduleConfig,
    ScheduleName,
    StepConfig,
    TrapezoidConfig,
)
from nanochat.plan.schedules import StepRates, lr_factor, momentum_at, step_rates, warmdown_start, warmup_length

FINAL = {
    ScheduleName.trapezoid: TrapezoidConfig,
    ScheduleName.cosine: CosineConfig,
    ScheduleName.linear: LinearConfig,
    ScheduleName.decay: DecayConfig,
}
ratios = st.floats(0, 1)


@st.composite
def schedules(draw: st.DrawFn) -> ScheduleConfig:
    """Any schedule that a config can ask for."""
    name = draw(st.sampled_from(list(ScheduleName)))
    start = {"name": name, "warmup_ratio": draw(ratios), "warmup_steps": draw(st.none() | st.integers(0, 50))}
    if name == ScheduleName.constant:
        return ConstantConfig(**start)
    if name == ScheduleName.step:
        times = sorted(draw(st.lists(ratios, max_size=4, unique=True)))
        factors = sorted((draw(ratios) for _ in times), reverse=True)
        return StepConfig(**start, milestones=times, factors=factors)
    extra = {"warmdown_ratio": draw(ratios)} if name == ScheduleName.trapezoid else {}
    return FINAL[name](**start, **extra, final_lr_frac=draw(ratios))


def curve(schedule: ScheduleConfig, total: int) -> list[float]:
    return [lr_factor(schedule, s, total) for s in range(total)]


@given(schedule=schedules(), total=st.integers(1, 200))
def test_between_0_and_1_and_never_rising_after_the_warm_up(schedule: ScheduleConfig, total: int) -> None:
    factors = curve(schedule, total)
    w = warmup_length(schedule, total)
    assert all(0 <= f <= 1 for f in factors)
    for s, (before, after) in enumerate(itertools.pairwise(factors)):
        if s < w - 1:
            assert before < after
        elif s >= w:
            assert after <= before


@given(schedule=schedules(), total=st.integers(1, 200))
def test_the_warm_up_is_a_line_to_the_peak(schedule: ScheduleConfig, total: int) -> None:
    w = warmup_length(schedule, total)
    assert w == (schedule.warmup_steps if schedule.warmup_steps is not None else round(schedule.warmup_ratio * total))
    ups = range(min(w, total))
    assert [lr_factor(schedule, s, total) for s in ups] == [(s + 1) / w for s in ups]


def test_a_run_shorter_than_its_warm_up_is_the_beginning_of_it() -> None:
    short = trapezoid(0.65, 0.05, steps=40)
    assert curve(short, 20) == [(s + 1) / 40 for s in range(20)]


@given(schedule=schedules(), total=st.integers(2, 300))
def test_the_end_is_the_final_factor(schedule: ScheduleConfig, total: int) -> None:
    """At s = N, one past the last update, the shape has arrived; at the last update it is one step short of it."""
    assume(warmup_length(schedule, total) < total)
    final = getattr(schedule, "final_lr_frac", None)
    arrived = lr_factor(schedule, total, total)
    if final is not None and not (
        isinstance(schedule, TrapezoidConfig) and round(schedule.warmdown_ratio * total) == 0
    ):
        assert arrived == pytest.approx(final, abs=1e-12)
        assert final - 1e-12 <= lr_factor(schedule, total - 1, total)
    elif final is not None or isinstance(schedule, ConstantConfig):
        assert arrived == 1.0


def trapezoid(warmdown: float, final: float = 0.0, warmup: float = 0.0, steps: int | None = None) -> TrapezoidConfig:
    return TrapezoidConfig(
        name=ScheduleName.trapezoid,
        warmup_ratio=warmup,
        warmup_steps=steps,
        warmdown_ratio=warmdown,
        final_lr_frac=final,
    )


def test_trapezoid_of_the_guide() -> None:
    """Flat for 80 %, then linear to 0: the last of 10 updates is at 1/2 of a warm-down of 2."""
    assert curve(trapezoid(0.2), 10) == [1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5]
    assert curve(trapezoid(0.5, 0.1), 4) == pytest.approx([1, 1, 1, 0.55])
    assert curve(trapezoid(0.0), 5) == [1] * 5
    assert curve(trapezoid(0.4, warmup=0.4), 5) == pytest.approx([0.5, 1, 1, 1, 0.5])
    assert curve(trapezoid(0.5, steps=2), 4) == pytest.approx([0.5, 1, 1, 0.5])


def test_linear_is_one_minus_s_over_n() -> None:
    linear = compose_run(["stage=sft"]).config.schedule
    assert curve(linear, 8) == pytest.approx([1 - s / 8 for s in range(8)])


def test_cosine_by_hand() -> None:
    cosine = CosineConfig(name=ScheduleName.cosine, warmup_ratio=0.2, warmup_steps=None, final_lr_frac=0.1)
    wanted = [0.5, 1.0] + [0.1 + 0.9 * (1 + math.cos(math.pi * p / 8)) / 2 for p in range(8)]
    assert curve(cosine, 10) == pytest.approx(wanted)


def test_steps_by_hand() -> None:
    step = compose_run(["schedule=step"]).config.schedule
    assert curve(step, 10) == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.1, 0.1]


def test_constant_and_decay() -> None:
    constant, decay = (compose_run([f"schedule={name}"]).config.schedule for name in ("constant", "decay"))
    assert curve(constant, 3) == [1, 1, 1]
    assert curve(decay, 4) == pytest.approx([1, 0.75, 0.5, 0.25])


@given(start=st.floats(0, 0.99), end=st.floats(0, 0.99), steps=st.integers(0, 100))
def test_momentum_moves_in_a_line(start: float, end: float, steps: int) -> None:
    momentum = MomentumConfig(start=start, end=end, warmup_steps=steps)
    values = [momentum_at(momentum, s) for s in range(steps + 3)]
    assert values[0] == pytest.approx(start if steps else end) and values[steps:] == pytest.approx([end] * 3)
    assert all(min(start, end) - 1e-12 <= v <= max(start, end) + 1e-12 for v in values)


def test_momentum_of_the_guide() -> None:
    momentum = compose_run([]).config.optim.momentum  # type: ignore[attr-defined]
    assert [momentum_at(momentum, s) for s in (0, 150, 300, 10_000)] == pytest.approx([0.85, 0.9, 0.95, 0.95])


MODERN = compose_run(["experiment=speedrun_modern"]).config
N = 4000  # of which the last 2600 are the warmdown


@pytest.mark.parametrize(
    ("s", "factor", "momentum", "decay"),
    [
        (0, 1 / 40, 0.85, 1.0),
        (39, 1.0, 0.85 + 0.12 * 39 / 400, None),
        (200, 1.0, 0.91, None),
        (400, 1.0, 0.97, None),
        (1400, 1.0, 0.97, None),
        (2000, 0.05 + 0.95 * 2000 / 2600, 0.97 - 0.07 * 600 / 2600, 0.5),
        (2700, 0.05 + 0.95 / 2, 0.935, None),
        (4000, 0.05, 0.90, 0.0),
    ],
)
def test_rates_of_the_modern_base_run(s: int, factor: float, momentum: float, decay: float | None) -> None:
    made = step_rates(MODERN.schedule, MODERN.optim, s, N, s)
    assert (made.lr_factor, made.momentum) == pytest.approx((factor, momentum))
    assert made.decay_factor == pytest.approx((1 + math.cos(math.pi * s / N)) / 2 if decay is None else decay)


def test_rates_of_the_modern_fine_tuning() -> None:
    """Flat for half of the run, then down to 0; the momentum rises to 0.95 and stays."""
    config = compose_run(["experiment=speedrun_modern", "stage=sft"]).config
    made = [step_rates(config.schedule, config.optim, s, 1000, s) for s in (0, 150, 500, 750, 999)]
    assert [rates.lr_factor for rates in made] == pytest.approx([1, 1, 1, 0.5, 0.002])
    assert [rates.momentum for rates in made] == pytest.approx([0.85, 0.90, 0.95, 0.95, 0.95])


def test_a_branch_goes_on_with_the_momentum_of_its_trunk() -> None:
    """Of 1030 updates: it need not rise again, and falls over the branch's own steps."""
    decay = compose_run(["schedule=decay"]).config.schedule
    made = [step_rates(decay, MODERN.optim, s, 100, 1030 + s) for s in (0, 50, 100)]
    assert [rates.momentum for rates in made] == pytest.approx([0.97, 0.935, 0.90])
    assert [rates.decay_factor for rates in made] == pytest.approx([1.0, 0.5, 0.0])


def test_the_momentum_of_a_short_run_rises_first() -> None:
    """Where the warmdown begins before the momentum is up, it goes up all the same, then down to the same end."""
    made = [step_rates(MODERN.schedule, MODERN.optim, s, 500, s).momentum for s in (175, 399, 450, 500)]
    assert made == pytest.approx([0.85 + 0.12 * 175 / 400, 0.85 + 0.12 * 399 / 400, 0.97 - 0.07 * 275 / 325, 0.90])


@given(schedule=schedules(), total=st.integers(1, 200))
def test_the_rate_falls_from_the_warmdown_on(schedule: ScheduleConfig, total: int) -> None:
    assume(schedule.name != ScheduleName.step)  # which jumps
    factors = [*curve(schedule, total), lr_factor(schedule, total, total)]
    start, w = warmdown_start(schedule, total), warmup_length(schedule, total)
    assume(w < total)
    assert set(factors[w : start + 1]) <= {1.0}
    assert all(f < 1 for f in factors[max(start, w) + 1 :]) or getattr(schedule, "final_lr_frac", 1.0) > 1 - 1e-9


def test_other_optimizers_are_told_what_they_know() -> None:
    config, adamw = compose_run([]).config, compose_run(["optim=adamw"]).config.optim
    assert step_rates(config.schedule, config.optim, 50, 100, 300) == StepRates(1.0, pytest.approx(0.95), 1.0)
    assert step_rates(config.schedule, adamw, 90, 100, 300) == StepRates(pytest.approx(0.5), None, 1.0)

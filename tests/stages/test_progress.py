from types import SimpleNamespace
from typing import Any

import pytest

from nanochat.stages.progress import Reporter
from nanochat.tracking.console import StepLine
from nanochat.training.hooks import StepInfo


def reporter(*, peak: float | None, start: int = 0) -> tuple[Reporter, dict[int, dict[str, Any]], list[StepLine]]:
    """A step is 1000 tokens of 50 FLOPs, on 2 ranks."""
    logged: dict[int, dict[str, Any]] = {}
    lines: list[StepLine] = []
    session = SimpleNamespace(
        start=start, tracker=SimpleNamespace(log=logged.__setitem__), console=SimpleNamespace(progress=lines.append)
    )
    recipe = SimpleNamespace(batch_tokens=1000, flops_per_token=50)
    plan = SimpleNamespace(recipe=recipe, placement=SimpleNamespace(world_size=2, accumulation=4))
    return Reporter(session, plan, SimpleNamespace(peak_flops=peak)), logged, lines  # type: ignore[arg-type]


def info(step: int, seconds: float, total: int = 10) -> StepInfo:
    return StepInfo(
        step, total, 2.5, 0.7, 0.9, targets=10.0, seconds=seconds, epoch=0.25, data_wait=0.1, rows=6, documents=9
    )


def test_tokens_per_second_are_those_of_the_whole_step() -> None:
    """All micro-batches and ranks, once each."""
    report, logged, _ = reporter(peak=1e5)
    report.report(info(1, 0.5))
    assert logged[1] == {
        "train/loss": 2.5,
        "train/grad_norm": 0.7,
        "train/lr_factor": 0.9,
        "train/tokens_per_second": 2000.0,
        "train/step_seconds": 0.5,
        "train/epoch": 0.25,
        "train/rows": 6,
        "train/documents": 9,
        "train/data_wait": 0.1,
        "train/mfu": pytest.approx(2000 * 50 / (2 * 1e5)),
    }


def test_an_unknown_device_has_no_utilisation() -> None:
    report, logged, lines = reporter(peak=None)
    report.report(info(1, 0.5))
    assert "train/mfu" not in logged[1] and lines[0].mfu is None


@pytest.mark.parametrize("start", [0, 100])
def test_the_first_steps_do_not_count_for_the_remaining_time(start: int) -> None:
    report, _, lines = reporter(peak=None, start=start)
    for i in range(1, 6):
        report.report(info(start + i, 60.0 if i <= 3 else 2.0, total=start + 10))
    assert [line.eta_seconds for line in lines] == [None, None, None, 12.0, 10.0]

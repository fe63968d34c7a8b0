import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from nanochat.reporting.plots import (
    median_throughput,
    plot_learning_rate,
    plot_loss,
    plot_throughput,
    running_median,
    series,
)

PLOTS = [plot_loss, plot_learning_rate, plot_throughput]


def rows(losses: list[float]) -> list[dict[str, Any]]:
    return [
        {"step": n, "train/loss": loss, "train/lr_factor": 1 / n, "train/tokens_per_second": 100.0 * n}
        for n, loss in enumerate(losses, 1)
    ]


def pixels(path: Path, colour: str) -> np.ndarray:
    """(row, column) of the pixels that have exactly this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    image = np.rint(imread(path)[..., :3] * 255).astype(int)
    return np.argwhere((image == wanted).all(-1))


def test_a_falling_loss_is_drawn_from_top_left_to_bottom_right(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    assert plot_loss(rows([10 - n / 10 for n in range(80)]), path, "Loss: base/d4")
    points = pixels(path, "#1f5fa8")
    middle = np.median(points[:, 1])
    left, right = points[points[:, 1] < middle], points[points[:, 1] >= middle]
    assert len(points) > 500
    assert left[:, 0].mean() < right[:, 0].mean()  # rows of an image count from the top


def test_steps_that_are_not_finite_are_marked(tmp_path: Path) -> None:
    for name, losses in (("good.png", [3.0, 2.0, 1.0] * 9), ("bad.png", [3.0, math.nan, 1.0, math.inf] * 9)):
        assert plot_loss(rows(losses), tmp_path / name, "x")
    assert len(pixels(tmp_path / "bad.png", "#c0182b")) > 20
    assert len(pixels(tmp_path / "good.png", "#c0182b")) == 0


def test_validation_gets_a_panel_of_its_own(tmp_path: Path) -> None:
    metrics = rows([3.0, 2.0, 1.0])
    plot_loss(metrics, tmp_path / "without.png", "x")
    plot_loss([*metrics, {"step": 3, "val/bpb": 1.5}], tmp_path / "with.png", "x")
    assert imread(tmp_path / "with.png").shape[0] > imread(tmp_path / "without.png").shape[0]


@pytest.mark.parametrize("losses", [[1.0], [math.nan] * 3, [2.0] * 60, [math.inf, 1.0], [1e30, 1.0, -1.0]])
@pytest.mark.parametrize("plot", PLOTS)
def test_odd_runs_are_drawn_too(tmp_path: Path, losses: list[float], plot: Any) -> None:
    assert plot(rows(losses), tmp_path / "plot.png", "x")
    assert imread(tmp_path / "plot.png").std() > 0.01


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_to_draw_makes_no_file(tmp_path: Path, plot: Any) -> None:
    assert not plot([{"step": 1, "eval/core": 0.1}], tmp_path / "plot.png", "x")
    assert not list(tmp_path.iterdir())


def test_the_running_median_equals_numpys_and_ignores_a_spike() -> None:
    values = list(np.random.default_rng(0).normal(size=60))
    values[30] = 1e9
    expected = [np.median(values[max(0, i - 3) : i + 4]) for i in range(60)]
    assert running_median(values, 7) == pytest.approx(expected)
    assert max(running_median(values, 7)) < 5
    assert running_median([1.0, math.nan, 3.0], 3) == [1.0, 2.0, 3.0]
    assert math.isnan(running_median([math.nan], 3)[0])


def test_the_median_throughput_leaves_out_the_warm_up() -> None:
    assert median_throughput([1.0] * 10 + [100.0] * 11) == 100.0
    assert median_throughput([5.0]) == 5.0


def test_a_series_skips_rows_without_the_metric() -> None:
    assert series([{"step": 1, "a": 2}, {"step": 2}, {"step": 3, "a": None}, {"step": 4, "a": 5}], "a") == (
        [1, 4],
        [2, 5],
    )

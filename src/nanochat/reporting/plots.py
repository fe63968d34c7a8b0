"""The curves of a run as PNG: loss, learning rate, throughput.

Notable: drawn on a Figure of our own (no pyplot), so nothing global changes and no display is needed. What
is smoothed says so and the raw values stay visible behind it; steps whose loss is not finite are marked.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = tuple[list[int], list[float]]
Rows = Sequence[dict[str, Any]]

RAW, MAIN, SECOND, BAD = "#a9c4e0", "#1f5fa8", "#c4581a", "#c0182b"
SIZE_INCHES = (8.0, 4.5)
DPI = 120
MAX_WINDOW = 101  # keeps a long run's report quick; wide enough to show the trend
WARM_STEPS = 10  # compilation and cold caches; left out of the median throughput


def series(rows: Rows, name: str) -> Series:
    """(steps, values) of one metric, in file order."""
    pairs = [(int(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def running_median(values: Sequence[float], window: int) -> list[float]:
    """Median of the finite values among the `window` (odd) around each; NaN where there is none.

    Unlike an exponential mean it does not lag behind the curve and a single spike leaves no trace.
    """
    half = window // 2
    medians = []
    for i in range(len(values)):
        near = [value for value in values[max(0, i - half) : i + half + 1] if math.isfinite(value)]
        medians.append(median(near) if near else math.nan)
    return medians


def _figure(panels: int = 1) -> tuple["Figure", list["Axes"]]:
    """A figure with panels above each other that share the step axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second to import: only when drawing
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    width, height = SIZE_INCHES
    figure = Figure(figsize=(width, height if panels == 1 else 1.5 * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(panels, 1, panel + 1) for panel in range(panels)]
    for axis in axes:
        axis.grid(True, alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.02)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("step")
    return figure, axes


def _focus(axis: "Axes", values: Sequence[float]) -> None:
    """Limit the height so that a few spikes do not flatten the curve: from the least to the 99.5th percentile."""
    finite = sorted(value for value in values if math.isfinite(value))
    if len(finite) < 2 or finite[0] == finite[-1]:
        return
    top = finite[min(len(finite) - 1, int(0.995 * len(finite)))]
    margin = 0.05 * (top - finite[0])
    axis.set_ylim(finite[0] - margin, top + margin)


def _draw_loss(axis: "Axes", rows: Rows) -> None:
    steps, values = series(rows, "train/loss")
    window = min(MAX_WINDOW, len(values) // 50 * 2 + 1)
    axis.plot(steps, values, color=MAIN if window == 1 else RAW, linewidth=0.8, label="train/loss, every step")
    if window > 1:
        smoothed = running_median(values, window)
        axis.plot(steps, smoothed, color=MAIN, linewidth=1.6, label=f"median of {window} steps")
    _focus(axis, values)
    _mark_bad(axis, steps, values)
    _draw_points(axis, rows, "val/loss")
    axis.set_ylabel("nats per token")
    axis.legend(frameon=False)


def _mark_bad(axis: "Axes", steps: Sequence[int], values: Sequence[float]) -> None:
    """A cross at the upper edge for each step whose loss was NaN or infinite."""
    bad = [step for step, value in zip(steps, values, strict=True) if not math.isfinite(value)]
    if bad:
        top = [axis.get_ylim()[1]] * len(bad)
        axis.plot(bad, top, "x", color=BAD, clip_on=False, label=f"not finite ({len(bad)} steps)")


def _draw_points(axis: "Axes", rows: Rows, name: str) -> None:
    """A metric that is measured now and then; its last value stands in the legend."""
    steps, values = series(rows, name)
    if not steps:
        return
    axis.plot(steps, values, "o-", color=SECOND, markersize=3.5, linewidth=1.2, label=f"{name}, last {values[-1]:.4g}")


def _save(figure: "Figure", path: Path, title: str) -> None:
    figure.suptitle(title)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def plot_loss(rows: Rows, path: Path, title: str) -> bool:
    """Training loss and, below it, validation bits per byte if measured. False if there is nothing to draw."""
    if not series(rows, "train/loss")[0]:
        return False
    with_bpb = bool(series(rows, "val/bpb")[0])
    figure, axes = _figure(2 if with_bpb else 1)
    _draw_loss(axes[0], rows)
    if with_bpb:
        _draw_points(axes[1], rows, "val/bpb")
        axes[1].set_ylabel("validation bits per byte")
        axes[1].legend(frameon=False)
        axes[1].set_xlim(axes[0].get_xlim())
    _save(figure, path, title)
    return True


def plot_learning_rate(rows: Rows, path: Path, title: str) -> bool:
    """The factor that every group's learning rate is multiplied by. False if there is nothing to draw."""
    steps, values = series(rows, "train/lr_factor")
    if not steps:
        return False
    figure, (axis,) = _figure()
    axis.plot(steps, values, color=MAIN, linewidth=1.6)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("learning-rate factor")
    _save(figure, path, title)
    return True


def plot_throughput(rows: Rows, path: Path, title: str) -> bool:
    """Tokens per second of every step and their median. False if there is nothing to draw."""
    steps, values = series(rows, "train/tokens_per_second")
    if not steps:
        return False
    figure, (axis,) = _figure()
    typical = median_throughput(values)
    axis.plot(steps, values, color=RAW, linewidth=0.8, label="every step")
    axis.axhline(typical, color=MAIN, linewidth=1.6, label=f"median {typical:,.0f}")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("tokens per second")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.legend(frameon=False, loc="lower right")
    _save(figure, path, title)
    return True


def median_throughput(values: Sequence[float]) -> float:
    """Median without the first steps, which compile and warm up (if there are enough others)."""
    return median(values[WARM_STEPS:] if len(values) > 2 * WARM_STEPS else values)

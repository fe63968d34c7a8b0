from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nanochat.config.tracking import TrackingConfig
from nanochat.tracking.composite import CompositeTracker, build_trackers
from nanochat.tracking.jsonl import MetricsLog, read_jsonl


class Service:
    """A tracker that fails at one step."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.seen: list[int] = []
        self.ended: list[bool] = []

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        if step == self.fails_at:
            raise ConnectionError("server gone")
        self.seen.append(step)

    def finish(self, ok: bool = True) -> None:
        self.ended.append(ok)


def test_a_service_that_fails_is_switched_off_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    good, bad, said = Service(), Service(fails_at=2), []
    tracker = CompositeTracker(MetricsLog(tmp_path / "m.jsonl"), {"bad": bad, "good": good}, said.append)
    for step in (1, 2, 3):
        tracker.log(step, {"x": step})
    tracker.finish(ok=False)
    assert (bad.seen, bad.ended, good.seen, good.ended) == ([1], [], [1, 2, 3], [False])
    assert len(said) == 1 and "bad" in said[0] and "server gone" in said[0]
    assert [row["step"] for row in read_jsonl(tmp_path / "m.jsonl")] == [1, 2, 3]


def test_a_log_that_cannot_be_written_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    tracker = CompositeTracker(log, {}, print)
    log.finish()
    with pytest.raises(ValueError, match="closed"):
        tracker.log(1, {"x": 1})


def test_metrics_are_always_logged_and_cut_to_the_checkpoint(
    tmp_path: Path, tracking: Callable[..., TrackingConfig]
) -> None:
    first = build_trackers(tracking(), tmp_path, "base/d4", {}, {}, [], 0)
    for step in (1, 2, 3, 4):
        first.log(step, {"attempt": 1})
    second = build_trackers(tracking(), tmp_path, "base/d4", {}, {}, [], 2)
    second.log(3, {"attempt": 2})
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["attempt"]) for row in rows] == [(1, 1), (2, 1), (3, 2)]


def test_a_start_from_the_beginning_forgets_step_0_too(tmp_path: Path, tracking: Callable[..., TrackingConfig]) -> None:
    for attempt in (1, 2):
        tracker = build_trackers(tracking(tensorboard=True), tmp_path, "base/d4", {}, {}, [], 0)
        tracker.log(0, {"val/bpb": attempt})
        tracker.log(attempt, {"train/loss": attempt})
        tracker.finish()
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 0, "val/bpb": 2}, {"step": 2, "train/loss": 2}]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/bpb")] == [(0, 2)]


def test_other_ranks_touch_nothing(tmp_path: Path, tracking: Callable[..., TrackingConfig]) -> None:
    tracker = build_trackers(tracking(True, True), tmp_path / "run", "base/d4", {}, {}, [], 0, is_main=False)
    tracker.log(1, {"x": 1})
    tracker.finish()
    assert not (tmp_path / "run").exists()

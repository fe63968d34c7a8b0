"""All trackers of a run behind one: metrics.jsonl always, W&B and TensorBoard where asked for.

Notable: a tracker that fails in the middle is switched off and said so; it must not cost the run.
metrics.jsonl is no such guest: if it cannot be written, the run stops.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nanochat.config.tracking import TrackingConfig
from nanochat.tracking.jsonl import MetricsLog, read_jsonl
from nanochat.tracking.tensorboard import TensorboardTracker
from nanochat.tracking.tracker import Tracker
from nanochat.tracking.wandb import WandbTracker

METRICS_FILE = "metrics.jsonl"


class NullTracker:
    """For the ranks that do not track."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self, ok: bool = True) -> None:
        """Do nothing."""


class CompositeTracker:
    """The log, which must work, and guests, which may fail."""

    def __init__(self, log: MetricsLog, guests: dict[str, Tracker], say: Callable[[str], None]) -> None:
        """`guests` by the name that messages use; `say` prints a line."""
        self._log = log
        self._guests = guests
        self._say = say

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record in every tracker."""
        self._log.log(step, metrics)
        self._each(lambda tracker: tracker.log(step, metrics))

    def finish(self, ok: bool = True) -> None:
        """Finish every tracker."""
        self._log.finish(ok)
        self._each(lambda tracker: tracker.finish(ok))

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._guests.items()):
            try:
                do(tracker)
            except Exception as error:  # whatever a foreign service raises, training goes on
                del self._guests[name]
                self._say(f"{name} failed and is off for the rest of this run: {error}")


def build_trackers(
    config: TrackingConfig,
    run_dir: Path,
    run_name: str,
    config_dict: dict[str, Any],
    plan_dict: dict[str, Any],
    tags: list[str],
    resume_step: int,
    *,
    is_main: bool = True,
    say: Callable[[str], None] = print,
) -> Tracker:
    """The trackers of one attempt, which continues after `resume_step` (0: from the beginning).

    metrics.jsonl is cut to `resume_step`; from the beginning what was measured at step 0 goes too, because it is
    measured again. Raises ConfigError if a tracker asked for cannot start.
    """
    if not is_main:
        return NullTracker()
    log = MetricsLog(run_dir / METRICS_FILE)
    log.cut(resume_step or -1)
    guests: dict[str, Tracker] = {}
    if config.wandb.enabled:
        settings = {**config_dict, "plan": plan_dict}
        guests["wandb"] = WandbTracker(config.wandb, run_dir, run_name, settings, tags, read_jsonl(log.path))
    if config.tensorboard.enabled:
        guests["tensorboard"] = TensorboardTracker(run_dir, resume_step)
    return CompositeTracker(log, guests, say)

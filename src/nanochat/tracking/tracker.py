"""What a tracker is: a place where metrics go. Metrics have the same names everywhere (`train/loss`, `val/bpb`)."""

from collections.abc import Mapping
from typing import Any, Protocol


class Tracker(Protocol):
    """metrics.jsonl, W&B, TensorBoard, or several of them."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record numbers of step n (the state after n updates, counted from 1). Steps never decrease."""

    def finish(self, ok: bool = True) -> None:
        """Write out what is pending. `ok` is False if the run failed."""

"""Turns each step of the loop into metrics and the progress line."""

from nanochat.plan.plan import Plan
from nanochat.runtime.device import Machine
from nanochat.stages.session import Session
from nanochat.tracking.console import StepLine
from nanochat.training.hooks import StepInfo

_WARMUP_STEPS = 3  # compile and caches; left out of the mean that the remaining time is estimated from


class Reporter:
    """Logs every step's metrics, unsmoothed, and shows the progress line."""

    def __init__(self, session: Session, plan: Plan, machine: Machine) -> None:
        """`machine.peak_flops` None: no utilisation is reported."""
        self._session = session
        self._plan = plan
        self._peak = machine.peak_flops * plan.placement.world_size if machine.peak_flops else None
        self._seconds = 0.0
        self._counted = 0

    def report(self, info: StepInfo) -> None:
        """Called by the loop after every step."""
        rate = self._plan.recipe.batch_tokens / info.seconds
        mfu = rate * self._plan.recipe.flops_per_token / self._peak if self._peak else None
        metrics = {
            "train/loss": info.loss,
            "train/grad_norm": info.grad_norm,
            "train/lr_factor": info.lr_factor,
            "train/tokens_per_second": rate,
            "train/step_seconds": info.seconds,
            "train/epoch": info.epoch,
            "train/rows": info.rows,
            "train/documents": info.documents,
            "train/data_wait": info.data_wait,
        }
        if mfu is not None:
            metrics["train/mfu"] = mfu
        assert self._session.tracker is not None
        self._session.tracker.log(info.step, metrics)
        line = StepLine(info.step, info.total, info.loss, info.lr_factor, rate, mfu, self._remaining(info))
        self._session.console.progress(line)

    def _remaining(self, info: StepInfo) -> float | None:
        if info.step - self._session.start > _WARMUP_STEPS:
            self._seconds += info.seconds
            self._counted += 1
        if not self._counted:
            return None
        return self._seconds / self._counted * (info.total - info.step)

"""A multirun: freeze the configs of all jobs, then run them one after the other, each in its own process.

Notable: everything is composed and checked before the first job starts, and a job that fails does not take the
others with it; it makes the sweep's exit code non-zero at the end.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.checkpoint.find import list_stage
from nanochat.cluster.frozen import Ended, FrozenJob, freeze, run_worker
from nanochat.config.load import compose_run
from nanochat.config.naming import ORIGINS, base_dir, job_name, run_dir, run_name, with_names
from nanochat.config.overrides import swept_keys
from nanochat.config.root import RunConfig
from nanochat.errors import ConfigError, Interrupted
from nanochat.plan.early import check_sizes


@dataclass(frozen=True)
class SweepJob:
    """One job of a sweep after it ended. `metrics` are the last values of its run."""

    config: RunConfig
    overrides: tuple[str, ...]
    ended: Ended
    metrics: dict[str, Any]

    @property
    def ref(self) -> str:
        """`stage/run`."""
        return f"{self.config.stage}/{run_name(self.config)}"


def plan_jobs(
    job_overrides: Sequence[Sequence[str]], raw_overrides: Sequence[str], config_dirs: Sequence[str]
) -> list[FrozenJob]:
    """Composes and names every job. Raises ConfigError where one is wrong or two would share a folder."""
    swept = swept_keys(raw_overrides)
    jobs: list[FrozenJob] = []
    for overrides in job_overrides:
        composed = compose_run(overrides, config_dirs)
        name = job_name(run_name(composed.config), overrides, swept)
        named = compose_run([*overrides, f"run='{name}'", *_start(composed.config, name)], config_dirs)
        check_sizes(with_names(named.config))
        jobs.append(FrozenJob(named.config, tuple(named.overrides), tuple(config_dirs)))
    folders = [str(run_dir(job.config)) for job in jobs]
    twice = sorted({f for f in folders if folders.count(f) > 1})
    if twice:
        raise ConfigError(f"two jobs of the multirun would write to {twice[0]}; vary something or leave run= out")
    return jobs


def _start(config: RunConfig, name: str) -> list[str]:
    """Where a job starts that has another name than the run it would have started from: the former name's."""
    stages = ORIGINS.get(config.stage, ())
    if config.init_from is not None or not stages or name == run_name(config):
        return []
    for run in (name, run_name(config)):  # a sweep of the stage before has left runs of the same names
        found = next((stage for stage in stages if run in list_stage(base_dir(config), stage)), None)
        if found is not None:
            return [f"init_from='{found}/{run}'"]
    return [f"init_from='{stages[0]}/{run_name(config)}'"]


def sweep_dir(jobs: Sequence[FrozenJob]) -> Path:
    """`{base_dir}/sweeps/{sweep}`, the date and time where the sweep has no name."""
    config = jobs[0].config
    return base_dir(config) / "sweeps" / (config.sweep or time.strftime("%Y-%m-%d_%H-%M-%S"))


def run_sweep(jobs: Sequence[FrozenJob], folder: Path) -> list[SweepJob]:
    """Freezes all jobs below `folder`, then runs them in order; failures are kept as such."""
    frozen = [freeze(job, folder / "jobs" / f"{i:03d}.yaml") for i, job in enumerate(jobs)]
    done: list[SweepJob] = []
    for number, (job, path) in enumerate(zip(jobs, frozen, strict=True), 1):
        print(f"[{number}/{len(jobs)}] {job.config.stage}/{run_name(job.config)}", flush=True)
        try:
            ended = run_worker(path)
        except Interrupted as error:
            again = "the same command" + (" without overwrite=true" if job.config.overwrite else "")
            named = "" if job.config.sweep else f" with sweep={folder.name}"
            raise Interrupted(
                f"the sweep was {error} in job {number} of {len(jobs)}; {again}{named} continues"
            ) from error
        done.append(SweepJob(job.config, job.overrides, ended, _metrics(job.config)))
        (folder / "table.md").write_text(sweep_table(done), encoding="utf-8")
    return done


def _metrics(config: RunConfig) -> dict[str, Any]:
    path = run_dir(config) / "result.json"
    if not path.is_file():
        return {}
    metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    return dict(metrics)


def sweep_table(done: Sequence[SweepJob]) -> str:
    """The jobs of a sweep as a Markdown table."""
    lines = ["| run | exit code | train loss | val bpb | seconds |", "|---|---|---|---|---|"]
    for job in done:
        loss, bpb = job.metrics.get("train/loss"), job.metrics.get("val/bpb")
        shown = [f"{x:.4f}" if isinstance(x, float) else "-" for x in (loss, bpb)]
        lines.append(f"| {job.ref} | {job.ended.code} | {shown[0]} | {shown[1]} | {job.ended.seconds:.0f} |")
    return "\n".join(lines) + "\n"

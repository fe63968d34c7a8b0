"""Hydra launcher `local`: each job of a multirun in a process of its own, from a frozen config.

A thin adapter; the work is done by nanochat.cluster.sweep. Plugin modules are executed outside sys.modules, so no
postponed annotations here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LocalLauncherConf:
    """The one thing Hydra needs to find the class."""

    _target_: str = "hydra_plugins.nanochat_launchers.local.LocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="nanochat")


class LocalLauncher(Launcher):
    """Runs the jobs one after the other on this machine."""

    def __init__(self, **options: Any) -> None:
        """Hydra passes the keys of LocalLauncherConf."""
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps the multirun's config; the jobs' own are composed in launch."""
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn a job: its validation bits per byte. Raises NanochatError after all if any failed."""
        from nanochat.cluster.sweep import plan_jobs, run_sweep, sweep_dir, sweep_table
        from nanochat.errors import NanochatError

        assert self.config is not None
        sources = self.config.hydra.runtime.config_sources
        folders = [s.path for s in sources if s.provider.endswith("command-line")]
        raw = [str(override) for override in self.config.hydra.overrides.task]
        jobs = plan_jobs(job_overrides, raw, folders)
        done = run_sweep(jobs, sweep_dir(jobs))
        print(sweep_table(done), flush=True)
        failed = [f"{job.ref} (exit code {job.ended.code})" for job in done if job.ended.code != 0]
        if failed:  # not as a failed JobReturn: Hydra would print a line of its own about it
            raise NanochatError(f"{len(failed)} of {len(done)} jobs failed: {', '.join(failed)}; the others are kept")
        returns = []
        for job in done:
            result = JobReturn(
                overrides=list(job.overrides), cfg=None, hydra_cfg=None, working_dir=".", task_name=job.ref
            )
            result.status = JobStatus.COMPLETED
            result.return_value = job.metrics.get("val/bpb")
            returns.append(result)
        return returns

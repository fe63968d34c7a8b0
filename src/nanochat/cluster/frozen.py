"""Frozen jobs: a YAML file with everything a worker process needs, written when a sweep or pipeline is launched.

Workers never compose: a config that is edited while a sweep runs changes nothing any more.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from nanochat.config.frozen import read_yaml
from nanochat.config.naming import with_names
from nanochat.config.root import RunConfig
from nanochat.config.validate import build_run_config, plain
from nanochat.errors import Interrupted


@dataclass(frozen=True)
class FrozenJob:
    """A config that is ready to run, and the overrides that made it."""

    config: RunConfig
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...] = ()


def freeze(job: FrozenJob, path: Path) -> Path:
    """Writes the job, names filled in; returns the path."""
    body = {
        "overrides": list(job.overrides),
        "config_dirs": list(job.config_dirs),
        "config": plain(with_names(job.config)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(body, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def thaw(path: Path) -> FrozenJob:
    """Reads what freeze wrote, checked again. Raises MissingError, CorruptError, ConfigError."""
    body = read_yaml(path)
    config = build_run_config(body.get("config") or {})
    return FrozenJob(config, tuple(body.get("overrides") or ()), tuple(body.get("config_dirs") or ()))


@dataclass(frozen=True)
class Ended:
    """How a worker process ended: its exit code and wall time in seconds."""

    code: int
    seconds: float


def run_worker(frozen: Path) -> Ended:
    """Runs one frozen job in a process of its own, which shares the terminal. Passes signals on.

    Raises Interrupted when the job was interrupted (it has saved by then).
    """
    began = time.perf_counter()
    process = subprocess.Popen(worker_command(frozen), env={**os.environ, "PYTHONUNBUFFERED": "1"})
    code = _wait(process)
    if code == Interrupted.exit_code:
        raise Interrupted(f"the job {frozen} was interrupted and has saved; the same command continues from there")
    return Ended(code, time.perf_counter() - began)


def worker_command(frozen: Path) -> Sequence[str]:
    """The command line of a worker."""
    return (sys.executable, "-m", "nanochat.train", "--frozen", str(frozen))


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Waits for the child. Ctrl-C reaches it by the terminal; other signals are forwarded."""

    def forward(number: int, frame: object) -> None:
        if number != signal.SIGINT or not sys.stdin.isatty():
            process.send_signal(number)

    former = {s: signal.signal(s, forward) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        return process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

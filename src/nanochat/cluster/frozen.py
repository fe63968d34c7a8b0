"""Frozen jobs: a YAML file with everything a worker process needs, written when a sweep or pipeline is launched.

Workers never compose: a config that is edited while a sweep runs changes nothing any more.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import yaml

from nanochat.config.frozen import read_yaml
from nanochat.config.naming import with_names
from nanochat.config.root import RunConfig
from nanochat.config.validate import build_run_config, plain
from nanochat.errors import Interrupted
from nanochat.runtime.interrupt import WATCHED
from nanochat.runtime.parent import PARENT


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
    """Runs one frozen job in a process of its own, passes signals on to it and waits for its end.

    Raises Interrupted when this process or the job was asked to stop: the caller must not go on to the next one,
    also where the signal came too late for the job to notice. The worker has a process group of its own, so that
    Ctrl-C reaches it once, from here; if this process dies otherwise, it follows (runtime/parent.py).
    """
    began = time.perf_counter()
    with _relay() as relay:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())}
        process = subprocess.Popen(worker_command(frozen), env=environment, stdin=subprocess.DEVNULL, process_group=0)
        relay.start(process)
        code = process.wait()
    if relay.received or code == Interrupted.exit_code:
        names = " and ".join(dict.fromkeys(s.name for s in relay.received)) or "a signal"
        raise Interrupted(f"stopped by {names}")
    return Ended(code, time.perf_counter() - began)


def worker_command(frozen: Path) -> Sequence[str]:
    """The command line of a worker. -P: a file of the current folder cannot stand in for a module."""
    return (sys.executable, "-P", "-m", "nanochat.train", "--frozen", str(frozen))


class _Relay:
    """Passes signals on to a process; those that come before it is there wait for it."""

    def __init__(self) -> None:
        """Nothing has come."""
        self.received: list[signal.Signals] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, process: subprocess.Popen[bytes]) -> None:
        """From now on to `process`."""
        self._process = process
        for number in self.received:
            process.send_signal(number)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.received.append(signal.Signals(number))
        if self._process is not None:
            self._process.send_signal(number)


@contextmanager
def _relay() -> Iterator[_Relay]:
    """Within the block the signals that stop a run go to the relay; the former handlers come back after it."""
    relay = _Relay()
    former = {number: signal.signal(number, relay.handle) for number in WATCHED}
    try:
        yield relay
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

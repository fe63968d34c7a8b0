"""Jobs on disk, and worker processes. The workers here are small programs that do what a stage would."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from nanochat.cluster import frozen
from nanochat.cluster.frozen import FrozenJob, freeze, run_worker, thaw, worker_command
from nanochat.config.load import compose_run
from nanochat.errors import ConfigError, Interrupted, MissingError

READY = "import pathlib, signal, sys, time; ready = lambda: pathlib.Path(sys.argv[1]).touch(); "
WORKERS = {
    "ends well": "sys.exit(0)",
    "fails": "sys.exit(3)",
    "was interrupted": "sys.exit(130)",
    "saves": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130)); ready(); time.sleep(30)",
    "dies": "ready(); time.sleep(30)",
    "is at its last step": "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); ready(); time.sleep(30)",
    "tells which": "[signal.signal(n, lambda n, _: sys.exit(n)) for n in (2, 10, 15)]; ready(); time.sleep(30)",
}


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    return tmp_path / "ready"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, ready: Path):  # type: ignore[no-untyped-def]
    """Runs one of WORKERS as run_worker runs a job."""

    def start(name: str) -> frozen.Ended:
        command = (sys.executable, "-c", READY + WORKERS[name], str(ready))
        monkeypatch.setattr(frozen, "worker_command", lambda path: command)
        return run_worker(Path("job.yaml"))

    return start


def send_when(ready: Path, number: signal.Signals) -> None:
    """Sends the signal to this process as soon as the worker is ready."""

    def wait_and_send() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_send, daemon=True).start()


def test_round_trip(tmp_path: Path) -> None:
    composed = compose_run(["stage=sft", "model.depth=2", "tags=[a,b]"])
    job = FrozenJob(composed.config, tuple(composed.overrides), ("/conf",))
    back = thaw(freeze(job, tmp_path / "jobs" / "x.yaml"))
    assert back.overrides == job.overrides and back.config_dirs == job.config_dirs
    assert back.config.train == job.config.train and back.config.data == job.config.data
    assert back.config.run == "d2"  # names are filled in


def test_what_is_thawed_is_checked(tmp_path: Path) -> None:
    path = freeze(FrozenJob(compose_run(["stage=base"]).config, ()), tmp_path / "x.yaml")
    body = yaml.safe_load(path.read_text())
    body["config"]["model"]["depth"] = -1
    path.write_text(yaml.safe_dump(body))
    with pytest.raises(ConfigError, match="model.depth=-1"):
        thaw(path)
    with pytest.raises(MissingError):
        thaw(tmp_path / "nothing.yaml")


def test_exit_codes(work) -> None:  # type: ignore[no-untyped-def]
    assert work("ends well").code == 0
    assert work("fails").code == 3
    with pytest.raises(Interrupted, match="stopped by a signal"):
        work("was interrupted")


@pytest.mark.parametrize("name", ["saves", "dies", "is at its last step"])
def test_a_signal_stops_the_caller_whatever_the_worker_makes_of_it(name: str, work, ready: Path) -> None:  # type: ignore[no-untyped-def]
    """Also if the worker ends well: the next job must not be started."""
    send_when(ready, signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        work(name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
def test_the_worker_gets_the_same_signal(number: signal.Signals, work, ready: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    codes: list[int] = []
    wait = frozen.subprocess.Popen.wait
    monkeypatch.setattr(frozen.subprocess.Popen, "wait", lambda self: codes.append(wait(self)) or codes[-1])
    send_when(ready, number)
    with pytest.raises(Interrupted, match=number.name):
        work("tells which")
    assert codes == [number]


def test_handlers_come_back(work) -> None:  # type: ignore[no-untyped-def]
    before = signal.getsignal(signal.SIGTERM)
    work("fails")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_file_of_the_current_folder_is_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nanochat.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    assert "-P" in worker_command(Path("x.yaml"))
    assert run_worker(tmp_path / "missing.yaml").code == 1

"""W&B offline for real, read back from the file it writes; online against a stand-in for its module."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nanochat.config.tracking import TrackingConfig, WandbMode
from nanochat.errors import ConfigError
from nanochat.tracking.composite import build_trackers
from nanochat.tracking.jsonl import MetricsLog
from nanochat.tracking.wandb import ID_FILE, WandbTracker, run_id

BLOCK = 32768  # the format is LevelDB's log: blocks of records with a header of crc, length and type
FIRST_ATTEMPT = """
import os, signal, sys
from pathlib import Path
from nanochat.config.tracking import *
from nanochat.tracking.composite import build_trackers
config = TrackingConfig(wandb=WandbConfig(enabled=True, mode=WandbMode.offline, project="test", group=None),
                        tensorboard=TensorboardConfig(enabled=False))
tracker = build_trackers(config, Path(sys.argv[1]), "base/d4", {"depth": 4}, {}, [], 0)
for step in range(1, 7):
    tracker.log(step, {"train/loss": 1 / step})
os.kill(os.getpid(), signal.SIGKILL)
"""


def log_records(path: Path) -> Iterator[bytes]:
    """The records of a LevelDB log after W&B's header of 7 bytes."""
    content, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, last part
            yield record
            record = b""


def read_offline(run_dir: Path) -> tuple[list[tuple[int, float]], set[str]]:
    """(step, loss) of every history line in all offline folders together, and the run ids."""
    from wandb.proto.wandb_internal_pb2 import Record

    history, ids = [], set()
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        for raw in log_records(path):
            record = Record.FromString(raw)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            if "train/loss" in items:
                history.append((record.history.step.num, json.loads(items["train/loss"])))
    return history, ids


@pytest.fixture
def wandb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.delenv("WANDB_RUN", raising=False)
    return tmp_path / "run"


def test_an_offline_run_killed_and_resumed_holds_every_step_once(
    wandb_home: Path, tracking: Callable[..., TrackingConfig]
) -> None:
    # An attempt on another machine or after a requeue: not a client of the W&B service that this process may have.
    alone = {name: value for name, value in os.environ.items() if not name.endswith("WANDB_SERVICE")}
    killed = subprocess.run([sys.executable, "-c", FIRST_ATTEMPT, str(wandb_home)], env=alone, check=False)
    assert killed.returncode == -signal.SIGKILL
    tracker = build_trackers(tracking(wandb=True), wandb_home, "base/d4", {"depth": 4}, {}, ["tag"], 4)
    for step in range(5, 10):
        tracker.log(step, {"train/loss": 1 / step})
    tracker.finish()
    deadline = time.monotonic() + 20
    history, ids = read_offline(wandb_home)
    while len(history) < 9 and time.monotonic() < deadline:  # W&B's own process writes the end of the file
        time.sleep(0.1)
        history, ids = read_offline(wandb_home)
    assert history == [(step, 1 / step) for step in range(1, 10)]
    assert ids == {(wandb_home / ID_FILE).read_text().strip()}
    assert len(list(wandb_home.glob("wandb/offline-run-*"))) == 1


def stand_in(step: int, calls: dict[str, Any], error: str = "") -> types.ModuleType:
    """A module with the part of W&B's interface that the tracker uses."""

    class Error(Exception):
        pass

    class Run:
        id = "abc"
        dir = "nowhere/files"

        def __init__(self) -> None:
            self.step = step

        def log(self, metrics: dict[str, Any], step: int) -> None:
            calls.setdefault("logged", []).append((step, metrics))

        def finish(self, exit_code: int) -> None:
            calls["exit_code"] = exit_code

    def init(**arguments: Any) -> Run:
        calls["init"] = arguments
        if error:
            raise Error(error)
        return Run()

    module = types.ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    module.Settings = dict  # type: ignore[attr-defined]
    module.errors = types.SimpleNamespace(Error=Error)  # type: ignore[attr-defined]
    return module


def test_an_online_resume_sends_what_never_arrived_and_repeats_nothing(
    tmp_path: Path, tracking: Callable[..., TrackingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN", "mine")
    calls: dict[str, Any] = {}
    config = tracking(wandb=True, mode=WandbMode.online)
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 9):
        log.log(step, {"x": step})
    # W&B has steps 1 to 3; 4 to 8 were lost with the process; the checkpoint is at 6.
    monkeypatch.setitem(sys.modules, "wandb", stand_in(4, calls))
    tracker = build_trackers(config, tmp_path, "base/d4", {"depth": 4}, {"steps": 9}, ["tag"], 6)
    tracker.log(7, {"x": 7})
    tracker.finish(ok=False)
    assert calls["logged"] == [(step, {"x": step}) for step in (4, 5, 6, 7)]
    assert calls["exit_code"] == 1
    asked = calls["init"]
    assert (asked["id"], asked["resume"], asked["mode"]) == (run_id(tmp_path), "allow", "online")
    assert (asked["name"], asked["tags"], asked["config"]) == ("mine", ["tag"], {"depth": 4, "plan": {"steps": 9}})


def test_steps_that_arrived_after_the_checkpoint_are_not_logged_twice(
    tmp_path: Path, tracking: Callable[..., TrackingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "wandb", stand_in(6, calls))
    config = tracking(wandb=True, mode=WandbMode.online)
    tracker = WandbTracker(config.wandb, tmp_path, "base/d4", {}, [], [{"step": 1, "x": 1}, {"step": 2, "x": 2}])
    for step in range(3, 9):
        tracker.log(step, {"x": step})
    assert [step for step, _ in calls["logged"]] == [6, 7, 8]


def test_the_id_is_drawn_once_per_run_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    drawn = run_id(tmp_path)
    assert run_id(tmp_path) == drawn and (tmp_path / ID_FILE).read_text() == drawn + "\n"
    assert run_id(tmp_path / "b") != drawn


def test_a_refusal_names_the_key_and_the_ways_out(
    tmp_path: Path, tracking: Callable[..., TrackingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", stand_in(0, {}, error="no API key"))
    with pytest.raises(ConfigError, match=r"tracking\.wandb\.mode=online.*no API key.*wandb login.*offline"):
        build_trackers(tracking(wandb=True, mode=WandbMode.online), tmp_path, "base/d4", {}, {}, [], 0)

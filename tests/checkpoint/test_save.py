import json
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from nanochat.checkpoint.find import latest, list_checkpoints, remove_partial
from nanochat.checkpoint.load import load_dims, load_model, load_optimizer, load_state
from nanochat.checkpoint.save import save_checkpoint
from nanochat.errors import NanochatError
from nanochat.plan.dims import ModelDims

Save = Callable[[Path, int], Path]

SAVE_FOR_EVER = """
import itertools, sys, torch
from pathlib import Path
from nanochat.checkpoint.save import save_checkpoint
for step in itertools.count(1):
    weights = {"w": torch.full((200_000,), float(step))}
    save_checkpoint(Path(sys.argv[1]) / "checkpoints" / f"step_{step:06d}", model=weights, model_yaml={},
                    optimizer=weights, state={"step": step})
"""


def test_everything_comes_back_bit_for_bit(tmp_path: Path, dims: ModelDims) -> None:
    folder = tmp_path / "checkpoints" / "step_000007"
    buffer = torch.randn(3, 5, 4)
    model = {"a.weight": torch.randn(4, 6).bfloat16(), "b.weight": torch.randn(6, 4).T, "scalar": torch.tensor(3)}
    optimizer = {"a/exp_avg": buffer[0], "b/exp_avg": buffer[1]}  # views of one stacked buffer
    state = {"loop": {"step": 7, "best": math.inf}, "loader": [1, 2, None], "rng": "NaNa", "loss": 0.1 + 0.2}
    save_checkpoint(folder, model=model, model_yaml=asdict(dims), optimizer=optimizer, state=state)
    loaded, moments = load_model(folder), load_optimizer(folder)
    assert loaded.keys() == model.keys() and moments.keys() == optimizer.keys()
    assert all(loaded[name].dtype == t.dtype and torch.equal(loaded[name], t) for name, t in model.items())
    assert all(torch.equal(moments[name], t) for name, t in optimizer.items())
    assert load_state(folder) == state
    assert load_dims(folder) == dims


def test_a_view_of_a_large_buffer_is_stored_alone(tmp_path: Path, dims: ModelDims) -> None:
    folder = tmp_path / "step_000001"
    view = torch.zeros(1000, 1000)[:1]
    save_checkpoint(folder, model={"w": view}, model_yaml={}, optimizer={}, state={})
    assert (folder / "model.safetensors").stat().st_size < 10_000


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path, save: Save) -> None:
    for path in save(tmp_path, 1).iterdir():
        with pytest.raises(Exception):  # noqa: B017 (any refusal will do)
            pickle.loads(path.read_bytes())
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                assert file.keys()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        else:
            assert path.suffix == ".yaml" and yaml.safe_load(path.read_text())


def test_the_manifest_is_written_last_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save) -> None:
    synced: list[str] = []
    real = os.fsync

    def record(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file is synced")
    monkeypatch.setattr("os.fsync", record)
    folder = save(tmp_path, 1)
    assert synced[-2:] == ["manifest.json.partial", folder.name]
    data = {"model.safetensors", "optim_rank_00000_of_00001.safetensors", "model.yaml.partial", "state.json.partial"}
    assert data <= set(synced[:-2])


@pytest.mark.parametrize("failing", ["save_file", "write_bytes", "write_json", "write_manifest"])
def test_a_full_disk_leaves_the_older_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save, failing: str
) -> None:
    older = save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"nanochat.checkpoint.save.{failing}", full)
    with pytest.raises(NanochatError, match=r"step_000002.*No space left.*GB are free.*base_dir"):
        save(tmp_path, 2)
    assert list_checkpoints(tmp_path) == [(1, older)]
    assert [path.name for path in remove_partial(tmp_path)] == ["step_000002"]


def test_saving_over_a_checkpoint_never_mixes_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Save
) -> None:
    folder = save(tmp_path, 1)
    (folder / "stray.bin").write_bytes(b"x")
    save(tmp_path, 1)
    assert not (folder / "stray.bin").exists() and latest(tmp_path) == folder

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1)
    assert latest(tmp_path) is None


def test_two_ranks_write_one_checkpoint(tmp_path: Path, dims: ModelDims) -> None:
    folder, meet = tmp_path / "step_000001", threading.Barrier(2)

    def rank(number: int) -> None:
        def barrier() -> None:
            meet.wait(10)
            time.sleep(0.2 * number)  # the slower rank's file must be in the manifest too

        moments = {"w/exp_avg": torch.full((2,), float(number))}
        save_checkpoint(
            folder,
            model={"w": torch.zeros(2)},
            model_yaml=asdict(dims),
            optimizer=moments,
            state={},
            rank=number,
            world=2,
            barrier=barrier,
        )

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert load_optimizer(folder, rank=number, world=2)["w/exp_avg"].tolist() == [number] * 2
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {"optim_rank_00000_of_00002.safetensors", "optim_rank_00001_of_00002.safetensors"} <= files.keys()


def test_kill_at_any_moment_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)])
    while latest(tmp_path) is None:
        time.sleep(0.01)
    time.sleep(random.random() / 5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = list_checkpoints(tmp_path)
    assert [step for step, _ in found] == list(range(1, len(found) + 1))
    for step, folder in found:
        assert load_model(folder)["w"][-1] == step and load_state(folder) == {"step": step}
    assert len(remove_partial(tmp_path)) <= 1
    assert list_checkpoints(tmp_path) == found

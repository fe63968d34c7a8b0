import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.checkpoint.find import (
    latest,
    list_checkpoints,
    list_damaged,
    newest_chat_ref,
    remove_partial,
    resolve_ref,
)
from nanochat.errors import CorruptError, MissingError, NanochatError

Save = Callable[[Path, int], Path]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, save: Save) -> Path:
    """base/old@5, base/d20@500,1000 (newer, by its manifest only), sft/d20@30, and partial and damaged folders."""
    base = tmp_path_factory.mktemp("written")
    for run, step, created in (("old", 5, 100), ("d20", 500, 200), ("d20", 1000, 300), ("sft", 30, 50)):
        run_dir = base / ("base" if run != "sft" else "sft") / (run if run != "sft" else "d20")
        manifest = save(run_dir, step) / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "created": created}))
    partial = save(base / "base/d20", 1500)
    (partial / "manifest.json").unlink()
    damaged = save(base / "base/d20", 2000)
    os.truncate(damaged / "model.safetensors", 10)
    save(base / "mid/broken", 7).joinpath("manifest.json").unlink()
    (base / "base/d20/checkpoints/notes").mkdir()
    return base


@pytest.fixture
def base_dir(tmp_path: Path, written: Path) -> Path:
    """A copy of `written`, which a test may change. The older run has the newer file times, as after a copy."""
    base = shutil.copytree(written, tmp_path / "nanochat")
    for path in (base / "base/old", *(base / "base/old").rglob("*")):
        os.utime(path, (2e9, 2e9))
    return base


def test_only_complete_checkpoints_are_listed(base_dir: Path) -> None:
    run_dir = base_dir / "base/d20"
    assert [step for step, _ in list_checkpoints(run_dir)] == [500, 1000]
    assert latest(run_dir) == run_dir / "checkpoints/step_001000"
    assert latest(base_dir / "mid/broken") is None and latest(base_dir / "nothing") is None
    (reason,) = list_damaged(run_dir)
    assert "step_002000/model.safetensors has 10 bytes" in reason


def test_partial_checkpoints_are_removed_and_no_others(base_dir: Path) -> None:
    run_dir = base_dir / "base/d20"
    assert [path.name for path in remove_partial(run_dir)] == ["step_001500"]
    left = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert left == ["notes", "step_000500", "step_001000", "step_002000"]


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("base/d20", "base/d20@1000"),
        ("base/d20@500", "base/d20@500"),
        ("base/d20@000500", "base/d20@500"),
        ("base", "base/d20@1000"),
        ("base@500", "base/d20@500"),
        ("base/old", "base/old@5"),
        ("sft", "sft/d20@30"),
    ],
)
def test_a_reference_names_a_checkpoint(base_dir: Path, ref: str, found: str) -> None:
    resolved = resolve_ref(base_dir, ref)
    assert str(resolved) == found
    assert resolved.path == resolved.run_dir / "checkpoints" / f"step_{resolved.step:06d}"
    assert resolved.run_dir == base_dir / resolved.stage / resolved.run


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("{base}/base/d20", "base/d20@1000"),
        ("{base}/base/d20/checkpoints/step_000500", "base/d20@500"),
        ("./base/old", "base/old@5"),
        ("../nanochat/base/old/", "base/old@5"),
        ("~/sft/d20", "sft/d20@30"),
    ],
)
def test_a_path_names_a_checkpoint(
    base_dir: Path, ref: str, found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(base_dir)
    monkeypatch.setenv("HOME", str(base_dir))
    assert str(resolve_ref(tmp_path / "elsewhere", ref.format(base=base_dir))) == found


def test_a_checkpoint_moved_out_of_its_run_is_its_own_run_folder(base_dir: Path, tmp_path: Path) -> None:
    moved = tmp_path / "step_000500"
    shutil.copytree(base_dir / "base/d20/checkpoints/step_000500", moved)
    assert resolve_ref(base_dir, str(moved)).run_dir == moved


@pytest.mark.parametrize(
    ("ref", "error", "told"),
    [
        ("base/d2", MissingError, ["base/d2", "base/d20", "base/old", "sft/d20", "`nanochat stage=base run=d2`"]),
        ("base/d20@501", MissingError, ["no step 501", "500, 1000"]),
        ("base/d20@latest", MissingError, ["whole number", "500, 1000"]),
        ("base/d20@", MissingError, ["whole number"]),
        ("base/d20@2000", CorruptError, ["model.safetensors has 10 bytes", "500, 1000"]),
        ("base/d20@1500", CorruptError, ["never finished", "500, 1000"]),
        ("mid", MissingError, ["mid", "base/d20", "`nanochat stage=mid`"]),
        ("mid/broken", MissingError, ["no complete checkpoint", "base/d20", "`nanochat stage=mid run=broken`"]),
        ("bse/d20", MissingError, ["'bse' is no stage", "did you mean base", "base/d20"]),
        ("d20", MissingError, ["stage/run[@step]", "base/d20"]),
        ("", MissingError, ["stage/run[@step]"]),
        ("base/../base/d20", MissingError, ["no complete checkpoint"]),
        ("./nothing", MissingError, ["there is no", "nothing"]),
        ("./mid/broken", MissingError, ["neither a checkpoint nor a run folder"]),
        ("./base/d20/checkpoints/step_002000", CorruptError, ["model.safetensors has 10 bytes"]),
    ],
)
def test_a_reference_to_nothing_lists_what_exists(
    base_dir: Path, ref: str, error: type[NanochatError], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base_dir)
    with pytest.raises(error) as caught:
        resolve_ref(base_dir, ref)
    assert all(part in str(caught.value) for part in [ref, *told]), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_that_has_only_damaged_checkpoints_says_so(base_dir: Path, save: Save) -> None:
    (save(base_dir / "rl/x", 1) / "state.json").unlink()
    with pytest.raises(MissingError, match=r"state\.json is missing"):
        resolve_ref(base_dir, "rl/x")


def test_chat_takes_the_last_stage_that_has_a_model(base_dir: Path, tmp_path: Path, save: Save) -> None:
    assert str(newest_chat_ref(base_dir)) == "sft/d20@30"
    save(base_dir / "rl/new", 3)
    assert str(newest_chat_ref(base_dir)) == "rl/new@3"
    with pytest.raises(MissingError, match="quickstart"):
        newest_chat_ref(tmp_path / "empty")

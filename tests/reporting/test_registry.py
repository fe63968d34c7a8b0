import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.errors import MissingError
from nanochat.reporting.registry import diff_runs, find_run, list_runs, show_diff, show_list, show_run
from nanochat.reporting.runfolder import LIVE

MakeRun = Callable[..., Path]


def age(run_dir: Path, time: float) -> Path:
    """Make every file of a run this old."""
    for path in run_dir.iterdir():
        os.utime(path, (time, time))
    return run_dir


@pytest.fixture
def base_dir(make_run: MakeRun) -> Path:
    """base/d4 whole, sft/d4 killed at step 25 of 60, base/old the oldest; and folders that are no runs."""
    age(make_run("base/d4"), 2000)
    age(make_run("sft/d4", done=25, config={"optim": {"matrix_lr": 0.1}, "extra": 1}), 3000)
    old = age(make_run("base/old"), 1000)
    (old / "report.md").write_text("written later")
    base = old.parent.parent
    (base / "embedded").mkdir()
    (base / "base" / "empty").mkdir()
    return base


def test_runs_are_listed_newest_first_with_their_state(base_dir: Path) -> None:
    rows = {f"{row.stage}/{row.run}": row for row in list_runs(base_dir)}
    assert list(rows) == ["sft/d4", "base/d4", "base/old"]
    done, killed = rows["base/d4"], rows["sft/d4"]
    assert (done.status, done.step, done.steps, done.updated) == ("complete", 60, 60, 2000)
    assert done.loss == pytest.approx(2.299, abs=1e-3) and done.bpb == pytest.approx(0.7662, abs=1e-3)
    assert (killed.status, killed.step, killed.steps) == (LIVE, 25, 60)
    assert killed.bpb == pytest.approx((2 + 6 * 2.718281828**-1) / 3)  # of step 20, the last measured
    assert [row.run for row in list_runs(base_dir, "base")] == ["d4", "old"]
    assert list_runs(base_dir / "nothing") == []


def test_a_damaged_run_does_not_hide_the_others(base_dir: Path) -> None:
    (base_dir / "base/d4/result.json").write_text("{")
    statuses = {row.run: row.status for row in list_runs(base_dir, "base")}
    assert statuses["old"] == "complete" and "damaged" in statuses["d4"] and "result.json" in statuses["d4"]
    assert "damaged" in show_list(list_runs(base_dir))


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("base/d4", "base/d4"),
        ("base/d4@60", "base/d4"),
        ("base", "base/d4"),
        ("sft", "sft/d4"),
        ("./base/old", "base/old"),
    ],
)
def test_a_run_is_found_without_any_checkpoint(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, ref: str, name: str
) -> None:
    monkeypatch.chdir(base_dir)
    assert find_run(base_dir, ref).name == name


@pytest.mark.parametrize(("ref", "told"), [("base/d5", "base/d4"), ("bse/old", "base/old"), ("./embedded", "runs ls")])
def test_a_run_that_is_not_there_names_the_nearest(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, ref: str, told: str
) -> None:
    monkeypatch.chdir(base_dir)
    with pytest.raises(MissingError) as caught:
        find_run(base_dir, ref)
    assert ref in str(caught.value) and told in str(caught.value)


def test_showing_a_run(base_dir: Path) -> None:
    text = show_run(find_run(base_dir, "sft/d4"))
    for part in (str(base_dir / "sft/d4"), LIVE, "train.num_iterations", "train/loss", "2.13.0", "run=x y"):
        assert part in text, part
    assert "long" not in text  # the git diff


def test_the_differences_of_two_runs(base_dir: Path) -> None:
    diff = diff_runs(find_run(base_dir, "base/d4"), find_run(base_dir, "sft/d4"))
    assert diff.config == [
        ("extra", "(not set)", 1),
        ("optim.matrix_lr", 0.02, 0.1),
        ("stage", "base", "sft"),
    ]
    assert diff.versions == []
    metrics = {name: values for name, *values in diff.metrics}
    assert metrics["step"] == [60, 25] and metrics["val/bpb"] == pytest.approx([0.7662, 1.4024], abs=1e-3)
    text = show_diff(diff)
    assert "optim.matrix_lr" in text and "environment: no difference" in text


def test_versions_that_differ_are_told(base_dir: Path) -> None:
    path = base_dir / "sft/d4/environment.json"
    path.write_text(path.read_text().replace("2.13.0", "2.10.0"))
    diff = diff_runs(find_run(base_dir, "base/d4"), find_run(base_dir, "sft/d4"))
    assert diff.versions == [("versions.torch", "2.13.0", "2.10.0")]

"""A multirun's own work; the jobs are not run here."""

from pathlib import Path

import pytest

from nanochat.cluster import sweep
from nanochat.cluster.frozen import Ended, thaw
from nanochat.cluster.sweep import plan_jobs, run_sweep, sweep_dir, sweep_table
from nanochat.config.overrides import expand_sweep
from nanochat.errors import ConfigError, Interrupted
from nanochat.tracking.atomic import write_json

SWEPT = ["stage=base", "model.depth=1,2", "optim.matrix_lr=0.01,0.02"]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    return tmp_path


def test_names(base: Path) -> None:
    jobs = plan_jobs(expand_sweep(SWEPT), SWEPT, ())
    assert [job.config.run for job in jobs] == [
        "d1-depth=1-matrix_lr=0.01",
        "d1-depth=1-matrix_lr=0.02",
        "d2-depth=2-matrix_lr=0.01",
        "d2-depth=2-matrix_lr=0.02",
    ]
    assert [job.config.optim.matrix_lr for job in jobs] == [0.01, 0.02, 0.01, 0.02]


def test_two_jobs_in_one_folder_are_refused(base: Path) -> None:
    swept = ["stage=base", "run=x", "seed=1,1"]
    with pytest.raises(ConfigError, match=r"two jobs of the multirun would write to .*base/x"):
        plan_jobs(expand_sweep(swept), swept, ())


def test_all_are_checked_before_the_first_is_run(base: Path) -> None:
    swept = ["stage=base", "model.depth=2,-3"]
    with pytest.raises(ConfigError, match="model.depth=-3"):
        plan_jobs(expand_sweep(swept), swept, ())


def test_all_are_frozen_before_the_first_is_run(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[int] = []

    def count(path: Path) -> Ended:
        there.append(len(list(path.parent.glob("*.yaml"))))
        return Ended(0, 1.0)

    monkeypatch.setattr(sweep, "run_worker", count)
    jobs = plan_jobs(expand_sweep(SWEPT), SWEPT, ())
    done = run_sweep(jobs, base / "sweeps" / "s")
    assert there == [4, 4, 4, 4] and len(done) == 4
    assert thaw(base / "sweeps" / "s" / "jobs" / "002.yaml").config == jobs[2].config


def test_a_failing_job_does_not_end_the_others(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [0, 1, -9, 0]

    def fake(path: Path) -> Ended:
        config = thaw(path).config
        if len(codes) == 4:
            folder = base / "base" / str(config.run)
            folder.mkdir(parents=True)
            write_json(folder / "result.json", {"metrics": {"train/loss": 1.25, "val/bpb": 0.5}})
        return Ended(codes.pop(0), 2.0)

    monkeypatch.setattr(sweep, "run_worker", fake)
    folder = base / "sweeps" / "s"
    done = run_sweep(plan_jobs(expand_sweep(SWEPT), SWEPT, ()), folder)
    assert [job.ended.code for job in done] == [0, 1, -9, 0]
    table = (folder / "table.md").read_text()
    assert table == sweep_table(done) and table.count("\n") == 6
    assert "| base/d1-depth=1-matrix_lr=0.01 | 0 | 1.2500 | 0.5000 | 2 |" in table
    assert "| base/d1-depth=1-matrix_lr=0.02 | 1 | - | - | 2 |" in table


def test_an_interruption_ends_the_sweep_and_says_how_to_go_on(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(path: Path) -> Ended:
        raise Interrupted("stopped by SIGINT")

    monkeypatch.setattr(sweep, "run_worker", stop)
    jobs = plan_jobs(expand_sweep(SWEPT), SWEPT, ())
    with pytest.raises(Interrupted, match=r"stopped by SIGINT in job 1 of 4; the same command with sweep=s continues"):
        run_sweep(jobs, base / "sweeps" / "s")


def test_the_sweep_has_a_folder(base: Path) -> None:
    named = plan_jobs(expand_sweep([*SWEPT, "sweep=lr"]), SWEPT, ())
    assert sweep_dir(named) == base / "sweeps" / "lr"
    assert sweep_dir(plan_jobs(expand_sweep(SWEPT), SWEPT, ())).parent == base / "sweeps"

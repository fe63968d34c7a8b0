"""How the jobs of a multirun are named and where they start."""

from pathlib import Path

import pytest

from nanochat.cluster.sweep import plan_jobs
from nanochat.config.overrides import expand_sweep
from nanochat.errors import ConfigError


@pytest.fixture(autouse=True)
def base_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    return tmp_path


def names(*overrides: str) -> list[str | None]:
    return [job.config.run for job in plan_jobs(expand_sweep(overrides), overrides, [])]


def test_each_job_has_a_name_of_its_own() -> None:
    wanted = [f"quickstart-depth={d}-matrix_lr={r}" for d in (2, 4) for r in ("0.01", "0.02")]
    assert names("experiment=quickstart", "model.depth=2,4", "optim.matrix_lr=0.01,0.02") == wanted


def test_names_follow_the_runs_own() -> None:
    assert names("model.depth=2,4") == ["d2-depth=2", "d4-depth=4"]
    assert names("run=a,b") == ["a", "b"]
    assert names("seed=1,2", "run=x") == ["x-seed=1", "x-seed=2"]


def checkpoint(base_dir: Path, ref: str) -> None:
    """What is seen of a complete checkpoint when runs are listed."""
    import torch

    from nanochat.checkpoint.save import save_checkpoint

    folder = base_dir / ref / "checkpoints" / "step_000001"
    save_checkpoint(folder, model={"w": torch.zeros(1)}, model_yaml={}, optimizer={}, state={})


def starts(*overrides: str) -> list[str | None]:
    return [job.config.init_from for job in plan_jobs(expand_sweep(overrides), overrides, [])]


def test_the_jobs_of_a_later_stage_start_from_the_run_before_it_was_renamed(base_dir: Path) -> None:
    sweep = ("stage=sft", "run=x", "optim.matrix_lr=0.01,0.02")
    assert starts(*sweep) == ["mid/x", "mid/x"]
    checkpoint(base_dir, "base/x")
    assert starts(*sweep) == ["base/x", "base/x"]
    checkpoint(base_dir, "mid/x")
    assert starts(*sweep) == ["mid/x", "mid/x"]
    checkpoint(base_dir, "mid/x-matrix_lr=0.02")  # the same sweep, run for the stage before
    assert starts(*sweep) == ["mid/x", "mid/x-matrix_lr=0.02"]
    assert starts(*sweep, "init_from=base/x") == ["base/x", "base/x"]


def test_stages_of_a_sweep_keep_the_name() -> None:
    overrides = ("stage=mid,sft", "run=x")
    jobs = plan_jobs(expand_sweep(overrides), overrides, [])
    assert [(str(j.config.stage), j.config.run, j.config.init_from) for j in jobs] == [
        ("mid", "x", None),
        ("sft", "x", None),
    ]


def test_a_size_that_cannot_be_is_refused_before_the_first_job() -> None:
    overrides = ["stage=base", "model.head_dim=24", "model.depth=3,5"]
    jobs = [["stage=base", "model.head_dim=24", f"model.depth={depth}"] for depth in (3, 5)]
    with pytest.raises(ConfigError, match="model.depth=5 gives a width"):
        plan_jobs(jobs, overrides, [])

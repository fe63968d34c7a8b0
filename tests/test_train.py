"""The one entry point: what reaches a stage, and how errors leave."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from nanochat import train
from nanochat.cluster.frozen import FrozenJob, freeze
from nanochat.config.load import compose_run
from nanochat.config.root import RunConfig, Stage
from nanochat.errors import ConfigError, Interrupted, MissingError, NanochatError


@pytest.fixture
def dispatched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[RunConfig, list[str], list[str]]]:
    """Runs that would have been started in this process."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    started: list[tuple[RunConfig, list[str], list[str]]] = []
    monkeypatch.setattr(train, "dispatch", lambda c, o, d=(): started.append((c, list(o), list(d))))
    return started


def test_a_run_is_the_composed_config(dispatched: list[Any], tmp_path: Path) -> None:
    argv = ["stage=sft", "experiment=large", "optim.matrix_lr=0.03", "init_from=mid/x=1", "--config-dir", str(tmp_path)]
    assert train.run(argv) == 0
    [(config, overrides, folders)] = dispatched
    assert config == compose_run([*argv[:3], "init_from='mid/x=1'"]).config
    assert overrides == ["train.device_batch_size=2", *argv[:3], "init_from='mid/x=1'"] and folders == [str(tmp_path)]


def test_a_pipeline_gets_the_keys_of_its_stages(dispatched: list[Any]) -> None:
    asked = ["stage=pipeline", "data.tasks.identity.repeat=3", "~data.tasks.arithmetic", "seed=5"]
    assert train.run([*asked, "hydra/launcher=basic"]) == 0
    [(config, overrides, _)] = dispatched
    assert config.stage == Stage.pipeline and config.seed == 5
    assert overrides == asked  # Hydra's own are nothing to the stages


def test_hydras_basic_launcher_runs_named_jobs_here(dispatched: list[Any]) -> None:
    argv = ["-m", "hydra/launcher=basic", "model.depth=2,4", "optim.matrix_lr=0.01,0.02", "run=x"]
    assert train.run(argv) == 0
    names = [config.run for config, _, _ in dispatched]
    assert names == [f"x-depth={d}-matrix_lr={r}" for d in (2, 4) for r in (0.01, 0.02)]
    assert [(c.model.depth, c.optim.matrix_lr) for c, _, _ in dispatched] == [
        (2, 0.01),
        (2, 0.02),
        (4, 0.01),
        (4, 0.02),
    ]


def test_a_sweep_over_stages_may_set_what_only_they_have(dispatched: list[Any]) -> None:
    assert train.run(["-m", "hydra/launcher=basic", "stage=mid,sft", "data.tasks.identity.repeat=5", "run=x"]) == 0
    assert [(str(c.stage), c.run, c.data.tasks["identity"]["repeat"]) for c, _, _ in dispatched] == [
        ("mid", "x", 5),
        ("sft", "x", 5),
    ]


def test_a_local_sweep_is_frozen_before_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The launcher writes all configs first, then starts one worker each; one that fails does not stop the others."""
    from nanochat.cluster import sweep
    from nanochat.cluster.frozen import Ended, thaw

    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    seen: list[tuple[str | None, int, str]] = []

    def worker(path: Path) -> Ended:
        job = thaw(path)
        seen.append((job.config.run, len(list(path.parent.glob("*.yaml"))), os.environ["NANOCHAT_FULL_ERROR"]))
        return Ended(3 if job.config.model.depth == 2 else 0, 1.0)

    monkeypatch.setattr(sweep, "run_worker", worker)
    with pytest.raises(NanochatError, match=r"1 of 2 jobs failed: base/d2-depth=2 \(exit code 3\)"):
        train.run(["-m", "model.depth=2,4", "sweep=s"])
    assert seen == [("d2-depth=2", 2, "0"), ("d4-depth=4", 2, "0")]
    assert (tmp_path / "sweeps" / "s" / "table.md").read_text().count("| base/d") == 2


def test_a_frozen_job_is_run_as_it_was(dispatched: list[Any], tmp_path: Path) -> None:
    job = FrozenJob(compose_run(["model.depth=2"]).config, ("model.depth=2",))
    assert train.main(["--frozen", str(freeze(job, tmp_path / "job.yaml"))]) == 0
    [(config, overrides, _)] = dispatched
    assert config.run == "d2" and overrides == ["model.depth=2"]
    assert train.main(["--frozen"]) == 2 and train.main(["--frozen", str(tmp_path / "none.yaml")]) == 1


def test_every_stage_has_a_place() -> None:
    assert set(train._STAGES) == set(Stage)
    for module, function in train._STAGES.values():
        assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_what_is_impossible_is_said_before_anything_is_made(tmp_path: Path) -> None:
    config = compose_run([f"base_dir={tmp_path}/new", "model.depth=9"]).config
    with pytest.raises(ConfigError, match=r"model.depth=9"):
        train.dispatch(config, [])
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(NanochatError, match="cannot be"):
        train.dispatch(compose_run([f"base_dir={tmp_path}"]).config, [])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("a key\n  is wrong"), 2, "error: a key is wrong\n"),
        (MissingError("no file"), 1, "error: no file\n"),
        (Interrupted("saved"), 130, "error: saved\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "error: /x/y: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
    ],
)
def test_errors_become_a_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert train.guarded(fail) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [ValueError("a defect"), FileNotFoundError(errno.ENOENT, "No such file", "/x")])
def test_defects_keep_their_traceback(error: Exception) -> None:
    def fail() -> int:
        raise error

    with pytest.raises(type(error)):
        train.guarded(fail)


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise ConfigError("x")

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError):
        train.guarded(fail)
    monkeypatch.setenv("NANOCHAT_FULL_ERROR", "0")  # a worker of a sweep whose user did not ask
    assert train.guarded(fail) == 2


def test_the_environment_is_as_before(dispatched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    train.run(["seed=1"])
    with pytest.raises(ConfigError):
        train.run(["seed=x"])
    assert "HYDRA_FULL_ERROR" not in os.environ and "NANOCHAT_FULL_ERROR" not in os.environ

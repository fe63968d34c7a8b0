"""Pipelines and sweeps as parents of real workers: who ends when, and what is left."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import victims
from workshop import Workshop, steps_saved

from nanochat.checkpoint.find import list_checkpoints
from nanochat.tracking.jsonl import last_values

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
LONG = ("train.num_iterations=1000000", "train.total_batch_size=512", "train.device_batch_size=8")


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def workers_of(base_dir: Path) -> list[int]:
    """Processes that run a frozen job of this base_dir."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--frozen" in words and any(str(base_dir).encode() in word for word in words):
            found.append(int(folder.name))
    return found


def pipeline(workshop: Workshop, run: str) -> list[str]:
    """A pipeline whose first stage would never end."""
    base = [o for o in workshop.overrides("base") if not o.startswith(("stage=", "train."))]
    own = ",".join(f"'{o}'" for o in LONG)
    return ["stage=pipeline", "pipeline.stages=[base,mid]", f"run={run}", *base, f"pipeline.overrides.base=[{own}]"]


def started(run: Path) -> bool:
    return bool(last_values(run / "metrics.jsonl").get("step", 0))


def sweep(workshop: Workshop, run: str) -> list[str]:
    """Two jobs, the first of which would never end."""
    return ["-m", *workshop.overrides("base", *LONG, f"run={run}", "seed=1,2")]


PARENTS = {
    "pipeline": (
        pipeline,
        signal.SIGTERM,
        "ended",
        r"the pipeline was stopped by SIGTERM in stage base .1 of 2.; the same",
    ),
    "sweep": (
        sweep,
        signal.SIGINT,
        "ended-seed=1",
        r"the sweep was stopped by SIGINT in job 1 of 2; the same command with sweep=",
    ),
}


@needs_proc
@pytest.mark.parametrize("kind", PARENTS)
def test_a_signal_to_the_parent_ends_it_and_its_worker(kind: str, workshop: Workshop, tmp_path: Path) -> None:
    """The worker saves, nothing else is started, and the exit code says that it was an interruption."""
    command, number, name, message = PARENTS[kind]
    run = workshop.folder("base", name)
    parent = victims.start(command(workshop, "ended"), [], tmp_path / "log")
    wait_for(lambda: started(run))
    os.killpg(parent.pid, number)  # as a terminal does
    parent.join(30)
    output = (tmp_path / "log").read_text()
    assert parent.exitcode == 130, output
    assert workers_of(workshop.base_dir) == []
    (saved,) = steps_saved(run)
    assert f"saved step {saved} in" in output and re.search(message, output) and "Traceback" not in output
    assert not workshop.folder("mid", "ended").exists() and not workshop.folder("base", "ended-seed=2").exists()


@needs_proc
def test_kill_9_of_the_pipeline_leaves_no_orphan(workshop: Workshop, tmp_path: Path) -> None:
    """The worker saves and ends by itself."""
    run = workshop.folder("base", "orphan")
    parent = victims.start(pipeline(workshop, "orphan"), [], tmp_path / "log")
    wait_for(lambda: started(run))
    os.kill(parent.pid, signal.SIGKILL)
    parent.join(30)
    assert parent.exitcode == -signal.SIGKILL
    wait_for(lambda: not workers_of(workshop.base_dir), 20)
    assert len(list_checkpoints(run)) == 1


def test_a_multirun_leaves_four_finished_runs(workshop: Workshop, tmp_path: Path) -> None:
    """Each job in a process of its own, a table at the end, and nothing in the folder one happened to be in."""
    swept = ["model.depth=1,2", "optim.matrix_lr=0.01,0.02", "sweep=four", "train.num_iterations=2"]
    code, output = victims.run(["-m", *workshop.overrides("base", "run=s", *swept)], [], tmp_path / "log")
    assert code == 0, output
    names = [f"s-depth={depth}-matrix_lr={rate}" for depth in (1, 2) for rate in ("0.01", "0.02")]
    runs = [workshop.folder("base", name) for name in names]
    assert [steps_saved(run) for run in runs] == [[2]] * 4 and all((run / "result.json").is_file() for run in runs)
    pids = {re.search(r'"pid": (\d+)', (run / "environment.json").read_text())[1] for run in runs}  # type: ignore[index]
    assert len(pids) == 4 and [path.name for path in tmp_path.iterdir()] == ["log"]
    folder = workshop.base_dir / "sweeps" / "four"
    assert len(list((folder / "jobs").iterdir())) == 4
    assert all(f"| base/{name} | 0 |" in (folder / "table.md").read_text() for name in names)


def test_a_sweep_of_frozen_configs_with_a_failing_job(workshop: Workshop, tmp_path: Path) -> None:
    """The first job cannot work, and the user's own option is edited when it has begun."""
    option = tmp_path / "conf" / "experiment" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("# @package _global_\noptim: {matrix_lr: 0.011}\n")
    data = [o for o in workshop.overrides("base") if not o.startswith("data.root=")]
    swept = [f"data.root={tmp_path}/nowhere,{workshop.corpus}", "sweep=frozen", "train.num_iterations=2"]
    argv = ["-m", *data, "run=f", *swept, "experiment=mine", "--config-dir", str(tmp_path / "conf")]
    parent = victims.start(argv, [], tmp_path / "log")
    jobs = workshop.base_dir / "sweeps" / "frozen" / "jobs"
    wait_for(lambda: len(list(jobs.glob("*.yaml"))) == 2)
    option.write_text("# @package _global_\noptim: {matrix_lr: 0.5}\n")
    parent.join(60)
    output = (tmp_path / "log").read_text()
    assert parent.exitcode == 1 and "Traceback" not in output, output
    assert re.search(r"1 of 2 jobs failed: base/f-\S+ .exit code 1.; the others are kept", output)
    (finished,) = (path.parent for path in (workshop.base_dir / "base").glob("f-root=*/result.json"))
    assert "matrix_lr: 0.011" in (finished / "config.yaml").read_text()

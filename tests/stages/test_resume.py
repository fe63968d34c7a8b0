"""A run that is killed and started again by the same command is the run that was never killed, bit for bit."""

import random
from pathlib import Path

import pytest
from victims import AT_STEP, IN_LOG, IN_RESULT, IN_SAVE, IN_UPDATE, IN_VALIDATION, Hit, run
from workshop import Workshop, assert_same_run, history, samples, steps_saved

KILLED = -9
ORIGINS = {"base": (), "mid": ("init_from=base/ref",), "sft": ("init_from=mid/ref",)}
PLACES = {
    "before the first checkpoint": Hit(AT_STEP, 2, after=True),
    "in the update": Hit(IN_UPDATE, 5),
    "while saving": Hit(IN_SAVE, 2),
    "between save and validation": Hit(IN_VALIDATION, 4),  # of steps 0, 2, 4, 6: behind the save of step 6
    "between validation and samples": Hit(IN_LOG, 15),
    "between two samples of a step": Hit(IN_LOG, 16),
    "after the last save": Hit(IN_VALIDATION, 6),
    "before the result": Hit(IN_RESULT, 1),
    "between result and report": Hit(IN_RESULT, 1, after=True),
}


def kill(workshop: Workshop, log: Path, hit: Hit, stage: str, *overrides: str) -> None:
    code, output = run(workshop.frozen(stage, *overrides), [hit], log)
    assert code == KILLED, output


@pytest.mark.parametrize("stage", ORIGINS)
def test_killed_at_a_random_step(
    stage: str, workshop: Workshop, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    reference = request.getfixturevalue(f"{stage}_run")
    step = random.randint(4, 9)
    print(f"killed at step {step}")
    command = (stage, f"run=random-{stage}", *ORIGINS[stage])
    kill(workshop, tmp_path / "log", Hit(AT_STEP, step), *command)
    assert steps_saved(workshop.folder(stage, f"random-{stage}")) == [s for s in (3, 6, 9) if s < step]
    assert_same_run(workshop.train(*command), reference)


@pytest.mark.parametrize("place", PLACES)
def test_killed_in_an_awkward_place(place: str, workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    name = f"run={place.replace(' ', '-')}"
    kill(workshop, tmp_path / "log", PLACES[place], "base", name)
    again = workshop.train("base", name)
    assert_same_run(again, base_run)
    assert (again / "result.json").is_file() and (again / "report.md").is_file()


def test_the_kill_between_two_samples_is_one(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    kill(workshop, tmp_path / "log", PLACES["between two samples of a step"], "base", "run=halved")
    folder = workshop.folder("base", "halved")
    assert [row["step"] for row in samples(folder)] == [2, 2, 4, 4, 6] and steps_saved(folder) == [3, 6]


def test_killed_twice(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    """The second time while resuming from what the first resumption saved."""
    kill(workshop, tmp_path / "log", Hit(AT_STEP, 5), "base", "run=twice")
    kill(workshop, tmp_path / "log", Hit(AT_STEP, 5), "base", "run=twice")  # its fifth step: step 8
    assert steps_saved(workshop.folder("base", "twice")) == [3, 6]
    assert_same_run(workshop.train("base", "run=twice"), base_run)


def test_what_came_after_the_checkpoint_is_forgotten(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    kill(workshop, tmp_path / "log", Hit(AT_STEP, 6), "base", "run=forgotten")
    folder = workshop.folder("base", "forgotten")
    assert max(row["step"] for row in history(folder)) == 5 and max(row["step"] for row in samples(folder)) == 4
    kill(workshop, tmp_path / "log", Hit(AT_STEP, 1), "base", "run=forgotten")  # resumed at step 3
    assert max(row["step"] for row in history(folder)) == 3 and max(row["step"] for row in samples(folder)) == 2


def test_a_resume_reads_from_where_it_stopped(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    """No row is read twice and none is left out: the epoch goes on from where it was."""
    kill(workshop, tmp_path / "log", Hit(AT_STEP, 8), "base", "run=rows")
    epochs = [row["train/epoch"] for row in history(workshop.train("base", "run=rows")) if "train/epoch" in row]
    assert epochs == sorted(epochs) and len(epochs) == 10

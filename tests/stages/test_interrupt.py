"""Ctrl-C, SIGTERM and SIGUSR1: the step is finished, everything is saved, the message says how to go on."""

import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from torch._dynamo.exc import TorchDynamoException
from victims import AT_STEP, IN_SAVE, IN_VALIDATION, Hit, run
from workshop import Workshop, history, samples, steps_saved, weights

from nanochat.errors import Interrupted


def assert_continues(workshop: Workshop, name: str, reference: Path) -> None:
    again = workshop.train("base", f"run={name}")
    assert history(again) == history(reference) and samples(again) == samples(reference)
    assert weights(again, 10) == weights(reference, 10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_step(number: signal.Signals, workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    name = number.name.lower()
    code, output = run(workshop.frozen("base", f"run={name}"), [Hit(AT_STEP, 5, number)], tmp_path / "log")
    folder = workshop.folder("base", name)
    assert code == 130, output
    assert f"{number.name}: saved step 5 in {folder / 'checkpoints'}; the same command continues" in output
    assert "Traceback" not in output and not (folder / "result.json").exists()
    assert steps_saved(folder) == [3, 5]
    assert_continues(workshop, name, base_run)


def test_in_the_middle_of_an_evaluation(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    """At step 4, which is evaluated but not due for saving: it is saved all the same."""
    hit = Hit(IN_VALIDATION, 3, signal.SIGTERM)
    code, output = run(workshop.frozen("base", "run=evaluating"), [hit], tmp_path / "log")
    assert code == 130 and steps_saved(workshop.folder("base", "evaluating")) == [3, 4], output
    assert_continues(workshop, "evaluating", base_run)


def test_evaluations_to_come_are_left_to_the_next_attempt(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    hit = Hit(AT_STEP, 6, signal.SIGTERM)  # validation and samples are due at step 6
    run(workshop.frozen("base", "run=left"), [hit], tmp_path / "log")
    folder = workshop.folder("base", "left")
    assert {"step": 6} not in [{"step": row["step"]} for row in history(folder) if "val/bpb" in row]
    assert_continues(workshop, "left", base_run)


def test_before_the_first_step(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    hit = Hit(IN_VALIDATION, 1, signal.SIGTERM)
    code, output = run(workshop.frozen("base", "run=early"), [hit], tmp_path / "log")
    assert code == 130 and "stopped before step 1" in output and steps_saved(workshop.folder("base", "early")) == []
    assert_continues(workshop, "early", base_run)


def test_at_the_last_step_there_is_nothing_to_interrupt(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    code, output = run(workshop.frozen("base", "run=last"), [Hit(AT_STEP, 10, signal.SIGTERM)], tmp_path / "log")
    folder = workshop.folder("base", "last")
    assert code == 0 and (folder / "result.json").is_file(), output
    assert history(folder) == history(base_run)


def test_a_second_ctrl_c_ends_at_once(workshop: Workshop, tmp_path: Path) -> None:
    hits = [Hit(AT_STEP, 5, signal.SIGINT), Hit(IN_SAVE, 2, signal.SIGINT)]
    code, output = run(workshop.frozen("base", "run=impatient"), hits, tmp_path / "log")
    assert code == 130 and "Traceback" not in output
    assert steps_saved(workshop.folder("base", "impatient")) == [3]


def test_the_message_does_not_repeat_a_deletion(workshop: Workshop, tmp_path: Path) -> None:
    hit = Hit(AT_STEP, 2, signal.SIGINT)
    _, output = run(workshop.frozen("base", "run=fresh", "overwrite=true"), [hit], tmp_path / "log")
    assert "the same command without overwrite=true continues from there" in output


def test_a_dry_run_says_that_it_saved_nothing(workshop: Workshop, tmp_path: Path) -> None:
    hit = Hit(AT_STEP, 2, signal.SIGINT)
    code, output = run(workshop.frozen("base", "run=dry-int", "dry_run=true"), [hit], tmp_path / "log")
    assert code == 130 and "dry_run=true saved nothing" in output
    assert steps_saved(workshop.folder("base", "dry-int")) == []


def test_while_it_is_compiled(workshop: Workshop) -> None:
    """Ctrl-C in a terminal ends the C++ compiler as well; without a signal its error is a defect and comes through."""
    signals = [signal.SIGINT]

    def loop(*arguments: Any, **keywords: Any) -> None:
        if signals:
            os.kill(os.getpid(), signals.pop())
        raise TorchDynamoException

    with patch("nanochat.stages.training_stage.train_loop", loop):
        with pytest.raises(Interrupted, match="SIGINT: stopped while it was compiled; the same command continues"):
            workshop.train("base", "run=compiling")
        with pytest.raises(TorchDynamoException):
            workshop.train("base", "run=compiling")

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.errors import CorruptError
from nanochat.reporting.report import write_report

MakeRun = Callable[..., Path]


def section(text: str, title: str) -> str:
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_report_of_a_whole_run(make_run: MakeRun) -> None:
    run_dir = make_run("base/d4")
    text = write_report(run_dir).read_text()
    top = text.partition("\n## ")[0]
    assert text.startswith("# base/d4\n")
    for part in ("| complete |", "60 of 60", "1,234,567", "3.9M", "7.707 -> 2.299", "12m34s", "| 9000 |"):
        assert part in top, part
    assert re.findall(r"\]\((\w+\.png)\)", text) == ["loss.png", "learning_rate.png", "throughput.png"]
    assert all((run_dir / name).read_bytes().startswith(b"\x89PNG") for name in re.findall(r"\((\w+\.png)\)", text))
    assert "| val/bpb | 0.7662 |" in section(text, "Results")
    assert "a\\|b" in section(text, "Plan")
    assert "2 attempts" in section(text, "Environment") and "2.13.0" in section(text, "Environment")
    assert "long" not in section(text, "Environment")


def test_samples_are_those_of_the_last_step_and_cannot_break_out_of_their_block(make_run: MakeRun) -> None:
    shown = section(write_report(make_run("base/d4")).read_text(), "Samples")
    assert "At 20, the sky is ``` blue" in shown and "At 10" not in shown
    assert shown.count("````") == 2


def test_the_command_is_what_the_shell_was_given(make_run: MakeRun) -> None:
    text = section(write_report(make_run("base/d4")).read_text(), "The command")
    (line,) = [line for line in text.splitlines() if line.startswith("nanochat")]
    assert shlex.split(line) == ["nanochat", "stage=base", "eval.prompts=['a b']", "run=x y"]


def test_an_interrupted_run_with_a_torn_log_is_reported(make_run: MakeRun) -> None:
    run_dir = make_run("base/d4", done=25)
    with (run_dir / "metrics.jsonl").open("a") as log:
        log.write('{"step": 26, "train/lo')
    text = write_report(run_dir).read_text()
    assert "running or interrupted" in text and "25 of 60" in text


def test_an_empty_folder_and_one_without_metrics_make_a_report(tmp_path: Path) -> None:
    run_dir = tmp_path / "eval" / "d4"
    run_dir.mkdir(parents=True)
    assert write_report(run_dir).read_text().startswith("# eval/d4\n")
    (run_dir / "result.json").write_text('{"status": "complete", "metrics": {"eval/chat/spelling_bee": 0.5}}')
    text = write_report(run_dir).read_text()
    assert "| eval/chat/spelling_bee | 0.5 |" in text and ".png" not in text


def test_writing_it_again_gives_the_same(make_run: MakeRun) -> None:
    run_dir = make_run("base/d4")
    first = write_report(run_dir).read_text().rpartition("\nWritten")[0]
    assert write_report(run_dir).read_text().rpartition("\nWritten")[0] == first


@pytest.mark.parametrize("name", ["plan.json", "config.yaml", "result.json", "environment.json"])
def test_a_damaged_file_is_named(make_run: MakeRun, name: str) -> None:
    run_dir = make_run("base/d4")
    (run_dir / name).write_text('{"a": [')
    with pytest.raises(CorruptError, match=name):
        write_report(run_dir)

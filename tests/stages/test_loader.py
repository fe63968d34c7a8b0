"""How steps are made ready does not change what is trained: threads, steps ahead, tokens kept on disk."""

from pathlib import Path

import pytest
from victims import AT_STEP, Hit, run
from workshop import Workshop, assert_same_run, history

CACHED = ("data.token_cache=true", "data.workers=2", "data.prefetch=3")


@pytest.mark.parametrize("options", [("data.workers=0",), CACHED])
def test_base_run_is_the_same(options: tuple[str, ...], workshop: Workshop, base_run: Path) -> None:
    name = f"run=loader-{len(options)}"
    assert_same_run(workshop.train("base", name, *options), base_run)


def test_sft_run_is_the_same_without_threads(workshop: Workshop, sft_run: Path) -> None:
    assert_same_run(workshop.train("sft", "run=loader-sft", "init_from=mid/ref", "data.workers=0"), sft_run)


def test_cache_may_come_and_go_between_attempts(workshop: Workshop, base_run: Path, tmp_path: Path) -> None:
    code, output = run(workshop.frozen("base", "run=comes", *CACHED), [Hit(AT_STEP, 5)], tmp_path / "log")
    assert code == -9, output
    assert_same_run(workshop.train("base", "run=comes"), base_run)


def test_position_and_waiting_are_logged(workshop: Workshop, base_run: Path) -> None:
    rows = [row for row in history(base_run) if "train/rows" in row]
    assert len(rows) == 10
    per_step = rows[0]["train/rows"]
    assert [row["train/rows"] for row in rows] == [per_step * step for step in range(1, 11)]
    read = [row["train/documents"] for row in rows]
    assert read == sorted(read) and read[0] > 0
    lines = (base_run / "metrics.jsonl").read_text()
    assert lines.count('"train/data_wait"') == 10


def test_rows_may_be_filled_with_several_conversations(workshop: Workshop, mid_run: Path) -> None:
    folder = workshop.train("sft", "run=filled", "init_from=mid/ref", "data.packing=bestfit_pad")
    assert (folder / "result.json").is_file()

import io
import math
import os
from pathlib import Path

import pytest

from nanochat.tracking.console import Console, StepLine, format_count, format_seconds, format_step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(number: int, total: int = 25, mfu: float | None = 0.4123) -> StepLine:
    return StepLine(number, total, 2.34567, 0.5, 123_456.0, mfu, 3700.0)


def screen(text: str) -> list[str]:
    """What a terminal shows after this output: carriage return goes back, \\x1b[K erases."""
    lines = [""]
    for part in text.replace("\r\x1b[K", "\x00").split("\n"):
        lines[-1] = part.rpartition("\x00")[2]
        lines.append("")
    return lines[:-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (7380, "2h03m"), (86400 * 4 + 3600 * 7, "4d07h")],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(12, "12"), (999.4, "999"), (999.9, "1k"), (1234, "1.23k"), (560_988_160, "561M"), (5e9, "5B")]
)
def test_format_count(number: float, text: str) -> None:
    assert format_count(number) == text


def test_a_step_shows_all_that_is_known() -> None:
    assert format_step(step(7)) == "step  7/25  loss 2.3457  lr x0.500  123k tok/s  mfu 41.2%  eta 1h01m"
    unknown = format_step(StepLine(7, 25, math.nan, 0, 1, None, None))
    assert "loss nan" in unknown and "mfu -" in unknown and "eta -" in unknown


def test_on_a_terminal_progress_stays_in_place_and_messages_stand_above_it() -> None:
    terminal = Terminal()
    console = Console(None, True, stream=terminal)
    console.progress(step(1))
    console.progress(step(2))
    console.say("saved")
    console.progress(step(3))
    console.end_progress()
    console.say("done")
    assert screen(terminal.getvalue()) == ["saved", format_step(step(3)), "done", ""]


def test_a_line_wider_than_the_terminal_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    Console(None, True, stream=terminal).progress(step(1))
    assert len(screen(terminal.getvalue())[-1]) == 19


def test_off_a_terminal_lines_are_plain_and_few() -> None:
    pipe = io.StringIO()
    console = Console(None, True, stream=pipe, plain_every=10)
    for number in range(1, 26):
        console.progress(step(number))
    assert pipe.getvalue() == "".join(format_step(step(n)) + "\n" for n in (1, 10, 20, 25))


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_the_log_has_messages_and_progress_without_colour(tmp_path: Path, stream: io.StringIO) -> None:
    console = Console(tmp_path / "new" / "log.txt", True, stream=stream)
    console.say("\x1b[1mbold\x1b[0m")
    for number in range(1, 12):
        console.progress(step(number))
    lines = (tmp_path / "new" / "log.txt").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["bold", format_step(step(1)), format_step(step(10))]


def test_other_ranks_show_and_write_nothing(tmp_path: Path) -> None:
    stream = Terminal()
    console = Console(tmp_path / "log.txt", False, stream=stream)
    console.say("hello")
    console.progress(step(1))
    console.end_progress()
    assert stream.getvalue() == "" and not (tmp_path / "log.txt").exists()


def test_a_run_goes_on_when_nobody_reads_its_output_any_more(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        console = Console(tmp_path / "log.txt", True, stream=gone)
        console.say("first")
        console.say("second")
    assert [line.split("  ")[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["first", "second"]

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanochat.errors import CorruptError
from nanochat.tracking.jsonl import MetricsLog, cut_jsonl, last_values, read_jsonl


def write(path: Path, steps: int) -> list[dict[str, float]]:
    log = MetricsLog(path)
    for step in range(1, steps + 1):
        log.log(step, {"train/loss": 1 / step, "text": "é\n"})
    log.finish()
    return [{"step": step, "train/loss": 1 / step, "text": "é\n"} for step in range(1, steps + 1)]


def test_rows_come_back_as_logged_and_each_is_on_disk_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.log(1, {"train/loss": 0.1})
    assert read_jsonl(log.path) == [{"step": 1, "train/loss": 0.1}]
    assert read_jsonl(tmp_path / "none.jsonl") == []


def test_non_finite_values_are_valid_json_and_come_back_as_floats(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    log.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    line = log.path.read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity"}
    (row,) = read_jsonl(log.path)
    assert math.isnan(row["a"]) and row["b"] == math.inf and row["c"] == -math.inf


def test_a_file_torn_at_any_byte_is_read_repaired_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    rows = write(path, 3)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = whole[:size].count(b"\n")
        assert read_jsonl(path) == rows[:kept]
        assert last_values(path).get("step", 0) == kept
        log = MetricsLog(path)
        log.log(9, {"x": 1})
        assert read_jsonl(path) == [*rows[:kept], {"step": 9, "x": 1}]
        path.write_bytes(whole[:size])
        cut_jsonl(path, 2)
        assert read_jsonl(path) == rows[: min(kept, 2)]
        assert path.read_bytes().endswith(b"\n") or not path.read_bytes()


def test_a_process_killed_while_logging_leaves_a_readable_log(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    code = (
        "import itertools, pathlib, sys; from nanochat.tracking.jsonl import MetricsLog;"
        "log = MetricsLog(pathlib.Path(sys.argv[1]));"
        "[log.log(n, {'train/loss': n / 3, 'pad': 'x' * 5000}) for n in itertools.count(1)]"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while not path.exists() or path.stat().st_size < 1_000_000:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    steps = [row["step"] for row in read_jsonl(path)]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 100


def test_damage_before_the_last_line_is_named_and_cut_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "x"\n{"step": 3}\n')
    with pytest.raises(CorruptError, match=r"m\.jsonl:2 "):
        read_jsonl(path)
    assert cut_jsonl(path, 3) == 1
    assert [row["step"] for row in read_jsonl(path)] == [1, 3]


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\0\0\n", b"[1]\n", b'{"loss": 1}\n', b"\xff\xfe\n", b"\n"])
def test_what_a_power_cut_leaves_at_the_end_is_skipped(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n' + tail)
    assert read_jsonl(path) == [{"step": 1}]


def test_cut_keeps_every_row_up_to_the_step_and_the_log_goes_on(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    for step in (1, 2, 2, 3, 4):
        log.log(step, {"n": step})
    assert log.cut(2) == 2
    log.log(3, {"again": True})
    assert [row["step"] for row in read_jsonl(log.path)] == [1, 2, 2, 3]
    assert log.cut(0) == 4 and read_jsonl(log.path) == []


def test_last_values_from_the_end_equal_those_of_the_whole_file(tmp_path: Path) -> None:
    path, draw = tmp_path / "m.jsonl", random.Random(0)
    log = MetricsLog(path)
    for step in range(1, 3001):  # larger than two tails
        log.log(step, {"train/loss": draw.random(), "pad": "x" * 100} | ({"val/bpb": step} if step == 250 else {}))
    expected: dict[str, object] = {}
    for row in read_jsonl(path):
        expected.update(row)
    assert last_values(path) == expected
    assert last_values(path, ["val/bpb"])["val/bpb"] == 250
    assert last_values(path, ["train/loss", "never"])["train/loss"] == expected["train/loss"]
    assert last_values(tmp_path / "none") == {}

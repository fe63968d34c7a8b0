import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanochat.errors import NanochatError
from nanochat.runtime.lock import hold

HOLDER = """
import sys, time
from pathlib import Path
from nanochat.runtime.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start_holder(folder: Path, seconds: float) -> "subprocess.Popen[str]":
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "base" / "x"
    holder = start_holder(folder, 60)
    try:
        with pytest.raises(NanochatError, match=f"in use by process {holder.pid} on"), hold(folder, patience=0.0):
            pass
    finally:
        holder.kill()
        holder.wait()
    with hold(folder, patience=0.0):
        pass


def test_an_ending_one_is_waited_for(tmp_path: Path) -> None:
    holder = start_holder(tmp_path / "x", 0.5)
    began = time.monotonic()
    with hold(tmp_path / "x"):
        assert time.monotonic() - began < 5
    holder.wait()


def test_deleting_the_folder_does_not_free_it(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    with hold(folder):
        folder.rmdir()
        with pytest.raises(NanochatError), hold(folder, patience=0.0):
            pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NanochatError, match="choose another base_dir"), hold(tmp_path / "file" / "base" / "x"):
        pass

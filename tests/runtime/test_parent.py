"""A worker ends when the process that started it does, however that ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanochat.runtime.parent import PARENT, follow_parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

WORKER = """
import os, time
from nanochat.runtime.parent import follow_parent
follow_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT_CODE = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {WORKER!r}], env={{**os.environ, "{PARENT}": str(os.getpid())}})
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_kill_9_of_the_parent_ends_the_worker() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT_CODE], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert alive(worker)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 5
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(worker)


def test_a_parent_that_is_gone_already() -> None:
    """As if it had died while the worker was starting."""
    environment = {**os.environ, PARENT: "1"}
    done = subprocess.run([sys.executable, "-c", WORKER], env=environment, timeout=30, check=False)
    assert done.returncode == 128 + signal.SIGTERM


def test_without_a_parent_nothing_happens() -> None:
    assert PARENT not in os.environ
    follow_parent()

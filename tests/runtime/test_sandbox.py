"""Programs that try what they must not, and those that are all right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.runtime.sandbox import run_python

HAS_NAMESPACES = (
    sys.platform == "linux" and subprocess.run(["unshare", "-rnm", "true"], capture_output=True).returncode == 0
)


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 2",
        "print('x' * 5_000_000)",
        "import sys; sys.stderr.write('no')",
        "import os; assert os.listdir('.') == [] and 'HOME' not in os.environ and 'PATH' not in os.environ",
        "if __name__ == '__main__':\n    pass\nelse:\n    raise ValueError",
        "import collections, math, typing, re, hashlib, itertools",
        "x = bytearray(50 << 20)",
    ],
)
def test_runs_to_its_end(program: str) -> None:
    outcome = run_python(program)
    assert outcome.ok, outcome.reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("((", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import sys; sys.exit()", "SystemExit"),
        ("import os; os._exit(0)", "ended with code 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import torch", "No module named 'torch'"),
        ("import nanochat", "No module named 'nanochat'"),
        ("x = bytearray(300 << 20)", "MemoryError"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("raise ValueError(__import__('sys').argv)", r"ValueError: ['-c']"),  # nothing to learn the word from
        ("input()", "EOFError"),
    ],
)
def test_what_fails_says_why(program: str, reason: str) -> None:
    outcome = run_python(program)
    assert not outcome.ok and reason in outcome.reason


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_takes_too_long(program: str) -> None:
    assert run_python(program, seconds=0.3).reason == "still running after 0.3 s"


def test_a_program_that_ignores_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.runtime.sandbox._START_SECONDS", 0.5)
    stubborn = "import signal, time\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\ntime.sleep(60)"
    assert run_python(stubborn, seconds=0.2).reason == "still running after 0.2 s"


@pytest.mark.skipif(not HAS_NAMESPACES, reason="this system lets no user have namespaces of its own")
def test_no_network_and_nothing_can_be_written(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for program, reason in (
        ("import socket; socket.create_connection(('192.0.2.1', 80), timeout=3)", "Network is unreachable"),
        (f"open({str(kept)!r}, 'w')", "Read-only file system"),
        (f"import os; os.remove({str(kept)!r})", "Read-only file system"),
    ):
        assert reason in run_python(program).reason
    assert kept.read_text() == "mine"


@pytest.mark.skipif(os.getuid() == 0, reason="root may have as many processes as it likes")
def test_no_further_process() -> None:
    assert not run_python("import os; os.fork()").ok

"""Programs that try what they must not (tests/support/attacks.py), and those that are all right."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from attacks import LATE, Attack, Victims, attacks, matches, victims

from nanochat.errors import ConfigError
from nanochat.runtime import sandbox
from nanochat.runtime.sandbox import Isolation, Outcome, find_isolation, require_isolation, run_in, run_python

NAMES = [attack.name for attack in attacks(Victims(Path("/x"), 1, 1, ""))]
KINDS = list(Isolation)


@cache
def refusal(kind: Isolation) -> str | None:
    """Why this system cannot isolate in this way; None if it can."""
    try:
        outcome = run_in(kind, "pass")
        return None if outcome.ok else outcome.reason
    except OSError as error:
        return str(error)


def needs(kind: Isolation) -> None:
    if refusal(kind) is not None:
        pytest.skip(f"this system has no isolation by {kind}: {refusal(kind)}")


@pytest.fixture(scope="module")
def under_attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victims]:
    with pytest.MonkeyPatch.context() as patch, victims(tmp_path_factory.mktemp("victims")) as on:
        patch.setenv("NANOCHAT_SECRET", "hunter2")
        yield on


@pytest.fixture(scope="module")
def outcome_of(under_attack: Victims) -> Callable[[Isolation, str], Outcome]:
    """What came of an attack. All of one kind are run at once, since many of them wait for their time to be over."""

    @cache
    def outcomes(kind: Isolation) -> dict[str, Outcome]:
        table = [attack for attack in attacks(under_attack) if applies(attack, kind)]
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(lambda attack: run_in(kind, attack.program, seconds=attack.seconds), table)
            return dict(zip([attack.name for attack in table], found, strict=True))

    return lambda kind, name: outcomes(kind)[name]


def applies(attack: Attack, kind: Isolation) -> bool:
    return kind == Isolation.namespaces or (attack.anywhere if kind == Isolation.none else not attack.roomy)


@pytest.mark.skipif(sys.platform != "linux", reason="filters and namespaces are Linux's")
@pytest.mark.parametrize(
    "kind", [Isolation.namespaces, Isolation.none, pytest.param(Isolation.bubblewrap, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", NAMES)
def test_held_back(
    name: str, kind: Isolation, under_attack: Victims, outcome_of: Callable[[Isolation, str], Outcome]
) -> None:
    needs(kind)
    (attack,) = (attack for attack in attacks(under_attack) if attack.name == name)
    if not applies(attack, kind):
        pytest.skip(f"not held back with isolation by {kind}; docs/security.md says so")
    outcome = outcome_of(kind, name)
    assert not outcome.ok and matches(outcome.reason, attack), outcome.reason
    assert under_attack.secret.read_text() == "hunter2" and len(list(under_attack.folder.iterdir())) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the table is made for Linux")
def test_without_a_sandbox_the_attacks_succeed(under_attack: Victims, tmp_path: Path) -> None:
    """Those of the table that do no harm: else it would say nothing that they fail within."""
    for attack in attacks(under_attack):
        if attack.real:
            done = subprocess.run([sys.executable, "-c", attack.program], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, (attack.name, done.stderr)
    for left in ("new", "link"):
        (under_attack.folder / left).unlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 2",
        "print('x' * 5_000_000)",
        "import sys; sys.stderr.write('no')",
        "import os; assert os.listdir('.') == [] and not {'HOME', 'PATH', 'USER'} & set(os.environ)",
        "if __name__ == '__main__':\n    pass\nelse:\n    raise ValueError",
        "import __main__\ndef f(): pass\nassert __main__.f is f",
        "import collections, math, typing, re, hashlib, itertools, decimal, ssl, lzma, sqlite3, datetime, random",
        "x = bytearray(50 << 20)",
        "open('x', 'w').write('mine'); assert open('x').read() == 'mine'",
        "import resource, time, tempfile; tempfile.TemporaryFile().write(b'x'); time.sleep(0.01)",
        "import os; os.write(2, b'x'); open(os.devnull, 'w').write('x'); os.urandom(9)",
        "x = '\ud800'",
    ],
)
def test_runs_to_its_end(program: str, kind: Isolation) -> None:
    needs(kind)
    outcome = run_in(kind, program)
    assert outcome.ok, outcome.reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("((", "SyntaxError"),
        ("x = 1\0", "null bytes|SyntaxError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import torch", "No module named 'torch'"),
        ("import nanochat", "No module named 'nanochat'"),
        ("x = bytearray(300 << 20)", "MemoryError"),
        ("raise ValueError(__import__('sys').argv)", r"ValueError: \['-c'\]"),
        ("input()", "EOFError"),
        ("import os; os.abort()", "ended with code -"),
    ],
)
def test_what_fails_says_why(program: str, reason: str) -> None:
    assert matches(run_python(program, unsafe=True).reason, Attack("", "", reason))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither processes nor folders, whether the program ends, is ended, or the one who asked for it is killed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(sandbox.tempfile, "tempdir", None)
    kind, _ = find_isolation()
    before = set(jailed(os.getpid()))  # what other tests have started in this process
    run_in(kind, "pass")
    run_in(kind, "while True: pass", seconds=0.1)
    assert list(tmp_path.iterdir()) == [] and set(jailed(os.getpid())) <= before
    script = f"from nanochat.runtime.sandbox import *; run_in(Isolation('{kind}'), 'while True: pass', seconds=60)"
    asker = subprocess.Popen([sys.executable, "-c", script])
    assert wait_until(lambda: len(jailed(asker.pid)) >= 2)
    inside = jailed(asker.pid)
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    assert wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in inside))


def jailed(ancestor: int) -> list[int]:
    """The processes below `ancestor`."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if text[0] != "Z":
            parents[int(folder.name)] = int(text[1])
    found, new = [], [ancestor]
    while new:
        new = [process for process, parent in parents.items() if parent in new]
        found += new
    return found


def wait_until(true: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="the supervisor keeps the clock")
def test_a_supervisor_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_START_SECONDS", 0.2)
    monkeypatch.setattr(sandbox, "sys", type("Sys", (), {**vars(sys), "executable": "/bin/sleep"}))
    monkeypatch.setattr(sandbox, "_start", lambda *_: subprocess.Popen(["sleep", "60"], stdin=-1, stdout=-1, start_new_session=True))  # fmt: skip # noqa: E501
    assert run_in(Isolation.none, "pass", seconds=0.1).reason.startswith(LATE)


def test_root_with_one_user_only() -> None:
    """As in a container without further users: a user namespace is made within the one that is there."""
    needs(Isolation.namespaces)
    programs = ["pass", "import os; os.setuid(0)", "open('/etc/passwd')", "import os; os.fork()"]
    script = f"from nanochat.runtime.sandbox import *\nfor p in {programs!r}: print(run_in(Isolation.namespaces, p).ok)"
    run = subprocess.run(["unshare", "-Ur", sys.executable, "-c", script], capture_output=True, text=True)
    if "unshare" in run.stderr:
        pytest.skip(f"no `unshare -Ur` here: {run.stderr}")
    assert run.stdout.split() == ["True", "False", "False", "False"], run.stderr


def test_many_threads_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda number: run_python(f"assert {number} % 3", unsafe=True).ok, range(12))
        assert list(found) == [number % 3 > 0 for number in range(12)]


@pytest.fixture
def defenceless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "find_isolation", lambda: (Isolation.none, "namespaces: not permitted"))


@pytest.mark.usefixtures("defenceless")
def test_where_nothing_isolates_code_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"allow_unsafe_code=false.*namespaces: not permitted.*bubblewrap.*=true"):
        run_python("pass")
    with pytest.raises(ConfigError):
        require_isolation(False)


@pytest.mark.usefixtures("defenceless")
def test_unless_it_is_allowed() -> None:
    assert require_isolation(True) == Isolation.none and run_python("pass", unsafe=True).ok


def test_a_system_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "platform", type("Platform", (), {"machine": staticmethod(lambda: "riscv64")}))
    find_isolation.cache_clear()
    assert find_isolation() == (Isolation.none, f"there is none for {sys.platform} on riscv64")
    find_isolation.cache_clear()


def test_each_way_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(kind: Isolation, program: str) -> Outcome:
        raise OSError(f"no {kind} today")

    monkeypatch.setattr(sandbox, "run_in", fails)
    find_isolation.cache_clear()
    if sys.platform == "linux":
        assert find_isolation()[1] == "namespaces: no namespaces today; bubblewrap: no bubblewrap today"
    find_isolation.cache_clear()

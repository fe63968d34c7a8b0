"""Runs a Python program that nobody has read, written by a model, in a process that can do little.

    namespaces    the process shuts itself in (jail.py): no network, an empty root, its own process numbers
    bubblewrap    the same by `bwrap`, where the system lets only that program have namespaces
    neither       limits and a filter of system calls alone, and only if the caller says `unsafe`

In all of them the program has 5 seconds, 256 MB, no variables of the environment, no packages, and can neither start
a process nor open a socket. What this cannot hold back is in docs/security.md.

Notable: limits are set by the child itself, not between fork and exec, where a process with threads (such as one that
has loaded torch) must not run code. So many programs can run at once from a pool of threads.
"""

import marshal
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

from nanochat.errors import ConfigError

SECONDS = 5.0
MEMORY = 256 << 20  # bytes of address space
WORK = "/sandbox"  # the empty folder it starts in, within the walls
WORK_BYTES = 16 << 20  # bubblewrap: all files of the program together
_START_SECONDS = 15.0  # for the interpreter and the walls on a busy machine; the program's own clock starts after that
_REPORT_BYTES = 4096
_MACHINES = ("x86_64", "aarch64")  # whose system calls jail.py knows
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")


class Isolation(StrEnum):
    """What stands between a program and this machine."""

    namespaces = auto()
    bubblewrap = auto()
    none = auto()


@dataclass(frozen=True)
class Outcome:
    """`ok`: the program ran to its end without an exception. Otherwise `reason` is one, or how it was ended."""

    ok: bool
    reason: str


class JailError(OSError):
    """The walls could not be put up, so the program was not started."""


def run_python(program: str, *, seconds: float = SECONDS, memory: int = MEMORY, unsafe: bool = False) -> Outcome:
    """Runs `program` as __main__, for at most `seconds` and `memory` bytes of address space. What it prints is lost.

    Raises ConfigError where nothing isolates it and `unsafe` does not allow that. May be called from many threads.
    """
    return run_in(require_isolation(unsafe), program, seconds=seconds, memory=memory)


def require_isolation(unsafe: bool) -> Isolation:
    """What this system isolates with. ConfigError if it has nothing, unless `unsafe`."""
    found, missing = find_isolation()
    if found == Isolation.none and not unsafe:
        raise ConfigError(
            f"eval.allow_unsafe_code=false: the code a model writes would run on this machine without isolation "
            f"({missing}). Either install bubblewrap 0.8 or newer (apt install bubblewrap), where the system lets it "
            f"make namespaces, or say eval.allow_unsafe_code=true: limits stay, but the code can then read and write "
            f"what you can. Without such tasks nothing is run: ~eval.tasks.humaneval"
        )
    return found


@cache
def find_isolation() -> tuple[Isolation, str]:
    """The first kind that works here, found by running a program in it, or none and what was tried."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return Isolation.none, f"there is none for {sys.platform} on {platform.machine()}"
    tried = []
    for kind in (Isolation.namespaces, Isolation.bubblewrap):
        try:
            outcome = run_in(kind, "pass")
            if outcome.ok:
                return kind, ""
            tried.append(f"{kind}: {outcome.reason}")
        except OSError as error:
            tried.append(f"{kind}: {error}")
    return Isolation.none, "; ".join(tried)


def run_in(isolation: Isolation, program: str, *, seconds: float = SECONDS, memory: int = MEMORY) -> Outcome:
    """As `run_python`, with this kind of isolation. Raises JailError where the system does not have it."""
    with (
        tempfile.TemporaryDirectory(prefix="nanochat-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as report,
    ):
        given = {
            "program": program.encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
            "seconds": seconds,
            "memory": memory,
            "report": report.fileno(),
            "isolation": str(isolation),
            "root": folder,
            "readable": readable_paths(),
            "work": folder if isolation == Isolation.none else WORK,
        }
        process = _start(isolation, folder, report)
        said = _wait(process, marshal.dumps(given), seconds + _START_SECONDS)
        report.seek(0)
        return _outcome(said, report.read(_REPORT_BYTES).decode(errors="replace"), seconds, process.returncode)


def readable_paths() -> list[str]:
    """What the program may read: the standard library, and the shared libraries that its modules need."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}  # a virtual environment has neither
    python = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib", vars=base), f"{sys.base_prefix}/lib")
    kept: list[str] = []
    for path in sorted({*python, *_LIBRARIES}, key=len):
        if Path(path).exists() and not any(path.startswith(f"{outer}/") for outer in kept):
            kept.append(path)
    return [*kept, os.devnull]


def _start(isolation: Isolation, folder: str, report: IO[bytes]) -> subprocess.Popen[bytes]:
    source = (files("nanochat.runtime") / "jail.py").read_text(encoding="utf-8")
    python = [sys.executable]
    if isolation == Isolation.bubblewrap:
        python = _bubblewrap()
    return subprocess.Popen(
        (*python, "-I", "-S", "-c", source),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"LANG": "C.UTF-8"},
        pass_fds=(report.fileno(),),
        start_new_session=True,
    )


def _bubblewrap() -> list[str]:
    """`bwrap` with the same walls as jail.py puts up, and the interpreter within them. Needs bubblewrap 0.8."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise JailError("not installed")
    python = os.path.realpath(sys.executable)
    words = [bwrap, "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--cap-drop", "ALL"]
    words += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--dev-bind", os.devnull, os.devnull]
    for path in (*readable_paths()[:-1], python):
        words += ["--ro-bind", path, path]
    words += ["--size", str(WORK_BYTES), "--tmpfs", WORK, "--chdir", WORK, "--remount-ro", "/"]
    return [*words, python]


def _wait(process: subprocess.Popen[bytes], stdin: bytes, seconds: float) -> dict[str, Any]:
    """Hands over the input and returns what the supervisor says in the end; kills its group if that takes too long."""
    try:
        text, _ = process.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"late": True}
    finally:
        if process.poll() is None:  # else its number may be another's by now
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return dict(marshal.loads(text)) if text else {}


def _outcome(said: dict[str, Any], report: str, seconds: float, code: int) -> Outcome:
    if "late" in said:
        return Outcome(False, f"still running after {seconds:g} s")
    if "failed" in said:
        raise JailError(said["failed"])
    if report and report == said.get("word"):
        return Outcome(True, "")
    return Outcome(False, report or f"ended with code {said.get('code', code)}")

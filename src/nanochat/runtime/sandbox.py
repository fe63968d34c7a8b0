"""Runs a Python program that nobody has read, written by a model, in a process that can do little.

The process has 5 seconds, 256 MB, an empty folder, no variables of the environment, no packages, and cannot start
another process (root can). Where the kernel lets an ordinary user have namespaces of its own (most Linux systems), it
also has no network and sees all file systems read-only. Elsewhere these two are missing: it can then read and write
what the user can. It is a fence against accidents of a model, not against an attacker.

Notable: nothing but a word that the program is not told counts as success, so `exit(0)` in the middle is none. The
limits are set in the child before the program is read, not between fork and exec, where a process with threads (such
as one that has loaded torch) must not run code.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass

SECONDS = 5.0
MEMORY = 256 << 20  # bytes of address space
_START_SECONDS = 5.0  # for the interpreter itself on a busy machine; the program's own clock starts after that
_REPORT_BYTES = 4096

# Runs in the child, as `python -I -S -c`. Order matters: namespaces are given up before processes are forbidden.
_CHILD = r"""
import ctypes, json, os, resource, signal, sys

given = json.loads(sys.stdin.read())
report = os.dup(1)
for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
    os.dup2(os.open(os.devnull, flags), number)

def confine():
    libc = ctypes.CDLL(None)
    libc.prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG: die with the parent
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.unshare(0x10000000 | 0x00020000 | 0x40000000 | 0x08000000):  # user, mount, network, IPC
        return
    libc.mount(None, b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
    read_only = (ctypes.c_uint64 * 4)(1, 0, 0, 0)  # struct mount_attr: set MOUNT_ATTR_RDONLY
    libc.syscall(442, -100, b"/", 0x8000, read_only, 32)  # mount_setattr(AT_FDCWD, "/", AT_RECURSIVE)

def limit(name, value):
    try:
        resource.setrlimit(getattr(resource, name), (value, value))
    except (AttributeError, OSError, ValueError):
        pass

try:
    if sys.platform == "linux":
        confine()
except (AttributeError, OSError):
    pass
limit("RLIMIT_CPU", int(given["seconds"]) + 1)
limit("RLIMIT_AS", given["memory"])
limit("RLIMIT_FSIZE", 1 << 20)
limit("RLIMIT_NOFILE", 64)
limit("RLIMIT_CORE", 0)
limit("RLIMIT_NPROC", 0)
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.setitimer(signal.ITIMER_REAL, given["seconds"])
word, program = given["word"].encode(), given["program"]
del given, confine, limit
try:
    exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    said = word
except BaseException as error:
    said = f"{type(error).__name__}: {str(error)[:500]}".encode(errors="replace")
os.write(report, said)
os._exit(0)
"""


@dataclass(frozen=True)
class Outcome:
    """`ok`: the program ran to its end without an exception. Otherwise `reason` is one, or how it was ended."""

    ok: bool
    reason: str


def run_python(program: str, *, seconds: float = SECONDS, memory: int = MEMORY) -> Outcome:
    """Runs `program` as __main__, for at most `seconds` and `memory` bytes of address space. What it prints is lost."""
    word = secrets.token_hex(16)
    given = {"program": program, "seconds": seconds, "memory": memory, "word": word}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as report:
        process = subprocess.Popen(
            (sys.executable, "-I", "-S", "-c", _CHILD),
            stdin=subprocess.PIPE,
            stdout=report,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"LANG": "C.UTF-8"},
            start_new_session=True,
        )
        timed_out = _wait(process, json.dumps(given).encode(), seconds + _START_SECONDS)
        report.seek(0)
        said = report.read(_REPORT_BYTES).decode(errors="replace")
    if said == word:
        return Outcome(True, "")
    if timed_out or process.returncode in (-signal.SIGALRM, -signal.SIGXCPU):
        return Outcome(False, f"still running after {seconds:g} s")
    return Outcome(False, said or f"ended with code {process.returncode}")


def _wait(process: subprocess.Popen[bytes], stdin: bytes, seconds: float) -> bool:
    """Hands over the input and waits for the end; whatever is left of the process group is killed. Timed out?"""
    try:
        process.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        return True
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return False

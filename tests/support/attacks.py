# ruff: noqa: E501 -- a program a line
"""Programs that try what a sandbox must not let them do. One that reaches its end has succeeded."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REFUSED = "PermissionError"
GONE = "FileNotFoundError|NotADirectoryError"
CLOSED = f"{GONE}|{REFUSED}|Read-only file system"
LATE = "still running"

LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\ndef call(*a):\n    r = libc.syscall(*a)\n    if r == -1: raise PermissionError(ctypes.get_errno())\n    return r\n"

# Looks everywhere in Python's memory for what could be the judge's word, and says it on every descriptor.
LOOK_FOR_THE_WORD = r"""
import gc, io, os, re, sys
texts, frame = [], sys._getframe()
while frame:
    texts += [repr(v) for d in (frame.f_locals, frame.f_globals) for v in d.values()]
    frame = frame.f_back
for thing in gc.get_objects():
    try:
        texts.append(repr(thing)[:5000])
        texts += [repr(x)[:500] for x in gc.get_referents(thing)]
    except BaseException:
        pass
texts += [sys.stdin.read(), repr(sys.argv), repr(sys.orig_argv), repr(dict(os.environ))]
for number in range(3, 64):
    try:
        os.lseek(number, 0, 0)
        texts.append(repr(os.read(number, 4096)))
    except OSError:
        pass
words = sorted(set(re.findall("[0-9a-f]{32}", " ".join(texts))))
for word in words or [""]:
    for number in range(3, 64):
        try:
            os.lseek(number, 0, 0)
            os.write(number, word.encode())
        except OSError:
            pass
os._exit(0)
"""


@dataclass(frozen=True)
class Attack:
    """`reason` is a pattern of what the sandbox must say. `anywhere`: held back by limits and the filter alone.

    `real`: harmless enough to be run without any sandbox, where it has to succeed. `roomy`: bubblewrap does not count
    files.
    """

    name: str
    program: str
    reason: str
    anywhere: bool = True
    real: bool = False
    roomy: bool = False

    @property
    def seconds(self) -> float:
        return 0.2 if LATE in self.reason else 5.0


@dataclass(frozen=True)
class Victims:
    """What stands on this machine to be attacked."""

    folder: Path  # has a file `secret`
    tcp: int  # listens on the loopback
    udp: int
    unix: str  # an abstract socket

    @property
    def secret(self) -> Path:
        return self.folder / "secret"


@contextmanager
def victims(folder: Path) -> Iterator[Victims]:
    """Opens the sockets and writes the file."""
    (folder / "secret").write_text("hunter2")
    name = f"\0nanochat-{os.getpid()}-{folder.name}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(name)
        unix.listen()
        tcp.setblocking(False)
        udp.setblocking(False)
        yield Victims(folder, tcp.getsockname()[1], udp.getsockname()[1], name)
        for kind in (tcp, udp):
            try:
                kind.accept() if kind is tcp else kind.recv(9)
            except BlockingIOError:
                continue
            raise AssertionError("something came through")


def attacks(on: Victims) -> list[Attack]:
    """The table."""
    return [*of_time_and_processes(), *of_memory(), *of_files(on), *of_sockets(on), *of_others(on), *of_the_verdict()]


def of_time_and_processes() -> list[Attack]:
    swallow = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    return [
        Attack("infinite loop", "while True: pass", LATE),
        Attack("sleeps", "import time; time.sleep(60)", LATE),
        Attack(
            "ignores all signals",
            "import signal, time\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ntime.sleep(60)",
            LATE,
        ),
        Attack(
            "stops itself",
            "import os, signal, time; os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)",
            f"{REFUSED}|{LATE}",
        ),
        Attack("fork", "import os; os.fork() or os._exit(0)", REFUSED, real=True),
        Attack("fork bomb", "import os\nwhile True: os.fork()", REFUSED),
        Attack("fork bomb that does not give up", swallow, LATE),
        Attack("double fork", "import os\nif os.fork() == 0:\n    os.setsid()\n    os.fork()", REFUSED),
        Attack(
            "clone by its number",
            f"{LIBC}call({220 if os.uname().machine == 'aarch64' else 56}, 17, 0, 0, 0, 0) or os._exit(0)",
            REFUSED,
            real=True,
        ),
        Attack(
            "clone3",
            f"{LIBC}import struct\na = ctypes.create_string_buffer(struct.pack('<11Q', 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))\ncall(435, a, 88) or os._exit(0)",
            REFUSED,
            real=True,
        ),
        Attack(
            "thread", "import threading; threading.Thread(target=print).start()", "can't start new thread", real=True
        ),
        Attack("shell", "import subprocess; subprocess.run(['/bin/sh', '-c', 'true'], check=True)", CLOSED, real=True),
        Attack("os.system", "import os; assert os.system('true') == 0", "AssertionError", real=True),
        Attack("exec", f"import os; os.execv({sys.executable!r}, ['python', '-c', ''])", CLOSED),
        Attack("endless recursion", "def f(): return f()\nf()", "RecursionError"),
        Attack(
            "deep recursion",
            "import sys; sys.setrecursionlimit(10**9)\ndef f(x): return [f(x) for _ in '1']\nf(1)",
            f"ended with code|MemoryError|RecursionError|{LATE}",
        ),
    ]


def of_memory() -> list[Attack]:
    shmget = 194 if os.uname().machine == "aarch64" else 29
    return [
        Attack("10 GB", "x = bytearray(10 << 30)", "MemoryError"),
        Attack(
            "10 GB of mmap", "import mmap; mmap.mmap(-1, 10 << 30)", "MemoryError|Cannot allocate memory", real=True
        ),
        Attack("bit by bit", "x = []\nwhile True: x.append(bytes(1 << 20))", "MemoryError"),
        Attack("a long string", "x = 'a' * (10 << 30)", "MemoryError"),
        Attack("shared segments", f"{LIBC}call({shmget}, 0, 4096, 0o1600)", REFUSED),
        Attack("files in memory", "import os; os.memfd_create('x')", REFUSED, real=True),
        Attack(
            "timers, which the kernel keeps",
            f"{LIBC}for _ in range(1000): call({107 if shmget == 194 else 222}, 1, None, ctypes.byref(ctypes.c_int()))",
            REFUSED,
            real=True,
        ),
        Attack(
            "raises its limit",
            "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2); x = bytearray(1 << 30)",
            "ValueError|PermissionError",
        ),
        Attack(
            "raises the limit of others",
            f"import resource as r; r.prlimit({os.getppid()}, r.RLIMIT_NOFILE)",
            f"{REFUSED}|ProcessLookupError",
            real=True,
        ),
    ]


def of_files(on: Victims) -> list[Attack]:
    def opened(name: str, path: str, mode: str = "r", before: str = "") -> Attack:
        return Attack(name, f"{before}\nopen({path!r}, {mode!r}).close()", CLOSED, anywhere=False, real=True)

    new, secret = str(on.folder / "new"), str(on.secret)
    link = f"import os; os.chdir({str(on.folder)!r}) if os.path.isdir({str(on.folder)!r}) else 0; os.path.lexists('link') or os.symlink({secret!r}, 'link')"
    return [
        opened("writes elsewhere", new, "w"),
        opened("writes above", f"/tmp/../{new}", "w"),
        opened("changes a file", secret, "r+"),
        opened("reads a file", secret),
        opened("reads by a symlink", "link", before=link),
        opened("reads the password file", "/etc/passwd"),
        opened("reads the machine's name", "/proc/sys/kernel/hostname"),
        Attack("writes to the root", "open('/new', 'w')", CLOSED, anywhere=False),
        Attack("writes to /tmp", "open('/tmp/new-of-the-sandbox', 'w')", CLOSED, anywhere=False),
        Attack("writes to /dev/shm", "open('/dev/shm/new-of-the-sandbox', 'w')", CLOSED, anywhere=False),
        Attack("writes to its library", "import os; open(os.__file__ + 'x', 'w')", CLOSED, anywhere=False),
        Attack("removes a file", f"import os; os.remove({secret!r})", CLOSED, anywhere=False),
        Attack(
            "lists a folder",
            f"import os; os.listdir({str(on.folder)!r})",
            CLOSED,
            anywhere=False,
            real=True,
        ),
        Attack(
            "leaves by a descriptor",
            "import os\nfor n in range(3, 64):\n    try: os.fchdir(n)\n    except OSError: continue\n    break\nelse: raise PermissionError",
            REFUSED,
        ),
        Attack("leaves by chroot", "import os; os.chroot('.'); os.chdir('../../../..')", REFUSED),
        Attack(
            "mounts",
            f"{LIBC}call({40 if os.uname().machine == 'aarch64' else 165}, b'x', b'.', b'tmpfs', 0, None)",
            REFUSED,
        ),
        Attack(
            "a large file",
            "f = open('x', 'wb')\nfor _ in range(64): f.write(bytes(1 << 20))",
            "File too large",
            real=True,
        ),
        Attack(
            "fills the disk",
            "for i in range(40): open(str(i), 'wb').write(bytes(1 << 20))",
            "No space left",
            anywhere=False,
            real=True,
        ),
        Attack(
            "a million files",
            "for i in range(5000): open(str(i), 'wb').close()",
            "No space left",
            anywhere=False,
            real=True,
            roomy=True,
        ),
        Attack("many descriptors", "x = [open('/dev/null') for _ in range(100)]", "Too many open files", real=True),
    ]


def of_sockets(on: Victims) -> list[Attack]:
    said = f"{REFUSED}|OSError"
    return [
        Attack("TCP", f"import socket; socket.create_connection(('127.0.0.1', {on.tcp}), timeout=1)", said),
        Attack(
            "UDP", f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {on.udp}))", said
        ),
        Attack(
            "abstract unix socket",
            f"import socket; socket.socket(socket.AF_UNIX).connect({on.unix!r})",
            f"{said}|ConnectionRefused",
            real=True,
        ),
        Attack("socket pair", "import socket; socket.socketpair()", said, real=True),
        Attack("name lookup", "import socket; socket.getaddrinfo('example.org', 80)", f"{said}|gaierror"),
        Attack("listens", "import socket; socket.create_server(('127.0.0.1', 0))", said, real=True),
    ]


def of_others(on: Victims) -> list[Attack]:
    me, arm = os.getpid(), os.uname().machine == "aarch64"
    nobody = f"{REFUSED}|ProcessLookupError"
    return [
        Attack("signals this process", f"import os; os.kill({me}, 0)", nobody, real=True),
        Attack("kills its parent", "import os; os.kill(os.getppid(), 9)", nobody),
        Attack("kills everybody", "import os; os.kill(-1, 9)", nobody),
        Attack("pidfd", f"import os; os.pidfd_open({me})", nobody, real=True),
        Attack(
            "traces this process",
            f"{LIBC}call({117 if arm else 101}, 0x4206, {me}, 0, 0)",
            REFUSED,
            real=os.getuid() == 0,
        ),
        Attack("reads this process", f"import os; open('/proc/{me}/environ').read()", GONE, anywhere=False, real=True),
        Attack("reads its own environment", "open('/proc/self/environ').read()", GONE, anywhere=False, real=True),
        Attack("a variable of this process", "import os; os.environ['NANOCHAT_SECRET']", "KeyError", real=True),
        Attack("a user namespace", f"{LIBC}call({97 if arm else 272}, 0x10000000)", REFUSED),
        Attack("outlives its supervisor", f"{LIBC}call({167 if arm else 157}, 1, 0, 0, 0, 0)", REFUSED, real=True),
        Attack(
            "the machine's name",
            f"import os; assert os.uname().nodename == {os.uname().nodename!r}",
            "AssertionError",
            anywhere=False,
            real=True,
        ),
        Attack("the kernel's log", f"{LIBC}call({116 if arm else 103}, 10, 0, 0)", REFUSED),
        Attack("becomes root", "import os; os.setuid(0)", f"{REFUSED}|Invalid argument", anywhere=False),
        Attack("key ring", f"{LIBC}call({219 if arm else 250}, 0, -3, 1)", REFUSED, real=True),
        Attack("io_uring", f"{LIBC}call(425, 1, ctypes.create_string_buffer(120))", REFUSED),
    ]


def of_the_verdict() -> list[Attack]:
    return [
        Attack("exit", "import sys; sys.exit(0)", "SystemExit: 0"),
        Attack("raise SystemExit", "raise SystemExit", "SystemExit"),
        Attack("exit at once", "import os; os._exit(0)", "ended with code 0"),
        Attack("exit of libc", "import ctypes; ctypes.CDLL(None).exit(0)", "ended with code 0"),
        Attack("looks for the word", LOOK_FOR_THE_WORD, "ended with code 0|^[0-9a-f]{32}$"),
        Attack(
            "a flood of output", "import sys\nwhile True: print('x' * 1000, flush=True); sys.stderr.write('x')", LATE
        ),
        Attack(
            "a flood for the judge",
            "import os\nwhile True:\n    for n in range(3, 64):\n        try: os.write(n, b'x' * 65536)\n        except OSError: pass",
            LATE,
        ),
        Attack(
            "a killed judge",
            "import os\nos.write = os._exit = None\nimport builtins; builtins.BaseException = None\n1/0",
            "ended with code 1|ZeroDivisionError",
        ),
        Attack(
            "an endless reason", "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E", LATE
        ),
        Attack("a large reason", "raise ValueError('x' * 10_000_000)", "ValueError: x{500}$"),
    ]


def matches(reason: str, attack: Attack) -> bool:
    return re.search(attack.reason, reason, re.DOTALL) is not None

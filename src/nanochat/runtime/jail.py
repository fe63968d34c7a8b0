"""What runs in the child of runtime/sandbox.py: it shuts itself in and then runs a program that nobody has read.

Not imported: sandbox.py hands the text of this file to `python -I -S -c`, so it needs the standard library alone.

    parent                 nanochat; writes what to do to stdin, reads two files
      supervisor           gives up its namespaces, forks, keeps the clock, says on fd 1 how the program ended
        program            pid 1 of its own world: an empty root, no network, no capabilities, limits, a filter

Notable:
* Order matters. Mounts need capabilities, which go before the limits; the filter comes last and forbids what all the
  steps before it were made of.
* The program is pid 1 of its PID namespace: when it ends, or the supervisor does, the kernel kills all that it left.
* As root no user namespace is made. A number that belongs to nobody is taken as user instead, since the kernel counts
  no processes of user 0.
* A new root instead of a list of what is forbidden: what is not mounted cannot be read. There is no /proc.
* Success is a word that the program's process draws, tells the supervisor and then keeps outside Python's memory, in
  libc's environment. Nothing in stdin, arguments, variables or frames is worth writing to the report.
"""

# pathlib is not imported: that would take a third of the time that a program needs to start
# ruff: noqa: PTH102, PTH103, PTH112, PTH120, PTH123
import ctypes
import marshal
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

WORK_BYTES = 16 << 20  # all files of the program together
WORK_FILES = 256
FILE_BYTES = 1 << 20  # of one file
DESCRIPTORS = 64
REASON_CHARS = 500

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
SEPARATE = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE, DETACH = 2, 4, 8, 0x1000, 0x4000, 0x40000, 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, AT_FDCWD, AT_RECURSIVE = 1, 2, 4, -100, 0x8000
PDEATHSIG, SET_DUMPABLE, SET_SECCOMP, NO_NEW_PRIVS = 1, 4, 22, 38
NOBODY = 65534
FIRST_FREE_USER = 0x70000000  # 16 bits from here: above what systems and containers give to anybody

# Refused to the program, per machine: x86_64, aarch64 (-1: does not exist there). Not a list of all that is harmful,
# which is what the namespaces are for, but of what reaches the kernel's less trodden parts, makes processes, keeps
# memory that RLIMIT_AS does not count, or acts on other processes.
REFUSED = {
    "clone": (56, 220), "clone3": (435, 435), "fork": (57, -1), "vfork": (58, -1),
    "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97), "setns": (308, 268),
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "prlimit64": (302, 261), "setrlimit": (160, 164), "prctl": (157, 167), "syslog": (103, 116),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "personality": (135, 92), "acct": (163, 89), "swapon": (167, 224), "reboot": (169, 142), "modify_ldt": (154, -1),
}  # fmt: skip
MACHINES = {"x86_64": (0, 0xC000003E, 155), "aarch64": (1, 0xC00000B7, 41)}  # column, AUDIT_ARCH_*, pivot_root

Given = dict[str, Any]


class Libc:
    """The few calls that Python has no name for; each raises OSError saying which failed."""

    def __init__(self) -> None:
        """The C library that this interpreter is linked with."""
        self.lib = ctypes.CDLL(None, use_errno=True)
        self.lib.getenv.restype = ctypes.c_char_p

    def call(self, name: str, *args: Any, what: str = "") -> None:
        """A function that returns 0."""
        if getattr(self.lib, name)(*args) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{what or name}: {os.strerror(number)}")

    def mount(self, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        """mount(2)."""
        texts = [text.encode() if text else None for text in (source, target, kind, data)]
        self.call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3], what=f"mount {target}")

    def read_only(self, target: str, recursive: bool) -> None:
        """Nothing below `target` can be written, no device or setuid file in it works (Linux 5.12)."""
        asked = (ctypes.c_uint64 * 4)(ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV * recursive, 0, 0, 0)
        flags = AT_RECURSIVE if recursive else 0
        self.call("syscall", 442, AT_FDCWD, target.encode(), flags, asked, 32, what=f"mount_setattr {target}")


def main() -> None:
    """The supervisor."""
    given: Given = marshal.loads(sys.stdin.buffer.read())
    silence()
    ready, say_ready = os.pipe()
    alive, keep_alive = os.pipe()
    try:
        libc = Libc() if sys.platform == "linux" else None
        if libc is not None and given["isolation"] == "namespaces":
            leave_namespaces(libc)
        if libc is not None:
            libc.call("prctl", PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # after the user changed, which resets it
        child = os.fork()
        if child == 0:
            os.close(keep_alive)
            be_program(libc, given, say_ready, alive)
        os.close(say_ready)
        tell(1, watch(child, ready, given["seconds"]))
    except OSError as error:
        tell(1, {"failed": error.strerror or str(error)})


def silence() -> None:
    """stdin and stderr lead nowhere; stdout stays, for the supervisor."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 2)


def tell(number: int, what: Given) -> None:
    """One message for the parent."""
    os.write(number, marshal.dumps(what))


def watch(child: int, ready: int, seconds: float) -> Given:
    """Waits for the child; kills it when its time, counted from the start of the program, is over."""
    word = os.read(ready, 4096).decode(errors="replace")
    if word.startswith("!") or not word:
        os.waitpid(child, 0)
        return {"failed": word[1:] or "the process died while it was shut in"}
    began, pause = time.monotonic(), 0.0005
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return {"word": word, "code": os.waitstatus_to_exitcode(status)}
        if time.monotonic() - began > seconds:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"word": word, "late": True}
        time.sleep(pause)
        pause = min(0.01, pause * 1.3)


def leave_namespaces(libc: Libc) -> None:
    """The next child lives in namespaces of its own. As root directly, else within a user namespace."""
    user, group = os.geteuid(), os.getegid()
    if user == 0 and free_user() is not None:
        try:
            libc.call("unshare", SEPARATE)
            return
        except OSError:
            pass  # root of a container without CAP_SYS_ADMIN: may have a user namespace like anybody
    libc.call("unshare", SEPARATE | NEWUSER, what="unshare (user, mount, network, IPC, PID)")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def free_user() -> int | None:
    """A number, of users and of groups, that nobody has; None in a container that maps too few of them."""
    for user in (FIRST_FREE_USER + int.from_bytes(os.urandom(2), "big"), NOBODY):
        if all(is_mapped(f"/proc/self/{name}", user) for name in ("uid_map", "gid_map")):
            return user
    return None


def is_mapped(path: str, user: int) -> bool:
    """Whether the user namespace knows this number; lines are `first inside, first outside, how many`."""
    with open(path) as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return any(first <= user < first + count for first, _, count in ranges)


def be_program(libc: Libc | None, given: Given, say_ready: int, alive: int) -> NoReturn:
    """The child: shuts itself in, says so with its word, runs the program, and reports."""
    report = given["report"]
    try:
        os.setsid()  # its process group does not include the supervisor
        os.dup2(0, 1)
        if libc is not None and given["isolation"] == "namespaces":
            user = free_user() if os.geteuid() == 0 else None  # while there is a /proc to ask
            libc.call("sethostname", b"sandbox", 7)
            change_root(libc, given["root"], given["readable"], given["work"])
            drop_privileges(libc, user)
        if libc is not None:
            die_with_supervisor(libc, alive)
        limit(given["seconds"], given["memory"])
        if libc is not None:
            forbid(libc, given["isolation"] != "none")
        os.chdir(given["work"])
        recall = hide_word(libc)
        code = compile_safely(given["program"])
        os.write(say_ready, recall())
    except BaseException as error:
        os.write(say_ready, f"!{getattr(error, 'strerror', None) or error}".encode())
        os._exit(1)
    os.closerange(3, report)
    os.closerange(report + 1, DESCRIPTORS)
    del given, libc
    run(code, report, recall)


def hide_word(libc: Libc | None) -> Callable[[], bytes]:
    """Draws the word; returns what fetches it from where no Python object holds it."""
    word, key = os.urandom(16).hex().encode(), b"w" + os.urandom(8).hex().encode()
    if libc is None:
        return lambda: word
    lib = libc.lib
    lib.setenv(key, word, 1)
    return lambda: lib.getenv(key) or b""


def change_root(libc: Libc, root: str, readable: list[str], work: str) -> None:
    """An empty root in memory with `readable` in it, read-only, and the one place that can be written, `work`."""
    libc.mount("", "/", "", REC | PRIVATE)
    libc.mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=1m,nr_inodes=1k,mode=755")
    for path in readable:
        inside = root + path
        if os.path.isdir(path):
            os.makedirs(inside)
        else:
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            os.close(os.open(inside, os.O_CREAT))
        libc.mount(path, inside, "", BIND | REC)
        if not path.startswith("/dev/"):
            libc.read_only(inside, recursive=True)
    os.mkdir(root + work)
    limits = f"size={WORK_BYTES},nr_inodes={WORK_FILES},mode=777"
    libc.mount("tmpfs", root + work, "tmpfs", NOSUID | NODEV | NOEXEC, limits)
    libc.read_only(root, recursive=False)
    os.chdir(root)
    pivot_root = MACHINES[os.uname().machine][2]
    libc.call("syscall", pivot_root, b".", b".", what="pivot_root")  # the old root now lies on top of the new one
    libc.call("umount2", b".", DETACH)
    os.chdir("/")


def drop_privileges(libc: Libc, user: int | None) -> None:
    """As root no groups and another user; no capabilities."""
    if os.geteuid() == 0:
        if user is None:
            raise OSError(1, "no user but root can be had")
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.call("capset", header, nothing)


def die_with_supervisor(libc: Libc, alive: int) -> None:
    """The kernel kills the program when the supervisor ends; it may have ended just before this was asked."""
    libc.call("prctl", PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.call("prctl", SET_DUMPABLE, 0, 0, 0, 0)
    os.set_blocking(alive, False)
    try:
        os.read(alive, 1)  # nobody writes: no data while the other end is open, the end of the file after that
        os._exit(1)
    except BlockingIOError:
        pass


def limit(seconds: float, memory: int) -> None:
    """Hard limits, which without privileges can only be lowered. Those that a system lacks are passed over."""
    asked = {
        "CPU": int(seconds) + 1, "AS": memory, "FSIZE": FILE_BYTES, "NOFILE": DESCRIPTORS, "CORE": 0, "NPROC": 0,
        "MEMLOCK": 0, "MSGQUEUE": 0, "SIGPENDING": DESCRIPTORS,  # the last bounds timers
    }  # fmt: skip
    for name, value in asked.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        except (AttributeError, OSError, ValueError):
            continue


def forbid(libc: Libc, must: bool) -> None:
    """A filter of system calls (seccomp): those of REFUSED fail with EPERM, on another instruction set all do.

    Unless it `must` be, a system that has no filters, or a machine that is not in the table, goes without.
    """
    if not must and os.uname().machine not in MACHINES:
        return
    column, arch, _ = MACHINES[os.uname().machine]
    deny, allow, equal, at_least, load = 0x50000 | 1, 0x7FFF0000, 0x15, 0x35, 0x20
    steps = [(load, 0, 0, 4), (equal, 1, 0, arch), (6, 0, 0, deny), (load, 0, 0, 0)]
    steps += [(at_least, 0, 1, 0x40000000), (6, 0, 0, deny)]  # x32, which numbers its calls from there
    for numbers in REFUSED.values():
        if numbers[column] >= 0:
            steps += [(equal, 0, 1, numbers[column]), (6, 0, 0, deny)]
    steps.append((6, 0, 0, allow))

    class Step(ctypes.Structure):
        _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_uint16), ("steps", ctypes.POINTER(Step)))

    program = Program(len(steps), (Step * len(steps))(*(Step(*step) for step in steps)))
    try:
        libc.call("prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.call("prctl", SET_SECCOMP, 2, ctypes.byref(program), 0, 0, what="seccomp")
    except OSError:
        if must:
            raise


def compile_safely(program: str) -> Any:
    """The code, or the error that compiling raised, which counts as the program's."""
    try:
        return compile(program, "program", "exec")
    except BaseException as error:
        return error


def run(
    code: Any,
    report: int,
    recall: Callable[[], bytes],
    write: Callable[[int, bytes], int] = os.write,
    leave: Callable[[int], NoReturn] = os._exit,
) -> NoReturn:
    """Runs the code as the module __main__ and reports the word, or the exception that ended it."""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        if isinstance(code, BaseException):
            raise code
        exec(code, module.__dict__)
        said = recall()
    except BaseException as error:
        said = f"{type(error).__name__}: {str(error)[:REASON_CHARS]}".encode(errors="replace")
    write(report, said)
    leave(0)


if __name__ == "__main__":
    main()

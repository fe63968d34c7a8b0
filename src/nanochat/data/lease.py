"""One worker a file, among threads, processes and machines that share a file system.

How it works. The lock is a file made with O_CREAT|O_EXCL, which is atomic on local disks and on NFS from version 3,
where flock is not dependable. It holds a random token with the host and the process of its owner. The owner renews
the time stamp every BEAT seconds. Who finds it taken looks again every LOOK seconds and takes it over when it is
stale: its owner is a process of this host that is no more, or neither token nor time stamp has changed for STALE
seconds by the *watcher's* clock (clocks of two machines need not agree).

Notable: a takeover renames the stale file away, which one of several watchers wins, and looks whether it caught the
one it meant. An owner that slept so long that it lost its lease (a stopped process, a hung file system) finds
another's token, and `held()` turns false for ever: a download looks at that between two chunks and before its rename,
so the worst that two owners can do is to spoil a partial file, which verification refuses.
"""

import json
import os
import platform
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

BEAT = 5.0  # seconds between two signs of life
STALE = 90.0  # seconds without one that tell a dead owner; network file systems can hang for a minute
LOOK = 0.2  # seconds between two looks at a lock that another has


class Lease:
    """`with lease:` after `acquire()` returned True; the lock file goes at the end of the block."""

    def __init__(self, path: Path, beat: float = BEAT, stale: float = STALE, look: float = LOOK) -> None:
        """`path` is the lock file; its folder exists."""
        self._path = path
        self._beat, self._stale, self._look = beat, stale, look
        self._token = secrets.token_hex(8)
        self._done = Event()
        self._lost = False
        self._pulse: Thread | None = None

    def acquire(self, unless: Callable[[], bool]) -> bool:
        """Wait for the lock. False, without it, as soon as `unless()` holds. OSError for an unwritable folder."""
        seen: tuple[str, int] | None = None
        since = time.monotonic()
        while not unless():
            if self._create():
                return True
            now = _read(self._path)
            if now != seen:
                seen, since = now, time.monotonic()
            elif seen is not None and (_owner_is_gone(seen[0]) or time.monotonic() - since > self._stale):
                self._remove(seen[0])
                continue
            time.sleep(self._look)
        return False

    def held(self) -> bool:
        """Whether the lock is still ours."""
        return not self._lost

    def check(self) -> bool:
        """Looks at the file, not at what the last beat saw."""
        found = _read(self._path)
        self._lost = self._lost or found is None or self._token not in found[0]
        return not self._lost

    def __enter__(self) -> "Lease":
        """Begins to show signs of life."""
        self._pulse = Thread(target=self._renew, name=f"lease {self._path.name}", daemon=True)
        self._pulse.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the lock back."""
        self._done.set()
        assert self._pulse is not None
        self._pulse.join()
        if self.check():
            self._path.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w") as file:
                json.dump({"token": self._token, "host": _host(), "process": os.getpid()}, file)
        except OSError:  # a full disk: an empty lock names no owner, and would be waited for
            self._path.unlink(missing_ok=True)
            raise
        return True

    def _renew(self) -> None:
        while not self._done.wait(self._beat):
            with suppress(OSError):  # a file system that hangs for a moment is no reason to give up
                if not self.check():
                    return
                os.utime(self._path)

    def _remove(self, stale: str) -> None:
        """Take the lock whose content is `stale` away; another's, if it came between, is put back."""
        aside = self._path.with_name(f"{self._path.name}.{self._token}")
        with suppress(OSError):
            self._path.rename(aside)
            caught = _read(aside)
            if caught is not None and caught[0] != stale:
                os.link(aside, self._path)
        with suppress(OSError):
            aside.unlink()


def _read(path: Path) -> tuple[str, int] | None:
    """Content and time stamp, or None where there is no lock."""
    try:
        with path.open(encoding="utf-8") as file:  # opening asks the server of a network file system anew
            return file.read(), os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _host() -> str:
    """This machine and, in a container, its space of process numbers: only there a number says whether it lives."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{platform.node()} {space}".strip()


def _owner_is_gone(content: str) -> bool:
    """Whether it was a process of this host that does not exist any more."""
    try:
        owner = json.loads(content)
        if owner["host"] != _host():
            return False
        os.kill(int(owner["process"]), 0)
        return _is_zombie(int(owner["process"]))
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):  # half written, or a process of another user
        return False


def _is_zombie(process: int) -> bool:
    """Ended, but not waited for by its parent, as in containers whose first process waits for nobody."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[:1] == ["Z"]

"""One process a run: two that write the same folder would destroy each other's checkpoints and metrics.

Notable: the system gives the lock back when its holder dies, however it dies, so a stale one cannot be left behind.
"""

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nanochat.errors import NanochatError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_PATIENCE = 10.0  # seconds; an interrupted attempt that still saves is waited for
_BUSY = (errno.EAGAIN, errno.EACCES)


@contextmanager
def hold(folder: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Holds the run `folder` within the block. Raises NanochatError naming the process that has it.

    The lock lies beside the folder, so that deleting the folder does not take it away. File systems without
    locks are trusted.
    """
    path = folder.with_name(f".{folder.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise NanochatError(
            f"base_dir: cannot write {path.parent}: {error.strerror}; choose another base_dir"
        ) from error
    with file:
        _acquire(file, folder, patience)
        yield


def _acquire(file: IO[str], folder: Path, patience: float) -> None:
    end = time.monotonic() + patience
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in _BUSY:
                return
        if time.monotonic() > end:
            file.seek(0)
            raise NanochatError(
                f"{folder} is in use by {file.read().strip() or 'another process'}; wait for its end or stop it, or "
                f"name this run differently by run="
            )
        time.sleep(0.1)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()

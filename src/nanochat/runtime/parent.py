"""A worker does not outlive the process that started it: its death arrives as SIGTERM, and the worker saves and ends.

Notable: signals that the parent gets are passed on by it (cluster/frozen.py); this is for what it cannot pass on,
kill -9 and the out-of-memory killer. Linux only; elsewhere an orphan trains to its end.
"""

import ctypes
import os
import signal
import sys

PARENT = "NANOCHAT_PARENT"  # the process id of whoever starts a worker
_PR_SET_PDEATHSIG = 1  # prctl(2)


def follow_parent() -> None:
    """Asks for SIGTERM when the process that $NANOCHAT_PARENT names dies; exits at once where it is dead already."""
    parent = os.environ.pop(PARENT, None)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the system was asked
        sys.exit(128 + signal.SIGTERM)

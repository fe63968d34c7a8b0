"""Keeps glibc from giving large CPU buffers back to the system after every use.

Notable: activations of more than 32 MB are mapped and unmapped by each operation, and the page faults of the fresh
mappings cost more than a tenth of a CPU training step. Keeping freed memory costs nothing that the step does not
need anyway.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1  # from glibc's malloc.h
_M_MMAP_THRESHOLD = -3
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Sets both thresholds as high as they go; returns whether this C library knows them (glibc on Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))

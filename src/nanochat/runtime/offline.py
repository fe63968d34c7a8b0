"""Whether the network may be used, and whether it is there, found out within seconds.

Notable: a lookup of a name can hang far longer than any time-out of a connection, so the whole attempt runs in a
thread that is left behind when its time is over.
"""

import os
import socket
from collections.abc import Callable, Mapping
from functools import cache
from threading import Thread
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

T = TypeVar("T")

SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "NANOCHAT_OFFLINE")
PROBE_SECONDS = 3.0  # a host that is there answers in well under one


def offline_switch(environment: Mapping[str, str] = os.environ) -> str | None:
    """The environment variable that forbids the network, or None."""
    return next((name for name in SWITCHES if environment.get(name, "").lower() in ("1", "true", "yes", "on")), None)


@cache
def is_reachable(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether the host of `url` takes a connection; asked once a process. Behind a proxy it is taken for granted."""
    parts = urlsplit(url)
    if parts.scheme in getproxies():
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return within(seconds, lambda: _connects(parts.hostname or "", port, seconds)) is True


def _connects(host: str, port: int, seconds: float) -> bool:
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError:
        return False
    return True


def within(seconds: float, action: Callable[[], T]) -> T | None:
    """What `action` returns if it does so in time, else None; it is not stopped then, but nothing waits for it."""
    found: list[T] = []
    thread = Thread(target=lambda: found.append(action()), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None

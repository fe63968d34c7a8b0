"""Processes that all want the same file at the same moment."""

import multiprocessing
import threading
from pathlib import Path
from typing import Any

from nanochat.data.download import Downloader, Patience
from nanochat.data.places import WebPlace


def fetch_at_once(url: str, name: str, target: Path, processes: int) -> list[bool]:
    """Whether each of them fetched it, sorted."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    ready = context.Barrier(processes)
    workers = [context.Process(target=_fetch, args=(url, name, str(target), ready, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    found = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    return found


def _fetch(url: str, name: str, target: str, ready: Any, results: Any) -> None:
    made = Downloader(WebPlace(url, "data.source"), Patience(timeout=5, pause=0.01), threading.Event())
    ready.wait(60)
    results.put(made.fetch(name, Path(target)))

"""What a download shows: bars on a terminal, a line for every file that ended elsewhere.

Notable: the threads that fetch call `watch`; bars are drawn by a thread of rich's own, lines under a lock.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from nanochat.data.shards import News
from nanochat.tracking.console import format_count, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Display:
    """`watch` is what a ShardFolder is given; bars exist within `shown`."""

    def __init__(self, terminal: bool | None = None) -> None:
        """`terminal` None: whether standard output is one."""
        self._terminal = sys.stdout.isatty() if terminal is None else terminal
        self._lock = Lock()
        self._bars: Progress | None = None
        self._whole: TaskID | None = None
        self._rows: dict[str, TaskID] = {}
        self._first: dict[str, tuple[float, int]] = {}  # when a file was first heard of, and its bytes then
        self._said: set[str] = set()  # what failed downloads gave as their reason
        self._total = self._ended = self._bytes = 0
        self._began = time.monotonic()

    @contextmanager
    def shown(self, total: int) -> Iterator[None]:
        """`total` files are to come."""
        self._total, self._began = total, time.monotonic()
        if not self._terminal or not total:
            yield
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        with Progress(*columns, transient=True) as self._bars:
            self._whole = self._bars.add_task("all", total=None)
            yield
        self._bars = None

    def watch(self, news: News) -> None:
        """Some bytes more, or the end of a file."""
        with self._lock:
            began, before = self._first.setdefault(news.shard.name, (time.monotonic(), news.have))
            if self._bars is not None:
                self._draw(news)
            if not news.done:
                return
            self._ended += 1
            self._bytes += max(0, news.have - before)
            speed = max(0, news.have - before) / max(1e-6, time.monotonic() - began)
            if news.error is not None and str(news.error) in self._said:
                return  # no network: said once, not for each of hundreds
            self._said.add(str(news.error))
            line = self._line(news, speed)
            if self._bars is not None:
                self._bars.console.print(line, highlight=False, markup=False)
            else:
                print(line, flush=True)

    def _line(self, news: News, speed: float) -> str:
        done = f"{self._ended} of {self._total}"
        if news.error is not None:
            return f"{news.shard.name}  failed  ({done})"
        how = f"{format_count(speed)}B/s" if news.fetched and speed > 0 else "there" if not news.fetched else "taken"
        seconds = time.monotonic() - self._began
        left = seconds / self._ended * (self._total - self._ended)
        eta = f", {format_seconds(left)} left" if self._ended < self._total else f", {format_seconds(seconds)}"
        return f"{news.shard.name}  {format_count(news.have)}B  {how}  ({done}{eta})"

    def _draw(self, news: News) -> None:
        """One row for each file under way, and one for all, whose size is that of those seen so far, scaled up."""
        assert self._bars is not None and self._whole is not None
        name = news.shard.name
        if name not in self._rows:
            self._rows[name] = self._bars.add_task(name, total=news.size)
        self._bars.update(self._rows[name], completed=news.have, total=news.size, visible=not news.done)
        tasks = [self._bars.tasks[self._bars.task_ids.index(row)] for row in self._rows.values()]
        sizes = [task.total for task in tasks if task.total]
        total = sum(sizes) / len(sizes) * self._total if sizes else None
        self._bars.update(self._whole, completed=sum(task.completed for task in tasks), total=total)

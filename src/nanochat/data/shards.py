"""A corpus of numbered shards in a folder that fills while it is read.

    shard_00000.parquet ... shard_{last-1}.parquet   for training, as many as the run needs
    shard_{last}.parquet                             for validation: always fetched, never counted

Notable: they are fetched in the order in which a run reads them, validation first, by threads in the background, so
training begins when the first two are there. A shard that cannot be had is an error only where it is needed, in
`wait`; the others are kept. What several processes of a machine, or machines of a shared file system, want at once is
fetched by one of them (data/download.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType

from nanochat.config.data import ShardsConfig
from nanochat.data.corpus import FileDocuments
from nanochat.data.download import Downloader, Patience, leftovers
from nanochat.data.parquet_check import check_footer
from nanochat.data.places import find_place
from nanochat.data.transfer import Stopped
from nanochat.errors import CorruptError, Interrupted, MissingError, NanochatError

_LOOK = 0.2  # seconds between two looks while a shard is waited for
_STOPPING = 2.0  # seconds that `stop` waits for threads; one that hangs on the network ends with the process


class State(StrEnum):
    """Of a shard in the folder."""

    there = auto()
    partial = auto()
    missing = auto()
    damaged = auto()


@dataclass(frozen=True)
class Shard:
    """One file and its place."""

    number: int
    path: Path
    validation: bool

    @property
    def name(self) -> str:
        """shard_00000.parquet"""
        return self.path.name


@dataclass(frozen=True)
class Standing:
    """What there is of a shard: `size` bytes on disk, `documents` in a whole one, why it is damaged."""

    shard: Shard
    state: State
    size: int = 0
    documents: int | None = None
    why: str = ""


@dataclass(frozen=True)
class News:
    """Of a download: `have` bytes so far, of `size` where that is known; `done` when it ended, `error` if it failed.

    `fetched` is false at the end where the shard was there, or another process fetched it.
    """

    shard: Shard
    have: int
    size: int | None = None
    done: bool = False
    fetched: bool = False
    error: NanochatError | None = None


class _Job:
    """A shard that is being fetched, or is to be."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.ended = Event()
        self.error: NanochatError | None = None


class ShardFolder:
    """The shards of a corpus that a run reads: `count` for training and the last one.

    `with folder:` fetches in the background what is missing. `watch` is told of every download, from the thread
    that does it; `say` when somebody has to wait.
    """

    def __init__(
        self,
        config: ShardsConfig,
        count: int,
        hub_root: str | None = None,
        *,
        patience: Patience | None = None,
        watch: Callable[[News], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`count` is `num_shards` resolved (plan/shards.py). Nothing is asked of the network yet."""
        assert config.root is not None, "conf/data/ gives corpora of shards a root"
        self.root = Path(config.root).expanduser().absolute()
        self.training = [Shard(i, self.root / shard_name(i), False) for i in range(count)]
        self.validation = Shard(config.last_shard, self.root / shard_name(config.last_shard), True)
        self._config = config
        self._hub_root = hub_root
        self._patience = patience or Patience(config.timeout, config.retries)
        self._watch = watch or (lambda news: None)
        self._say = say or (lambda text: None)
        self._stop = Event()
        self._lock = Lock()
        self._downloader: Downloader | None = None
        self._jobs: dict[str, _Job] = {}
        self._queue: list[_Job] = []
        self._threads: list[Thread] = []

    @property
    def shards(self) -> list[Shard]:
        """In the order in which they are needed: validation, then 0, 1, 2, ..."""
        return [self.validation, *self.training]

    def missing(self) -> list[Shard]:
        """Those that are not there, in the order in which they are needed."""
        return [shard for shard in self.shards if not shard.path.is_file()]

    def standing(self, shard: Shard) -> Standing:
        """What is on disk, by its footer."""
        if shard.path.is_file():
            try:
                contents = check_footer(shard.path)
            except CorruptError as error:
                return Standing(shard, State.damaged, shard.path.stat().st_size, why=str(error))
            return Standing(shard, State.there, contents.size, contents.documents)
        part = leftovers(shard.path)
        return Standing(shard, State.missing) if part is None else Standing(shard, State.partial, part)

    def start(self) -> None:
        """Begin to fetch what is missing, `data.downloads` at a time. Returns at once."""
        self._stop.clear()
        self._queue = [_Job(shard) for shard in self.missing()]
        self._jobs = {job.shard.name: job for job in self._queue}
        number = min(self._config.downloads, len(self._queue))
        self._threads = [Thread(target=self._work, name=f"shards {i}", daemon=True) for i in range(number)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End what is under way; partial files stay, and are continued another time."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_STOPPING)
        self._threads = []

    def __enter__(self) -> "ShardFolder":
        """`start`."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """`stop`."""
        self.stop()

    def wait(self, path: Path) -> None:
        """Returns when the shard at `path` is there, whole; fetches it itself if nobody does.

        Raises what the download ended with, naming the shard. One that failed in the background for a reason that
        may have passed is tried once more, now that it is needed.
        """
        if path.is_file():
            return
        job = self._jobs.get(path.name)
        if job is not None:
            if not job.ended.is_set():
                self._say(f"waiting for {path.name}, which is still being fetched")
            while not job.ended.wait(_LOOK):
                if self._stop.is_set():  # the thread that fetches may hang on the network for as long as data.timeout
                    raise Interrupted(f"{path.name} is not waited for any more")
            if job.error is not None and isinstance(job.error, MissingError | CorruptError | Interrupted):
                raise self._named(path.name, job.error)
            if job.error is None:
                return
        shard = next(each for each in self.shards if each.path == path)
        error = self._fetch(shard)
        if error is not None:
            raise self._named(path.name, error)

    def join(self) -> dict[str, NanochatError]:
        """Wait for all downloads; name of each that failed -> why."""
        for job in self._jobs.values():
            while not job.ended.wait(_LOOK):  # in short pieces, so that Ctrl-C is seen at once
                pass
        return {name: job.error for name, job in self._jobs.items() if job.error is not None}

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    return
                job = self._queue.pop(0)
            try:
                job.error = self._fetch(job.shard)
            except BaseException as error:
                job.error = NanochatError(f"{type(error).__name__}: {error}")
                raise
            finally:
                job.ended.set()

    def _fetch(self, shard: Shard) -> NanochatError | None:
        """Download one shard, telling `watch`; returns what went wrong."""
        error: NanochatError | None = None
        fetched = False
        try:
            fetched = self._place().fetch(
                shard.name, shard.path, lambda have, size: self._watch(News(shard, have, size))
            )
        except Stopped:
            error = Interrupted(f"{shard.name}: stopped; what came is kept and continued by the same command")
        except NanochatError as failed:
            error = failed
        except OSError as failed:
            error = NanochatError(
                f"data.root={self.root}: {failed.strerror or failed}; choose a folder with room by data.root="
            )
        have = shard.path.stat().st_size if error is None else leftovers(shard.path) or 0
        self._watch(News(shard, have, have, done=True, fetched=fetched, error=error))
        return error

    def _place(self) -> Downloader:
        """Made when it is first needed: where all shards are there, nobody asks whether their origin is."""
        with self._lock:
            if self._downloader is None:
                place = find_place(self._config.source, self._hub_root, self._config.dataset)
                self._downloader = Downloader(place, self._patience, self._stop)
            return self._downloader

    def _named(self, name: str, error: NanochatError) -> NanochatError:
        return type(error)(f"{name} is not in {self.root} and could not be fetched: {error}")


def shard_name(number: int) -> str:
    """As they are called on the hub."""
    return f"shard_{number:05d}.parquet"


def open_shards(where: ShardFolder, split: str) -> FileDocuments:
    """The documents of `split` ("train" or "val"); each file is waited for when a document of it is first read."""
    assert split in ("train", "val"), split
    chosen: Sequence[Shard] = [where.validation] if split == "val" else where.training
    return FileDocuments([shard.path for shard in chosen], where.root, wait=where.wait)

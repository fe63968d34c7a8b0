"""One file from its place to the disk: whole and readable, or not there at all.

    lock (data/lease.py) -> NAME.part (data/transfer.py) -> verified -> synced -> renamed to NAME

Notable: nothing is downloaded twice, since a file is looked for again when its lock is got, and nothing is accepted
that is not whole: its size, its sha256 where the server gives one, its parquet footer, and without a sha256 every text
in it (data/parquet_check.py). A body that fails is dropped and fetched from its start. Attempts are repeated with
growing, randomised pauses (or as long as Retry-After says); an attempt that got on by a megabyte starts the count
anew, so a bad line delays a large file without losing it.
"""

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import httpx

from nanochat.data.lease import Lease
from nanochat.data.parquet_check import check_footer, decode_all
from nanochat.data.places import FolderPlace, Place, WebPlace
from nanochat.data.transfer import Hiccup, Part, Progress, Stopped, part_path, transfer
from nanochat.errors import CorruptError, MissingError, NanochatError
from nanochat.tracking.atomic import sync_folder

PROGRESS = 1 << 20  # bytes: an attempt that got on by as many starts the count of attempts anew
_UNREACHED = 3  # repetitions while no server has answered at all: without a network that is said within seconds


@dataclass(frozen=True)
class Patience:
    """`timeout` seconds without a byte end an attempt; `retries` attempts follow the first, after `pause` seconds and
    then twice as long each time, up to `longest`; each pause is shortened by up to half at random.
    """

    timeout: float = 30.0
    retries: int = 8
    pause: float = 1.0
    longest: float = 60.0

    def before(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait before repetition `attempt`, 1 being the first. `draw` gives numbers from 0 to 1."""
        whole: float = min(self.longest, self.pause * 2 ** min(attempt - 1, 30))
        return whole * (1.0 - draw() / 2)


class Downloader:
    """Fetches files of one place. Threads share one: what it learns (no network) holds for all.

    `stop` ends what is under way, between two chunks.
    """

    def __init__(self, place: Place, patience: Patience, stop: Event) -> None:
        """Nothing is asked before `fetch`."""
        self.place = place
        self._patience = patience
        self._stop = stop
        self._answered = False
        self._unreachable: NanochatError | None = None

    def fetch(self, name: str, target: Path, progress: Progress | None = None) -> bool:
        """Have `name` at `target`; whether it was fetched here, and was not there before.

        Raises MissingError for a file that the place does not have, CorruptError
        for one that never came whole, NanochatError naming the address and the fix, Stopped.
        """
        if target.is_file():
            return False
        self._check_possible()
        target.parent.mkdir(parents=True, exist_ok=True)
        lease = Lease(target.with_name(f".{target.name}.lock"))
        tell = progress or (lambda have, size: None)

        def needless() -> bool:
            """Asked again and again while another process has the file in its hands: shows how that gets on."""
            tell(leftovers(target) or 0, None)
            return target.is_file() or self._stop.is_set()

        if not lease.acquire(unless=needless):
            if target.is_file():
                return False
            raise Stopped
        with lease:
            if target.is_file():
                return False
            self._fill(name, target, tell, lease)
        return True

    def _check_possible(self) -> None:
        if self._unreachable is not None:
            raise self._unreachable
        if isinstance(self.place, WebPlace) and (variable := self.place.forbidden_by()):
            raise NanochatError(f"{variable} is set, so the hub is not asked for shards; unset it, or {FIXES}")

    def _fill(self, name: str, target: Path, progress: Progress, lease: Lease) -> None:
        part = Part(target)
        if isinstance(self.place, FolderPlace):
            _take(self.place.find(name), part)
        else:
            with self._client() as client:
                wanted = lambda: lease.held() and not self._stop.is_set()  # noqa: E731
                self._download(client, self.place, name, part, progress, wanted)
        if not lease.check():  # we slept, and another has begun
            raise Stopped
        with part.path.open("rb") as file:
            os.fsync(file.fileno())
        part.path.replace(target)
        sync_folder(target.parent)
        part.forget()

    def _client(self) -> httpx.Client:
        try:
            return httpx.Client(follow_redirects=True, timeout=self._patience.timeout)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise NanochatError(
                f"the proxy of the environment (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) cannot be used: {error}"
            ) from error

    def _download(
        self,
        client: httpx.Client,
        place: WebPlace,
        name: str,
        part: Part,
        progress: Progress,
        wanted: Callable[[], bool],
    ) -> None:
        """Attempts until the part is whole and verified."""
        attempt, furthest = 0, part.have
        while True:
            error: Hiccup | CorruptError
            try:
                transfer(client, place, name, part, progress, wanted)
                self._answered = True
                verify(part, name)
                return
            except Hiccup as hiccup:
                error = hiccup
                self._answered = self._answered or hiccup.answered
            except CorruptError as corrupt:
                error = corrupt
                self._answered = True
                part.drop()
            except MissingError as missing:
                raise MissingError(f"{missing}; {_NOT_THERE}") from missing
            if part.have >= furthest + PROGRESS:
                attempt, furthest = 0, part.have
            attempt += 1
            if attempt > (self._patience.retries if self._answered else min(_UNREACHED, self._patience.retries)):
                raise self._give_up(place, name, error, attempt) from error
            self._rest(attempt, error)

    def _rest(self, attempt: int, error: Hiccup | CorruptError) -> None:
        asked = error.wait if isinstance(error, Hiccup) else None
        pause = self._patience.before(attempt)
        if asked is not None:
            pause = 0.0 if asked == 0 else max(pause, asked)
        if self._stop.wait(pause):
            raise Stopped

    def _give_up(self, place: WebPlace, name: str, error: Exception, attempts: int) -> NanochatError:
        times = f"{attempts} attempt{'s' if attempts > 1 else ''}"
        if not self._answered:
            self._unreachable = NanochatError(f"{place.base} cannot be reached: {error}, {times}. Without it, {FIXES}")
            return self._unreachable
        if isinstance(error, CorruptError):
            return CorruptError(
                f"{place.url(name)} never came whole in {times}: {error}. Nothing of it was kept; give another place "
                f"that has the shards by data.source="
            )
        return NanochatError(
            f"{place.url(name)} did not come in {times} (data.retries={self._patience.retries}): {error}. What came is "
            f"kept and continued by the same command"
        )


FIXES = (
    "data.source=URL or FOLDER names another place that has the shards, hub_root=FOLDER a mirror of the hub, "
    "`nanochat data` with the same words fetches them into data.root on a machine with a network, and data=embedded "
    "needs none"
)
_NOT_THERE = "check data.dataset, data.last_shard and data.source: a place has shard_00000.parquet and so on in it"


def verify(part: Part, name: str) -> None:
    """CorruptError unless the bytes of the part are those of a whole and readable file."""
    try:
        if part.about is not None and part.about.sha256 is not None:
            found = _sha256(part.path)
            if found != part.about.sha256:
                raise CorruptError(f"its sha256 is {found[:12]}..., the server's {part.about.sha256[:12]}...")
            check_footer(part.path)
        else:
            decode_all(part.path)
    except CorruptError as error:
        raise CorruptError(str(error).replace(str(part.path), name)) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take(source: Path, part: Part) -> None:
    """A copy of a file of a folder, and no link to it: what is written into either must not reach the other."""
    part.drop()
    shutil.copyfile(source, part.path)
    if part.have != source.stat().st_size:
        part.drop()
        raise CorruptError(f"{source} changed while it was copied; try again")
    try:
        decode_all(part.path)
    except CorruptError as error:
        part.drop()
        raise CorruptError(
            f"{str(error).replace(str(part.path), str(source))}; it was not taken: put a whole one there"
        ) from error


def leftovers(target: Path) -> int | None:
    """Bytes of an unfinished download of `target`; None if there is none."""
    with suppress(OSError):
        return part_path(target).stat().st_size
    return None

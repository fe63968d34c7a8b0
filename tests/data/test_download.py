"""One file from a server with faults: whole or not there, never twice, and going on where it was broken off."""

import gzip
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_server import (
    Answer,
    Fault,
    FaultyServer,
    as_parquet,
    corrupts,
    drops,
    ignores_range,
    overstates,
    says,
    shard_bytes,
    stalls,
    truncates,
)
from fetchers import fetch_at_once

from nanochat.data.download import Downloader, Patience
from nanochat.data.lease import Lease
from nanochat.data.places import WebPlace
from nanochat.data.transfer import Stopped, part_path
from nanochat.errors import CorruptError, MissingError, NanochatError

NAME = "shard_00000.parquet"
WHOLE = shard_bytes(0, documents=1000)
ANOTHER = shard_bytes(7, documents=1000)
SIZE = len(WHOLE)
QUICK = Patience(timeout=0.5, retries=4, pause=0.01, longest=0.05)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer({NAME: WHOLE}).running() as made:
        yield made


def downloader(server: FaultyServer, patience: Patience = QUICK, stop: threading.Event | None = None) -> Downloader:
    return Downloader(WebPlace(server.url, "data.source"), patience, stop or threading.Event())


def only_the_whole_file(folder: Path, content: bytes = WHOLE) -> bool:
    """Nothing is left beside it: no part, no note, no lock."""
    return [p.name for p in folder.iterdir()] == [NAME] and (folder / NAME).read_bytes() == content


@pytest.mark.parametrize("linked", [False, True], ids=["no checksum", "checksum"])
@pytest.mark.parametrize(
    ("faults", "at_most"),
    [
        ([], 1.0),
        ([drops(SIZE // 2)], 1.1),
        ([drops(SIZE // 3), drops(SIZE // 3), drops(SIZE // 4)], 1.2),
        ([drops(0)], 1.1),
        ([truncates(SIZE // 2)], 1.6),
        ([truncates(SIZE - 1)], 2.1),
        ([overstates(10)], 2.1),
        ([says(503)], 1.0),
        ([says(429), says(500), says(502)], 1.0),
        ([stalls(SIZE // 2, 1.5)], 1.1),
        ([corrupts(SIZE // 2, 2000)], 2.0),
        ([corrupts(SIZE - 200, 100)], 2.0),
        ([corrupts(0, 4)], 2.0),
        ([drops(SIZE // 2), ignores_range], 1.6),
        ([drops(SIZE // 2), corrupts(SIZE * 3 // 4, 500)], 2.6),
        ([drops(SIZE // 2), says(503), truncates(SIZE // 4)], 2.0),
    ],
    ids=lambda value: "+".join(f.__qualname__.split(".")[0] for f in value) if isinstance(value, list) else str(value),
)
def test_a_fault_delays_the_file_and_never_spoils_it(
    faults: list[Fault], at_most: float, linked: bool, server: FaultyServer, tmp_path: Path
) -> None:
    server.faults[NAME] = list(faults)
    server.linked = linked
    assert downloader(server).fetch(NAME, tmp_path / NAME)
    assert only_the_whole_file(tmp_path)
    assert server.faults[NAME] == []
    assert server.sent[NAME] <= at_most * SIZE + 4096
    requests = len(server.requests)
    assert requests <= len(faults) + 2  # one more where a part was continued that was not what it seemed
    assert not downloader(server).fetch(NAME, tmp_path / NAME)  # it is there
    assert len(server.requests) == requests


@pytest.mark.parametrize("fault", [corrupts(SIZE // 2, 2000), truncates(SIZE // 2), corrupts(SIZE - 4, 4)])
def test_a_file_that_never_comes_whole_is_not_accepted(fault: Fault, server: FaultyServer, tmp_path: Path) -> None:
    server.faults[NAME] = [fault] * 9
    with pytest.raises(CorruptError, match=f"{NAME} never came whole in 5 attempts.*data.source="):
        downloader(server).fetch(NAME, tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 5


def test_a_sha256_finds_what_decoding_cannot(server: FaultyServer, tmp_path: Path) -> None:
    """Another whole and readable file is still the wrong one."""
    server.linked = True

    def swaps(answer: Answer) -> None:
        answer.body = ANOTHER

    server.faults[NAME] = [swaps]
    downloader(server).fetch(NAME, tmp_path / NAME)
    assert only_the_whole_file(tmp_path) and len(server.requests) == 2


def test_the_checksum_is_that_of_the_redirect(server: FaultyServer, tmp_path: Path) -> None:
    """As on the hub, which sends large files from another host; the address may be relative."""

    def swaps(answer: Answer) -> None:
        answer.body = ANOTHER

    mark = f'"{hashlib.sha256(WHOLE).hexdigest()}"'
    redirect = says(302, Location=f"../data/{NAME}", X_Linked_ETag=mark, X_Linked_Size=str(SIZE))
    unsized = says(302, Location=NAME, X_Linked_ETag=mark)
    server.faults[NAME] = [unsized, swaps, redirect, drops(SIZE // 2), redirect]
    assert downloader(server).fetch(NAME, tmp_path / NAME)
    assert only_the_whole_file(tmp_path)
    assert [r.status for r in server.requests] == [302, 200, 302, 200, 302, 206]


def test_what_an_earlier_process_left_is_continued(server: FaultyServer, tmp_path: Path) -> None:
    server.faults[NAME] = [drops(SIZE // 2)]
    with pytest.raises(NanochatError, match=r"did not come in 1 attempt .*kept and continued"):
        downloader(server, Patience(timeout=1, retries=0)).fetch(NAME, tmp_path / NAME)
    have = part_path(tmp_path / NAME).stat().st_size
    assert 0 < have < SIZE and not (tmp_path / NAME).exists()
    assert downloader(server).fetch(NAME, tmp_path / NAME)
    assert server.requests[-1].range == f"bytes={have}-" and server.requests[-1].status == 206
    assert only_the_whole_file(tmp_path) and server.sent[NAME] <= SIZE + 2048


@pytest.mark.parametrize("honours", [True, False], ids=["If-Range honoured", "If-Range ignored"])
def test_a_file_that_changed_meanwhile_is_not_spliced(honours: bool, server: FaultyServer, tmp_path: Path) -> None:
    """Without compression the half of one and the half of the other are a readable file."""
    old, new = (as_parquet([f"{word} {i:09d} " * 9 for i in range(500)], 50, "none") for word in ("old", "new"))
    assert len(old) == len(new)
    server.files[NAME] = old
    server.faults[NAME] = [drops(len(old) // 2)]

    def ignores(answer: Answer) -> None:
        answer.status = 206
        answer.headers["Content-Range"] = f"bytes {answer.start}-{len(new) - 1}/{len(new)}"

    with pytest.raises(NanochatError):
        downloader(server, Patience(timeout=1, retries=0)).fetch(NAME, tmp_path / NAME)
    server.files[NAME] = new
    server.faults[NAME] = [] if honours else [ignores]
    downloader(server).fetch(NAME, tmp_path / NAME)
    assert only_the_whole_file(tmp_path, new)
    assert [r.status for r in server.requests] == ([200, 200] if honours else [200, 206, 200])


def test_without_a_mark_it_begins_again(server: FaultyServer, tmp_path: Path) -> None:
    server.marks = False
    server.faults[NAME] = [drops(SIZE // 2)]
    downloader(server).fetch(NAME, tmp_path / NAME)
    assert [r.range for r in server.requests] == [None, None] and only_the_whole_file(tmp_path)


def test_foreign_bytes_in_the_part_are_dropped(server: FaultyServer, tmp_path: Path) -> None:
    part_path(tmp_path / NAME).write_bytes(b"x" * 100)
    downloader(server).fetch(NAME, tmp_path / NAME)
    assert only_the_whole_file(tmp_path) and server.requests[0].range is None


def test_killed_between_the_last_byte_and_the_rename(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            downloader(server).fetch(NAME, tmp_path / NAME)
    downloader(server).fetch(NAME, tmp_path / NAME)
    assert only_the_whole_file(tmp_path) and len(server.requests) == 1


def test_what_no_repetition_changes_is_said_at_once(server: FaultyServer, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"http://.*shard_00009.parquet does not exist \(404.*data.source"):
        downloader(server).fetch("shard_00009.parquet", tmp_path / "shard_00009.parquet")
    server.faults[NAME] = [says(403)]
    with pytest.raises(NanochatError, match="403.*HF_TOKEN"):
        downloader(server).fetch(NAME, tmp_path / NAME)
    assert len(server.requests) == 2


def test_the_whole_as_a_range_is_the_whole(server: FaultyServer, tmp_path: Path) -> None:
    """Some servers answer 206 where no range was asked for."""

    def ranged(answer: Answer) -> None:
        answer.status = 206
        answer.headers["Content-Range"] = f"bytes 0-{SIZE - 1}/{SIZE}"

    server.faults[NAME] = [ranged]
    assert downloader(server).fetch(NAME, tmp_path / NAME)
    assert len(server.requests) == 1 and only_the_whole_file(tmp_path)


def test_a_body_that_is_compressed_on_the_way(server: FaultyServer, tmp_path: Path) -> None:
    """Though we ask for none; what broke off in it is begun again, as its bytes are not those of the file."""

    def compresses(answer: Answer) -> None:
        answer.body = gzip.compress(answer.body)
        answer.headers["Content-Encoding"] = "gzip"

    def breaks(answer: Answer) -> None:
        compresses(answer)
        answer.stop_after = SIZE // 3

    server.faults[NAME] = [breaks, compresses]
    assert downloader(server).fetch(NAME, tmp_path / NAME)
    assert [request.range for request in server.requests] == [None, None] and only_the_whole_file(tmp_path)


def test_retry_after_is_respected(server: FaultyServer, tmp_path: Path) -> None:
    server.faults[NAME] = [says(503, Retry_After="1")]
    began = time.monotonic()
    downloader(server).fetch(NAME, tmp_path / NAME)
    assert time.monotonic() - began >= 1


def test_pauses_grow_and_differ() -> None:
    patience = Patience(pause=1, longest=60)
    assert [patience.before(n, lambda: 0.0) for n in (1, 2, 3, 7, 50)] == [1, 2, 4, 60, 60]
    assert patience.before(3, lambda: 1.0) == 2
    assert len({patience.before(3) for _ in range(8)}) > 1


def test_a_slow_line_is_no_reason_to_give_up(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine broken connections and two repetitions allowed, but each got on."""
    monkeypatch.setattr("nanochat.data.download.PROGRESS", 1024)
    server.faults[NAME] = [drops(SIZE // 10)] * 8
    downloader(server, Patience(timeout=1, retries=2, pause=0.01)).fetch(NAME, tmp_path / NAME)
    assert only_the_whole_file(tmp_path) and server.sent[NAME] <= SIZE + 10 * 1024


def test_a_proxy_that_cannot_be_used_is_said(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:9")
    with pytest.raises(NanochatError, match="proxy.*ALL_PROXY.*nonsense"):
        downloader(server).fetch(NAME, tmp_path / NAME)
    assert list(tmp_path.iterdir()) == []


def test_no_network_is_one_paragraph_and_said_soon(tmp_path: Path) -> None:
    patience = Patience(timeout=1, retries=8, pause=0.01)
    nowhere = Downloader(WebPlace("http://127.0.0.1:9/x", "data.source"), patience, threading.Event())
    for _ in range(2):  # the second time nothing is tried
        with pytest.raises(
            NanochatError, match=r"cannot be reached.* 4 attempts.*data.source=.*hub_root=.*nanochat data.*embedded"
        ):
            nowhere.fetch(NAME, tmp_path / NAME)


def test_stopping_keeps_the_part(server: FaultyServer, tmp_path: Path) -> None:
    stop = threading.Event()

    def progress(have: int, size: int | None) -> None:
        if have > SIZE // 2:
            stop.set()

    with pytest.raises(Stopped):
        downloader(server, stop=stop).fetch(NAME, tmp_path / NAME, progress)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{NAME}.part", f"{NAME}.part.json"]
    downloader(server).fetch(NAME, tmp_path / NAME)
    assert only_the_whole_file(tmp_path) and server.sent[NAME] <= SIZE * 1.7


def test_three_processes_at_once_fetch_it_once(server: FaultyServer, tmp_path: Path) -> None:
    """The one that has the lock is slow enough for the others to come."""

    def slowly(answer: Answer) -> None:
        answer.slow = 0.01

    server.faults[NAME] = [slowly]
    assert fetch_at_once(server.url, NAME, tmp_path / NAME, processes=3) == [False, False, True]
    assert len(server.requests) == 1 and server.sent[NAME] == SIZE
    assert only_the_whole_file(tmp_path)


def test_a_file_that_came_while_the_lock_was_waited_for_is_not_fetched(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = Lease.acquire

    def after_another(self: Lease, unless: Callable[[], bool]) -> bool:
        got = acquire(self, unless)
        (tmp_path / NAME).write_bytes(WHOLE)
        return got

    monkeypatch.setattr(Lease, "acquire", after_another)
    assert not downloader(server).fetch(NAME, tmp_path / NAME)
    assert server.requests == [] and only_the_whole_file(tmp_path)


def test_whoever_waits_for_another_sees_how_that_gets_on(server: FaultyServer, tmp_path: Path) -> None:
    """An hour without a word would look like a hang."""
    other = Lease(tmp_path / f".{NAME}.lock")
    assert other.acquire(lambda: False)
    part_path(tmp_path / NAME).write_bytes(b"x" * 123)
    seen: list[int] = []
    with other:
        waiting = threading.Thread(
            target=downloader(server).fetch, args=(NAME, tmp_path / NAME, lambda have, size: seen.append(have))
        )
        waiting.start()
        while 123 not in seen:
            time.sleep(0.01)
        assert server.requests == []
        part_path(tmp_path / NAME).unlink()
    waiting.join(30)
    assert only_the_whole_file(tmp_path)

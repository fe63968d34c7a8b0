"""A folder of shards that fills while it is read."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_server import FaultyServer, corrupts, drops, holds, says, shard_bytes

from nanochat.config.data import ShardsConfig
from nanochat.config.load import compose_run
from nanochat.data.download import Patience
from nanochat.data.shards import News, ShardFolder, State, open_shards, shard_name
from nanochat.errors import Interrupted, MissingError, NanochatError

LAST = 5
FILES = {shard_name(i): shard_bytes(i, documents=20 + i, row_group=10) for i in range(LAST + 1)}
QUICK = Patience(timeout=2, retries=2, pause=0.01)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(FILES).running() as made:
        yield made


@pytest.fixture(scope="module")
def asked() -> ShardsConfig:
    data = compose_run(["data=fineweb_edu", f"data.last_shard={LAST}"]).config.data
    assert isinstance(data, ShardsConfig)
    return data


@pytest.fixture
def config(asked: ShardsConfig, server: FaultyServer, tmp_path: Path) -> ShardsConfig:
    return replace(asked, root=str(tmp_path / "corpus"), source=server.url, downloads=2)


def test_order_and_names(config: ShardsConfig) -> None:
    folder = ShardFolder(config, 3)
    assert [shard.name for shard in folder.shards] == [shard_name(i) for i in (LAST, 0, 1, 2)]
    assert folder.validation.validation and not folder.training[0].validation


def test_all_are_fetched_in_the_order_of_need(config: ShardsConfig, server: FaultyServer) -> None:
    news: list[News] = []
    with ShardFolder(replace(config, downloads=1), 3, patience=QUICK, watch=news.append) as folder:
        assert folder.join() == {}
    assert [r.name for r in server.requests] == [shard.name for shard in folder.shards]
    assert {p.name: p.read_bytes() for p in folder.root.iterdir()} == {s.name: FILES[s.name] for s in folder.shards}
    assert [n.shard for n in news if n.done] == folder.shards and all(n.fetched for n in news if n.done)
    with ShardFolder(config, 4, patience=QUICK) as more:
        more.join()
    assert len(server.requests) == 5  # one more is asked for, not the others again


def test_side_by_side(config: ShardsConfig, server: FaultyServer) -> None:
    """Two are under way at once: each waits for the other to be asked for."""
    both = threading.Barrier(2, timeout=20)
    for name in (shard_name(LAST), shard_name(0)):
        server.faults[name] = [lambda answer: setattr(answer, "before", both.wait)]
    with ShardFolder(config, 1, patience=QUICK) as folder:
        assert folder.join() == {}


def test_one_failed_shard_names_itself_and_the_rest_are_kept(config: ShardsConfig, server: FaultyServer) -> None:
    bad = shard_name(1)
    server.faults[bad] = [corrupts(300, 400)] * 99
    with ShardFolder(replace(config, downloads=1), 4, patience=QUICK) as folder:
        failed = folder.join()
        assert list(failed) == [bad] and "never came whole" in str(failed[bad])
        for shard in folder.shards:
            if shard.name != bad:
                folder.wait(shard.path)
        with pytest.raises(NanochatError, match=f"{bad} is not in .*corpus and could not be fetched"):
            folder.wait(folder.training[1].path)
    states = [folder.standing(shard).state for shard in folder.shards]
    assert states == [State.there, State.there, State.missing, State.there, State.there]
    server.faults[bad] = []
    with ShardFolder(config, 4, patience=QUICK) as again:
        assert again.join() == {}
    assert all(len(server.asked(shard.name)) == 1 for shard in folder.shards if shard.name != bad)


def test_a_passing_fault_is_tried_once_more_when_the_shard_is_needed(
    config: ShardsConfig, server: FaultyServer
) -> None:
    server.faults[shard_name(0)] = [says(503)] * 3
    with ShardFolder(config, 1, patience=QUICK) as folder:
        assert list(folder.join()) == [shard_name(0)]
        folder.wait(folder.training[0].path)
    assert folder.missing() == []


def test_states(config: ShardsConfig, server: FaultyServer) -> None:
    folder = ShardFolder(config, 4, patience=replace(QUICK, retries=0))
    server.faults[shard_name(1)] = [drops(2048)]
    folder.wait(folder.training[0].path)
    with pytest.raises(NanochatError, match="connection broke"):
        folder.wait(folder.training[1].path)
    (folder.root / shard_name(2)).write_bytes(FILES[shard_name(2)][:-9])
    standing = [folder.standing(shard) for shard in folder.training]
    assert [s.state for s in standing] == [State.there, State.partial, State.damaged, State.missing]
    assert standing[0].documents == 20 and 0 < standing[1].size < len(FILES[shard_name(1)])
    assert shard_name(2) in standing[2].why
    with pytest.raises(MissingError, match=f"{shard_name(LAST)}.*does not exist"):
        del server.files[shard_name(LAST)]
        folder.wait(folder.validation.path)


def test_nobody_asks_for_the_origin_of_what_is_there(config: ShardsConfig) -> None:
    with ShardFolder(config, 1, patience=QUICK) as folder:
        folder.join()
    gone = ShardFolder(replace(config, source="/nowhere/at/all"), 1)
    with gone:
        assert gone.join() == {}
        gone.wait(gone.training[0].path)
    missing = ShardFolder(replace(config, source="/nowhere/at/all"), 2)
    with missing:
        assert "data.source=/nowhere/at/all" in str(missing.join()[shard_name(1)])


def test_reading_begins_before_later_shards_are_there(config: ShardsConfig, server: FaultyServer) -> None:
    release = threading.Event()
    said: list[str] = []
    server.faults[shard_name(2)] = [holds(release)]
    with ShardFolder(config, 3, patience=replace(QUICK, timeout=30), say=said.append) as folder:
        documents = open_shards(folder, "train")
        assert documents[25].startswith("Document 5 of shard 1.")
        assert open_shards(folder, "val")[0].startswith(f"Document 0 of shard {LAST}.")
        assert documents.known_length() is None and not folder.training[2].path.exists()
        threading.Timer(0.3, release.set).start()
        assert documents[45].startswith("Document 4 of shard 2.")
    assert len(documents) == 20 + 21 + 22
    assert said and said[-1] == f"waiting for {shard_name(2)}, which is still being fetched"


def test_stopping_leaves_no_thread_that_works(config: ShardsConfig, server: FaultyServer) -> None:
    for name in FILES:
        server.faults[name] = [lambda answer: setattr(answer, "slow", 0.05)]
    with ShardFolder(config, 4, patience=QUICK) as folder:
        deadline = time.monotonic() + 10
        while not any(server.sent.values()) and time.monotonic() < deadline:
            time.sleep(0.01)
    asked = len(server.requests)
    assert [t.name for t in threading.enumerate() if t.name.startswith("shards")] == []
    assert not list(folder.root.glob("*.lock")) and list(folder.root.glob("*.part"))
    with pytest.raises(Interrupted, match="stopped"):
        folder.wait(folder.validation.path)
    assert len(server.requests) == asked
    server.faults = {}
    with ShardFolder(config, 4, patience=QUICK) as folder:
        assert folder.join() == {}
    assert sum(server.sent.values()) < 1.5 * sum(len(FILES[s.name]) for s in folder.shards)

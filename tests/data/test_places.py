"""Where shards come from: addresses, folders and mirrors, who gets the token, what offline means."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_server import FaultyServer, shard_bytes

from nanochat.data.download import Downloader, Patience
from nanochat.data.places import WebPlace, find_place
from nanochat.errors import CorruptError, MissingError, NanochatError

NAME = "shard_00000.parquet"
WHOLE = shard_bytes(0, documents=1000)
SIZE = len(WHOLE)
QUICK = Patience(timeout=0.5, retries=4, pause=0.01, longest=0.05)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_ENDPOINT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer({NAME: WHOLE}).running() as made:
        yield made


def test_offline_says_so_without_an_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub = find_place(None, None, "someone/corpus")
    began = time.monotonic()
    with pytest.raises(NanochatError, match="HF_HUB_OFFLINE is set.*data.source="):
        Downloader(hub, Patience(), threading.Event()).fetch(NAME, tmp_path / NAME)
    assert time.monotonic() - began < 0.2


def test_the_token_goes_to_the_hub_only(server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    Downloader(WebPlace(server.url, "data.source"), QUICK, threading.Event()).fetch(NAME, tmp_path / NAME)
    assert server.requests[0].token is None
    hub = find_place(None, None, "someone/corpus")
    assert isinstance(hub, WebPlace) and hub.headers() == {"Authorization": "Bearer secret"}
    assert hub.url(NAME) == f"https://huggingface.co/datasets/someone/corpus/resolve/main/{NAME}"
    for foreign in (
        "https://huggingface.co.evil.org/x",
        "http://huggingface.co/x",
        "https://example.org/huggingface.co",
    ):
        assert WebPlace(foreign, "data.source").headers() == {}


def test_another_address_of_the_hub(server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_ENDPOINT, as the hub's own clients read it: no token goes there, and offline forbids it too."""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    place = find_place(None, None, "someone/corpus")
    assert isinstance(place, WebPlace) and place.headers() == {}
    assert place.url(NAME) == f"https://hub.example.org/datasets/someone/corpus/resolve/main/{NAME}"
    assert place.forbidden_by({"HF_HUB_OFFLINE": "1"}) == "HF_HUB_OFFLINE"
    assert WebPlace(server.url, "data.source").forbidden_by({"HF_HUB_OFFLINE": "1"}) is None


def take_from(make: Callable[[Path], str], folder: Path, target: Path) -> bool:
    return Downloader(find_place(make(folder), None, "x/y"), QUICK, threading.Event()).fetch(NAME, target)


@pytest.mark.parametrize("make", [str, lambda folder: folder.as_uri()], ids=["folder", "file://"])
@pytest.mark.parametrize("below", ["", "data/train"])
def test_a_folder_is_a_place(make: Callable[[Path], str], below: str, tmp_path: Path) -> None:
    """It is only read, also by whoever writes over what came of it."""
    origin = tmp_path / "mirror" / below / NAME
    origin.parent.mkdir(parents=True)
    origin.write_bytes(WHOLE)
    before = hashlib.sha256(origin.read_bytes()).hexdigest(), origin.stat().st_mtime_ns
    assert take_from(make, tmp_path / "mirror", tmp_path / "corpus" / NAME)
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "corpus").iterdir()] == [(NAME, WHOLE)]
    (tmp_path / "corpus" / NAME).write_bytes(b"spoilt")
    assert before == (hashlib.sha256(origin.read_bytes()).hexdigest(), origin.stat().st_mtime_ns)


def test_a_broken_file_of_a_folder_is_not_taken(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / NAME).write_bytes(WHOLE[: SIZE // 2])
    with pytest.raises(CorruptError, match=f"mirror/{NAME}.*not taken"):
        take_from(str, mirror, tmp_path / "corpus" / NAME)
    assert list((tmp_path / "corpus").iterdir()) == [] and (mirror / NAME).stat().st_size == SIZE // 2


def test_the_mirror_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "someone" / "corpus" / "default").mkdir(parents=True)
    (tmp_path / "someone" / "corpus" / "default" / NAME).write_bytes(WHOLE)
    place = find_place(None, str(tmp_path), "someone/corpus")
    assert Downloader(place, QUICK, threading.Event()).fetch(NAME, tmp_path / "out" / NAME)
    with pytest.raises(MissingError, match="shard_00001.parquet is not in .*1 parquet files"):
        Downloader(place, QUICK, threading.Event()).fetch("shard_00001.parquet", tmp_path / "out" / "b.parquet")
    with pytest.raises(MissingError, match=r"hub_root=.*there is no folder.*corpus"):
        find_place(None, str(tmp_path), "someone/other")
    with pytest.raises(MissingError, match="data.source="):
        find_place(str(tmp_path / "none"), None, "someone/other")
    with pytest.raises(NanochatError, match="ftp://"):
        find_place("ftp://host/x", None, "someone/other")

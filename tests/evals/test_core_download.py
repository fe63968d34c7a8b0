from pathlib import Path

import pytest
from core_files import write_folder, write_zip
from faulty_server import Answer, FaultyServer

from nanochat.data.download import Patience
from nanochat.errors import ConfigError, MissingError
from nanochat.evals import core_download
from nanochat.evals.core_bundle import Bundle
from nanochat.evals.core_download import BUNDLE_URL, find_bundle


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_download, "_PATIENCE", Patience(timeout=5, retries=3, pause=0.001))


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    return write_zip(tmp_path / "made.zip").read_bytes()


def find(asked: str | None, base_dir: Path) -> Path:
    return find_bundle(asked, base_dir, lambda text: None)


def test_what_is_named_is_taken_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "b")
    assert find(str(folder), tmp_path / "base") == folder
    monkeypatch.chdir(tmp_path)
    assert find("b", tmp_path / "base") == folder
    assert not (tmp_path / "base").exists()


def test_the_default_folder(tmp_path: Path) -> None:
    assert find(None, write_folder(tmp_path / "eval_bundle").parent) == tmp_path / "eval_bundle"


def test_a_zip_that_was_fetched_before(tmp_path: Path) -> None:
    assert find(None, write_zip(tmp_path / "eval_bundle.zip").parent) == tmp_path / "eval_bundle.zip"


def test_nothing_there_and_the_network_forbidden(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as error:
        find(None, tmp_path)
    for part in (
        f"there is no {tmp_path / 'eval_bundle'}",
        "HF_HUB_OFFLINE",
        "eval.core_bundle=",
        "eval.core_every=-1",
    ):
        assert part in str(error.value)


def test_nothing_there_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(core_download, "is_reachable", lambda url: False)
    with pytest.raises(MissingError, match="cannot be reached"):
        find(None, tmp_path)


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ("/nowhere/at/all", MissingError, "eval.core_bundle=/nowhere/at/all: there is no"),
        ("s3://bucket/b.zip", ConfigError, "must be a folder, a zip, or an http"),
    ],
)
def test_what_cannot_be(tmp_path: Path, asked: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        find(asked, tmp_path)


def test_a_download(tmp_path: Path, packed: bytes) -> None:
    """Once; the next call finds the file."""
    with FaultyServer({"b.zip": packed}).running() as server:
        path = find(f"{server.url}/b.zip", tmp_path)
        assert find(f"{server.url}/b.zip", tmp_path) == path and len(server.asked("b.zip")) == 1
    assert path.parent == tmp_path / "cache" and len(Bundle(path).tasks) == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no part, no lock


def test_the_default_download(tmp_path: Path, packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with FaultyServer({"eval_bundle.zip": packed}).running() as server:
        monkeypatch.setattr(core_download, "BUNDLE_URL", f"{server.url}/eval_bundle.zip")
        assert find(None, tmp_path) == tmp_path / "eval_bundle.zip"
    assert BUNDLE_URL.startswith("https://")


def cut(answer: Answer) -> None:
    answer.stop_after = 700


def damaged(answer: Answer) -> None:
    answer.body = answer.body[:300] + b"\0" * 40 + answer.body[340:]


def busy(answer: Answer) -> None:
    answer.status = 503


@pytest.mark.parametrize("fault", [cut, damaged, busy])
def test_faults_of_a_moment(tmp_path: Path, packed: bytes, fault: object) -> None:
    with FaultyServer({"b.zip": packed}).running() as server:
        server.faults["b.zip"] = [fault]  # type: ignore[list-item]
        assert find(f"{server.url}/b.zip", tmp_path).read_bytes() == packed


@pytest.mark.parametrize("content", [b"<html>not found</html>", b""])
def test_what_is_no_bundle_is_not_kept(tmp_path: Path, content: bytes) -> None:
    with FaultyServer({"b.zip": content}).running() as server, pytest.raises(MissingError, match="did not come whole"):
        find(f"{server.url}/b.zip", tmp_path / "base")
    assert not list((tmp_path / "base" / "cache").glob("*.zip"))


def test_an_address_that_is_not_there(tmp_path: Path) -> None:
    with FaultyServer({}).running() as server, pytest.raises(MissingError, match="does not exist"):
        find(f"{server.url}/b.zip", tmp_path)

"""`nanochat data`: what it says and leaves behind, against a server with faults."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from faulty_server import FaultyServer, corrupts, shard_bytes

from nanochat.cli.fetching import Display
from nanochat.cli.main import run_command
from nanochat.data.download import Patience
from nanochat.data.shards import News, Shard, shard_name
from nanochat.errors import NanochatError

LAST = 4
FILES = {shard_name(i): shard_bytes(i, documents=30) for i in range(LAST + 1)}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(FILES).running() as made:
        yield made


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("nanochat.data.shards.Patience", partial(Patience, pause=0.01))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "base" / "fineweb_edu"


def words(server: FaultyServer, *extra: str) -> list[str]:
    return [
        "data",
        "data=fineweb_edu",
        f"data.last_shard={LAST}",
        f"data.source={server.url}",
        "data.retries=2",
        *extra,
    ]


def test_fetching_and_listing(server: FaultyServer, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(words(server, "data.num_shards=2", "data.downloads=1")) == 0
    shown = capsys.readouterr().out
    assert f"fetching 3 of 3 files from {server.url}" in shown
    assert "reads 2 training shards, data.num_shards (one pass needs 216)" in shown
    assert shown.index(shard_name(LAST)) < shown.index(f"{shard_name(1)}  ")
    assert "(3 of 3, " in shown and "00000 to 00001  training" in shown and "60" in shown
    assert {p.name for p in root.iterdir()} == {shard_name(i) for i in (0, 1, LAST)}
    asked = len(server.requests)
    assert run_command(words(server, "data.num_shards=3", "--list")) == 0
    shown = capsys.readouterr().out
    assert ["00002", "training", "missing", "1", "-", "-"] in [line.split() for line in shown.splitlines()]
    assert len(server.requests) == asked


def test_as_many_as_the_run_needs(server: FaultyServer, capsys: pytest.CaptureFixture[str]) -> None:
    many = ("data.last_shard=1822", "--list")
    assert run_command(words(server, "model.depth=20", *many)) == 0
    assert "stage=base d20 reads 216 training shards" in capsys.readouterr().out
    assert run_command(words(server, "stage=tokenizer", *many)) == 0
    assert "stage=tokenizer reads 8 training shards" in capsys.readouterr().out
    assert run_command(["data", "stage=pipeline", "experiment=large", "--list"]) == 0
    assert "reads 450 training shards" in capsys.readouterr().out


def test_a_failed_shard_is_named_and_the_others_stay(
    server: FaultyServer, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults[shard_name(1)] = [corrupts(200, 600)] * 9
    del server.files[shard_name(3)]
    assert run_command(words(server, "data.num_shards=4")) == 1
    captured = capsys.readouterr()
    assert "2 of 5 shards failed, and 3 are there and stay" in captured.err
    assert f"{shard_name(1)}: " in captured.err and "never came whole" in captured.err
    assert f"{shard_name(3)}: " in captured.err and "404" in captured.err
    assert {p.name for p in root.iterdir()} == {shard_name(i) for i in (0, 2, LAST)}
    server.files, server.faults = dict(FILES), {}
    assert run_command(words(server, "data.num_shards=4")) == 0
    assert len(server.asked(shard_name(0))) == 1


def test_one_reason_is_said_once(server: FaultyServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The address of a place without shards, misspelt perhaps: not a sentence for each of hundreds."""
    server.files = {}
    assert run_command(words(server, "data.last_shard=40", "data.num_shards=null")) == 1
    error = capsys.readouterr().err
    assert "41 of 41 shards failed" in error and error.count("404") == 1 and len(error) < 700
    assert f"{server.url}/shard_00040.parquet does not exist" in error and "and 36 more" in error


def test_without_a_network_one_paragraph(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ["data.source=http://127.0.0.1:9/x", "data.num_shards=30"]
    assert run_command(["data", "data=fineweb_edu", *nowhere]) == 1
    captured = capsys.readouterr()
    error = captured.err
    assert captured.out.count("failed") == 1  # not a line for each
    assert error.count("cannot be reached") == 1 and "31 of 31 shards failed" in error
    assert "data.source=URL or FOLDER" in error and "data=embedded" in error and len(error.splitlines()) == 1


def test_verifying_names_the_damaged_and_deletes_nothing(
    server: FaultyServer, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(words(server, "data.num_shards=2")) == 0
    assert run_command(words(server, "data.num_shards=2", "--verify")) == 0
    assert "all 3 files are whole" in capsys.readouterr().out
    path = root / shard_name(1)
    broken = bytearray(FILES[path.name])
    broken[200:800] = bytes(600)
    path.write_bytes(broken)
    assert run_command(words(server, "data.num_shards=2", "--list")) == 0  # the footer is as it was
    capsys.readouterr()
    assert run_command(words(server, "data.num_shards=2", "--verify")) == 1
    shown = capsys.readouterr().out
    assert f"damaged: {path}: row group" in shown and "delete it" in shown
    assert path.read_bytes() == bytes(broken) and len(server.requests) == 3
    path.write_bytes(broken[:-5])
    assert run_command(words(server, "data.num_shards=2")) == 1
    shown = capsys.readouterr().out
    assert shown.count("delete it") == 1 and path.stat().st_size == len(broken) - 5


def test_your_own_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "a.parquet").write_bytes(shard_bytes(1, documents=30))
    (folder / "b.txt").write_text("one\n\ntwo\n")
    (folder / "c.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    assert run_command(["data", "data=text", f"data.root={folder}", "--verify"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a.parquet", "training", "30"] in [line[:3] for line in lines]
    assert ["c.jsonl", "validation", "1", "14"] in lines
    (folder / "c.jsonl").write_text("nonsense\n")
    assert run_command(["data", "data=text", f"data.root={folder}"]) == 1
    assert "damaged: " in capsys.readouterr().out


def test_what_has_no_shards(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "stage=mid"]) == 2
    assert "nanochat mix" in capsys.readouterr().err
    assert run_command(["data", "--list", "--verify"]) == 2
    assert run_command(["data", "-m", "seed=1,2"]) == 2
    assert "--multirun is no flag of nanochat data" in capsys.readouterr().err
    assert run_command(["data", "--help"]) == 0
    assert "data.num_shards=240" in capsys.readouterr().out


def test_the_plan_asks_no_network(
    server: FaultyServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert run_command(["plan", *words(server, "model.depth=20", "data.last_shard=1822")[1:]]) == 0
    assert "216" in capsys.readouterr().out
    epochs = ["train.target_param_data_ratio=null", "train.num_epochs=1", "data.num_shards=2"]
    assert run_command(["plan", *words(server, *epochs)[1:]]) == 0
    assert "estimated: 2 shards, not all of them here" in capsys.readouterr().out


def test_on_a_terminal_there_are_bars(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(terminal=True)
    shards = [Shard(i, Path(shard_name(i)), False) for i in range(2)]
    with display.shown(2):
        display.watch(News(shards[0], 500, 1000))
        display.watch(News(shards[0], 1000, 1000, done=True, fetched=True))
        display.watch(News(shards[1], 0, done=True, error=NanochatError("no")))
    shown = capsys.readouterr().out
    assert "shard_00000.parquet  1kB" in shown and "shard_00001.parquet  failed  (2 of 2)" in shown


def test_ctrl_c_keeps_what_came_and_says_how_to_go_on(server: FaultyServer, root: Path, tmp_path: Path) -> None:
    for name in FILES:
        server.faults[name] = [lambda answer: setattr(answer, "slow", 1.0)]
    code = "import sys; from nanochat.cli.main import main; main()"
    command = [sys.executable, "-c", code, *words(server, "data.num_shards=4", f"base_dir={tmp_path / 'base'}")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    deadline = time.monotonic() + 60
    while not any(server.sent.values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on" in error and len(error.splitlines()) == 1
    assert list(root.glob("*.part")) and not list(root.glob(".*.lock"))
    server.faults = {}
    assert run_command(words(server, "data.num_shards=4")) == 0
    assert any(request.status == 206 for request in server.requests)
    lost = 4 * 2048  # of each download under way, what the server had sent and nobody read
    assert sum(server.sent.values()) <= sum(map(len, FILES.values())) + lost

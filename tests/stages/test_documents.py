"""Corpora of shards in the stages: training begins while they arrive, and ends as if they had all been there."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from faulty_server import Answer, FaultyServer, as_parquet, drops, holds, says
from workshop import Workshop, _sentence, assert_same_run, history, steps_saved, weights

from nanochat.data.download import Patience
from nanochat.data.shards import shard_name
from nanochat.errors import ConfigError, Interrupted, MismatchError, NanochatError
from nanochat.tokenizer.bpe import TOKENIZER_FILE

LAST = 4


def shard(number: int) -> bytes:
    draw = random.Random(number)
    return as_parquet([" ".join(_sentence(draw) for _ in range(draw.randint(2, 9))) for _ in range(80)], row_group=20)


FILES = {shard_name(i): shard(i) for i in range(LAST + 1)}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("nanochat.data.shards.Patience", partial(Patience, pause=0.01))


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(FILES).running() as made:
        yield made


def words(root: Path, source: object, *extra: str) -> list[str]:
    common = ["data=fineweb_edu", f"data.root={root}", f"data.source={source}", f"data.last_shard={LAST}"]
    return [*common, "data.num_shards=3", "data.retries=1", *extra]


def folder_with(path: Path, *numbers: int) -> Path:
    path.mkdir()
    for number in numbers:
        (path / shard_name(number)).write_bytes(FILES[shard_name(number)])
    return path


def test_training_begins_while_shards_arrive(workshop: Workshop, server: FaultyServer, tmp_path: Path) -> None:
    """Shard 1 is held back until a step is on record; one fault more is on the way of shard 2."""
    root, run = tmp_path / "arriving", workshop.folder("base", "arriving")
    seen: list[tuple[bool, bool]] = []

    def after_a_step() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            rows = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").is_file() else []
            trained = any("train/loss" in json.loads(row) for row in rows)
            if trained:
                break
            time.sleep(0.01)
        seen.append((trained, (root / shard_name(1)).exists()))

    def held(answer: Answer) -> None:
        answer.before = after_a_step

    server.faults = {shard_name(1): [held], shard_name(2): [drops(1024)]}
    whole = folder_with(tmp_path / "whole", 0, 1, 2, LAST)
    longer = "train.num_iterations=20"  # past the end of the three shards
    reference = workshop.train("base", *words(whole, "/nowhere", "run=complete", longer))
    arrived = workshop.train("base", *words(root, server.url, "run=arriving", longer, "data.timeout=90"))
    assert arrived == run and seen == [(True, False)]
    assert_same_run(arrived, reference)
    assert {name: len(server.asked(name)) for name in FILES} == {
        shard_name(0): 1,
        shard_name(1): 1,
        shard_name(2): 2,
        shard_name(3): 0,
        shard_name(LAST): 1,
    }
    assert [t for t in threading.enumerate() if t.name.startswith("shards")] == []


def test_a_shard_that_fails_ends_the_run_where_it_is_needed_and_it_can_be_continued(
    workshop: Workshop, server: FaultyServer, tmp_path: Path
) -> None:
    root = tmp_path / "failing"
    server.faults[shard_name(1)] = [says(503)] * 99
    asked = words(root, server.url, "run=failing", "train.save_every=1", "train.num_iterations=20")
    with pytest.raises(NanochatError, match=f"{shard_name(1)} is not in .* could not be fetched: .*503"):
        workshop.train("base", *asked)
    saved = [row["step"] for row in history(workshop.folder("base", "failing")) if "train/loss" in row]
    assert saved and saved == list(range(1, len(saved) + 1))
    server.faults = {}
    run = workshop.train("base", *asked)
    whole = folder_with(tmp_path / "whole2", 0, 1, 2, LAST)
    reference = workshop.train(
        "base", *words(whole, "/nowhere", "run=complete2", "train.save_every=1", "train.num_iterations=20")
    )
    assert_same_run(run, reference)


def test_a_signal_while_a_shard_is_waited_for(workshop: Workshop, server: FaultyServer, tmp_path: Path) -> None:
    """Shard 1 never comes. What was trained on shard 0 is saved at once, and the same command goes on from there."""
    root, run, never = tmp_path / "waiting", workshop.folder("base", "waiting"), threading.Event()
    server.faults[shard_name(1)] = [holds(never)]
    asked = words(root, server.url, "run=waiting", "train.save_every=-1", "train.num_iterations=20", "data.timeout=90")

    def signal_when_it_waits() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (run / "log.txt").is_file() and f"waiting for {shard_name(1)}" in (run / "log.txt").read_text():
                break
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=signal_when_it_waits)
    sender.start()
    with pytest.raises(Interrupted, match="SIGTERM: saved step"):
        workshop.train("base", *asked)
    sender.join()
    never.set()
    trained = [row["step"] for row in history(run) if "train/loss" in row]
    assert steps_saved(run) == trained[-1:] != [20]
    whole = folder_with(tmp_path / "whole3", 0, 1, 2, LAST)
    reference = workshop.train("base", *words(whole, "/nowhere", "run=complete3", "train.num_iterations=20"))
    again = workshop.train("base", *asked)
    assert weights(again, 20) == weights(reference, 20)


def test_the_tokenizer_reads_shards(workshop: Workshop, server: FaultyServer, tmp_path: Path) -> None:
    """As many as its characters need; its identity is their number, by whatever word it was asked for."""
    root, name = tmp_path / "tokenizer", "tokenizer.name=of-shards"
    small = (name, "data.num_shards=auto", "tokenizer.max_chars=5000")
    workshop.train("tokenizer", *words(root, server.url, *small))
    assert sorted(p.name for p in root.iterdir()) == [shard_name(0), shard_name(LAST)]
    folder = workshop.base_dir / "tokenizer" / "of-shards"
    identity = json.loads((folder / "identity.json").read_text())
    assert identity["data.num_shards"] == 1 and identity["data.dataset"] == "karpathy/fineweb-edu-100b-shuffle"
    before = (folder / TOKENIZER_FILE).stat().st_mtime_ns
    workshop.train("tokenizer", *words(root, "/nowhere", name, "data.num_shards=1", "tokenizer.max_chars=5000"))
    assert (folder / TOKENIZER_FILE).stat().st_mtime_ns == before
    with pytest.raises(MismatchError, match="data.num_shards was 1, is 2"):
        workshop.train("tokenizer", *words(root, server.url, name, "data.num_shards=2", "tokenizer.max_chars=5000"))


def test_epochs_are_counted_on_what_was_fetched(workshop: Workshop, server: FaultyServer, tmp_path: Path) -> None:
    by_epoch = ("train.num_iterations=null", "train.target_param_data_ratio=null", "train.num_epochs=1")
    with pytest.raises(ConfigError, match="data.num_shards=auto"):
        workshop.train("base", *words(tmp_path / "x", server.url, *by_epoch, "data.num_shards=auto", "run=auto"))
    run = workshop.train("base", *words(tmp_path / "epochs", server.url, *by_epoch, "run=epoch", "data.num_shards=2"))
    steps = json.loads((run / "plan.json").read_text())["recipe"]["steps"]
    last = [row["train/epoch"] for row in history(run) if "train/epoch" in row][-1]
    assert steps > 3 and last == pytest.approx(1.0, abs=0.15)

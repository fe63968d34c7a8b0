"""Data sets of the hub: from a mirror, from `datasets` (a stand-in of it), and from nowhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shared_data import shared_data

from nanochat.errors import ConfigError, CorruptError, MissingError
from nanochat.tasks import hub
from nanochat.tasks.arc import ARC
from nanochat.tasks.base import answer_text
from nanochat.tasks.custom_json import problem_of_line
from nanochat.tasks.gsm8k import GSM8K
from nanochat.tasks.mmlu import MMLU
from nanochat.tasks.registry import build_task
from nanochat.tasks.spec import TaskContext, TaskSpec

ROWS = [{"question": f"Q{i}", "answer": f"<<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(23)]
# task, subset, split, rows: what the data's own description says
REAL = [
    ("smoltalk", None, "train", 10994),
    ("smoltalk", None, "test", 578),
    ("mmlu", "auxiliary_train", "train", 8315),
    ("mmlu", "all", "dev", 285),
    ("mmlu", "all", "validation", 1531),
    ("mmlu", "all", "test", 14042),
    ("arc", "ARC-Easy", "train", 2251),
    ("arc", "ARC-Easy", "validation", 570),
    ("arc", "ARC-Easy", "test", 2376),
    ("arc", "ARC-Challenge", "train", 1119),
    ("arc", "ARC-Challenge", "validation", 299),
    ("arc", "ARC-Challenge", "test", 1172),
    ("gsm8k", "main", "train", 7473),
    ("gsm8k", "main", "test", 1319),
    ("humaneval", None, "test", 164),
]


def gsm8k(context: TaskContext, split: str = "train", **more: Any) -> GSM8K:
    task = build_task(TaskSpec(task="gsm8k", split=split, key="data.tasks.gsm8k", **more), context)
    assert isinstance(task, GSM8K)
    return task


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """GSM8K's training split in two files."""
    folder = tmp_path / "hub" / "openai" / "gsm8k" / "main"
    folder.mkdir(parents=True)
    for number, rows in enumerate((ROWS[:10], ROWS[10:])):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"train-{number:05d}-of-00002.parquet")
    return tmp_path / "hub"


@pytest.fixture
def mirrored(mirror: Path, tmp_path: Path) -> TaskContext:
    return TaskContext(base_dir=tmp_path, hub_root=str(mirror))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """`datasets.load_dataset` gives ROWS; the arguments of its calls, with what it knew of the network."""
    import datasets

    calls: list[tuple[Any, ...]] = []

    def load(*args: Any, **options: Any) -> datasets.Dataset:
        calls.append((args, options, datasets.config.HF_HUB_OFFLINE))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def questions(task: Any) -> list[str]:
    return [task[i]["messages"][0]["content"] for i in range(len(task))]


def test_the_order_is_that_of_a_shuffled_dataset(mirrored: TaskContext, asked: list[Any], tmp_path: Path) -> None:
    import datasets

    shuffled = datasets.Dataset.from_list(ROWS).shuffle(seed=42)["question"]
    assert questions(gsm8k(mirrored)) == list(shuffled)
    assert questions(gsm8k(TaskContext(base_dir=tmp_path))) == list(shuffled)
    long = datasets.Dataset.from_dict({"row": range(5001)}).shuffle(seed=42)["row"]
    rows = hub.HubRows(5001, lambda row: {"row": row}, str)
    assert [rows[i]["row"] for i in range(5001)] == list(long)


def test_start_and_stop_come_after_the_shuffle(mirrored: TaskContext) -> None:
    cut = build_task(TaskSpec(task="gsm8k", start=2, stop=9, step=3), mirrored)
    assert questions(cut) == questions(gsm8k(mirrored))[2:9:3]


def test_what_the_hub_is_asked_for(asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gsm8k(TaskContext(base_dir=tmp_path), split="test", subset="socratic")
    assert asked[-1] == (("openai/gsm8k", "socratic"), {"split": "test"}, True)  # these tests have no network
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "is_reachable", lambda url: True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    gsm8k(TaskContext(base_dir=tmp_path))
    assert asked[-1] == (("openai/gsm8k", "main"), {"split": "train"}, False)


@pytest.mark.parametrize(
    ("task", "subset", "split", "wanted"),
    [
        ("smoltalk", None, "train", ("HuggingFaceTB/smol-smoltalk", "default")),
        ("mmlu", None, "test", ("cais/mmlu", "all")),
        ("mmlu", "auxiliary_train", "train", ("cais/mmlu", "auxiliary_train")),
        ("arc", "ARC-Challenge", "validation", ("allenai/ai2_arc", "ARC-Challenge")),
        ("humaneval", None, "test", ("openai/openai_humaneval", "openai_humaneval")),
    ],
)
def test_each_task_has_its_data_set(
    task: str, subset: str | None, split: str, wanted: tuple[str, str], asked: list[Any], tmp_path: Path
) -> None:
    spec = TaskSpec(task=task, subset=subset, split=split)
    with pytest.raises(CorruptError, match=r"has no column .*; it has question, answer"):  # the stand-in is GSM8K's
        build_task(spec, TaskContext(base_dir=tmp_path))
    assert asked[-1][:2] == (wanted, {"split": split})


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "NANOCHAT_OFFLINE", None])
def test_without_network_one_error_says_what_to_do(
    switch: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    if switch is not None:
        monkeypatch.setenv(switch, "1")
    monkeypatch.setattr(hub, "is_reachable", lambda url: False)
    with pytest.raises(MissingError) as caught:
        gsm8k(TaskContext(base_dir=tmp_path))
    said = str(caught.value)
    assert said.startswith(f"data.tasks.gsm8k needs openai/gsm8k (main, train) of the hub ({switch or 'no network: '}")
    assert "hub_root=FOLDER" in said and "openai/gsm8k/main/train-*-of-*.parquet" in said
    assert "~data.tasks.gsm8k leaves the task out" in said


def test_the_clients_own_switch_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(MissingError):
        gsm8k(TaskContext(base_dir=tmp_path))
    assert not datasets.config.HF_HUB_OFFLINE and not constants.HF_HUB_OFFLINE


def test_what_the_hub_refuses_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any, **options: Any) -> None:
        raise ValueError("Unknown split\nand more")

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr(hub, "offline_switch", lambda: None)
    monkeypatch.setattr(hub, "is_reachable", lambda url: True)
    with pytest.raises(MissingError, match=r"of the hub \(Unknown split\)"):
        gsm8k(TaskContext(base_dir=tmp_path))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TaskSpec(task="arc", split="test"), r"data.tasks.subset=null is not a subset of arc; known: ARC-Chall.*Easy"),
        (TaskSpec(task="arc", subset="ARC-Esy"), r"subset=ARC-Esy .* did you mean ARC-Easy"),
        (
            TaskSpec(task="mmlu", split="train"),
            r"split=train is not in subset all of mmlu: .*auxiliary_train has train",
        ),
        (TaskSpec(task="mmlu", split="tests"), r"split=tests: mmlu has train, dev, validation, test"),
        (TaskSpec(task="humaneval"), r"split=train: humaneval has test"),
        (TaskSpec(task="smoltalk", subset="all"), r"subset=all: smoltalk does not use"),
        (TaskSpec(task="gsm8k", path="x"), r"path=x: gsm8k does not use"),
    ],
)
def test_subsets_and_splits_that_there_are_not(spec: TaskSpec, words: str, mirrored: TaskContext) -> None:
    with pytest.raises(ConfigError, match=words):
        build_task(spec, mirrored)


def test_a_mirror_that_is_not_whole(mirror: Path, mirrored: TaskContext) -> None:
    with pytest.raises(MissingError, match=r"no openai/gsm8k/main/test-\*.*there: train-00000-of-00002.*~data.tasks.g"):
        gsm8k(mirrored, split="test")
    with pytest.raises(MissingError, match=r"no openai/gsm8k/socratic/.*no such folder"):
        gsm8k(mirrored, subset="socratic")
    (mirror / "openai/gsm8k/main/train-00000-of-00002.parquet").unlink()
    with pytest.raises(MissingError, match=r"not whole: train-00000-of-00002.parquet missing"):
        gsm8k(mirrored)
    with pytest.raises(MissingError, match=r"hub_root=/none: no such folder, and data.tasks.gsm8k needs openai/gsm8k"):
        gsm8k(TaskContext(base_dir=mirror, hub_root="/none"))


def test_files_that_are_not_what_they_should_be(mirror: Path, mirrored: TaskContext) -> None:
    path = mirror / "openai/gsm8k/main/train-00001-of-00002.parquet"
    pq.write_table(pa.table({"question": ["Q", "R"], "answer": ["A", None]}), path)
    with pytest.raises(CorruptError, match=r"data.tasks.gsm8k: .*/main has rows without answer; fetch it again"):
        gsm8k(mirrored)
    pq.write_table(pa.table({"question": ["Q"], "solution": ["A"]}), path)
    with pytest.raises(
        CorruptError, match=r"train-00001-of-00002.parquet has no column answer; it has question, solut"
    ):
        gsm8k(mirrored)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptError, match=r"train-00001-of-00002.parquet is no readable parquet file"):
        gsm8k(mirrored)


def test_the_fingerprint_follows_the_contents(mirror: Path, mirrored: TaskContext) -> None:
    before = gsm8k(mirrored).fingerprint()
    assert before == gsm8k(mirrored).fingerprint() and json.dumps(before)
    path = mirror / "openai/gsm8k/main/train-00001-of-00002.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[3]["answer"] = "#### 0"
    pq.write_table(pa.Table.from_pylist(rows), path)
    after = gsm8k(mirrored).fingerprint()
    assert after != before and after["rows"] == before["rows"]


def test_rows_are_made_one_at_a_time(mirrored: TaskContext, monkeypatch: pytest.MonkeyPatch) -> None:
    task = gsm8k(mirrored)
    fetched: list[int] = []
    fetch = task.rows._fetch
    monkeypatch.setattr(task.rows, "_fetch", lambda row: fetched.append(row) or fetch(row))
    task[5]
    assert fetched == [int(np.random.default_rng(42).permutation(23)[5])]
    with pytest.raises(IndexError):
        task[23]


@pytest.mark.parametrize(("task", "subset", "split", "count"), REAL)
def test_the_real_files(task: str, subset: str | None, split: str, count: int, tmp_path: Path) -> None:
    context = TaskContext(base_dir=tmp_path, hub_root=str(shared_data("hub")))
    found = build_task(TaskSpec(task=task, subset=subset, split=split), context)
    assert len(found) == count
    for index in range(0, count, max(1, count // 300)):
        conversation = found[index]
        if isinstance(found, MMLU | ARC):
            assert answer_text(conversation) in conversation["letters"]
        if not isinstance(found, GSM8K):
            assert problem_of_line(json.dumps(conversation).encode()) is None
        if task != "humaneval":
            assert found.evaluate(conversation, answer_text(conversation))

"""Any change of the data is seen, and the error says where."""

import os
from pathlib import Path

import pytest

from nanochat.data import manifest
from nanochat.data.manifest import digest_rows, file_fingerprint, mixture_parts, refuse_changed
from nanochat.errors import MismatchError


def test_small_file_is_hashed_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 3_000_000)
    before = file_fingerprint(path)
    path.write_bytes(b"x" * 1_500_000 + b"y" + b"x" * 1_499_999)
    after = file_fingerprint(path)
    assert before["size"] == after["size"]
    assert before["sha256"] != after["sha256"]


def test_large_file_is_sampled_from_start_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "CHUNK", 1000)
    path = tmp_path / "a.bin"
    content = bytearray(os.urandom(100_000))
    prints = set()
    for place in (0, 99_999, 50_000 // 6600 * 6600):  # 16 chunks begin every 6600 bytes
        content[place] ^= 1
        path.write_bytes(content)
        prints.add(file_fingerprint(path)["sha256"])
    path.write_bytes(content[:-1])
    prints.add(file_fingerprint(path)["sha256"])
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"a": {"size": 1, "sha256": "x"}}, "b is missing"),
        ({"a": {"size": 1, "sha256": "x"}, "b": {"size": 2, "sha256": "y"}, "c": {"size": 0}}, "c is new"),
        ({"a": {"size": 1, "sha256": "x"}, "b": {"size": 3, "sha256": "y"}}, "b differs (size 2 then, 3 now)"),
        ({"a": {"size": 1, "sha256": "z"}, "b": {"size": 2, "sha256": "y"}}, "a differs (same size, other content)"),
    ],
)
def test_change_is_named(now: dict[str, object], said: str) -> None:
    saved = {"a": {"size": 1, "sha256": "x"}, "b": {"size": 2, "sha256": "y"}}
    refuse_changed({"parts": saved}, {"parts": saved})
    with pytest.raises(MismatchError) as caught:
        refuse_changed({"parts": saved}, {"parts": now})
    assert said in str(caught.value)


def test_what_is_not_known_yet_is_no_change() -> None:
    known, unknown = {"size": 1, "sha256": "x"}, None
    for then, now in ((known, unknown), (unknown, known), (unknown, unknown)):
        refuse_changed({"documents": None, "parts": {"a": then}}, {"documents": 7, "parts": {"a": now}})
    with pytest.raises(MismatchError, match="b is new"):
        refuse_changed({"parts": {"a": known}}, {"parts": {"a": known, "b": unknown}})
    with pytest.raises(MismatchError, match="b is missing"):
        refuse_changed({"parts": {"a": known, "b": unknown}}, {"parts": {"a": known}})
    with pytest.raises(MismatchError, match="the split of the documents differs"):
        refuse_changed({"documents": 6, "parts": {"a": known}}, {"documents": 7, "parts": {"a": known}})


def test_changed_tokenizer_is_named() -> None:
    with pytest.raises(MismatchError, match="tokenizer"):
        refuse_changed({"tokenizer": "a", "parts": {}}, {"tokenizer": "b", "parts": {}})


class TwoTasks:
    def __init__(self, word: str = "x", swapped: bool = False) -> None:
        self.rows = [("p", 0, "a"), ("q", 0, word), ("p", 1, "b")]
        if swapped:
            self.rows = self.rows[::-1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": self.rows[index][2]}]}

    def origin(self, index: int) -> tuple[str, int]:
        return self.rows[index][:2]


class Described(TwoTasks):
    """A mixture that says what it is made of, and gives no conversation for it."""

    def __init__(self, tasks: dict[str, dict[str, object]], seed: int = 1) -> None:
        super().__init__()
        self.tasks, self.seed = tasks, seed

    def fingerprint(self) -> dict[str, object]:
        return {"seed": self.seed, "tasks": self.tasks}

    def __getitem__(self, index: int) -> dict[str, object]:
        raise AssertionError("rendered")


def test_mixture_that_describes_itself_is_not_rendered() -> None:
    before = {"parts": mixture_parts(Described({"p": {"rows": 2}, "q": {"rows": 1}}))}
    assert mixture_parts(TwoTasks()) == digest_rows(TwoTasks())
    for other, said in (
        (Described({"p": {"rows": 2}, "q": {"rows": 5}}), r"q differs \(rows 1 then, 5 now\)"),
        (Described({"p": {"rows": 2}}), "q is missing"),
        (Described({"p": {"rows": 2}, "q": {"rows": 1}}, seed=2), "the order of the tasks differs"),
        (Described({"q": {"rows": 1}, "p": {"rows": 2}}), "the order of the tasks differs"),
    ):
        with pytest.raises(MismatchError, match=said):
            refuse_changed(before, {"parts": mixture_parts(other)})


def test_mixture_is_digested_by_task() -> None:
    before = digest_rows(TwoTasks())
    assert {name: part["size"] for name, part in before.items()} == {"p": 2, "q": 1}
    other = digest_rows(TwoTasks(word="y"))
    assert (other["p"], other["q"]) == (before["p"], other["q"])
    assert other["q"] != before["q"]
    assert digest_rows(TwoTasks(swapped=True))["p"] != before["p"]

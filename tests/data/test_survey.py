"""The count of a mixture, its cache, and its estimate from a sample."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_stand_ins import LONG, chat, mixture

from nanochat.config.data import Packing, Supervise, TooLong
from nanochat.data.filling import Filled, fill
from nanochat.data.looking import BLOCK
from nanochat.data.survey import Survey, TaskCount, sample, survey
from nanochat.data.tokenized import MixtureTokens
from nanochat.errors import ConfigError
from nanochat.tasks.base import Task
from nanochat.tasks.mixture import Mixture
from nanochat.tokenizer.raw_bytes import bytes_tokenizer


class Made(Task):
    """Row i answers with sizes[i] letters; `reads` notes which rows were asked for."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.asked.append(index)
        return chat("q", "y" * self.sizes[index])

    def evaluate(self, conversation: dict[str, Any], answer: str) -> bool:
        return True


FRAME = 6  # tokens beside the answer: bos, user_start, q, user_end, assistant_start, assistant_end


def docs_of(tasks: dict[str, Task], repeats: dict[str, int], max_len: int | None = None, **more: Any) -> MixtureTokens:
    supervise, too_long = more.get("supervise", Supervise.assistant), more.get("too_long", TooLong.truncate)
    return MixtureTokens(Mixture(tasks, repeats), bytes_tokenizer(), supervise, too_long, max_len)


def test_counts_of_all() -> None:
    found = survey(mixture(LONG, Supervise.assistant, TooLong.truncate, 12), Packing.pad, 11)
    # conversation 0: 9 tokens, 3 of them supervised; 1: cut to 12, of which the first 6 are not; 2: nothing left
    mine = TaskCount(
        3, 3, 2, truncated=1, dropped=0, unsupervised=1, tokens=21, supervised=9, length=83 / 3, longest=37
    )
    assert found == Survey({"mine": mine}, Filled(2, 21 / 24, 0.0))
    assert found.total == mine and mine.exact
    dropped = survey(mixture(LONG, Supervise.all, TooLong.drop, 12), Packing.stream, 4)
    mine = replace(mine, kept=1, truncated=0, dropped=2, unsupervised=0, tokens=9, supervised=9)
    assert dropped == Survey({"mine": mine}, Filled(1, 1.0, 0.0))


def test_each_task_and_repeats() -> None:
    a, b = Made([1, 2, 3]), Made([10, 20])
    found = survey(docs_of({"a": a, "b": b}, {"b": 3}), Packing.stream, 9)
    assert {name: (task.conversations, task.tokens, task.supervised) for name, task in found.tasks.items()} == {
        "a": (3, 6 + 3 * FRAME, 6 + 3),
        "b": (6, 90 + 6 * FRAME, 90 + 6),
    }
    assert found.filled.rows == (24 + 126) // 10
    assert a.asked == [0, 1, 2] and b.asked == [0, 1], "each row is rendered once, in the order that it is stored in"
    assert found.total.length == pytest.approx(150 / 9) and found.total.longest == 26


@pytest.mark.parametrize("packing", list(Packing))
def test_rows_are_those_of_the_packer(packing: Packing) -> None:
    """What follows from sums and what the packer does are one thing."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 60, 300).tolist()
    found = survey(docs_of({"a": Made(sizes)}, {"a": 2}, 41), packing, 40).filled
    packed = fill(packing, np.minimum(np.tile(sizes, 2) + FRAME, 41), 40)
    assert found.rows in (packed.rows, packed.rows - 1) if packing is Packing.stream else found.rows == packed.rows
    assert found.used == pytest.approx(packed.used, abs=0.01 if packing is Packing.stream else 1e-9)
    if packing in (Packing.bestfit, Packing.bestfit_pad):
        assert (found.cropped > 0) == (packing is Packing.bestfit)
        assert found.used > 0.9


def test_threads_give_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = np.random.default_rng(2).integers(500, 900, 6 * BLOCK + 7).tolist()
    results = []
    for cpus in (1, 3):
        monkeypatch.setattr("os.cpu_count", lambda cpus=cpus: cpus)
        results.append(survey(docs_of({"a": Made(sizes)}, {}), Packing.stream, 64))
    assert results[0] == results[1]


def test_progress_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("nanochat.data.looking.SILENT", -1.0)
    survey(docs_of({"a": Made([3] * 2 * BLOCK), "b": Made([3] * 2 * BLOCK)}, {}), Packing.stream, 9, say=said.append)
    assert said == [f"counting the mixture's tokens: {part} %" for part in (25, 50, 75, 100)]


def test_a_mixture_with_nothing_to_learn_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"data.too_long=truncate.*larger model.max_seq_len.*\(3 without a supervised"
    ):
        survey(docs_of({"a": Made([9, 9, 9])}, {}, 5), Packing.pad, 4)
    with pytest.raises(
        ConfigError, match=r"data.too_long=drop.*\(3 dropped, being longer; on average they have 15 tok"
    ):
        survey(docs_of({"a": Made([9, 9, 9])}, {}, 5, too_long=TooLong.drop), Packing.pad, 4)


def test_cache_is_used_and_keyed_by_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), Packing.pad, 11, tmp_path)
    other = survey(mixture(LONG, Supervise.all, TooLong.truncate, 13), Packing.pad, 12, tmp_path)
    assert other.total.tokens == first.total.tokens + 2
    survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), Packing.bestfit, 11, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(MixtureTokens, "rendered", None)
    assert survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), Packing.pad, 11, tmp_path) == first


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"tasks": {}}', json.dumps({"kept": 3, "tokens": 9})])
def test_broken_cache_is_made_again(tmp_path: Path, broken: str) -> None:
    first = survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), Packing.pad, 11, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(broken)
    assert survey(mixture(LONG, Supervise.all, TooLong.truncate, 12), Packing.pad, 11, tmp_path) == first


def test_a_sample_of_everything_is_exact() -> None:
    docs = docs_of({"a": Made([1, 30, 3]), "b": Made([10, 20])}, {"b": 3}, 20)
    for packing in Packing:
        assert sample(docs, packing, 19, 3) == survey(docs, packing, 19)


def test_estimates_lie_within_their_errors() -> None:
    """Of 40 numbers no more than 4 are two standard errors off, and none is four off."""
    rng, off = np.random.default_rng(3), []
    for trial in range(20):
        sizes = rng.lognormal(4, 0.8, 2000).astype(int).tolist()
        docs = docs_of({"a": Made(sizes), "b": Made([trial + 1] * 50)}, {"a": 2})
        found, exact = sample(docs, Packing.stream, 99, 100), survey(docs, Packing.stream, 99)
        assert found.tasks["b"] == exact.tasks["b"] and not found.tasks["a"].exact
        assert found.tasks["a"].error > 0 and found.total.error == found.tasks["a"].error
        off.append(abs(found.total.tokens - exact.total.tokens) / found.total.error)
        off.append(abs(found.total.supervised - exact.total.supervised) / found.total.supervised_error)
    assert max(off) < 4 and sum(one > 2 for one in off) <= 4


def test_a_sample_reads_no_more_than_it_says() -> None:
    task = Made([5] * 5000)
    found = sample(docs_of({"a": task}, {}), Packing.stream, 9, 50)
    assert len(task.asked) == 50
    assert found.total.tokens == 5000 * 11 and found.total.looked == 50 and found.total.error == 0

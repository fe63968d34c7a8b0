"""The embedded corpus: deterministic, without test rows, and cached only whole."""

import re
from pathlib import Path

import pytest

from nanochat.config.data import DataKind, LocalConfig, Packing
from nanochat.data import embedded
from nanochat.data.corpus import open_corpus
from nanochat.data.embedded import embedded_texts
from nanochat.tasks.words import is_test_word


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("base")


@pytest.fixture(scope="module")
def built(base_dir: Path) -> list[str]:
    return embedded_texts(base_dir, seed=42)[0]


def test_a_few_megabytes_of_distinct_documents(built: list[str]) -> None:
    assert 3e6 < sum(map(len, built)) < 8e6
    assert len(set(built)) == len(built)
    assert all(text.strip() for text in built)
    everything = "\n".join(built)
    for piece in ('The "while" statement', "Spell the word:", "def __init__(self", "abbey ability"):
        assert piece in everything


def test_no_test_word_is_spelled(built: list[str]) -> None:
    spelled = {match.group(1) for text in built if (match := re.search(r"Spell the word: (\w+)", text))}
    assert len(spelled) > 1000
    assert not any(is_test_word(word) for word in spelled)


def test_order_is_of_the_seed_and_fingerprint_with_it(base_dir: Path, built: list[str]) -> None:
    again, part = embedded_texts(base_dir, seed=42)
    other, other_part = embedded_texts(base_dir, seed=43)
    assert again == built
    assert other != built
    assert sorted(other) == sorted(built)
    assert part != other_part


def test_cache_is_read_and_a_damaged_one_is_not(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = embedded_texts(base_dir, seed=1)[0]
    (path,) = (base_dir / "embedded").iterdir()
    whole = path.read_bytes()
    monkeypatch.setattr(embedded, "build", lambda: ["made", "again"])
    assert embedded_texts(base_dir, seed=1)[0] == built
    for damaged in (whole[: len(whole) // 2], b"".join(whole.splitlines(keepends=True)[:-1]), b""):
        path.write_bytes(damaged)
        assert sorted(embedded_texts(base_dir, seed=1)[0]) == ["again", "made"]
    path.write_bytes(whole)


def test_as_a_corpus(base_dir: Path, built: list[str]) -> None:
    config = LocalConfig(
        kind=DataKind.embedded,
        packing=Packing.stream,
        lanes=None,
        workers=None,
        prefetch=2,
        root=None,
        num_shards=None,
        token_cache=False,
        val_every=50,
    )
    train, val = (open_corpus(config, split, base_dir, seed=42) for split in ("train", "val"))
    assert len(val) == len(built) // 50
    assert val[0] == built[49]
    assert not set(val) & set(train)

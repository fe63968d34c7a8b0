"""Splits, order and errors of open_corpus."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config.data import DataKind, LocalConfig, Packing
from nanochat.data import corpus
from nanochat.data.corpus import open_corpus
from nanochat.errors import ConfigError, MissingError, NanochatError


def config(root: Path | None, **changes: Any) -> LocalConfig:
    values = {"packing": Packing.stream, "lanes": None, "num_shards": None, "val_every": 5, **changes}
    values |= {"workers": None, "prefetch": 2, "token_cache": False}
    return LocalConfig(kind=DataKind.text, root=None if root is None else str(root), **values)


def split(root: Path, name: str, **changes: Any) -> list[str]:
    documents = open_corpus(config(root, **changes), name, root, seed=1)
    texts = list(documents)
    assert texts == [documents[i] for i in range(len(documents))]
    return texts


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Four files, one of each kind and one more; not created in the order of their names."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "d.txt").write_text("the last file")
    (tmp_path / "b.txt").write_text("b" * 4000 + "\n\n" + "c" * 10)
    (tmp_path / "sub" / "c.jsonl").write_text("".join(json.dumps({"text": f"json {i}"}) + "\n" for i in range(3)))
    pq.write_table(pa.table({"text": [f"parquet {i}" for i in range(5)]}), tmp_path / "a.parquet", row_group_size=2)
    (tmp_path / "readme.md").write_text("not read")
    (tmp_path / ".hidden.txt").write_text("not read")
    (tmp_path / "sub" / "z.jsonl").write_text('{"text": "validation"}\n')
    return tmp_path


def test_last_of_several_files_is_validation(mixed: Path) -> None:
    assert split(mixed, "val") == ["validation"]
    expected = [f"parquet {i}" for i in range(5)] + ["b" * 4000, "c" * 10, "the last file"]
    assert split(mixed, "train") == expected + [f"json {i}" for i in range(3)]


def test_num_shards_limits_training_only(mixed: Path) -> None:
    assert split(mixed, "train", num_shards=1) == [f"parquet {i}" for i in range(5)]
    assert split(mixed, "val", num_shards=1) == ["validation"]
    with pytest.raises(ConfigError, match=r"data.num_shards=9.*4 training files"):
        split(mixed, "train", num_shards=9)


def test_one_file_every_nth_is_validation(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": str(i)}) + "\n" for i in range(23)))
    assert split(path, "val") == ["4", "9", "14", "19"]
    assert split(tmp_path, "train") == [str(i) for i in range(23) if i % 5 != 4]
    with pytest.raises(ConfigError, match=r"data.val_every=30.*at most 23"):
        split(tmp_path, "val", val_every=30)


def test_cache_is_bounded_and_transparent(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "CACHE_BYTES", 1)
    documents = open_corpus(config(mixed), "train", mixed, seed=1)
    forward = list(documents)
    assert [documents[i] for i in reversed(range(len(documents)))] == forward[::-1]
    assert len(documents._cache) == 4  # type: ignore[attr-defined]


def test_fingerprint_names_files_not_their_folder(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = open_corpus(config(mixed), "train", mixed, seed=1).fingerprint()
    assert list(before) == ["a.parquet", "b.txt", "d.txt", "sub/c.jsonl"]
    moved = mixed.rename(tmp_path_factory.mktemp("elsewhere") / "corpus")
    assert open_corpus(config(moved), "train", moved, seed=1).fingerprint() == before
    (moved / "b.txt").write_text("other")
    after = open_corpus(config(moved), "train", moved, seed=1).fingerprint()
    assert [name for name in after if after[name] != before[name]] == ["b.txt"]


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda root: None, ConfigError, "data.root=null"),
        (lambda root: root / "nowhere", MissingError, "does not exist; .* holds other.md"),
        (lambda root: root, MissingError, r"no file ending in .parquet, .jsonl, .txt; it holds other.md"),
        (lambda root: root / "other.md", ConfigError, "known: .parquet"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, make: Any, error: type[NanochatError], said: str) -> None:
    (tmp_path / "other.md").write_text("x")
    with pytest.raises(error, match=said):
        open_corpus(config(make(tmp_path)), "train", tmp_path, seed=1)


def test_empty_split_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(ConfigError, match="no document for the val split"):
        open_corpus(config(tmp_path), "val", tmp_path, seed=1)
    (tmp_path / "b.txt").unlink()
    with pytest.raises(ConfigError, match=r"only 1 documents.*add text"):
        open_corpus(config(tmp_path), "val", tmp_path, seed=1)

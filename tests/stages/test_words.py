"""A word list made from text."""

import json
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config.load import compose_run
from nanochat.errors import ConfigError
from nanochat.stages import words
from nanochat.stages.job import Job
from nanochat.stages.sources import task_context
from nanochat.stages.words import resolve_word_list
from nanochat.tasks.words import load_words

TEXTS = ["The cat sees a dog. A cat isn't a dog-house.", "Paris, cat, DOG and dog; naïve caf\u00e9 once. Once and"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same text as parquet, jsonl and txt."""
    made = tmp_path / "text"
    made.mkdir()
    pq.write_table(pa.table({"text": TEXTS[:1]}), made / "a.parquet")
    (made / "b.jsonl").write_text(json.dumps({"text": TEXTS[1]}) + "\n")
    (made / "c.txt").write_text("a cat and a dog")
    (made / "notes.md").write_text("cat cat")
    return made


def test_words_of_a_folder_by_frequency(folder: Path, tmp_path: Path) -> None:
    found = resolve_word_list(str(folder), tmp_path)
    assert found is not None and Path(found).parent == tmp_path / "cache" / "words"
    # cat 4, dog 3, and 3; no names, nothing with an apostrophe, hyphen or accent, nothing seen once
    assert load_words(found, tmp_path)[0] == ["cat", "and", "dog"]


def test_words_of_a_file(folder: Path, tmp_path: Path) -> None:
    found = resolve_word_list(str(folder / "b.jsonl"), tmp_path)
    assert found is not None and load_words(found, tmp_path)[0] == ["and"]


def test_made_once_and_again_when_the_text_changes(folder: Path, tmp_path: Path) -> None:
    first = resolve_word_list(str(folder), tmp_path)
    with patch.object(words, "count_words", side_effect=AssertionError("made again")):
        assert resolve_word_list(str(folder), tmp_path) == first
    (folder / "c.txt").write_text("cow cow cow cow cow")
    second = resolve_word_list(str(folder), tmp_path)
    assert second != first and second is not None and load_words(second, tmp_path)[0][0] == "cow"


def test_what_is_a_list_already_stays(folder: Path, tmp_path: Path) -> None:
    for name in (None, "packaged", str(folder / "c.txt"), str(tmp_path / "none"), str(folder / "notes.md")):
        assert resolve_word_list(name, tmp_path) == name


def test_text_without_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"data.word_list=.*empty holds no file ending in .parquet, .jsonl, .txt"):
        resolve_word_list(str(tmp_path / "empty"), tmp_path)
    (tmp_path / "empty" / "a.txt").write_text("1 2 3 cat")
    with pytest.raises(ConfigError, match=r"data.word_list=.*empty: its text has no word"):
        resolve_word_list(str(tmp_path / "empty"), tmp_path)


def test_the_context_of_a_run(folder: Path, tmp_path: Path) -> None:
    asked = ["stage=mid", f"base_dir={tmp_path}", f"data.word_list={folder}", "hub_root=/hub", "plugins=[mine]"]
    context = task_context(Job(compose_run(asked).config))
    assert str(context.word_list).startswith(str(tmp_path / "cache")) and context.hub_root == "/hub"
    assert context.plugins == ("mine",)
    corpus = task_context(Job(compose_run(["stage=base", f"base_dir={tmp_path}", "hub_root=/hub"]).config))
    assert corpus.hub_root == "/hub" and corpus.word_list is None

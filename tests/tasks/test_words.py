import http.client
import io
from itertools import islice, product
from threading import Event

import pytest
from shared_data import shared_data

from nanochat.errors import ConfigError, MissingError
from nanochat.tasks.simple_spelling import SimpleSpelling
from nanochat.tasks.words import clean, fetch, is_test_word, is_word_list, load_words, packaged_words, words_of_split


def test_splits_are_disjoint_and_complete(words):
    train, test = words_of_split(words, "train"), words_of_split(words, "test")
    assert sorted(train + test) == sorted(words)
    assert not set(train) & set(test)
    assert 0.04 < len(test) / len(words) < 0.2


def test_the_split_of_a_word_never_changes():
    assert [word for word in ("strawberry", "banana", "letter", "robot", "house") if is_test_word(word)] == []
    assert [word for word in ("apple", "river", "candle", "orange", "seven") if is_test_word(word)] == []


def test_clean():
    lines = ["Apple", " pear ", "a", "", "it's", "naïve", "apple", "x9", "two words", "kiwi"]
    assert clean(lines) == ["apple", "pear", "kiwi"]


def test_order_of_places_to_look(tmp_path):
    words, where = load_words(None, tmp_path)
    assert len(words) >= 1000
    assert "packaged" in where
    (tmp_path / "words_alpha.txt").write_text("kiwi\nplum\n")
    assert load_words(None, tmp_path) == (["kiwi", "plum"], str(tmp_path / "words_alpha.txt"))
    own = tmp_path / "own.txt"
    own.write_text("fig\n")
    words, where = load_words(str(own), tmp_path)
    assert words == ["fig"]
    assert "data.word_list" in where


def test_errors(tmp_path):
    with pytest.raises(MissingError, match=r"data.word_list=.*none.txt"):
        load_words(str(tmp_path / "none.txt"), tmp_path)
    (tmp_path / "digits.txt").write_text("1\n2\n")
    with pytest.raises(ConfigError, match=r"digits.txt has no line"):
        load_words(str(tmp_path / "digits.txt"), tmp_path)


def test_packaged_words_serve_both_splits(tmp_path):
    words, _ = load_words(None, tmp_path)
    assert len([word for word in words_of_split(words, "test") if len(word) <= 6]) >= 50


def test_packaged_by_name_wins_over_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("packaged", "words_alpha.txt"):
        (tmp_path / name).write_text("kiwi\n")
    assert load_words("packaged", tmp_path) == (packaged_words(), "the packaged word list")


def fake_list(count=300_000):
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = islice(("".join(parts) for parts in product(letters, repeat=4)), count)
    return "\r\n".join(words).encode()


@pytest.fixture
def answers(monkeypatch):
    """What the network gives: set `answers["data"]`; how often it was asked is counted."""
    given = {"data": fake_list(), "length": None, "asked": 0}

    class Answer(io.BytesIO):
        @property
        def headers(self):
            return {"Content-Length": str(given["length"] or len(given["data"]))}

    def urlopen(url, timeout):
        given["asked"] += 1
        if isinstance(given["data"], Exception):
            raise given["data"]
        return Answer(given["data"])

    monkeypatch.setattr("nanochat.tasks.words.urlopen", urlopen)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetch.cache_clear()
    yield given
    fetch.cache_clear()


def test_downloaded_once_and_kept(tmp_path, answers):
    words, where = load_words(None, tmp_path / "base", may_download=True)
    assert len(words) == 300_000
    assert where == str(tmp_path / "base" / "words_alpha.txt")
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["words_alpha.txt"]
    assert load_words(None, tmp_path / "base", may_download=True)[0] == words
    assert answers["asked"] == 1


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (OSError("no route"), None),
        (http.client.IncompleteRead(b"abc"), None),
        (fake_list(300_100)[:-100], len(fake_list(300_100))),
        (fake_list(299_999), None),
        (b"<html>" + b"\n<p>not found</p>" * 400_000, None),
        (fake_list() + b"\n404: not found" * 10_000, None),
        (b"", None),
    ],
    ids=["no network", "broken off", "shorter than announced", "too few", "a page", "half of it no words", "empty"],
)
def test_a_broken_download_is_never_kept(tmp_path, answers, data, length):
    answers.update(data=data, length=length)
    words, where = load_words(None, tmp_path, may_download=True)
    assert (words, list(tmp_path.iterdir())) == (packaged_words(), [])
    assert "the packaged word list (there is no" in where
    load_words(None, tmp_path, may_download=True)
    assert answers["asked"] == 1  # once a process, not once a task


def test_a_download_that_hangs_is_given_up(tmp_path, monkeypatch, answers):
    monkeypatch.setattr("nanochat.tasks.words.urlopen", lambda url, timeout: Event().wait())
    assert fetch("https://words.invalid", seconds=0.05) is None


def test_when_nothing_is_downloaded(tmp_path, answers, monkeypatch):
    load_words(None, tmp_path)  # with hub_root, say
    for switch in ("HF_HUB_OFFLINE", "NANOCHAT_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(switch, "1")
            load_words(None, tmp_path, may_download=True)
    assert answers["asked"] == 0


def test_the_first_word_after_a_byte_order_mark_counts(tmp_path):
    (tmp_path / "own.txt").write_bytes(b"\xef\xbb\xbfApple\r\nbanana\r\n")
    assert load_words(str(tmp_path / "own.txt"), tmp_path)[0] == ["apple", "banana"]


def test_the_real_list_of_370_099_words(tmp_path):
    """The splits of the real list are disjoint in what the tasks make of it, not only as sets of words."""
    words, _ = load_words(str(shared_data("words_alpha.txt")), tmp_path)
    assert len(words) == 370_073  # and 26 single letters
    assert is_word_list(shared_data("words_alpha.txt").read_bytes())
    tasks = {split: SimpleSpelling(words, split=split, size=500_000) for split in ("train", "test")}
    assert not set(tasks["train"].words) & set(tasks["test"].words)
    assert len(tasks["train"].words) + len(tasks["test"].words) == 370_073
    assert 0.098 < len(tasks["test"].words) / 370_073 < 0.102
    asked = {split: {task[i]["messages"][0]["content"] for i in range(40_000)} for split, task in tasks.items()}
    assert len(asked["train"]) == 40_000
    assert not asked["train"] & asked["test"]

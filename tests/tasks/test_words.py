import pytest

from nanochat.errors import ConfigError, MissingError
from nanochat.tasks.words import clean, is_test_word, load_words, words_of_split


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

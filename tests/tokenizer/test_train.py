from collections import Counter

import pytest

from nanochat.errors import ConfigError
from nanochat.tokenizer.train import byte_of_character, train_bpe


def test_vocabulary_has_the_size_asked_for(texts):
    tokenizer = train_bpe(texts, 400)
    assert tokenizer.vocab_size == 400
    assert tokenizer.bos == 391


def test_first_merge_is_the_most_frequent_pair():
    tokenizer = train_bpe(["zqzqzq xk zqzq"], 266)
    pairs = Counter(zip("zqzqzq", "qzqzq", strict=False))
    assert pairs.most_common(1)[0][0] == ("z", "q")
    assert tokenizer.decode([256]) == "zq"


def test_same_text_same_tokenizer(texts):
    assert train_bpe(iter(texts), 500).fingerprint() == train_bpe(texts, 500).fingerprint()


def test_merges_do_not_cross_the_split_pattern():
    tokenizer = train_bpe(["aa11bb22 cc--dd\n"] * 20, 272)
    tokens = [tokenizer.decode([token]) for token in range(256, tokenizer.bos)]
    assert not [token for token in tokens if any(c.isdigit() for c in token) and any(c.isalpha() for c in token)]


def test_too_little_text_names_the_reachable_size():
    with pytest.raises(ConfigError, match=r"vocab_size=5000 .*tokenizer.vocab_size=2\d\d") as caught:
        train_bpe(["a few words"], 5000)
    reachable = int(str(caught.value).rstrip(".").rsplit("=", 1)[1])
    assert train_bpe(["a few words"], reachable).vocab_size == reachable


def test_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(ConfigError, match="at least 265"):
        train_bpe(["text"], 264)
    assert train_bpe([], 265).vocab_size == 265


def test_every_byte_has_one_character():
    mapping = byte_of_character()
    assert sorted(mapping.values()) == list(range(256))
    assert mapping["A"] == 65
    assert mapping["Ġ"] == 32  # how this family of tokenizers shows a blank
    assert mapping["Ċ"] == 10

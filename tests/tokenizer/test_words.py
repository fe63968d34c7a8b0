import random

import pytest

from nanochat.tokenizer.words import WordGrowth


def power_text(documents: int, words: int) -> list[str]:
    """Documents whose words follow Zipf's law."""
    rng = random.Random(0)
    return [" ".join(draw(rng, words)) for _ in range(documents)]


def draw(rng: random.Random, count: int) -> list[str]:
    """Words of letters; rank r comes up about 1/r as often as the first."""
    ranks = [int(10**9 ** rng.random()) for _ in range(count)]
    return ["".join(chr(97 + int(digit)) for digit in str(rank)) for rank in ranks]


def exact(texts: list[str]) -> int:
    return len({word for text in texts for word in (f" {w}" for w in text.split())})


def test_all_documents_are_counted_exactly() -> None:
    growth = WordGrowth(every=1)
    for text in ("the cat sat", "the cat", "the dog... sat"):
        growth.add(text)
    assert growth.words == 5  # "the", " cat", " sat", " dog", "..."
    assert growth.chars == 11 + 7 + 14
    assert growth.memory == 140 * sum(map(len, ("the", " cat", " sat", " dog", "...")))


def test_the_sample_speaks_for_the_whole() -> None:
    texts = power_text(4000, 40)
    growth = WordGrowth()
    for text in texts:
        growth.add(text)
    assert growth.words == pytest.approx(exact(texts), rel=0.25)
    assert WordGrowth().words == 0


def test_words_that_never_come_again_grow_in_proportion() -> None:
    """Text without blanks between words: every phrase is new."""
    rng = random.Random(1)
    growth = WordGrowth()
    for _ in range(2000):
        growth.add("".join(chr(rng.randrange(0x4E00, 0x5E00)) for _ in range(20)))
    assert growth.words == pytest.approx(2000, rel=0.05)
    assert growth.memory == pytest.approx(2000 * 60 * 140, rel=0.05)

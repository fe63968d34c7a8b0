"""One small tokenizer for all tests of this folder, learnt from text made here."""

import random

import pytest
import tiktoken

from nanochat.tokenizer.bpe import SPECIALS, SPLIT_PATTERN, Tokenizer
from nanochat.tokenizer.train import learn_merges, to_ranks

LATIN = ["ba", "be", "bi", "ra", "re", "ri", "sta", "st", "ing", "er", "the", "and", "'ll", "'s"]
SYLLABLES = [*LATIN, "12", "345", "é", "中文", "😀", "--", "==", "\n", "\t"]


def make_texts(count: int = 200, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(50)]
        texts.append(" ".join(words))
    return texts


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return make_texts()


@pytest.fixture(scope="session")
def learner(texts):
    """The `tokenizers` side."""
    return learn_merges(texts, 600 - len(SPECIALS))


@pytest.fixture(scope="session")
def tokenizer(learner) -> Tokenizer:
    """The tiktoken side, from the same ranks."""
    return Tokenizer(to_ranks(learner))


@pytest.fixture(scope="session")
def published(learner) -> tiktoken.Encoding:
    """tiktoken with the split pattern as it was published."""
    return tiktoken.Encoding("published", pat_str=SPLIT_PATTERN, mergeable_ranks=to_ranks(learner), special_tokens={})

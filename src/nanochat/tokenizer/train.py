"""Learning a vocabulary: byte-pair merges counted by `tokenizers`, handed over as a table of ranks.

`tokenizers` (Rust) trains, tiktoken encodes; tests/tokenizer/test_train.py holds the two to the same ids. The
import of `tokenizers` waits until a vocabulary is trained, since no other stage needs it.
"""

from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING

from nanochat.errors import ConfigError
from nanochat.tokenizer.bpe import SPECIALS, SPLIT_PATTERN, Tokenizer

if TYPE_CHECKING:
    import tokenizers

MIN_VOCAB = 256 + len(SPECIALS)


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of `vocab_size` ids (specials included) learnt from `texts`, each read once, in order.

    Source: Sennrich et al. 2016 (arXiv 1508.07909), on bytes. The same texts give the same tokenizer.
    Raises ConfigError naming the size that can be reached if the text has too few different pairs.
    """
    if vocab_size < MIN_VOCAB:
        raise ConfigError(
            f"tokenizer.vocab_size={vocab_size} is too small: 256 bytes and {len(SPECIALS)} specials "
            f"need at least {MIN_VOCAB}."
        )
    ranks = to_ranks(learn_merges(texts, vocab_size - len(SPECIALS)))
    reached = len(ranks) + len(SPECIALS)
    if reached < vocab_size:
        raise ConfigError(
            f"tokenizer.vocab_size={vocab_size} cannot be reached: the text is too small and gives only {reached}. "
            f"Use more text (data.num_shards, tokenizer.max_chars) or tokenizer.vocab_size={reached}."
        )
    return Tokenizer(ranks)


def learn_merges(texts: Iterable[str], ordinary: int) -> "tokenizers.Tokenizer":
    """A `tokenizers` tokenizer of at most `ordinary` tokens, the 256 bytes first, no specials."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=ordinary,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return learner


def to_ranks(learner: "tokenizers.Tokenizer") -> dict[bytes, int]:
    """The learnt vocabulary with its tokens as bytes; ids stay as they are."""
    byte_of = byte_of_character()
    return {bytes(byte_of[char] for char in token): rank for token, rank in learner.get_vocab().items()}


def byte_of_character() -> dict[str, int]:
    """`tokenizers` writes byte b as chr(b) where that is visible, and the others, in order, as chr(256) on."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = set(ByteLevel.alphabet())
    spare = count(256)
    return {chr(byte) if chr(byte) in alphabet else chr(next(spare)): byte for byte in range(256)}

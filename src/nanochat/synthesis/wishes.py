"""What conversation number i is to be like: one value of each dimension, drawn from its number alone.

Notable: number i has the same wish whatever else was made, in which order, and how many are asked for. That is what
lets an interrupted run ask for exactly what is missing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.config.identity import IdentityConfig
from nanochat.synthesis.starters import Line, in_language


@dataclass(frozen=True)
class Wish:
    """One combination of the dimensions. `turns` counts the user's messages."""

    number: int
    style: str
    topic: str
    level: str
    length: str
    language: str
    starter: Line
    turns: int


def make_wish(number: int, config: IdentityConfig, starters: Sequence[Line], seed: int) -> Wish:
    """The wish of conversation `number`. The first language has its share, the others have equal parts of the rest."""
    rng = random.Random(f"{seed}/identity/{number}")
    first, *others = config.languages
    language = first if not others or rng.random() < config.first_language else rng.choice(others)
    return Wish(
        number=number,
        style=rng.choice(config.styles),
        topic=rng.choice(config.topics),
        level=rng.choice(config.levels),
        length=rng.choice(config.lengths),
        language=language,
        starter=rng.choice(in_language(list(starters), language)),
        turns=rng.randint(1, config.max_turns),
    )

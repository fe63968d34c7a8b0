"""How many shards of a corpus a run reads: one pass over the plan's tokens, or the tokenizer's characters.

    shards = ceil(tokens * characters per token / characters per shard)

d20 at 20 tokens per parameter: 11.2e9 * 4.8 / 250e6 -> 216.
"""

import math
from dataclasses import dataclass

from nanochat.config.data import CorpusConfig, DataConfig, ShardsConfig
from nanochat.config.root import RunConfig
from nanochat.errors import ConfigError

CHARS_PER_TOKEN = 4.8  # of web text with 65,536 tokens of vocabulary: the original guide's measurement
CHARS_PER_SHARD = 250e6  # of FineWeb-Edu and ClimbMix as they are cut on the hub


@dataclass(frozen=True)
class Shards:
    """`number` training shards are read (None: all files there are); `rule` says why."""

    number: int | None
    rule: str


def shards_for_tokens(tokens: float) -> int:
    """Shards that hold as many tokens; at least 1."""
    return max(1, math.ceil(tokens * CHARS_PER_TOKEN / CHARS_PER_SHARD))


def shards_for_chars(chars: float) -> int:
    """Shards that hold as many characters; at least 1."""
    return max(1, math.ceil(chars / CHARS_PER_SHARD))


def tokens_in_shards(shards: int) -> int:
    """About how many tokens they hold."""
    return int(shards * CHARS_PER_SHARD / CHARS_PER_TOKEN)


def whole_corpus(data: ShardsConfig) -> int:
    """The shards that are asked for where a pass over all of them is meant: a number, else all."""
    return data.num_shards if isinstance(data.num_shards, int) else data.last_shard


def training_shards(data: DataConfig, tokens: int) -> Shards:
    """For a run of `tokens` training tokens. Raises ConfigError for more shards than there are."""
    rule = f"ceil(tokens * {CHARS_PER_TOKEN} / {CHARS_PER_SHARD:,.0f})"
    return _resolve(data, shards_for_tokens(tokens), f"{rule}: one pass")


def tokenizer_shards(config: RunConfig) -> Shards:
    """For `tokenizer.max_chars` characters. Raises ConfigError for more shards than there are."""
    return _resolve(
        config.data,
        shards_for_chars(config.tokenizer.max_chars),
        f"ceil(tokenizer.max_chars / {CHARS_PER_SHARD:,.0f})",
    )


def check_auto(config: RunConfig) -> None:
    """ConfigError where the shards would follow from the tokens and the tokens from the shards."""
    train, data = config.train, config.data
    tokens_known = train.num_iterations or train.target_flops or train.target_param_data_ratio
    if isinstance(data, ShardsConfig) and data.num_shards == "auto" and not tokens_known:
        raise ConfigError(
            f"data.num_shards=auto follows from the length of the run, and train.num_epochs={train.num_epochs} takes "
            f"the length from the data; give data.num_shards, 1 to {data.last_shard}"
        )


def _resolve(data: DataConfig, needed: int, rule: str) -> Shards:
    asked = data.num_shards if isinstance(data, CorpusConfig) else None
    if not isinstance(data, ShardsConfig):
        known = asked if isinstance(asked, int) else None
        return Shards(known, "data.num_shards" if known else "all there are")
    last = data.last_shard
    if isinstance(asked, int):
        if asked > last:
            raise ConfigError(
                f"data.num_shards={asked}, but {data.dataset} has {last:,} training shards (0 to {last - 1}; shard "
                f"{last} is for validation); at most {last}, or null for all"
            )
        return Shards(asked, f"data.num_shards (one pass needs {needed:,})" if needed != asked else "data.num_shards")
    if asked is None:
        return Shards(last, f"all (data.num_shards=null; one pass needs {needed:,})")
    capped = f"; {needed:,} would be, and there are {last:,}" if needed > last else ""
    return Shards(min(needed, last), rule + capped)

"""`data=`: what is read. A corpus (documents, for tokenizer and base) or a mixture (conversations, for mid and sft)."""

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from nanochat.config.fields import identity, placement

HUB_SAMPLES = "samples"  # what hub_root says for the handful of rows that come with the package


class DataKind(StrEnum):
    """Where the text comes from; all but the last are corpora."""

    embedded = auto()
    text = auto()
    shards = auto()
    mixture = auto()


class Packing(StrEnum):
    """How documents become rows of T+1 tokens (data/packing.py)."""

    stream = auto()
    bestfit = auto()
    bestfit_pad = auto()
    pad = auto()


class Supervise(StrEnum):
    """Which tokens of a conversation are targets: all, or those the assistant writes."""

    all = auto()
    assistant = auto()


class Order(StrEnum):
    """Order of a mixture: all shuffled together; one task after the other; short conversations first."""

    shuffled = auto()
    tasks = auto()
    length = auto()


class WeightBy(StrEnum):
    """What the weights of tasks are shares of: rows, or supervised tokens."""

    rows = auto()
    tokens = auto()


class TooLong(StrEnum):
    """What happens to a conversation longer than the context."""

    truncate = auto()
    drop = auto()


@dataclass(kw_only=True)
class DataConfig:
    """What corpora and mixtures share. `lanes` null: the plan chooses.

    `workers` threads tokenise ahead of the step, null: by the number of cores, 0: the step waits for them;
    `prefetch` steps are kept ready.
    """

    kind: DataKind = identity()
    packing: Packing = identity()
    lanes: int | None = identity(ge=1)
    workers: int | None = placement(ge=0)
    prefetch: int = placement(ge=1)


@dataclass(kw_only=True)
class CorpusConfig(DataConfig):
    """What corpora share. `root` is a folder or file of parquet, jsonl or txt; null for the embedded corpus.

    `token_cache` keeps the tokens on disk, under {base_dir}/cache/tokens.
    """

    root: str | None = placement()
    num_shards: int | str | None = identity(ge=1, words=("auto",))
    token_cache: bool = placement()


@dataclass(kw_only=True)
class LocalConfig(CorpusConfig):
    """The embedded corpus, or your own text: of a single file every `val_every`-th document is for validation."""

    val_every: int = identity(ge=2)


@dataclass(kw_only=True)
class ShardsConfig(CorpusConfig):
    """A corpus of numbered parquet shards on the hub, downloaded as far as the run needs them.

    `last_shard` is the number of the last one, which is for validation. `source` is another place that has the files:
    a base URL or a folder; null: the hub, or `hub_root`. `downloads` files are fetched side by side; an attempt
    without a byte for `timeout` seconds is given up and repeated, `retries` times a file.
    """

    dataset: str = identity()
    last_shard: int = identity(ge=1)
    source: str | None = placement()
    downloads: int = placement(ge=1)
    timeout: float = placement(gt=0)
    retries: int = placement(ge=0)


@dataclass(kw_only=True)
class MixtureConfig(DataConfig):
    """Conversations from tasks by name; each value of `tasks` is checked by tasks/mixture.py."""

    tasks: dict[str, Any] = identity()
    val_tasks: dict[str, Any] = identity()
    supervise: Supervise = identity()
    too_long: TooLong = identity()
    order: Order = identity()
    weight_by: WeightBy = identity()
    word_list: str | None = placement()
    identity: str | None = placement()

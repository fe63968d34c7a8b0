"""`data=`: what is read. A corpus (documents, for tokenizer and base) or a mixture (conversations, for mid and sft)."""

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from nanochat.config.fields import identity, placement


class DataKind(StrEnum):
    """Where the text comes from; the first two are corpora."""

    embedded = auto()
    text = auto()
    mixture = auto()


class Packing(StrEnum):
    """How documents become rows of T+1 tokens (data/packing.py)."""

    stream = auto()
    bestfit = auto()
    pad = auto()


class Supervise(StrEnum):
    """Which tokens of a conversation are targets: all, or those the assistant writes."""

    all = auto()
    assistant = auto()


class TooLong(StrEnum):
    """What happens to a conversation longer than the context."""

    truncate = auto()
    drop = auto()


@dataclass(kw_only=True)
class DataConfig:
    """What corpora and mixtures share. `lanes` null: the plan chooses."""

    kind: DataKind = identity()
    packing: Packing = identity()
    lanes: int | None = identity(ge=1)


@dataclass(kw_only=True)
class CorpusConfig(DataConfig):
    """Documents. `root` is a folder or file of parquet, jsonl or txt; null for the embedded corpus."""

    root: str | None = placement()
    num_shards: int | None = identity(ge=1)
    val_every: int = identity(ge=2)


@dataclass(kw_only=True)
class MixtureConfig(DataConfig):
    """Conversations from tasks by name; each value of `tasks` is checked by tasks/mixture.py."""

    tasks: dict[str, Any] = identity()
    val_tasks: dict[str, Any] = identity()
    supervise: Supervise = identity()
    too_long: TooLong = identity()
    word_list: str | None = placement()
    identity: str | None = placement()

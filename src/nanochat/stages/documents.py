"""The text of a corpus for the stages: which shards a run reads, and who fetches them.

Notable: training and the tokenizer fetch in the background all that they will read (`with shard_folder(...)`); who
reads only the beginning of a split (evaluation) fetches a shard when it comes to it.
"""

from collections.abc import Callable
from typing import Any

from nanochat.config.data import LocalConfig, ShardsConfig
from nanochat.config.root import RunConfig
from nanochat.data.corpus import open_corpus
from nanochat.data.documents import Documents
from nanochat.data.shards import ShardFolder, open_shards
from nanochat.plan.shards import shards_for_tokens, tokenizer_shards, whole_corpus
from nanochat.stages.job import Job


def shard_folder(job: Job, count: int | None, say: Callable[[str], None] | None = None) -> ShardFolder | None:
    """The shards that a run with `count` of them reads; None for data that do not come in shards."""
    data = job.config.data
    if not isinstance(data, ShardsConfig):
        return None
    assert count is not None, "a plan has a number of shards"
    return ShardFolder(data, count, job.config.hub_root, say=say)


def open_documents(job: Job, split: str, shards: ShardFolder | None = None) -> Documents:
    """The text of a corpus; `shards` are those that the run reads, where it knows."""
    data = job.config.data
    where = shards if shards is not None else _some_shards(job)
    if where is not None:
        return open_shards(where, split)
    assert isinstance(data, LocalConfig), "a mixture has conversations"
    return open_corpus(data, split, job.base_dir, job.config.seed)


def all_here(job: Job) -> bool:
    """Whether the data can be read without fetching anything."""
    shards = _some_shards(job)
    return shards is None or not shards.missing()


def _some_shards(job: Job) -> ShardFolder | None:
    """Where no plan says how many: the number that is asked for, all, or with auto as many as an evaluation reads."""
    data = job.config.data
    if not isinstance(data, ShardsConfig):
        return None
    few = min(data.last_shard, shards_for_tokens(job.config.eval.tokens))
    return shard_folder(job, few if data.num_shards == "auto" else whole_corpus(data))


def shards_identity(config: RunConfig) -> dict[str, Any]:
    """What makes the text of a tokenizer's shards what it is: their numbers, whatever words asked for them."""
    data = config.data
    if not isinstance(data, ShardsConfig):
        return {}
    number = tokenizer_shards(config).number
    return {"data.dataset": data.dataset, "data.last_shard": data.last_shard, "data.num_shards": number}

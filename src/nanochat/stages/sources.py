"""From the data group to token documents, for training and for validation."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.config.data import CorpusConfig, DataConfig, DataKind, MixtureConfig, Order, Packing, ShardsConfig
from nanochat.config.root import RunConfig
from nanochat.data.corpus import find_files
from nanochat.data.shards import ShardFolder
from nanochat.data.survey import sample, survey
from nanochat.data.token_cache import TokenCache
from nanochat.data.tokenized import CorpusTokens, MixtureTokens, TokenDocs
from nanochat.plan.shards import tokens_in_shards, whole_corpus
from nanochat.stages.documents import open_documents
from nanochat.stages.job import Job
from nanochat.stages.words import resolve_word_list
from nanochat.tasks.measures import Measure
from nanochat.tasks.mixture import Mixture, build_mixture
from nanochat.tasks.spec import TaskContext
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render
from nanochat.tokenizer.raw_bytes import BYTES_A_TOKEN, bytes_tokenizer
from nanochat.tracking.atomic import write_shared
from nanochat.tracking.console import Console

TRIM = 32  # padded rows are cut to the longest of their micro-batch, rounded up to this, where shapes may vary


@dataclass(frozen=True)
class DataSize:
    """One pass over the training data: tokens, and rows where each conversation has its own."""

    tokens: int | None
    rows: int | None
    source: str


def open_mixture(job: Job, tokenizer: Tokenizer, seq_len: int, split: str) -> MixtureTokens:
    """The conversations of `data.tasks` (train) or `data.val_tasks` (val), with their tokens.

    Validation is always shuffled: it may read only the first part of them.
    """
    data = job.config.data
    assert isinstance(data, MixtureConfig)
    longest = None if data.packing == Packing.stream else seq_len + 1
    reader = MixtureTokens(Mixture({}), tokenizer, data.supervise, data.too_long, longest, render)
    specs, key = (data.tasks, "data.tasks") if split == "train" else (data.val_tasks, "data.val_tasks")
    order = data.order if split == "train" else Order.shuffled
    mixture = build_mixture(specs, task_context(job), key, order, data.weight_by, _cost(reader, tokenizer))
    return MixtureTokens(mixture, tokenizer, data.supervise, data.too_long, longest, render)


def _cost(reader: MixtureTokens, tokenizer: Tokenizer) -> Measure:
    """The supervised tokens of a conversation, as it is trained on."""

    def count(conversation: dict[str, Any]) -> int:
        tokens, _ = reader.fit(*reader.rendered(conversation))
        return len(tokens.ids) if tokens.mask is None else int(tokens.mask.sum())

    name = f"supervised {tokenizer.fingerprint()} {reader.all_supervised} {reader.too_long} {reader.max_len}"
    return Measure(name, count)


def task_context(job: Job) -> TaskContext:
    """What tasks need of the run; a corpus has no word list or identity file of its own."""
    config = job.config
    mixture = config.data if isinstance(config.data, MixtureConfig) else None
    return TaskContext(
        base_dir=job.base_dir,
        word_list=resolve_word_list(mixture.word_list, job.base_dir) if mixture else None,
        identity=mixture.identity if mixture else None,
        seed=config.seed,
        hub_root=config.hub_root,
        plugins=tuple(config.plugins),
    )


def open_docs(
    job: Job,
    tokenizer: Tokenizer,
    seq_len: int,
    split: str,
    say: Callable[[str], None] | None = None,
    shards: ShardFolder | None = None,
) -> TokenDocs:
    """Tokenised documents of `split`: those of the corpus, or the rendered conversations of the mixture.

    `shards` are those of the run, where it has any; without them a shard is fetched when it is read.
    """
    data = job.config.data
    if isinstance(data, MixtureConfig):
        docs = open_mixture(job, tokenizer, seq_len, split)
        for note in docs.mixture.notes if say else ():  # type: ignore[attr-defined]
            say(note)  # type: ignore[misc]
        return docs
    from nanochat.data.prefetch import default_workers  # these pull in torch, which a plan of a mixture does not need
    from nanochat.runtime.dist import current_ranks

    documents = open_documents(job, split, shards)
    stored = None
    if isinstance(data, CorpusConfig) and data.token_cache:
        stored = TokenCache(
            job.base_dir / "cache" / "tokens",
            tokenizer.fingerprint(),
            say or Console(None, current_ranks().is_main).say,
        )
    return CorpusTokens(documents, tokenizer, default_workers() if data.workers is None else data.workers, stored)


def data_manifest(config: RunConfig) -> dict[str, Any]:
    """Name -> size of the files of a corpus, cheap to know; the loader's fingerprint compares their contents."""
    data = config.data
    if not isinstance(data, CorpusConfig) or data.kind != DataKind.text or data.root is None:
        return {}
    root = Path(data.root).expanduser().absolute()
    base = root if root.is_dir() else root.parent
    return {path.relative_to(base).as_posix(): f"{path.stat().st_size:,} bytes" for path in find_files(root)}


def needs_size(config: RunConfig) -> bool:
    """Whether the horizon depends on how much data there is."""
    train = config.train
    return train.num_iterations is None and train.target_flops is None and train.target_param_data_ratio is None


def measure(job: Job, tokenizer: Tokenizer, seq_len: int, say: Callable[[str], None] | None = None) -> DataSize:
    """Counts one pass over the training data; tokens are counted once and cached under {base_dir}/cache.

    `say` hears how far it is, where it takes long.
    """
    data: DataConfig = job.config.data
    docs = open_docs(job, tokenizer, seq_len, "train")
    if isinstance(docs, MixtureTokens):
        counted = survey(docs, data.packing, seq_len, job.base_dir / "cache" / "survey", say)
        total = counted.total
        said = f"{total.kept:,} conversations counted"
        if total.truncated or total.dropped or total.unsupervised:
            said += f", {total.truncated} truncated, {total.dropped} dropped, {total.unsupervised} without a target"
        return DataSize(total.tokens, counted.filled.rows, said)
    mark = hashlib.sha256(json.dumps(docs.fingerprint(), sort_keys=True).encode()).hexdigest()[:24]
    path = job.base_dir / "cache" / f"tokens-{mark}.json"
    if path.is_file():
        return DataSize(int(json.loads(path.read_text(encoding="utf-8"))["tokens"]), None, "tokens counted earlier")
    block = 1024
    spans = [range(start, min(start + block, len(docs))) for start in range(0, len(docs), block)]
    tokens = sum(len(each.ids) for span in spans for each in docs.get_many(span))
    write_shared(path, json.dumps({"tokens": tokens}).encode())
    return DataSize(tokens, None, "tokens counted")


def estimate(job: Job, seq_len: int, per_task: int = 200) -> DataSize:
    """Without a tokenizer: UTF-8 bytes of a sample of each task, at 4 bytes a token."""
    data = job.config.data
    if isinstance(data, ShardsConfig):
        count = whole_corpus(data)
        return DataSize(tokens_in_shards(count), None, f"estimated: {count:,} shards, not all of them here")
    if not isinstance(data, MixtureConfig):
        return DataSize(None, None, "")
    docs = open_mixture(job, bytes_tokenizer(), BYTES_A_TOKEN * seq_len, "train")
    if data.packing == Packing.pad:
        return DataSize(None, len(docs), "conversations counted")
    found = sample(docs, data.packing, BYTES_A_TOKEN * seq_len, per_task)
    said = f"estimated from {found.total.looked} conversations: no tokenizer yet"
    return DataSize(found.total.tokens // BYTES_A_TOKEN, found.filled.rows, said)

"""From the data group to token documents, for training and for validation."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.config.data import CorpusConfig, DataConfig, DataKind, MixtureConfig, Packing
from nanochat.config.root import RunConfig
from nanochat.data.corpus import find_files, open_corpus
from nanochat.data.survey import survey
from nanochat.data.tokenized import CorpusTokens, MixtureTokens, TokenDocs
from nanochat.stages.job import Job
from nanochat.tasks.mixture import Mixture, build_mixture
from nanochat.tasks.spec import TaskContext
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render
from nanochat.tracking.atomic import write_json

TRIM = 32  # padded rows are cut to the longest of their micro-batch, rounded up to this, where shapes may vary


@dataclass(frozen=True)
class DataSize:
    """One pass over the training data: tokens, and rows where each conversation has its own."""

    tokens: int | None
    rows: int | None
    source: str


def open_mixture(job: Job, split: str) -> Mixture:
    """The mixture of `data.tasks` (train) or `data.val_tasks` (val)."""
    data = job.config.data
    assert isinstance(data, MixtureConfig)
    specs = data.tasks if split == "train" else data.val_tasks
    key = "data.tasks" if split == "train" else "data.val_tasks"
    return build_mixture(specs, task_context(job), key)


def task_context(job: Job) -> TaskContext:
    """What tasks need of the run; a corpus has no word list or identity file of its own."""
    data = job.config.data
    if isinstance(data, MixtureConfig):
        return TaskContext(
            base_dir=job.base_dir, word_list=data.word_list, identity=data.identity, seed=job.config.seed
        )
    return TaskContext(base_dir=job.base_dir, seed=job.config.seed)


def open_docs(
    job: Job, tokenizer: Tokenizer, seq_len: int, split: str, say: Callable[[str], None] | None = None
) -> TokenDocs:
    """Tokenised documents of `split`: those of the corpus, or the rendered conversations of the mixture."""
    data = job.config.data
    if isinstance(data, MixtureConfig):
        mixture = open_mixture(job, split)
        for note in mixture.notes if say else ():
            say(note)  # type: ignore[misc]
        longest = None if data.packing == Packing.stream else seq_len + 1
        return MixtureTokens(mixture, tokenizer, data.supervise, data.too_long, longest, render)
    assert isinstance(data, CorpusConfig)
    documents = open_corpus(data, split, job.base_dir, job.config.seed)
    return CorpusTokens(documents, tokenizer, num_threads=job.config.runtime.num_threads or os.cpu_count() or 1)


def data_manifest(config: RunConfig) -> dict[str, Any]:
    """A cheap mark of which files a corpus is made of; the loader's fingerprint compares their contents."""
    data = config.data
    if not isinstance(data, CorpusConfig) or data.kind != DataKind.text or data.root is None:
        return {}
    root = Path(data.root).expanduser().absolute()
    listed = [(path.name, path.stat().st_size) for path in find_files(root)]
    return {"count": len(listed), "sizes": hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]}


def needs_size(config: RunConfig) -> bool:
    """Whether the horizon depends on how much data there is."""
    train = config.train
    return train.num_iterations is None and train.target_flops is None and train.target_param_data_ratio is None


def measure(job: Job, tokenizer: Tokenizer, seq_len: int) -> DataSize:
    """Counts one pass over the training data; tokens are counted once and cached under {base_dir}/cache."""
    data: DataConfig = job.config.data
    docs = open_docs(job, tokenizer, seq_len, "train")
    if isinstance(docs, MixtureTokens):
        counted = survey(docs, job.base_dir / "cache" / "survey")
        said = f"{counted.kept:,} conversations counted"
        if counted.truncated or counted.dropped or counted.unsupervised:
            said += (
                f", {counted.truncated} truncated, {counted.dropped} dropped, {counted.unsupervised} without a target"
            )
        return DataSize(counted.tokens, counted.rows(data.packing, seq_len), said)
    mark = hashlib.sha256(json.dumps(docs.fingerprint(), sort_keys=True).encode()).hexdigest()[:24]
    path = job.base_dir / "cache" / f"tokens-{mark}.json"
    if path.is_file():
        return DataSize(int(json.loads(path.read_text(encoding="utf-8"))["tokens"]), None, "tokens counted earlier")
    block = 1024
    spans = [range(start, min(start + block, len(docs))) for start in range(0, len(docs), block)]
    tokens = sum(len(each.ids) for span in spans for each in docs.get_many(span))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"tokens": tokens})
    return DataSize(tokens, None, "tokens counted")


def estimate(job: Job, sample: int = 1000) -> DataSize:
    """Without a tokenizer: UTF-8 bytes of a sample of the mixture, at 4 bytes a token."""
    data = job.config.data
    if not isinstance(data, MixtureConfig):
        return DataSize(None, None, "")
    mixture = open_mixture(job, "train")
    if data.packing == Packing.pad:
        return DataSize(None, len(mixture), "conversations counted")
    shown = [json.dumps(mixture[i], ensure_ascii=False) for i in range(min(sample, len(mixture)))]
    per_row = sum(len(text.encode()) for text in shown) / max(1, len(shown))
    return DataSize(
        int(per_row * len(mixture) / 4), None, f"estimated from {len(shown)} conversations: no tokenizer yet"
    )

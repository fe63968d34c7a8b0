"""The tokenizer stage: byte-level BPE trained on the corpus, saved as data, with a compression report."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat.config.data import CorpusConfig
from nanochat.config.naming import tokenizer_dir
from nanochat.config.root import RunConfig
from nanochat.config.validate import flatten
from nanochat.data.corpus import Documents, open_corpus
from nanochat.errors import ConfigError, MismatchError
from nanochat.reporting.tables import render_table
from nanochat.stages.job import Job
from nanochat.stages.sources import data_manifest
from nanochat.tokenizer.bpe import TOKENIZER_FILE, Tokenizer
from nanochat.tokenizer.compression import compare
from nanochat.tokenizer.train import train_bpe
from nanochat.tracking.atomic import write_json

IDENTITY_FILE = "identity.json"
_REPORT_CHARS = 200_000  # characters of validation text that compression is measured on


def run_tokenizer(job: Job) -> None:
    """Trains `tokenizer.name` on `data`, unless the same one is there. Raises MismatchError for another one."""
    config = job.config
    if not isinstance(config.data, CorpusConfig):
        raise ConfigError("stage=tokenizer reads a corpus; take data=embedded or data=text")
    folder = tokenizer_dir(config)
    if _already_there(config, folder):
        print(f"{folder} is complete; nothing to do (overwrite=true trains it again)")
        return
    began = time.perf_counter()
    documents = open_corpus(config.data, "train", job.base_dir, config.seed)
    tokenizer = train_bpe(
        cropped(documents, config.tokenizer.max_chars, config.tokenizer.doc_cap), config.tokenizer.vocab_size
    )
    _report(job, tokenizer)
    if config.dry_run:
        print(f"dry_run=true: {folder} was not written")
        return
    _save(tokenizer, folder, config, {"documents": len(documents), "seconds": round(time.perf_counter() - began, 1)})
    print(f"done: {folder} ({tokenizer.vocab_size:,} tokens)")


def _save(tokenizer: Tokenizer, folder: Path, config: RunConfig, metadata: dict[str, Any]) -> None:
    """The tokenizer's own file comes last: where it is, the identity beside it is its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER_FILE).unlink(missing_ok=True)
    write_json(folder / IDENTITY_FILE, _identity(config))
    tokenizer.save(folder, metadata)


def cropped(documents: Documents, max_chars: int, doc_cap: int) -> Iterator[str]:
    """Documents cut at `doc_cap` characters, `max_chars` of them in all."""
    left = max_chars
    for text in documents:
        piece = text[: min(doc_cap, left)]
        left -= len(piece)
        yield piece
        if left <= 0:
            return


def _identity(config: RunConfig) -> dict[str, Any]:
    """What makes it this tokenizer and no other; JSON-able."""
    flat = flatten(config)
    keys = [
        k for k in flat if k.startswith("tokenizer.") or k in ("data.kind", "data.num_shards", "data.val_every", "seed")
    ]
    return {**{k: flat[k] for k in keys}, **{f"data.files.{k}": v for k, v in data_manifest(config).items()}}


def _already_there(config: RunConfig, folder: Path) -> bool:
    if config.overwrite or config.dry_run or not (folder / TOKENIZER_FILE).is_file():
        return False
    path = folder / IDENTITY_FILE
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = _identity(config)
    differing = [
        f"{k} was {saved.get(k)}, is {now.get(k)}" for k in sorted({*saved, *now}) if saved.get(k) != now.get(k)
    ]
    if differing:
        raise MismatchError(
            f"{folder} holds another tokenizer: {'; '.join(differing)}. Give this one a name of its own by "
            f"tokenizer.name=, or replace the former with overwrite=true"
        )
    return True


def _report(job: Job, tokenizer: Tokenizer) -> None:
    """Bytes per token on validation text, beside gpt2 and cl100k where their files are on this machine."""
    config = job.config
    assert isinstance(config.data, CorpusConfig)
    documents = open_corpus(config.data, "val", job.base_dir, config.seed)
    text = "\n".join(cropped(documents, _REPORT_CHARS, config.tokenizer.doc_cap))
    comparison = compare(tokenizer, {"validation text": text})
    rows = [[row.domain, _ratio(row.ours), _ratio(row.gpt2), _ratio(row.cl100k)] for row in comparison.rows]
    columns = ["bytes per token of", config.tokenizer.name, "gpt2", "cl100k"]
    print(render_table(columns, rows))
    for name, reason in comparison.skipped.items():
        print(f"{name} is not compared: {reason}")


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

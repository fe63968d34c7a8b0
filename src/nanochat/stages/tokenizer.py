"""The tokenizer stage: byte-level BPE trained on the corpus, saved as data, with a compression report."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from nanochat.config.data import CorpusConfig
from nanochat.config.naming import tokenizer_dir
from nanochat.config.root import RunConfig
from nanochat.config.validate import flatten
from nanochat.data.documents import Documents
from nanochat.data.shards import ShardFolder
from nanochat.errors import ConfigError, MismatchError
from nanochat.plan.shards import tokenizer_shards
from nanochat.stages.documents import open_documents, shard_folder, shards_identity
from nanochat.stages.job import Job
from nanochat.stages.learning import learn
from nanochat.stages.sources import data_manifest
from nanochat.stages.tokenizer_report import make_report, read_report, save_report, show_report
from nanochat.tokenizer.bpe import TOKENIZER_FILE, Tokenizer
from nanochat.tracking.atomic import write_json
from nanochat.tracking.console import Console

IDENTITY_FILE = "identity.json"
_SHOWN = 8  # differing keys in an error message
_REPORT_CHARS = 200_000  # characters of validation text that compression is measured on


def run_tokenizer(job: Job) -> None:
    """Trains `tokenizer.name` on `data`, unless the same one is there. Raises MismatchError for another one."""
    config = job.config
    if not isinstance(config.data, CorpusConfig):
        raise ConfigError("stage=tokenizer reads a corpus; take data=embedded or data=text")
    folder = tokenizer_dir(config)
    if _already_there(config, folder):
        former = read_report(folder)
        if former is not None:
            print(show_report(former, config.tokenizer.name))
        print(f"{folder} is complete; nothing to do (overwrite=true trains it again)")
        return
    began = time.perf_counter()
    shards = shard_folder(job, tokenizer_shards(config).number, print)
    with shards or nullcontext():  # fetched while they are read
        documents = open_documents(job, "train", shards)
        learned = learn(
            cropped(documents, config.tokenizer.max_chars, config.tokenizer.doc_cap),
            config.tokenizer.vocab_size,
            config.tokenizer.max_chars,
            Console(None, is_main=True),
        )
        tokenizer, report = learned.tokenizer, make_report(learned.tokenizer, _prose(job, shards), learned)
    print(show_report(report, config.tokenizer.name))
    if config.dry_run:
        print(f"dry_run=true: {folder} was not written")
        return
    _save(
        tokenizer,
        folder,
        config,
        {"documents": documents.known_length(), "seconds": round(time.perf_counter() - began, 1)},
        report,
    )
    print(f"done: {folder} ({tokenizer.vocab_size:,} tokens)")


def _save(
    tokenizer: Tokenizer, folder: Path, config: RunConfig, metadata: dict[str, Any], report: dict[str, Any]
) -> None:
    """The tokenizer's own file comes last: where it is, the identity beside it is its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER_FILE).unlink(missing_ok=True)
    write_json(folder / IDENTITY_FILE, _identity(config))
    save_report(report, config.tokenizer.name, folder)
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
    asked = {**{k: flat[k] for k in keys if k in flat}, **shards_identity(config)}
    return {**asked, **{f"data.files.{k}": v for k, v in data_manifest(config).items()}}


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
        shown = "; ".join(differing[:_SHOWN]) + ("; ..." if len(differing) > _SHOWN else "")
        raise MismatchError(
            f"{folder} holds another tokenizer: {shown}. Give this one a name of its own by "
            f"tokenizer.name=, or replace the former with overwrite=true"
        )
    return True


def _prose(job: Job, shards: ShardFolder | None) -> str:
    """Validation text, which the tokenizer has not seen."""
    return "\n".join(cropped(open_documents(job, "val", shards), _REPORT_CHARS, job.config.tokenizer.doc_cap))

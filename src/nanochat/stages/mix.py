"""What `nanochat mix` looks into: the mixture of a stage, counted, planned, and a few of its conversations.

Notable: the tokenizer is the one that the stage would use (its checkpoint's copy, else the trained one). Before there
is one, bytes are counted, and four of them are taken for a token of the context.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanochat.config.data import MixtureConfig, Packing
from nanochat.config.root import RunConfig
from nanochat.data.survey import Survey, refuse_empty, sample, survey
from nanochat.data.tokenized import MixtureTokens
from nanochat.errors import ConfigError
from nanochat.plan.facts import Facts
from nanochat.plan.plan import make_plan
from nanochat.reporting.mix import Shown
from nanochat.stages.facts import find_tokenizer, preview
from nanochat.stages.job import Job
from nanochat.stages.sources import open_mixture
from nanochat.tasks.mixture import Mixture
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.raw_bytes import BYTES_A_TOKEN, bytes_tokenizer

PER_TASK = 500  # conversations of a task that are looked at without --exact: about a second for eight tasks
PER_VAL_TASK = 200


@dataclass(frozen=True)
class Look:
    """A stage's mixture. `unit` is tokens, or bytes where there is no tokenizer yet; `folder` is the tokenizer's."""

    job: Job
    tokenizer: Tokenizer
    folder: Path | None
    seq_len: int
    docs: MixtureTokens
    train: Survey
    val: Survey | None
    val_docs: MixtureTokens | None

    @property
    def unit(self) -> str:
        """What is counted."""
        return "tokens" if self.folder is not None else "bytes"

    @property
    def row_size(self) -> int:
        """Of a row of T targets, in that unit."""
        return _context(self.seq_len, self.folder) + 1


def look_into(job: Job, exact: bool, say: Callable[[str], None]) -> Look:
    """Counts the mixture of a checked config: some conversations of each task, or with `exact` all.

    ConfigError if it has not one token to learn from. That is said only after all have been looked at.
    """
    job, ref, tokenizer = preview(job)
    data = job.config.data
    assert isinstance(data, MixtureConfig)
    folder = find_tokenizer(job, ref) if tokenizer is not None else None
    reader, seq_len = tokenizer or bytes_tokenizer(), job.config.model.max_seq_len
    context = _context(seq_len, folder)
    docs = open_mixture(job, reader, context, "train")
    count = sample(docs, data.packing, context, PER_TASK)
    if exact or not count.total.supervised:
        cache = job.base_dir / "cache" / "survey" if tokenizer is not None else None
        count = survey(docs, data.packing, context, cache, say)
    refuse_empty(docs, count)
    val_docs = open_mixture(job, reader, context, "val") if data.val_tasks else None
    val = None if val_docs is None else _count_val(val_docs, data.packing, context, exact, say)
    return Look(job, reader, folder, seq_len, docs, count, val, val_docs)


def _count_val(docs: MixtureTokens, packing: Packing, context: int, exact: bool, say: Callable[[str], None]) -> Survey:
    return survey(docs, packing, context, None, say) if exact else sample(docs, packing, context, PER_VAL_TASK)


def _context(seq_len: int, folder: Path | None) -> int:
    return seq_len if folder is not None else BYTES_A_TOKEN * seq_len


def passes(docs: MixtureTokens) -> dict[str, float]:
    """How often each task is read over in one pass of the mixture."""
    assert isinstance(docs.mixture, Mixture)
    return {name: share.passes for name, share in docs.mixture.shares.items()}


def notes(look: Look) -> list[str]:
    """What was chosen for the user, such as which file was found."""
    found = [docs.mixture for docs in (look.docs, look.val_docs) if docs is not None]
    return list(dict.fromkeys(note for mixture in found if isinstance(mixture, Mixture) for note in mixture.notes))


def steps_note(look: Look) -> str:
    """Steps of one pass, and of the run."""
    rows, about = look.train.filled.rows, "" if look.train.total.exact else "~"
    size = look.tokenizer.vocab_size if look.folder is not None else look.job.config.tokenizer.vocab_size
    scale = 1 if look.folder is not None else BYTES_A_TOKEN
    try:
        recipe = make_plan(
            look.job.config,
            Facts(size, "", data_tokens=look.train.total.tokens // scale, data_rows=rows, data_source="counted"),
        ).recipe
    except ConfigError as error:
        return f"steps: not known, since the run cannot be planned: {error}"
    once = max(1, rows // recipe.rows)
    whole = _run(look.job.config, recipe.steps, about)
    return f"steps of {recipe.rows:,} rows: {about}{once:,} in a pass, {whole} in the run"


def _run(config: RunConfig, steps: int, about: str) -> str:
    """Only a horizon in passes follows from the count."""
    train = config.train
    fixed = (train.num_iterations, train.target_flops, train.target_param_data_ratio)
    return f"{steps:,}" if any(value is not None for value in fixed) else f"{about}{steps:,}"


def some_conversations(look: Look, number: int) -> list[Shown]:
    """`number` conversations, of as many tasks as possible; those that are passed over only where no other is found."""
    mixture = look.docs.mixture
    assert isinstance(mixture, Mixture)
    names = mixture.names
    turns = [names[i % len(names)] for i in range(number)] if number >= len(names) else _spread(names, number)
    found: dict[str, list[Shown]] = {name: [] for name in names}
    wanted = {name: turns.count(name) for name in set(turns)}
    for index in np.random.default_rng(look.job.config.seed).permutation(len(mixture)).tolist():
        name, row = mixture.origin(index)
        if len(found[name]) < wanted.get(name, 0) and (shown := _shown(look.docs, index, name, row)) is not None:
            found[name].append(shown)
        if all(len(found[name]) >= count for name, count in wanted.items()):
            break
    return [shown for name in names for shown in found[name]]


def _spread(names: list[str], number: int) -> list[str]:
    """The first, the last and some between."""
    return [names[round(i * (len(names) - 1) / max(1, number - 1))] for i in range(number)]


def _shown(docs: MixtureTokens, index: int, task: str, row: int) -> Shown | None:
    """None if nothing of the conversation is trained on."""
    ids, mask = docs.rendered(docs.mixture[index])
    tokens, _ = docs.fit(ids, mask)
    if not len(tokens.ids):
        return None
    kept = [1] * len(tokens.ids) if tokens.mask is None else tokens.mask.tolist()
    return Shown(task, row, tokens.ids.tolist(), kept, len(ids))

"""A mixture counted: conversations and tokens of each task, how many are too long, how many rows a pass gives.

The length of a pass, and with it the number of steps, follows from it; so the whole count is cached under the
fingerprint of the mixture and the tokenizer, and a resumed run does not tokenise everything again. Notable: a row that
is repeated is counted once, and a task's rows are read in their order on disk. `sample` does the same for some
conversations of each task and scales up.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nanochat.config.data import Packing
from nanochat.data.filling import Filled, fill
from nanochat.data.looking import FATES, look
from nanochat.data.tokenized import Fate, MixtureTokens
from nanochat.errors import ConfigError
from nanochat.tracking.atomic import write_shared

Ints = npt.NDArray[np.int64]
FORMAT = 2  # of the cached files
PACKED = 2000  # conversations of a sample that are packed to see how full the rows are


@dataclass(frozen=True)
class TaskCount:
    """Of one pass over a task, or over all. `conversations` = kept + dropped + unsupervised; truncated ones are kept.

    `tokens` and `supervised` are of those kept, after cutting; `dropped` were too long; `unsupervised` had no target
    left. `length` is the mean length of all before cutting, `longest` the greatest that was seen. Where only `looked`
    were looked at (a repeated row counts each time), the numbers are estimates; `error` and `supervised_error` are the
    standard errors of tokens and supervised.
    """

    conversations: int
    looked: int
    kept: int
    truncated: int
    dropped: int
    unsupervised: int
    tokens: int
    supervised: int
    length: float
    longest: int
    error: float = 0.0
    supervised_error: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether all conversations were looked at."""
        return self.looked == self.conversations


@dataclass(frozen=True)
class Survey:
    """The count of each task, and how they fill rows. Where some are estimates, so is `filled`."""

    tasks: dict[str, TaskCount]
    filled: Filled

    @property
    def total(self) -> TaskCount:
        """All tasks together."""
        counts = list(self.tasks.values())
        conversations = sum(count.conversations for count in counts)
        return TaskCount(
            conversations=conversations,
            looked=sum(count.looked for count in counts),
            kept=sum(count.kept for count in counts),
            truncated=sum(count.truncated for count in counts),
            dropped=sum(count.dropped for count in counts),
            unsupervised=sum(count.unsupervised for count in counts),
            tokens=sum(count.tokens for count in counts),
            supervised=sum(count.supervised for count in counts),
            length=sum(count.length * count.conversations for count in counts) / max(1, conversations),
            longest=max((count.longest for count in counts), default=0),
            error=sqrt(sum(count.error**2 for count in counts)),
            supervised_error=sqrt(sum(count.supervised_error**2 for count in counts)),
        )


class _Rows(NamedTuple):
    """The conversations of one task: the distinct ones by first index, how often each is there, and who is where."""

    first: Ints
    times: Ints
    which: Ints  # of each conversation of the task, in the mixture's order: its place in `first`
    places: Ints  # and its index in the mixture


def survey(
    docs: MixtureTokens,
    packing: Packing,
    seq_len: int,
    cache_dir: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Survey:
    """Count all of `docs`, or read the count from `cache_dir`; `say` hears now and then how far it is.

    ConfigError if there is nothing to train on.
    """
    path = cache_dir / f"{_key(docs, packing, seq_len)}.json" if cache_dir is not None else None
    found = _read(path) if path is not None else None
    result = found or _count(docs, packing, seq_len, say)
    refuse_empty(docs, result)
    if path is not None and found is None:
        write_shared(path, json.dumps(asdict(result)).encode())
    return result


def sample(docs: MixtureTokens, packing: Packing, seq_len: int, per_task: int) -> Survey:
    """Counts of at most `per_task` conversations of each task, scaled up; a smaller task is counted exactly."""
    tasks, rng = {}, np.random.default_rng(0)
    for name, rows in _by_task(docs).items():
        if len(rows.first) <= per_task:
            seen, times = look(docs, rows.first), rows.times
        else:
            chosen = np.sort(rng.choice(len(rows.places), per_task, replace=False))
            seen, times = look(docs, rows.places[chosen]), np.ones(per_task, np.int64)
        tasks[name] = _tally(seen, times, len(rows.places))
    spread = np.linspace(0, len(docs) - 1, min(PACKED, len(docs))).round().astype(np.int64)
    if packing in (Packing.bestfit, Packing.bestfit_pad):
        packed = fill(packing, look(docs, spread)[:, 1], seq_len).scaled(len(docs) / len(spread))
    else:
        packed = _filled(packing, tasks, seq_len)
    return Survey(tasks, packed)


def refuse_empty(docs: MixtureTokens, found: Survey) -> None:
    """ConfigError if no conversation has a token to learn from, with what became of them."""
    total = found.total
    if total.kept and total.supervised:
        return
    fates = (("dropped, being longer", total.dropped), ("without a supervised token left", total.unsupervised))
    said = " and ".join(f"{count:,} {what}" for what, count in fates if count)
    raise ConfigError(
        docs.why_empty() + (f" ({said}; on average they have {total.length:,.0f} tokens)" if said else "")
    )


def _count(docs: MixtureTokens, packing: Packing, seq_len: int, say: Callable[[str], None] | None) -> Survey:
    lengths = np.zeros(len(docs), np.int64)
    by_task, tasks, done = _by_task(docs), {}, 0
    distinct = sum(len(rows.first) for rows in by_task.values())
    for name, rows in by_task.items():
        seen = look(docs, rows.first, say, done, distinct)
        done += len(rows.first)
        tasks[name] = _tally(seen, rows.times, len(rows.places))
        lengths[rows.places] = seen[rows.which, 1]
    if packing in (Packing.bestfit, Packing.bestfit_pad):
        return Survey(tasks, fill(packing, lengths, seq_len))
    return Survey(tasks, _filled(packing, tasks, seq_len))


def _filled(packing: Packing, tasks: Mapping[str, TaskCount], seq_len: int) -> Filled:
    """Of stream and pad, which follow from the sums."""
    tokens, kept = sum(count.tokens for count in tasks.values()), sum(count.kept for count in tasks.values())
    if packing is Packing.pad:
        return Filled(kept, tokens / max(1, kept * (seq_len + 1)), 0.0)
    return Filled(max(1, tokens // (seq_len + 1)), 1.0, 0.0)


def _by_task(docs: MixtureTokens) -> dict[str, _Rows]:
    """The conversations of each task, tasks in the order of the mixture's first conversations or its own."""
    numbers: dict[str, int] = {name: i for i, name in enumerate(getattr(docs.mixture, "names", ()))}
    tasks, rows = np.empty(len(docs), np.int16), np.empty(len(docs), np.int64)
    for index in range(len(docs)):
        name, rows[index] = docs.mixture.origin(index)
        tasks[index] = numbers.setdefault(name, len(numbers))
    found = {}
    for name, number in numbers.items():
        places = np.flatnonzero(tasks == number)
        _, first, which, times = np.unique(rows[places], return_index=True, return_inverse=True, return_counts=True)
        found[name] = _Rows(places[first], times, which.reshape(-1), places)
    return found


def _tally(seen: Ints, times: Ints, conversations: int) -> TaskCount:
    """The count of a task from what was seen of its rows, each there so many `times`; scaled up if they are not all."""
    looked = int(times.sum())
    scale = conversations / max(1, looked)
    lengths, tokens, supervised, fates = seen.T
    by_fate = {fate: round(scale * int(times[fates == code].sum())) for code, fate in enumerate(FATES)}
    return TaskCount(
        conversations=conversations,
        looked=looked,
        kept=conversations - by_fate[Fate.dropped] - by_fate[Fate.unsupervised],
        truncated=by_fate[Fate.truncated],
        dropped=by_fate[Fate.dropped],
        unsupervised=by_fate[Fate.unsupervised],
        tokens=round(scale * int(tokens @ times)),
        supervised=round(scale * int(supervised @ times)),
        length=float(lengths @ times) / max(1, looked),
        longest=int(lengths.max(initial=0)),
        error=_error(tokens, looked, conversations),
        supervised_error=_error(supervised, looked, conversations),
    )


def _error(values: Ints, looked: int, conversations: int) -> float:
    """Standard error of the sum over all, from a sample drawn without replacement."""
    if looked >= conversations:
        return 0.0
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return spread * conversations * sqrt((1 / looked) * (1 - looked / conversations))


def _key(docs: MixtureTokens, packing: Packing, seq_len: int) -> str:
    shape = [str(packing), seq_len]
    asked: list[Any] = [FORMAT, docs.fingerprint(), docs.all_supervised, str(docs.too_long), docs.max_len, *shape]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> Survey | None:
    """A cached survey; None if there is none or it is not readable, and then it is made again."""
    try:
        found = json.loads(path.read_text())
        return Survey({name: TaskCount(**task) for name, task in found["tasks"].items()}, Filled(**found["filled"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None

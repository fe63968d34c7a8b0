"""A mixture counted once: how many conversations and tokens there are, and how many are too long.

The length of a pass, and with it the number of steps, follows from it; so it is cached under the fingerprint of
the mixture and the tokenizer, and a resumed run does not tokenise everything again.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanochat.config.data import Packing
from nanochat.data.tokenized import Fate, MixtureTokens
from nanochat.errors import ConfigError


@dataclass(frozen=True)
class Survey:
    """Of one pass. `conversations` = kept + dropped + unsupervised; truncated ones are kept.

    `tokens` and `supervised` are of those kept; `dropped` were too long; `unsupervised` had no target left.
    """

    conversations: int
    kept: int
    truncated: int
    dropped: int
    unsupervised: int
    tokens: int
    supervised: int

    def rows(self, packing: Packing, seq_len: int) -> int:
        """Rows of T+1 tokens that one pass gives (with bestfit: if nothing were cropped); at least 1."""
        return self.kept if packing is Packing.pad else max(1, self.tokens // (seq_len + 1))


def survey(docs: MixtureTokens, cache_dir: Path | None = None) -> Survey:
    """Count `docs`, or read the count from `cache_dir`. ConfigError if no conversation is kept."""
    path = cache_dir / f"{_key(docs)}.json" if cache_dir is not None else None
    found = _read(path) if path is not None else None
    result = found or _count(docs)
    if result.kept == 0:
        raise ConfigError(docs.why_empty())
    if path is not None and found is None:
        _write(path, result)
    return result


def _count(docs: MixtureTokens) -> Survey:
    fates: Counter[Fate] = Counter()
    tokens = supervised = 0
    for index in range(len(docs)):
        doc, fate = docs.judge(index)
        fates[fate] += 1
        tokens += len(doc.ids)
        supervised += len(doc.ids) if doc.mask is None else int(doc.mask.sum())
    return Survey(
        conversations=len(docs),
        kept=fates[Fate.whole] + fates[Fate.truncated],
        truncated=fates[Fate.truncated],
        dropped=fates[Fate.dropped],
        unsupervised=fates[Fate.unsupervised],
        tokens=tokens,
        supervised=supervised,
    )


def _key(docs: MixtureTokens) -> str:
    asked: list[Any] = [docs.fingerprint(), docs.all_supervised, str(docs.too_long), docs.max_len]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def _read(path: Path) -> Survey | None:
    """A cached survey; None if there is none or it is not readable, and then it is made again."""
    try:
        return Survey(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, result: Survey) -> None:
    """Write beside and rename: another process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(json.dumps(asdict(result)))
    beside.replace(path)

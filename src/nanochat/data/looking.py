"""Conversations rendered for their numbers alone, in threads where that pays.

Notable: the tokenizer lets go of Python's lock while it encodes, but takes it again for every text. Measured on two
cores, two threads take 0.8 of the time for conversations of 200 to 600 tokens and 1.4 times as long for those of 30 to
70; so threads are used for long ones only.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.data.tokenized import Fate, MixtureTokens

Ints = npt.NDArray[np.int64]
FATES = tuple(Fate)
BLOCK = 64  # conversations that a thread takes at once
LONG = 150  # tokens of a block's conversations on average, from which threads pay
SILENT = 3.0  # seconds between two messages


def look(
    docs: MixtureTokens, indices: Ints, say: Callable[[str], None] | None = None, before: int = 0, of: int = 0
) -> Ints:
    """(n, 4): length before cutting, tokens kept, supervised tokens, number in FATES.

    `say` hears how far it is, `before` of all `of` having been done by earlier calls.
    """
    seen = np.zeros((len(indices), 4), np.int64)
    done, spoke = 0, time.monotonic()
    for block in _blocks(docs, indices):
        seen[done : done + len(block)] = block
        done += len(block)
        if say is not None and time.monotonic() - spoke > SILENT:
            say(f"counting the mixture's tokens: {100 * (before + done) / of:.0f} %")
            spoke = time.monotonic()
    return seen


def _blocks(docs: MixtureTokens, indices: Ints) -> Iterator[list[tuple[int, int, int, int]]]:
    """The numbers of block after block; conversations are read here, in one thread, and rendered there."""
    spans = [indices[start : start + BLOCK].tolist() for start in range(0, len(indices), BLOCK)]
    if not spans:
        return
    first = _numbers(docs, [docs.mixture[index] for index in spans[0]])
    yield first
    threads = os.cpu_count() or 1
    if threads == 1 or sum(numbers[0] for numbers in first) < LONG * len(first):
        for span in spans[1:]:
            yield _numbers(docs, [docs.mixture[index] for index in span])
        return
    with ThreadPoolExecutor(threads) as pool:
        rest = iter(spans[1:])
        while some := list(islice(rest, 2 * threads)):
            blocks = [[docs.mixture[index] for index in span] for span in some]
            yield from pool.map(lambda block: _numbers(docs, block), blocks)


def _numbers(docs: MixtureTokens, conversations: Sequence[dict[str, Any]]) -> list[tuple[int, int, int, int]]:
    found = []
    for conversation in conversations:
        ids, mask = docs.rendered(conversation)
        tokens, fate = docs.fit(ids, mask)
        kept = len(tokens.ids)
        supervised = kept if tokens.mask is None else int(tokens.mask.sum())
        found.append((len(ids), kept, supervised, FATES.index(fate)))
    return found

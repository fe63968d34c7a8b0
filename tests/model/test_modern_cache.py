"""Decoding with a cache equals the full forward pass: short windows, smear, value embeddings, grouped heads.

All in float64, where equal means equal: rows are longer than a window of 128.
"""

from collections.abc import Callable

import pytest
import torch

from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache

Make = Callable[..., GPT]
Features = dict[str, object]
SAME = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(params=[4, 2, 1], ids=["mha", "gqa", "mqa"])
def model(make_model: Make, modern: Features, request: pytest.FixtureRequest) -> GPT:
    return make_model("float64", rope_dtype="float64", **modern | {"n_kv_head": request.param, "seq_len": 32})


def new_cache(model: GPT, rows: int, capacity: int) -> KVCache:
    return KVCache(model.dims, rows, capacity, torch.device("cpu"), torch.float64)


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(61, (rows, length), generator=torch.Generator().manual_seed(4))


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[140], [1] * 140, [50, 90], [135, 1, 1, 3], [129, 11], [7] * 20], ids=len)
def test_any_chunking(model: GPT, chunks: list[int]) -> None:
    idx, cache = tokens(2, 140), new_cache(model, 2, 140)
    parts = [model.hidden(part, cache) for part in idx.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model.hidden(idx), **SAME)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 3])
def test_ragged_rows(model: GPT, chunk: int) -> None:
    """Prompts of 2, 137 and 128 tokens, padded on the right; then six more tokens each at their own positions."""
    idx, lengths = tokens(3, 144), [2, 137, 128]
    cache, full = new_cache(model, 3, 143), model.hidden(idx)
    padded = torch.zeros(3, 137, dtype=torch.int64)
    for row, length in enumerate(lengths):
        padded[row, :length] = idx[row, :length]
    cache.expect(lengths)
    first = model.hidden(padded, cache)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(first[row, :length], full[row, :length], **SAME)
    for step in range(0, 6, chunk):
        at = [slice(n + step, n + step + chunk) for n in lengths]
        got = model.hidden(torch.stack([idx[row, where] for row, where in enumerate(at)]), cache)
        for row, where in enumerate(at):
            torch.testing.assert_close(got[row], full[row, where], **SAME)


@torch.no_grad()
def test_ragged_prompts_in_chunks(model: GPT) -> None:
    """Two padded chunks a row, of different sizes: the smear needs the last token of each row, not of the padding."""
    idx, cuts = tokens(2, 140), [[100, 33], [61, 70]]
    cache, full = new_cache(model, 2, 170), model.hidden(idx)
    done = [0, 0]
    for chunk in range(2):
        news = [cuts[row][chunk] for row in range(2)]
        padded = torch.full((2, max(news)), 60)
        for row in range(2):
            padded[row, : news[row]] = idx[row, done[row] : done[row] + news[row]]
        cache.expect(news)
        got = model.hidden(padded, cache)
        for row in range(2):
            expected = full[row, done[row] : done[row] + news[row]]
            torch.testing.assert_close(got[row, : news[row]], expected, **SAME)
            done[row] += news[row]


@torch.no_grad()
def test_selected_rows(model: GPT) -> None:
    idx, cache = tokens(3, 136), new_cache(model, 3, 138)
    cache.expect([136, 134, 20])
    model.hidden(idx, cache)
    chosen, more = cache.select([2, 0, 1, 2]), tokens(4, 1)
    got = model.hidden(more, chosen)
    for place, (row, length) in enumerate([(2, 20), (0, 136), (1, 134), (2, 20)]):
        whole = torch.cat([idx[row, :length], more[place]])[None]
        torch.testing.assert_close(got[place, 0], model.hidden(whole)[0, -1], **SAME)

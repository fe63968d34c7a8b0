from collections.abc import Callable

import pytest
import torch

from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache

Make = Callable[..., GPT]
CPU = torch.device("cpu")


def new_cache(model: GPT, rows: int, capacity: int) -> KVCache:
    return KVCache(model.dims, rows, capacity, CPU, model.compute_dtype)


@pytest.fixture(params=[4, 2, 1], ids=["mha", "gqa", "mqa"])
def model(make_model: Make, request: pytest.FixtureRequest) -> GPT:
    return make_model(n_kv_head=request.param)


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[16], [1] * 16, [9, 1, 1, 5], [4, 4, 4, 4]])
def test_any_chunking_equals_the_full_forward(model: GPT, chunks: list[int]) -> None:
    idx = torch.randint(61, (3, 16))
    cache = new_cache(model, 3, 16)
    parts = [model(part, cache) for part in idx.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(idx), rtol=1e-4, atol=2e-5)
    assert cache.lengths == [16, 16, 16]


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 3])
def test_ragged_rows_equal_the_full_forward(model: GPT, chunk: int) -> None:
    """Prompts of 2, 7 and 5 tokens, padded on the right; then six more tokens each at their own positions."""
    idx, lengths = torch.randint(61, (3, 16)), [2, 7, 5]
    cache = new_cache(model, 3, 13)
    padded = torch.randint(61, (3, 7))
    for row, length in enumerate(lengths):
        padded[row, :length] = idx[row, :length]
    cache.expect(lengths)
    first = model(padded, cache)
    full = model(idx)
    for step in range(0, 6, chunk):
        at = [slice(n + step, n + step + chunk) for n in lengths]
        got = model(torch.stack([idx[row, where] for row, where in enumerate(at)]), cache)
        for row, where in enumerate(at):
            torch.testing.assert_close(first[row, lengths[row] - 1], full[row, lengths[row] - 1], rtol=1e-4, atol=2e-5)
            torch.testing.assert_close(got[row], full[row, where], rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_selected_rows_go_on_alone(model: GPT) -> None:
    idx = torch.randint(61, (3, 10))
    cache = new_cache(model, 3, 12)
    model(idx, cache)
    cache.set_lengths([4, 10, 6])
    chosen = cache.select([2, 0, 2])
    assert chosen.lengths == [6, 4, 6]
    more = torch.randint(61, (3, 1))
    got = model(more, chosen)
    for place, row in enumerate([2, 0, 2]):
        whole = torch.cat([idx[row, : cache.lengths[row]], more[place]])[None]
        torch.testing.assert_close(got[place, 0], model(whole)[0, -1], rtol=1e-4, atol=2e-5)
    assert cache.lengths == [4, 10, 6], "the source must not move with its copy"


@torch.no_grad()
def test_longer_than_the_trained_length(make_model: Make) -> None:
    model = make_model(seq_len=4)
    idx = torch.randint(61, (1, 30))
    cache = new_cache(model, 1, 30)
    parts = [model(part, cache) for part in idx.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(idx), rtol=1e-4, atol=2e-5)


def test_overflow_is_noticed(make_model: Make) -> None:
    model = make_model()
    with pytest.raises(AssertionError, match="cache of 4 positions"):
        model(torch.zeros(1, 5, dtype=torch.int64), new_cache(model, 1, 4))
    with pytest.raises(AssertionError, match="rotary tables end at 160"):
        model(torch.zeros(1, 161, dtype=torch.int64))


@torch.no_grad()
def test_rows_come_go_and_move(model: GPT) -> None:
    """A prefilled row is copied into a running cache, the cache grows, one row leaves and the last takes its place."""
    idx = torch.randint(61, (3, 14))
    cache, arrival = new_cache(model, 2, 8), new_cache(model, 1, 5)
    model(idx[:2, :4], cache)
    model(idx[2:, :5], arrival)
    cache = cache.resized(4, 14)
    cache.copy_row(2, arrival, 0)
    cache.set_lengths([4, 4, 5])
    model(torch.stack([idx[0, 4:6], idx[1, 4:6], idx[2, 5:7]]), cache)
    cache.copy_row(0, cache, 2)
    cache.set_lengths([7, 6])
    got = model(torch.stack([idx[2, 7:8], idx[1, 6:7]]), cache)
    full = model(idx)
    torch.testing.assert_close(got[:, 0], torch.stack([full[2, 7], full[1, 6]]), rtol=1e-4, atol=2e-5)
    assert cache.last_ids_B.tolist() == [int(idx[2, 7]), int(idx[1, 6])] and cache.room == 4

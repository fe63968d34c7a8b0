"""Requests that come and go: rows, queue, chunks of prompts, memory, cancelling, and that nobody notices the others."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.engine.sequence import Sequence
from nanochat.errors import ConfigError, CorruptError
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer

Make = Callable[..., GPT]
MODERN: dict[str, Any] = {"window_pattern": "SL", "value_embeds": True, "residual_scalars": True, "smear": True}
MODERN |= {"backout": True, "qk_scale": 1.2, "vocab_multiple": 64}


def prompts_of(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(256) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def ids(sequence: Sequence) -> list[int]:
    return [token.id for token in sequence.tokens]


def finish(engine: Engine) -> None:
    for _ in range(10_000):
        if not engine.busy:
            return
        engine.step()
    raise AssertionError("the engine never ends")


@torch.no_grad()
def check_greedy(model: GPT, prompt: list[int], answer: list[int]) -> None:
    """Every token is the likeliest in one forward pass over all."""
    logits = model(torch.tensor([prompt + answer]))[0, len(prompt) - 1 : -1]
    assert logits.argmax(-1).tolist() == answer


@pytest.mark.parametrize("kind", ["gpt", "modern"])
@pytest.mark.parametrize(("max_rows", "prefill_tokens"), [(1, 8192), (3, 8192), (4, 50), (16, 300)])
def test_greedy_with_requests_that_arrive_in_between(
    make_model: Make, tokenizer: Tokenizer, kind: str, max_rows: int, prefill_tokens: int
) -> None:
    """Prompts of up to 300 tokens, beyond the window of 128, read whole and in chunks of 50, while others write."""
    model = make_model(2, **(MODERN if kind == "modern" else {}))
    engine = Engine(model, tokenizer, "cpu", max_rows=max_rows, prefill_tokens=prefill_tokens)
    rng, sequences = random.Random(max_rows), []
    for prompt in prompts_of(10, 300, seed=max_rows):
        params = SamplingParams(max_new_tokens=rng.randint(1, 14), temperature=0.0)
        sequences += [(prompt, *engine.submit(prompt, params))]
        for _ in range(rng.randint(0, 4)):
            engine.step()
    finish(engine)
    for prompt, sequence in sequences:
        check_greedy(model, prompt, ids(sequence))
        assert sequence.finish in ("stop", "length") and sequence.prompt_length == len(prompt)


def test_draws_do_not_depend_on_the_company(make_model: Make, tokenizer: Tokenizer) -> None:
    """Each alone, all at once, and three at a time with others between: the same tokens."""
    model, prompts = make_model(), prompts_of(7, 20, seed=1)
    params = [SamplingParams(max_new_tokens=10, temperature=1.2, top_p=0.9, seed=i) for i in range(7)]
    params[3] = SamplingParams(max_new_tokens=10, top_k=20, repetition_penalty=1.5, seed=3)
    alone = [
        Engine(model, tokenizer, "cpu").generate_batch([prompt], p, num_samples=2)
        for prompt, p in zip(prompts, params, strict=True)
    ]
    for max_rows in (64, 3):
        engine = Engine(model, tokenizer, "cpu", max_rows=max_rows)
        sequences = [engine.submit(prompt, p, num_samples=2) for prompt, p in zip(prompts, params, strict=True)]
        finish(engine)
        together = [[ids(s)[: -1 if s.finish == "stop" else None] for s in samples] for samples in sequences]
        assert together == alone


def test_a_penalty_counts_prompt_and_answer(make_model: Make, tokenizer: Tokenizer) -> None:
    """With a huge one nothing is said twice, nor anything of the prompt; a row beside it repeats itself as before."""
    model = make_model()
    engine = Engine(model, tokenizer, "cpu")
    strict = SamplingParams(max_new_tokens=40, temperature=0.0, repetition_penalty=100.0)
    free = SamplingParams(max_new_tokens=40, temperature=0.0)
    plain = engine.generate_batch([[5, 6, 7]], free)[0]
    penalised, beside = engine.submit([5, 6, 7], strict)[0], engine.submit([5, 6, 7], free)[0]
    finish(engine)
    said = [5, 6, 7, *ids(penalised)]
    assert len(set(said)) == len(said) and ids(beside)[: len(plain)] == plain


def test_steps_report_who_got_tokens(make_model: Make, tokenizer: Tokenizer) -> None:
    engine, params = Engine(make_model(), tokenizer, "cpu", max_rows=2), SamplingParams(max_new_tokens=5, seed=4)
    sequences = [s for prompt in prompts_of(5, 9) for s in engine.submit(prompt, params)]
    counts = dict.fromkeys(sequences, 0)
    assert engine.busy
    while engine.busy:
        touched = engine.step()
        assert len(touched) == len(set(touched))
        for sequence in sequences:
            grew = len(sequence.tokens) - counts[sequence]
            assert (grew > 0) == (sequence in touched)
            counts[sequence] += grew
    assert all(counts.values()) and engine.step() == []


def test_nothing_to_write_ends_at_once(make_model: Make, tokenizer: Tokenizer) -> None:
    engine = Engine(make_model(), tokenizer, "cpu")
    (sequence,) = engine.submit([1], SamplingParams(max_new_tokens=0))
    assert sequence.finish == "length" and engine.busy
    assert engine.step() == [sequence] and not engine.busy


def test_cancelled_sequences_make_room(make_model: Make, tokenizer: Tokenizer) -> None:
    """One that waits, one that is live, one between chunks of its prompt; the rest is as if they had never been."""
    model, params = make_model(), SamplingParams(max_new_tokens=12, temperature=0.0)
    engine = Engine(model, tokenizer, "cpu", max_rows=2, prefill_tokens=16)
    live, waits = engine.submit([1, 2, 3], params)[0], engine.submit([4, 5], params)[0]
    long, last = engine.submit([7] * 100, params)[0], engine.submit([9, 9], params)[0]
    engine.cancel(waits)
    for _ in range(3):
        engine.step()
    assert len(live.tokens) == 4 and not long.tokens and not waits.tokens  # two in the step that lets it in
    engine.cancel(long)
    engine.cancel(live)
    engine.cancel(live)  # twice does nothing
    assert set(engine.step()) >= {long, live}
    finish(engine)
    check_greedy(model, [9, 9], ids(last))
    assert (waits.finish, long.finish, live.finish) == ("cancelled",) * 3 and len(live.tokens) == 4


def test_a_closed_iterator_leaves_nothing_behind(make_model: Make, tokenizer: Tokenizer) -> None:
    engine = Engine(make_model(), tokenizer, "cpu")
    columns = engine.generate([1, 2], SamplingParams(max_new_tokens=50), num_samples=3)
    assert not engine.busy  # the work begins with the first column
    next(columns)
    columns.close()  # type: ignore[attr-defined]
    engine.step()
    assert not engine.busy


def test_a_long_prompt_does_not_hold_up_the_others(make_model: Make, tokenizer: Tokenizer) -> None:
    engine = Engine(make_model(), tokenizer, "cpu", prefill_tokens=20)
    first = engine.submit([1, 2], SamplingParams(max_new_tokens=40, temperature=0.0, seed=1))[0]
    engine.step()
    second = engine.submit([3] * 100, SamplingParams(max_new_tokens=3, temperature=0.0))[0]
    before = len(first.tokens)
    while not second.tokens and first.finish is None:
        engine.step()
    assert len(first.tokens) - before >= 4  # one for each chunk but the last


def test_more_samples_than_rows(make_model: Make, tokenizer: Tokenizer) -> None:
    params = SamplingParams(max_new_tokens=6, temperature=1.0, seed=9)
    wide, narrow = (Engine(make_model(), tokenizer, "cpu", max_rows=n) for n in (32, 3))
    columns = list(wide.generate([1, 2, 3], params, num_samples=10))
    assert columns == list(narrow.generate([1, 2, 3], params, num_samples=10))
    assert len({token.id for token in columns[0] if token}) > 3


def test_memory_is_bounded_and_follows_what_is_asked(make_model: Make, tokenizer: Tokenizer) -> None:
    """A budget of four rows of 256 positions: never more, though eight are asked for; one longer request takes all."""
    model = make_model(seq_len=128)
    position = 2 * 4 * model.dims.n_layer * model.dims.n_kv_head * model.dims.head_dim
    engine = Engine(model, tokenizer, "cpu", cache_bytes=4 * 256 * position)
    sequences = [engine.submit(p, SamplingParams(max_new_tokens=8, temperature=0.0))[0] for p in prompts_of(8, 9)]
    most = 0
    while engine.busy:
        engine.step()
        cache = engine._batch._cache
        most = max(most, len(engine._batch.live))
        assert 2 * cache.k.numel() * 4 <= 4 * 256 * position
    assert most == 4 and all(len(s.tokens) == 8 or s.finish == "stop" for s in sequences)
    long = [3] * 1100
    check_greedy(model, long, engine.generate_batch([long], SamplingParams(max_new_tokens=8, temperature=0.0))[0])


def test_growing_while_others_write(make_model: Make, tokenizer: Tokenizer) -> None:
    """Longer and more sequences join live ones, whose cache has to move, what a penalty has seen included."""
    model = make_model(seq_len=128)
    engine = Engine(model, tokenizer, "cpu")
    strict = SamplingParams(max_new_tokens=30, temperature=0.0, repetition_penalty=100.0)
    first = engine.submit([1, 2], strict)[0]
    for _ in range(5):
        engine.step()
    others = [engine.submit([8] * n, SamplingParams(max_new_tokens=5, temperature=0.0))[0] for n in (3, 400, 20)]
    finish(engine)
    assert len(set(ids(first))) == len(first.tokens) > 20
    for n, other in zip((3, 400, 20), others, strict=True):
        check_greedy(model, [8] * n, ids(other))


def test_logits_that_are_no_numbers_end_everything(make_model: Make, tokenizer: Tokenizer) -> None:
    model = make_model()
    engine, params = Engine(model, tokenizer, "cpu"), SamplingParams(max_new_tokens=5)
    sequences = [engine.submit(prompt, params)[0] for prompt in ([1], [2, 3])]
    engine.step()
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    with pytest.raises(CorruptError, match="not finite numbers"):
        engine.step()
    assert {s.finish for s in sequences} == {"cancelled"}
    engine.step()
    assert not engine.busy


@pytest.mark.parametrize("bad", [-1, 10_000])
def test_ids_outside_the_vocabulary_are_refused(make_model: Make, tokenizer: Tokenizer, bad: int) -> None:
    with pytest.raises(ConfigError, match=rf"{bad}.*this model has 0 to {tokenizer.vocab_size - 1}"):
        Engine(make_model(), tokenizer, "cpu").submit([5, bad], SamplingParams(max_new_tokens=1))
    with pytest.raises(ConfigError, match="num_samples=0"):
        Engine(make_model(), tokenizer, "cpu").submit([5], SamplingParams(max_new_tokens=1), num_samples=0)

from collections.abc import Callable

import pytest
import torch

from nanochat.engine.engine import Engine
from nanochat.engine.row import Token
from nanochat.engine.sampling import SamplingParams
from nanochat.errors import ConfigError
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer

Make = Callable[..., GPT]


def greedily(count: int) -> SamplingParams:
    return SamplingParams(max_new_tokens=count, temperature=0.0)


def random_prompts(count: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 20, (count,), generator=generator).tolist()
    return [torch.randint(256, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def greedy(model: GPT, prompt: list[int], count: int, stops: set[int]) -> list[int]:
    """The plain forward pass over everything so far, once per token."""
    ids = list(prompt)
    while len(ids) < len(prompt) + count:
        token = int(model(torch.tensor([ids]))[0, -1].argmax())
        if token in stops:
            break
        ids.append(token)
    return ids[len(prompt) :]


def stops_of(tokenizer: Tokenizer) -> set[int]:
    return {tokenizer.bos, tokenizer.special("<|assistant_end|>")}


@pytest.mark.parametrize("n_kv_head", [4, 2, 1])
@pytest.mark.parametrize("rows", [1, 4, 32])
def test_greedy_equals_the_full_forward(make_model: Make, tokenizer: Tokenizer, n_kv_head: int, rows: int) -> None:
    model = make_model(n_kv_head)
    prompts = random_prompts(9, seed=n_kv_head)
    got = Engine(model, tokenizer, "cpu", max_rows=rows).generate_batch(prompts, greedily(12))
    assert got == [greedy(model, prompt, 12, stops_of(tokenizer)) for prompt in prompts]


def test_greedy_batch_in_which_rows_stop_at_different_times(make_model: Make, tokenizer: Tokenizer) -> None:
    """A head that likes the stop token makes rows leave the batch one by one."""
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[tokenizer.bos] *= 3
    prompts = random_prompts(24, seed=5)
    expected = [greedy(model, prompt, 30, stops_of(tokenizer)) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 5
    assert Engine(model, tokenizer, "cpu").generate_batch(prompts, greedily(30)) == expected


def test_generate_equals_the_batch(make_model: Make, tokenizer: Tokenizer) -> None:
    engine, prompt = Engine(make_model(), tokenizer, "cpu"), random_prompts(1, seed=6)[0]
    columns = list(engine.generate(prompt, greedily(8), num_samples=3))
    expected = engine.generate_batch([prompt], greedily(8))[0]
    for sample in range(3):
        assert [column[sample] for column in columns] == [Token(i, False) for i in expected]


def test_samples_differ_from_the_first_token_on(make_model: Make, tokenizer: Tokenizer) -> None:
    engine = Engine(make_model(), tokenizer, "cpu")
    columns = list(engine.generate([1, 2, 3], SamplingParams(max_new_tokens=4, temperature=1.0), num_samples=16))
    assert all(len({token.id for token in column if token}) > 4 for column in columns)


def test_seed_decides_the_samples(make_model: Make, tokenizer: Tokenizer) -> None:
    engine = Engine(make_model(), tokenizer, "cpu")
    runs = [
        list(engine.generate([1, 2], SamplingParams(max_new_tokens=6, seed=seed), num_samples=4)) for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_tool_output_is_forced_and_read_back(scripted: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    call = [tokenizer.special("<|python_start|>"), *b"12*12", tokenizer.special("<|python_end|>")]
    output = [tokenizer.special("<|output_start|>"), *b"144", tokenizer.special("<|output_end|>")]
    end = tokenizer.special("<|assistant_end|>")
    # where the tool speaks, the model would have said "?"
    model = scripted([*b"so ", *call, *b"?????", *b"ok", end, *b"never"], prompt=4)
    columns = list(Engine(model, tokenizer, "cpu").generate([1, 2, 3, 4], greedily(50)))
    said = [token for (token,) in columns]
    assert said == [
        *(Token(i, False) for i in [*b"so ", *call]),
        *(Token(i, True) for i in output),
        *(Token(i, False) for i in [*b"ok", end]),
    ]
    assert [i for ids in model.seen for i in ids] == [1, 2, 3, 4, *(token.id for token in said[:-1])]


@pytest.mark.parametrize("text", [b"2**2", b"import os", b"", b"\xff\xfe"])
def test_a_call_without_an_answer_goes_on(scripted: Callable[..., GPT], tokenizer: Tokenizer, text: bytes) -> None:
    script = [tokenizer.special("<|python_start|>"), *text, tokenizer.special("<|python_end|>"), *b"hm", tokenizer.bos]
    answers = Engine(scripted(script, prompt=2), tokenizer, "cpu").generate_batch(
        [[1, 2]], SamplingParams(max_new_tokens=50)
    )
    assert answers == [script[:-1]]


def test_finished_rows_are_none(make_model: Make, tokenizer: Tokenizer) -> None:
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[tokenizer.bos] *= 3
    columns = list(
        Engine(model, tokenizer, "cpu").generate(
            [5], SamplingParams(max_new_tokens=40, temperature=1.5), num_samples=12
        )
    )
    for sample in range(12):
        tokens = [column[sample] for column in columns]
        alive = [token for token in tokens if token is not None]
        assert tokens == alive + [None] * (len(tokens) - len(alive))
        assert all(token.id not in stops_of(tokenizer) for token in alive[:-1])
    assert any(None in column for column in columns)


def test_never_beyond_the_last_position(make_model: Make, tokenizer: Tokenizer) -> None:
    engine = Engine(make_model(seq_len=2), tokenizer, "cpu")
    assert engine.model.max_positions == 20
    assert len(list(engine.generate([1] * 15, SamplingParams(max_new_tokens=100, seed=3)))) <= 5
    assert list(engine.generate([1], SamplingParams(max_new_tokens=0))) == []


def test_impossible_prompts_are_refused_at_once(make_model: Make, tokenizer: Tokenizer) -> None:
    engine = Engine(make_model(seq_len=2), tokenizer, "cpu")
    with pytest.raises(ConfigError, match="empty prompt"):
        engine.generate([], SamplingParams(max_new_tokens=1))
    with pytest.raises(ConfigError, match="20 tokens is too long"):
        engine.generate([1] * 20, SamplingParams(max_new_tokens=1))
    with pytest.raises(ConfigError, match="temperature=-1"):
        engine.generate([1], SamplingParams(max_new_tokens=1, temperature=-1))
    assert engine.generate_batch([], SamplingParams(max_new_tokens=4)) == []

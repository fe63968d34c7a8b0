"""What only a GPU can show. Skipped where there is none."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch

from nanochat.engine.engine import Engine
from nanochat.engine.noise import gumbel
from nanochat.engine.sampling import Mode, SamplingParams, Settings, _pick, draw
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import Tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
CUDA = torch.device("cuda")
MODERN = {
    "window_pattern": "SL",
    "value_embeds": True,
    "residual_scalars": True,
    "smear": True,
    "backout": True,
    "qk_scale": 1.2,
    "vocab_multiple": 64,
}


def random_prompts(count: int, longest: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [torch.randint(256, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt", "gqa", "mqa", "modern"])
@pytest.mark.parametrize("rows", [1, 2, 4, 7, 16, 40])
def test_greedy_equals_the_full_forward(
    make_model: Callable[..., GPT], tokenizer: Tokenizer, kind: str, rows: int
) -> None:
    """In float32 token by token; prompts beyond a window of 128, more requests than rows, some in several chunks."""
    heads = {"gpt": 4, "gqa": 2, "mqa": 1, "modern": 2}[kind]
    model = make_model(heads, **(MODERN if kind == "modern" else {})).to("cuda")
    prompts = random_prompts(12 if rows < 8 else 40, 300, seed=heads)
    engine = Engine(model, tokenizer, "cuda", max_rows=rows, prefill_tokens=256)
    answers = engine.generate_batch(prompts, SamplingParams(max_new_tokens=20, temperature=0.0))
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = model(torch.tensor([prompt + answer], device="cuda"))[0]
        assert logits.argmax(-1).tolist()[len(prompt) - 1 : -1] == answer
    assert sum(map(len, answers)) > 5 * len(prompts)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt", "modern"])
def test_bfloat16_stays_within_noise(make_model: Callable[..., GPT], tokenizer: Tokenizer, kind: str) -> None:
    """Where the choice differs from the full forward's, its logit is next to the largest."""
    model = make_model(2, **(MODERN if kind == "modern" else {})).to("cuda")
    model.wte.to(torch.bfloat16)
    for module in model.modules():
        if hasattr(module, "table"):
            module.table.to(torch.bfloat16)
    prompts = random_prompts(8, 200, seed=3)
    for rows in (1, 8):
        engine = Engine(model, tokenizer, "cuda", max_rows=rows)
        answers = engine.generate_batch(prompts, SamplingParams(max_new_tokens=20, temperature=0.0))
        for prompt, answer in zip(prompts, answers, strict=True):
            logits = model(torch.tensor([prompt + answer], device="cuda"))[0, len(prompt) - 1 : -1]
            chosen = logits.gather(-1, torch.tensor(answer, device="cuda")[:, None])[:, 0]
            assert bool((logits.amax(-1) - chosen < 0.15).all())


def test_draws_are_those_of_the_plain_way() -> None:
    """The same ids from the kernels as from operations of torch, on the same logits."""
    generator = torch.Generator(CUDA).manual_seed(0)
    settings = [
        (1.0, None, 1.0, 0.0, 1.0),
        (0.0, 5, 1.0, 0.0, 1.0),
        (0.7, 50, 1.0, 0.0, 1.0),
        (1.3, None, 0.9, 0.0, 1.0),
    ]
    settings += [(1.0, None, 1.0, 0.1, 1.0), (0.9, 300, 0.8, 0.01, 1.5), (1e-30, None, 1.0, 0.0, 1.0)]
    rows = [
        SamplingParams(max_new_tokens=1, temperature=t, top_k=k, top_p=p, min_p=m, repetition_penalty=r, seed=s)
        for s, (t, k, p, m, r) in enumerate(settings)
    ]
    agreed = total = 0
    for chosen in ([rows[0]], [rows[0], rows[1], rows[6]], rows):
        logits = 3 * torch.randn(len(chosen), 5000, generator=generator, device=CUDA)
        there = Settings.of(chosen, [11 * i + 2**40 for i in range(len(chosen))], CUDA)
        seen = torch.rand(logits.shape, generator=generator, device=CUDA) < 0.1
        mode = Mode.of(chosen, 5000)
        here = Settings(*(getattr(there, f).cpu() for f in there.__dataclass_fields__))
        for position in range(200):
            positions = torch.full((len(chosen),), position, device=CUDA)
            got = draw(logits, there, positions, seen, mode).tolist()
            expected = draw(logits.cpu(), here, positions.cpu(), seen.cpu(), mode).tolist()
            agreed += sum(a == b for a, b in zip(got, expected, strict=True))
            total += len(got)
    assert agreed >= total - 1  # a rounding of the logarithm may once turn a tie


def test_noise_has_the_same_bits_everywhere() -> None:
    keys, positions = torch.tensor([1, 2**62 + 12345]), torch.tensor([0, 20_000])
    there = gumbel(keys.to(CUDA), positions.to(CUDA), 65_536).cpu()
    torch.testing.assert_close(there, gumbel(keys, positions, 65_536), rtol=1e-4, atol=1e-5)


def test_what_is_no_number_is_refused() -> None:
    settings = Settings.of([SamplingParams(max_new_tokens=1)] * 4, [1, 2, 3, 4], CUDA)
    logits = torch.zeros(4, 9000, device=CUDA)
    logits[1, 7000], logits[2, 3], logits[3] = float("nan"), float("inf"), -float("inf")
    positions = torch.zeros(4, dtype=torch.int64, device=CUDA)
    for mode in (Mode(True, False, 0, False), Mode(False, False, 0, False), Mode(True, True, 64, False)):
        got = draw(logits, settings, positions, None, mode)
        assert (got < 0).tolist() == [False, True, True, True]
    assert (_pick(logits, settings.temperature, None, settings.key, positions, True) < 0).tolist() == (got < 0).tolist()


def test_sampling_and_seeds(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    model = make_model().to("cuda")
    params = SamplingParams(max_new_tokens=8, top_k=50, top_p=0.95, repetition_penalty=1.2, seed=3)
    columns = list(Engine(model, tokenizer, "cuda").generate([1, 2], params, num_samples=16))
    assert len({token.id for token in columns[0] if token}) > 4
    again = list(Engine(model, tokenizer, "cuda", max_rows=4).generate([1, 2], params, num_samples=16))
    plain = list(Engine(model, tokenizer, "cuda", plain=True).generate([1, 2], params, num_samples=16))
    assert columns == again == plain


def test_tool_output_is_forced_one_step_behind(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    """The token after a call was already being computed when the call was read; what follows is as on a CPU."""
    model = make_model()
    ids = [*b"s", tokenizer.special("<|python_start|>"), *b"3*4", tokenizer.special("<|python_end|>"), *b"?"]
    with torch.no_grad():  # every token alone decides the next, along the chain of ids
        for block in model.blocks:
            block.attn.o_proj.weight.zero_()
            block.mlp.down.weight.zero_()
        for before, after in pairwise(ids):
            model.lm_head.weight[after] = 5 * model.wte.weight[before]
    params = SamplingParams(max_new_tokens=16, temperature=0.0)
    expected = list(Engine(model, tokenizer, "cpu").generate([*b"s"], params))
    got = list(Engine(model.to("cuda"), tokenizer, "cuda").generate([*b"s"], params))
    assert got == expected
    assert [token.id for (token,) in got if token and token.forced][1:3] == [*b"12"]


@torch.no_grad()
def test_an_engine_sees_weights_that_change(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    model, other = make_model(seed=0).to("cuda"), make_model(seed=7).to("cuda")
    engine, params = Engine(model, tokenizer, "cuda"), SamplingParams(max_new_tokens=12, temperature=0.0)
    prompts = random_prompts(5, 20, seed=4)
    first = engine.generate_batch(prompts, params)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.copy_(theirs)
    second = engine.generate_batch(prompts, params)
    assert first != second == Engine(other, tokenizer, "cuda").generate_batch(prompts, params)


def test_cancelled_rows_leave_the_others_alone(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    model, params = make_model().to("cuda"), SamplingParams(max_new_tokens=30, temperature=0.0)
    prompts = random_prompts(6, 30, seed=9)
    expected = [Engine(model, tokenizer, "cuda").generate_batch([prompt], params)[0] for prompt in prompts]
    engine = Engine(model, tokenizer, "cuda")
    sequences = [engine.submit(prompt, params)[0] for prompt in prompts]
    for _ in range(5):
        engine.step()
    engine.cancel(sequences[0])
    engine.cancel(sequences[3])
    while engine.busy:
        engine.step()
    for i in (1, 2, 4, 5):
        assert [t.id for t in sequences[i].tokens][: len(expected[i])] == expected[i]
    assert sequences[0].finish == sequences[3].finish == "cancelled" and len(sequences[0].tokens) < 8


def test_engines_in_threads_of_their_own(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    """Replicas record graphs while others compute; each answers as it does alone."""
    prompts, params = random_prompts(24, 200, seed=11), SamplingParams(max_new_tokens=30, temperature=0.8, seed=5)
    model = make_model(4).to("cuda")
    expected = Engine(model, tokenizer, "cuda", max_rows=4).generate_batch(prompts, params)
    with ThreadPoolExecutor(3) as pool:
        engines = [Engine(model, tokenizer, "cuda", max_rows=rows) for rows in (2, 4, 8)]
        for answers in pool.map(lambda engine: engine.generate_batch(prompts, params), engines):
            assert answers == expected

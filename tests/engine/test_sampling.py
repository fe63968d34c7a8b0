"""Draws against softmax by chi-square, what is left out against slow implementations straight from the definitions."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nanochat.engine.noise import stream_key
from nanochat.engine.sampling import REFUSED, Mode, SamplingParams, Settings, check_params, draw
from nanochat.errors import ConfigError

CPU = torch.device("cpu")
PLAIN = SamplingParams(max_new_tokens=1)


def draws(logits_V: Tensor, params: SamplingParams, count: int, seen_V: Tensor | None = None) -> Tensor:
    """`count` draws from the same logits, at positions 0, 1, ..."""
    settings = Settings.of([params] * count, [stream_key(params.seed, 0)] * count, CPU)
    seen = None if seen_V is None else seen_V.expand(count, -1)
    mode = Mode.of([params], len(logits_V))
    return draw(logits_V.expand(count, -1), settings, torch.arange(count), seen, mode)


def slow_distribution(logits: list[float], params: SamplingParams, seen: set[int]) -> list[float]:
    """Penalty, temperature, min-p and top-k and then top-p among those of top-k, one token after the other."""
    values = []
    for token, logit in enumerate(logits):
        if token in seen:
            logit = logit / params.repetition_penalty if logit > 0 else logit * params.repetition_penalty
        values.append(logit / params.temperature)
    best = max(values)
    order = sorted(range(len(values)), key=lambda token: -values[token])[: params.top_k or len(values)]
    total = sum(math.exp(values[token] - best) for token in order)
    kept, mass = set(), 0.0
    for token in order:
        if mass < params.top_p:
            kept.add(token)
        mass += math.exp(values[token] - best) / total
    kept = {token for token in kept if math.exp(values[token] - best) >= params.min_p}
    total = sum(math.exp(values[token] - best) for token in kept)
    return [math.exp(v - best) / total if token in kept else 0.0 for token, v in enumerate(values)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8},
        {"top_k": 12, "top_p": 0.7, "temperature": 1.5},
        {"min_p": 0.2},
        {"min_p": 0.05, "top_p": 0.9, "top_k": 9},
        {"repetition_penalty": 1.8},
        {"repetition_penalty": 0.6, "temperature": 1.3, "top_p": 0.95},
    ],
)
def test_draws_follow_the_slow_distribution(changes: dict[str, float]) -> None:
    params, count = replace(PLAIN, **changes), 30_000
    logits = 1.5 * torch.randn(20, generator=torch.Generator().manual_seed(len(changes)))
    seen = torch.zeros(20, dtype=torch.bool)
    seen[::3] = True
    found = draws(logits, params, count, seen).bincount(minlength=20).tolist()
    expected = slow_distribution(logits.tolist(), params, set(range(0, 20, 3)))
    assert [p == 0 for p in expected] == [
        n == 0 if p * count > 10 or p == 0 else False for n, p in zip(found, expected, strict=True)
    ]
    cells = [(n, p * count) for n, p in zip(found, expected, strict=True) if p * count >= 5]
    chi_square = sum((n - e) ** 2 / e for n, e in cells)
    freedom = max(1, len(cells) - 1)
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 4  # four standard deviations of chi-square


def test_temperature_zero_is_argmax() -> None:
    logits = torch.randn(5, 11)
    params = [replace(PLAIN, temperature=0.0, top_k=3)] * 5
    got = draw(logits, Settings.of(params, [0] * 5, CPU), torch.zeros(5, dtype=torch.int64), None, Mode.of(params, 11))
    assert torch.equal(got, logits.argmax(-1)) and Mode.of(params, 11) == Mode(False, False, 0, False)


@pytest.mark.parametrize("temperature", [1e-4, 1e-30, 1e-45])
def test_tiny_temperatures_are_greedy_and_finite(temperature: float) -> None:
    logits = torch.randn(90)
    assert set(draws(logits, replace(PLAIN, temperature=temperature, top_p=0.9), 20).tolist()) == {int(logits.argmax())}


@pytest.mark.parametrize("top_k", [0, None, 4, 100])
def test_top_k_of_everything_changes_nothing(top_k: int | None) -> None:
    assert set(draws(torch.zeros(4), replace(PLAIN, top_k=top_k), 200).tolist()) == {0, 1, 2, 3}


def test_of_equal_logits_all_are_kept() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0, 3.0, 0.0])
    assert set(draws(logits, replace(PLAIN, top_k=2), 300).tolist()) == {1, 2, 3}


def test_a_row_draws_the_same_beside_any_neighbours() -> None:
    """Other settings beside it, other places, more candidates: nothing of that is seen in a row."""
    logits = 3 * torch.randn(6, 300, generator=torch.Generator().manual_seed(3))
    params = [
        replace(PLAIN, top_k=5), replace(PLAIN, temperature=0.0), replace(PLAIN, top_p=0.5), PLAIN,
        replace(PLAIN, min_p=0.1), replace(PLAIN, top_k=200, top_p=0.9, repetition_penalty=2.0),
    ]  # fmt: skip
    keys, seen = [stream_key(7, s) for s in range(6)], torch.rand(6, 300) < 0.5
    for position in range(40):
        at = torch.full((6,), position)
        together = draw(logits, Settings.of(params, keys, CPU), at, seen, Mode.of(params, 300)).tolist()
        for i in range(6):
            settings = Settings.of(params[i : i + 1], keys[i : i + 1], CPU)
            mode = Mode.of(params[i : i + 1], 300)
            assert together[i] == int(draw(logits[i : i + 1], settings, at[:1], seen[i : i + 1], mode))


def test_what_is_no_number_is_refused() -> None:
    logits = torch.zeros(4, 10)
    logits[1, 3], logits[2, 3], logits[3] = float("nan"), float("inf"), -float("inf")
    for params in (PLAIN, replace(PLAIN, temperature=0.0), replace(PLAIN, top_p=0.5)):
        settings = Settings.of([params] * 4, [1] * 4, CPU)
        got = draw(logits, settings, torch.zeros(4, dtype=torch.int64), None, Mode.of([params], 10)).tolist()
        assert got[0] >= 0 and got[1:] == [REFUSED] * 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("top_k", -1),
        ("top_p", 0.0), ("top_p", 1.1), ("top_p", float("nan")), ("min_p", -0.1), ("min_p", 2.0),
        ("repetition_penalty", 0.0), ("repetition_penalty", float("inf")),
        ("repetition_penalty", 1e-300), ("top_k", 10**23), ("max_new_tokens", -1), ("seed", 2**63),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name_and_value(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}={value} must"):
        check_params(replace(PLAIN, **{key: value}))

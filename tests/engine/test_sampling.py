import pytest
import torch

from nanochat.engine.sampling import sample
from nanochat.errors import ConfigError


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_temperature_zero_is_argmax() -> None:
    logits = torch.randn(5, 11)
    assert torch.equal(sample(logits, 0.0, 3, rng()), logits.argmax(-1))


def test_frequencies_are_those_of_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    drawn = sample(logits.expand(40_000, 4), 0.7, None, rng())
    torch.testing.assert_close(drawn.bincount(minlength=4) / 40_000, (logits / 0.7).softmax(-1), atol=0.01, rtol=0)


def test_top_k_leaves_the_rest_out_and_renormalises() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0])
    drawn = sample(logits.expand(40_000, 4), 1.0, 2, rng())
    p = torch.tensor([3.0, 2.0]).softmax(-1)
    expected = torch.tensor([0, p[0], 0, p[1]])
    torch.testing.assert_close(drawn.bincount(minlength=4) / 40_000, expected, atol=0.01, rtol=0)


def test_rows_are_drawn_on_their_own() -> None:
    assert len(set(sample(torch.zeros(64, 50), 1.0, None, rng()).tolist())) > 20


@pytest.mark.parametrize("top_k", [0, None, 4, 100])
def test_top_k_of_everything_changes_nothing(top_k: int | None) -> None:
    assert set(sample(torch.zeros(200, 4), 1.0, top_k, rng()).tolist()) == {0, 1, 2, 3}


def test_tiny_temperatures_are_greedy_and_finite() -> None:
    logits = torch.randn(7, 9)
    for temperature in (1e-4, 1e-30, 1e-45):
        assert torch.equal(sample(logits, temperature, None, rng()), logits.argmax(-1))


def test_same_seed_same_tokens() -> None:
    logits = torch.randn(3, 50)
    assert torch.equal(sample(logits, 1.0, 10, rng()), sample(logits, 1.0, 10, rng()))


@pytest.mark.parametrize(("temperature", "top_k"), [(-0.1, None), (float("nan"), None), (float("inf"), 5), (1.0, -1)])
def test_nonsense_is_refused(temperature: float, top_k: int | None) -> None:
    with pytest.raises(ConfigError, match=r"temperature=|top_k="):
        sample(torch.zeros(1, 4), temperature, top_k, rng())

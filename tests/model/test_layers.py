import numpy as np
import pytest
import torch

from nanochat.model.layers import Linear, apply_rotary, rms_norm, rotary_tables, softcap


def rotated(x: np.ndarray, position: int, base: float) -> np.ndarray:
    """Rotary in complex numbers: pair i is x1 + i x2, turned by -position * base^(-2i/E)."""
    half = len(x) // 2
    angle = position * base ** (-2 * np.arange(half) / len(x))
    z = (x[:half] + 1j * x[half:]) * np.exp(-1j * angle)
    return np.concatenate([z.real, z.imag])


@pytest.mark.parametrize("base", [10_000.0, 100_000.0])
def test_rotary_is_a_turn_of_complex_numbers(base: float) -> None:
    x = torch.randn(2, 40, 3, 8)
    cos, sin = rotary_tables(40, 8, base, torch.float32)
    y = apply_rotary(x, cos[:, None], sin[:, None])
    for t in (0, 1, 17, 39):
        np.testing.assert_allclose(y[1, t, 2], rotated(x[1, t, 2].double().numpy(), t, base), atol=1e-5)


def test_rotary_scores_depend_on_distance_only() -> None:
    q, k = torch.randn(8), torch.randn(8)
    cos, sin = rotary_tables(100, 8, 10_000.0, torch.float32)

    def score(i: int, j: int) -> float:
        turned = [apply_rotary(x.view(1, 1, 1, 8), cos[at], sin[at]) for x, at in ((q, i), (k, j))]
        return float((turned[0] * turned[1]).sum())

    assert score(7, 3) == pytest.approx(score(94, 90), abs=1e-4)
    assert score(7, 3) != pytest.approx(score(8, 3), abs=1e-3)


def test_far_rotary_angles_are_exact() -> None:
    """An angle of 20,479 radians computed in fp32 would be off by 1e-3."""
    cos, _ = rotary_tables(20_480, 8, 10_000.0, torch.float32)
    exact = np.cos(20_479 * 10_000.0 ** (-np.arange(4) / 4))
    np.testing.assert_allclose(cos[20_479, :4], exact, atol=1e-7)


def test_rms_norm_of_bf16_is_computed_in_fp32() -> None:
    x = torch.randn(4, 1000).bfloat16() * 30
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert rms_norm(x, 1e-6).dtype == torch.bfloat16
    torch.testing.assert_close(rms_norm(x, 1e-6), exact.bfloat16(), rtol=0, atol=0)


def test_rms_norm_of_zeros_is_zero() -> None:
    assert rms_norm(torch.zeros(2, 8), 1e-6).abs().max() == 0


def test_linear_computes_in_the_dtype_of_its_input() -> None:
    layer = Linear(8, 4)
    torch.nn.init.normal_(layer.weight)
    y = layer(torch.randn(3, 8, dtype=torch.bfloat16))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


def test_softcap_bounds_and_is_fp32() -> None:
    x = torch.tensor([-1e4, -3.0, 0.0, 3.0, 1e4], dtype=torch.bfloat16)
    y = softcap(x.clone(), 15.0)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, 15 * torch.tanh(x.float() / 15))
    torch.testing.assert_close(softcap(x.clone(), 0.0), x.float())

"""Each step of muon_modern against arithmetic written out in float64, then all of them together over many updates."""

from dataclasses import replace
from math import cos, pi, sqrt

import pytest
import torch
from torch import Tensor

from nanochat.optim import muon_modern
from nanochat.optim.muon import orthogonalize
from nanochat.optim.muon_modern import (
    POLAR_EXPRESS,
    MuonModernGroup,
    MuonModernSettings,
    equilibrate,
    even_neurons_,
    with_norm,
)
from nanochat.plan.schedules import StepRates

SHAPES = [(16, 16), (48, 16), (16, 48), (6, 12), (1, 12)]
SETTINGS = MuonModernSettings(0.02, 0.28, 0.97, 5, torch.float32, 0.9)


COEFFICIENTS = (  # as published, once more: a digit that is wrong would change little enough to be missed
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def size(x: Tensor) -> Tensor:
    """The Frobenius norm of each matrix."""
    return x.square().sum((-2, -1), keepdim=True).sqrt()


def reference(p: Tensor, grads: list[Tensor], rates: list[StepRates], settings: MuonModernSettings) -> Tensor:
    """One matrix in float64, by singular values: a polynomial of a matrix is one of them."""
    p = p.double()
    buffer, square, (rows, cols) = torch.zeros_like(p), 0.0, p.shape
    for grad, told in zip(grads, rates, strict=True):
        m = settings.momentum if told.momentum is None else told.momentum
        buffer = m * buffer + (1 - m) * grad.double()
        u = m * buffer + (1 - m) * grad.double()
        u = u / u.norm(dim=1, keepdim=True) * u.norm() / sqrt(rows)
        left, s, right = torch.linalg.svd(u / (1.01 * u.norm() + 1e-6), full_matrices=False)
        for a, b, c in COEFFICIENTS[: settings.ns_steps]:
            s = a * s + b * s**3 + c * s**5
        u = left @ s.diag() @ right
        u = u * sqrt(min(rows, cols)) / u.norm()
        means = u.square().mean(1, keepdim=True) if rows >= cols else u.square().mean(0, keepdim=True)
        square = settings.variance_beta * square + (1 - settings.variance_beta) * means
        even = u / square.clamp(min=1e-10).sqrt()
        u = even * u.norm() / even.norm()
        lr = settings.lr * told.lr_factor * sqrt(max(1, rows / cols))
        p = p - lr * (u + settings.weight_decay * told.decay_factor * p * (u * p >= 0))
    return p


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_reference(shape: tuple[int, int]) -> None:
    """In float64 throughout: in float32 a weight of about 0 may decay in one and not in the other."""
    start = [random(*shape, seed=n).double() for n in range(3)]
    grads = [random(12, *shape, seed=10 + n).double() for n in range(3)]
    rates = [StepRates(1 - s / 24, 0.85 + s / 100, (1 + cos(pi * s / 12)) / 2) for s in range(11)] + [StepRates(0.5)]
    ours = {str(n): p.clone() for n, p in enumerate(start)}
    settings = replace(SETTINGS, ns_dtype=torch.float64)
    group = MuonModernGroup(ours, settings)
    for s, told in enumerate(rates):
        group.update({str(n): grad[s].clone() for n, grad in enumerate(grads)}, s + 1, told)
    for n, p in enumerate(start):
        wanted = reference(p, list(grads[n]), rates, settings)
        torch.testing.assert_close(ours[str(n)], wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("dtype", "distance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("shape", [(48, 16), (16, 48)], ids=str)
def test_lower_precision_is_close(shape: tuple[int, int], dtype: torch.dtype, distance: float) -> None:
    """bfloat16 is rougher than in the original Muon: the first step multiplies what is near 0 by 8."""
    start, grad = random(*shape), random(*shape, seed=1)
    ours = {"p": start.clone()}
    MuonModernGroup(ours, replace(SETTINGS, ns_dtype=dtype)).update({"p": grad.clone()}, 1, StepRates(1.0))
    wanted = reference(start, [grad], [StepRates(1.0)], SETTINGS) - start
    assert float((ours["p"] - start - wanted).norm() / wanted.norm()) < distance


def test_rows_get_one_length() -> None:
    x = random(2, 4, 6) * torch.tensor([1e-3, 1.0, 5.0, 100.0])[:, None]
    y = equilibrate(x)
    lengths = y.norm(dim=-1)
    torch.testing.assert_close(lengths, (size(x)[..., 0] / 2).expand(2, 4))
    torch.testing.assert_close(size(y), size(x))
    torch.testing.assert_close(y / lengths[..., None], x / x.norm(dim=-1, keepdim=True))
    x[0, 2] = 0.0  # a row without a gradient stays without
    assert equilibrate(x).isfinite().all() and not equilibrate(x)[0, 2].any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_singular_values_come_close_to_1(shape: tuple[int, int]) -> None:
    """Down to a thousandth of the norm; the original's end between 0.7 and 1.2."""
    left, s, right = torch.linalg.svd(random(1, *shape, seed=2), full_matrices=False)
    x = left @ torch.diag_embed(torch.logspace(0, -2.5, s.shape[-1])[None]) @ right
    values = torch.linalg.svdvals(orthogonalize(x, POLAR_EXPRESS, torch.float32, margin=1.01, eps=1e-6))
    assert float((values - 1).abs().max()) < 0.15


def test_the_margin_bounds_the_largest_singular_value() -> None:
    """Of a matrix of rank 1 the largest is the Frobenius norm itself."""
    x = torch.outer(random(8), random(8, seed=1))[None]
    a, b, c = POLAR_EXPRESS[0]
    s = 1 / 1.01
    made = orthogonalize(x, POLAR_EXPRESS[:1], torch.float32, margin=muon_modern.MARGIN, eps=muon_modern.NORM_EPS)
    torch.testing.assert_close(torch.linalg.svdvals(made)[0, 0], torch.tensor(a * s + b * s**3 + c * s**5))


@pytest.mark.parametrize(("shape", "axis"), [((8, 4), -1), ((4, 4), -1), ((4, 8), -2)])
def test_neurons_become_even(shape: tuple[int, int], axis: int) -> None:
    """After one update the mean square of each row of a tall matrix, each column of a wide one, is the same."""
    x = random(2, *shape) * torch.linspace(0.1, 3, shape[0])[:, None]
    state = torch.zeros_like(x.mean(axis, keepdim=True))
    y = even_neurons_(x, state, 0.9)
    means = y.square().mean(axis)
    torch.testing.assert_close(means, means.mean(-1, keepdim=True).expand_as(means))
    torch.testing.assert_close(size(y), size(x))
    torch.testing.assert_close(state, 0.1 * x.square().mean(axis, keepdim=True))


def test_the_norm_is_that_of_an_orthogonal_matrix() -> None:
    assert with_norm(random(3, 4, 9), 2.0).norm(dim=(-2, -1)).tolist() == pytest.approx([2, 2, 2])


def test_decay_where_the_update_shrinks_the_weight_only() -> None:
    """The first update of [[1, 1]] by a gradient of one sign each: only the weight that is pushed to 0 decays."""
    moved = []
    for decay in (0.0, 0.5):
        p = {"p": torch.tensor([[2.0, 2.0]])}
        settings = MuonModernSettings(0.1, decay, 0.9, 5, torch.float32, 0.9)
        MuonModernGroup(p, settings).update({"p": torch.tensor([[1.0, -1.0]])}, 1, StepRates(1.0))
        moved.append(p["p"][0])
    assert (moved[1] - moved[0]).tolist() == pytest.approx([-0.1 * 0.5 * 2.0, 0.0])


def test_no_gradient_moves_nothing_but_by_decay() -> None:
    p = {"p": torch.ones(4, 4)}
    group = MuonModernGroup(p, SETTINGS)
    group.update({"p": torch.zeros(4, 4)}, 1, StepRates(1.0, 0.9, 0.0))
    assert torch.equal(p["p"], torch.ones(4, 4))
    group.update({"p": torch.zeros(4, 4)}, 2, StepRates(0.5, 0.9, 0.5))
    torch.testing.assert_close(p["p"], torch.full((4, 4), 1 - 0.01 * 0.14))


def test_the_state_has_names_and_shapes() -> None:
    group = MuonModernGroup({"a": random(8, 4), "b": random(8, 4)}, SETTINGS)
    shapes = {name: tuple(t.shape) for name, t in group.state_tensors().items()}
    assert shapes == {**{f"{n}/momentum": (8, 4) for n in "ab"}, **{f"{n}/mean_square": (8, 1) for n in "ab"}}
    wide = MuonModernGroup({"a": random(4, 8)}, SETTINGS).state_tensors()
    assert wide["a/mean_square"].shape == (1, 8)

from math import sqrt

import pytest
import torch

from nanochat.optim import muon
from nanochat.optim.muon import MuonGroup, MuonSettings, orthogonalize, stacks
from nanochat.plan.schedules import StepRates

SHAPES = [(16, 16), (48, 16), (16, 48)]


def run_both(dtype: torch.dtype, shape: tuple[int, int], steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Some steps of ours on three stacked matrices, and of torch.optim.Muon on each; stacked results."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(3, *shape, generator=generator)
    ours = {str(i): p.clone() for i, p in enumerate(start)}
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    group = MuonGroup(ours, MuonSettings(lr=0.02, momentum=0.95, ns_steps=5, ns_dtype=dtype))
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.0, adjust_lr_fn="original")
    for step in range(steps):
        grads = torch.randn(start.shape, generator=generator)
        momentum = 0.85 + 0.01 * step
        for p, grad in zip(theirs, grads, strict=True):
            p.grad = grad.clone()
        reference.param_groups[0] |= {"momentum": momentum, "lr": 0.02 * 0.9**step}
        reference.step()
        group.update({str(i): g.clone() for i, g in enumerate(grads)}, step + 1, StepRates(0.9**step, momentum))
    return torch.stack(list(ours.values())) - start, torch.stack([p.detach() for p in theirs]) - start


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_in_float32(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.optim.Muon casts to bfloat16; without that cast both compute the same in fp32."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    ours, theirs = run_both(torch.float32, shape, 10)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_in_bfloat16_up_to_rounding(shape: tuple[int, int]) -> None:
    ours, theirs = run_both(torch.bfloat16, shape, 1)
    assert float((ours - theirs).norm() / theirs.norm()) < 0.03


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalize_keeps_the_singular_vectors(shape: tuple[int, int]) -> None:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    y = orthogonalize(x, [muon.NS_COEFFICIENTS] * 5, torch.float32)
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ y @ vh.mT
    values = inner.diagonal(dim1=-2, dim2=-1)
    assert float((inner - torch.diag_embed(values)).abs().max()) < 1e-3
    assert float(values.min()) > 0.3 and float(values.max()) < 1.25


def test_one_step_is_the_quintic_on_singular_values() -> None:
    x = torch.diag(torch.tensor([3.0, 4.0]))[None]
    s = torch.tensor([0.6, 0.8])
    a, b, c = muon.NS_COEFFICIENTS
    torch.testing.assert_close(orthogonalize(x, [(a, b, c)], torch.float32)[0].diag(), a * s + b * s**3 + c * s**5)


def test_zero_gradient_does_not_move() -> None:
    p = torch.ones(4, 4)
    group = MuonGroup({"p": p}, MuonSettings(0.02, 0.95, 5, torch.bfloat16))
    group.update({"p": torch.zeros(4, 4)}, 1, StepRates(1.0))
    assert torch.equal(p, torch.ones(4, 4))


@pytest.mark.parametrize("shape", SHAPES)
def test_size_of_an_update(shape: tuple[int, int]) -> None:
    """Every update has singular values of about lr * sqrt(max(1, rows/cols)), however small the gradient."""
    p = torch.zeros(shape)
    group = MuonGroup({"p": p}, MuonSettings(0.02, 0.95, 5, torch.float32))
    group.update({"p": 1e-4 * torch.randn(shape, generator=torch.Generator().manual_seed(3))}, 1, StepRates(0.5))
    spread = torch.linalg.svdvals(p) / (0.01 * sqrt(max(1, shape[0] / shape[1])))
    assert float(spread.min()) > 0.3 and float(spread.max()) < 1.25


def test_stacks_are_of_one_shape_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "STACK_ELEMENTS", 40)
    members = {f"{shape}{i}": torch.zeros(shape) for i in range(5) for shape in ((4, 4), (4, 16))}
    groups = stacks(members)
    assert sorted(name for group in groups for name in group) == sorted(members)
    assert all(len({p.shape for p in group.values()}) == 1 for group in groups)
    assert sorted(len(group) for group in groups) == [1, 1, 1, 1, 1, 1, 2, 2]


def test_only_matrices() -> None:
    with pytest.raises(AssertionError, match="bias"):
        stacks({"bias": torch.zeros(4)})

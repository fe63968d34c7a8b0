import pytest
import torch

from nanochat.optim.adamw import AdamWGroup, AdamWSettings
from nanochat.plan.schedules import StepRates


def run_both(settings: AdamWSettings, grad_scale: float, dtype: torch.dtype = torch.float32) -> list[tuple]:
    """Fifty steps of ours and of torch.optim.AdamW with a moving rate; pairs of (ours, theirs) per parameter."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (4,), (2, 2, 2), (7, 3)]
    start = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    ours = {str(i): p.clone() for i, p in enumerate(start)}
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    group = AdamWGroup(ours, settings)
    reference = torch.optim.AdamW(
        theirs,
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        foreach=False,
    )
    for step in range(1, 51):
        factor = 1 / step
        grads = [torch.randn(p.shape, generator=generator).to(dtype) * grad_scale for p in start]
        for p, grad in zip(theirs, grads, strict=True):
            p.grad = grad.clone()
        reference.param_groups[0]["lr"] = settings.lr * factor
        reference.step()
        group.update(dict(zip(ours, grads, strict=True)), step, StepRates(factor))
    return list(zip(ours.values(), (p.detach() for p in theirs), strict=True))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.8, 0.95), (0.9, 0.999)])
def test_equals_torch(weight_decay: float, betas: tuple[float, float]) -> None:
    for ours, theirs in run_both(AdamWSettings(0.2, *betas, 1e-10, weight_decay), 1.0):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_eps_comes_after_the_bias_correction() -> None:
    """Gradients as small as eps: adding it before the correction would change the first steps several times over."""
    for ours, theirs in run_both(AdamWSettings(0.2, 0.8, 0.999, 1e-3, 0.0), 1e-3):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_bfloat16_parameters_keep_bfloat16_moments() -> None:
    for ours, theirs in run_both(AdamWSettings(0.01, 0.8, 0.95, 1e-10, 0.01), 1.0, torch.bfloat16):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
    group = AdamWGroup({"p": torch.zeros(2, dtype=torch.bfloat16)}, AdamWSettings(0.1, 0.9, 0.9, 1e-8, 0))
    assert {t.dtype for t in group.state_tensors().values()} == {torch.bfloat16}


def test_constant_gradient_moves_by_the_learning_rate() -> None:
    p = torch.zeros(3)
    group = AdamWGroup({"p": p}, AdamWSettings(0.5, 0.8, 0.95, 1e-10, 0.0))
    for step in (1, 2, 3):
        group.update({"p": torch.tensor([1e-6, -4.0, 1e3])}, step, StepRates(0.1))
    torch.testing.assert_close(p, torch.tensor([-0.15, 0.15, -0.15]), rtol=1e-3, atol=0)

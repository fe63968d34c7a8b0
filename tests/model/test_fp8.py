"""8-bit products against an emulation of the formats in float64, and where they are used."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.model.build import use_fp8
from nanochat.model.fp8 import E4M3, E5M2, fits, fp8_linear, product, quantize
from nanochat.model.gpt import GPT
from nanochat.model.head import Terms, head_loss, summed_loss
from nanochat.model.layers import Linear
from nanochat.plan.dims import ModelDims, flops_per_token

FORMATS = {E4M3: (3, -6, 448.0), E5M2: (2, -14, 57344.0)}  # bits of mantissa, smallest exponent, largest number


def emulated(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as the format holds it, scaled by its largest number; float64. From the definition, without the format."""
    bits, lowest, top = FORMATS[dtype]
    unit = x.abs().max().float().double() / top
    scaled = (x.double().float() / unit.float()).double()
    exponent = (scaled.abs().clamp(min=1e-30).log2().floor()).clamp(min=lowest)
    step = torch.exp2(exponent - bits)
    return (scaled / step).round() * step * unit  # round to even, as the hardware


def sample(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Numbers of many magnitudes."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=draw) * torch.exp2(torch.randn(shape, generator=draw))).to(dtype)


@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rounding(dtype: torch.dtype, scale: float) -> None:
    x = sample(64, 64, dtype=torch.float32) * scale
    found = quantize(x, dtype)
    back = found.values.double() * found.unit.double()
    torch.testing.assert_close(back, emulated(x, dtype), rtol=1e-6, atol=0)
    assert float(found.values.float().abs().max()) == torch.finfo(dtype).max
    assert torch.equal(quantize(x, dtype, found.unit).values.float(), found.values.float())


def test_zeros_stay_zeros_and_what_is_not_finite_shows() -> None:
    assert float(quantize(torch.zeros(16, 16), E4M3).values.float().abs().max()) == 0
    broken = torch.ones(16, 16)
    broken[3, 4] = torch.inf
    a, b = quantize(broken, E5M2), quantize(torch.ones(16, 16), E4M3)
    assert not product(a, b, torch.float32).isfinite().all()


@pytest.mark.parametrize("dtype", [E4M3, E5M2], ids=str)
def test_product(dtype: torch.dtype) -> None:
    a, b = sample(48, 64), sample(32, 64, seed=1)
    found = product(quantize(a, dtype), quantize(b, E4M3), torch.float32)
    torch.testing.assert_close(found.double(), emulated(a, dtype) @ emulated(b, E4M3).T, rtol=1e-4, atol=1e-4)


def test_linear_forward_and_backward() -> None:
    x, weight = sample(2, 24, 64).requires_grad_(), sample(32, 64, seed=1, dtype=torch.float32).requires_grad_()
    grad = sample(2, 24, 32, seed=2)
    y = fp8_linear(x, weight)
    assert y.dtype == torch.bfloat16 and y.shape == (2, 24, 32)
    y.backward(grad)
    x_ND, w_OD = emulated(x.detach().flatten(0, 1), E4M3), emulated(weight.detach(), E4M3)
    g_NO = emulated(grad.flatten(0, 1), E5M2)
    assert x.grad is not None and weight.grad is not None and weight.grad.dtype == torch.float32
    for found, wanted, rounding in (
        (y.flatten(0, 1), x_ND @ w_OD.T, 3e-3),
        (x.grad.flatten(0, 1), g_NO @ w_OD, 3e-3),
        (weight.grad, g_NO.T @ x_ND, 1e-5),
    ):
        assert float((found.double() - wanted).norm() / wanted.norm()) < rounding


def chunk(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The size of the head's chunks of logits."""
    names = {"head._CHUNK_ELSEWHERE": size, "head_fused.CHUNK": size, "head_fused._FEWEST": 1, "head_fused._ROWS": 16}
    for name, value in names.items():
        monkeypatch.setattr(f"nanochat.model.{name}", value)


@pytest.mark.parametrize("fused", [False, True], ids=["definition", "operator"])
def test_the_head(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks too, each with its own scales, the operator of a GPU with one; close to 16 bits, and not equal."""
    if fused:
        monkeypatch.setattr("nanochat.model.head._is_fused", lambda hidden: True)
    chunk(monkeypatch, 32 * 64)
    hidden, layer, targets = sample(80, 32).requires_grad_(), Linear(32, 64), torch.randint(60, (80,))
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(3))
    results = []
    for layer.fp8 in (False, True):
        loss = head_loss(hidden, layer, targets, Terms(60, 15.0))
        results.append([loss.detach(), *torch.autograd.grad(loss, [hidden, layer.weight])])
    for plain, narrow, bound in zip(*results, (0.02, 0.15, 0.15), strict=True):
        assert 0 < float((plain - narrow).norm() / plain.norm()) < bound
    with torch.no_grad():
        assert torch.equal(*(head_loss(hidden, layer, targets, Terms(60, 15.0)) for layer.fp8 in (False, True)))


def fp8_model(make_model: Callable[..., GPT], **changes: object) -> GPT:
    model = make_model("bfloat16", **{"vocab_multiple": 64} | changes)
    use_fp8(model)
    return model


def test_only_where_gradients_are_wanted(make_model: Callable[..., GPT], modern: dict[str, object]) -> None:
    sizes = {"n_head": 2, "n_kv_head": 2, "head_dim": 16}
    model, plain = fp8_model(make_model, **modern | sizes), make_model("bfloat16", **modern | sizes)
    idx = torch.randint(61, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model(idx), plain(idx))
    assert not torch.equal(model.hidden(idx), plain.hidden(idx))
    assert torch.equal(model.hidden(idx[:, :3]), plain.hidden(idx[:, :3]))  # 6 tokens: no multiple of 16
    off = {name for name, m in model.named_modules() if isinstance(m, Linear) and not m.fp8}
    assert off == {"smear.gate", *(f"blocks.{i}.attn.value_embed.gate" for i in (0, 2, 4))}


def test_it_is_the_same_network(make_model: Callable[..., GPT], make_dims: Callable[..., ModelDims]) -> None:
    """The same parameters, names, roles and FLOPs, and nearly the same loss and gradient."""
    model, plain = fp8_model(make_model), make_model("bfloat16", vocab_multiple=64)
    assert [(n, p.shape, p.dtype) for n, p in model.named_parameters()] == [
        (n, p.shape, p.dtype) for n, p in plain.named_parameters()
    ]
    assert model.parameter_roles() == plain.parameter_roles()
    assert flops_per_token(model.dims) == flops_per_token(plain.dims)
    idx = torch.randint(61, (4, 17), generator=torch.Generator().manual_seed(1))
    grads = []
    for net in (model, plain):
        loss = summed_loss(net, idx[:, :-1], idx[:, 1:])
        loss.backward()
        grads.append(torch.cat([loss.detach().flatten(), *(p.grad.float().flatten() for p in net.parameters())]))  # type: ignore[union-attr]
    assert float(grads[0][0]) == pytest.approx(float(grads[1][0]), rel=0.03)
    assert float(F.cosine_similarity(grads[0][1:], grads[1][1:], dim=0)) > 0.9


@pytest.mark.parametrize("fused", [False, True], ids=["definition", "operator"])
def test_layouts_are_those_that_the_hardware_asks_for(
    fused: bool, make_model: Callable[..., GPT], modern: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the first matrix one after another, columns of the second, 16 bytes at a time; a CPU takes any."""
    products, by_torch = [], torch._scaled_mm

    def strict(a: Tensor, b: Tensor, **more: Any) -> Tensor:
        assert (a.stride(), b.stride()) == ((a.shape[1], 1), (1, b.shape[0]))
        assert not any(size % 16 for size in (a.shape[1], *b.shape))
        assert E4M3 in (a.dtype, b.dtype)  # there is no product of two e5m2
        assert more["out_dtype"] == torch.bfloat16 or not more["use_fast_accum"]
        products.append(a.shape)
        return by_torch(a, b, **more)

    monkeypatch.setattr(torch, "_scaled_mm", strict)
    if fused:
        monkeypatch.setattr("nanochat.model.head._is_fused", lambda hidden: True)
    chunk(monkeypatch, 16 * 64)
    model = fp8_model(make_model, **modern | {"n_head": 2, "n_kv_head": 1, "head_dim": 16})
    idx = torch.randint(61, (2, 24), generator=torch.Generator().manual_seed(1))
    summed_loss(model, idx, idx).backward()
    assert len(products) == 3 * (6 * model.dims.n_layer + 3)


def test_sizes() -> None:
    assert fits(16, 4096) and not fits(16, 24) and not fits(1)

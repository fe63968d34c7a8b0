"""The fused operators, as a CPU computes them, against plain operations and their derivatives."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat.errors import ConfigError
from nanochat.model import stream, stream_ops
from nanochat.model.gpt import GPT
from nanochat.model.head import summed_loss
from nanochat.model.layers import rotary_tables
from nanochat.model.stream import FEWEST, Fused, add_norm, fused_for, mix_norm, relu_squared, turned
from nanochat.plan.dims import ModelDims

Make = Callable[..., GPT]
MakeDims = Callable[..., ModelDims]
EPS = 1e-6


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(3)


def both(run: Callable[[bool], Any], inputs: list[Tensor]) -> None:
    """Results and gradients of run(True) are those of run(False)."""
    found = []
    for fused in (False, True):
        outputs = run(fused)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        weights = [
            torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1)) for out in outputs
        ]
        total = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
        found.append([*(out.detach() for out in outputs), *torch.autograd.grad(total, inputs)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1.2])
@pytest.mark.parametrize("rope", [torch.float32, torch.bfloat16], ids=str)
def test_turned(rope: torch.dtype, scale: float) -> None:
    """With fewer heads of keys. Tables of 16 bits do not turn exactly back, which is all that may differ."""
    q, k = draw(2, 9, 4, 32), draw(2, 9, 2, 32)
    tables = tuple(table[:9, None].double() for table in rotary_tables(20, 32, 10_000.0, rope))
    both(lambda fused: turned(q, k, tables, EPS, scale, fused), [q, k])


def test_narrow_heads_are_turned_by_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_ops, "turn", None)
    x, tables = draw(1, 5, 2, 8), tuple(table[:, None] for table in rotary_tables(5, 8, 10_000.0, torch.float32))
    assert turned(x, x, tables, EPS, 1.0, True)[0].shape == x.shape


def test_norms() -> None:
    x, y, a, b = draw(2, 5, 12), draw(2, 5, 12), draw(), draw()
    both(lambda fused: add_norm(x, y, EPS, fused), [x, y])
    both(lambda fused: mix_norm(x, None, EPS, fused), [x])
    both(lambda fused: mix_norm(x, (a, b, y), EPS, fused), [x, y, a, b])
    both(lambda fused: mix_norm(x, (a, b, x), EPS, fused), [x, a, b])  # as in the first block


def test_relu_squared() -> None:
    u = draw(3, 40)
    both(lambda fused: relu_squared(u.clone(), fused), [u])  # the plain one overwrites it


def test_a_16_bit_square_is_as_good_as_the_relu() -> None:
    u = draw(10_000, dtype=torch.bfloat16)
    grad = torch.randn_like(u)
    (found,) = torch.autograd.grad(relu_squared(u, True), u, grad)
    wanted = 2 * u.detach().double().relu() * grad.double()
    assert float(((found.double() - wanted).abs() / wanted.abs().clamp(min=1e-30)).max()) < 2**-8 + 2**-9


OPERATORS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "turn": lambda: (draw(2, 3, 4, 32), draw(2, 3, 2, 32), torch.randn(3, 1, 32), torch.randn(3, 1, 32), EPS, 1.2),
    "turn_backward": lambda: (
        *(torch.randn(2, 3, heads, 32) for heads in (4, 2, 4, 2)),
        *(torch.randn(3, 1, 32) for _ in range(2)),
        *(EPS, 1.2),
    ),
    "norm": lambda: (torch.randn(2, 3, 12), EPS),
    "norm_backward": lambda: (*(torch.randn(2, 3, 12) for _ in range(3)), EPS),
    "add_norm": lambda: (draw(2, 3, 12), draw(2, 3, 12), EPS),
    "mix_norm": lambda: (draw(2, 3, 12), draw(2, 3, 12), draw(), draw(), EPS),
    "mix_norm_backward": lambda: (*(torch.randn(2, 3, 12) for _ in range(4)), torch.randn(()), torch.randn(()), EPS),
    "relu_squared": lambda: (draw(2, 3, 12),),
    "relu_squared_backward": lambda: (torch.randn(2, 3, 12), torch.rand(2, 3, 12)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_what_the_compiler_is_told_is_true(name: str) -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(stream_ops, name), OPERATORS[name](), test_utils=checks)


@pytest.mark.parametrize("recompute", ["nothing", "cheap", "blocks"])
@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
def test_a_network(make_model: Make, modern: dict[str, Any], new: bool, recompute: str) -> None:
    """The same loss and gradients, but for rounding; without gradients the plain operations."""
    sizes = {"n_embd": 64, "n_head": 2, "n_kv_head": 1, "head_dim": 32, "seq_len": 160}
    idx = torch.randint(61, (2, 150), generator=torch.Generator().manual_seed(5))
    found = []
    for fused in (Fused.never, Fused.always):
        model = make_model(**(modern if new else {}) | sizes)
        model.fused = fused
        model.activation_checkpointing, model.recompute_cheap = recompute == "blocks", recompute == "cheap"
        loss = summed_loss(model, idx, idx)
        loss.backward()
        with torch.no_grad():
            answer = model(idx)
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
        assert torch.equal(answer, made(model, idx))
    assert len(found[0]) == len(found[1]) > 10
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def made(model: GPT, idx: Tensor) -> Tensor:
    model.fused = Fused.never
    return model(idx)


def test_where_they_are_taken() -> None:
    assert Fused.always.here(1) and Fused.large.here(FEWEST) and not Fused.large.here(FEWEST - 1)
    assert not Fused.never.here(FEWEST)
    with torch.no_grad():
        assert not Fused.always.here(FEWEST)


def test_what_the_key_means(make_dims: MakeDims, monkeypatch: pytest.MonkeyPatch) -> None:
    dims = make_dims()
    monkeypatch.setattr(stream, "fast_on", lambda device: device.type == "cuda")
    assert fused_for(None, dims, "cuda", "bfloat16", True) == Fused.large
    assert fused_for(True, dims, "cuda", "float32", True) == Fused.always
    assert fused_for(False, dims, "cuda", "bfloat16", True) == Fused.never
    refused = {
        "they need device cuda, and this run is on cpu": (dims, "cpu", "float32", True),
        "they are for compiled runs": (dims, "cuda", "bfloat16", False),
        "they compute in bfloat16 or float32, and this run in float16": (dims, "cuda", "float16", True),
        "they hold rows of 8192 numbers at most, and this model is 8320 wide": (
            *(replace(dims, n_embd=8320), "cuda", "bfloat16", True),
        ),
    }
    for message, facts in refused.items():
        assert fused_for(None, *facts) == Fused.never
        with pytest.raises(ConfigError, match=f"runtime.fused_kernels=true cannot be used here: {message}"):
            fused_for(True, *facts)
    monkeypatch.setattr(stream, "fast_on", lambda device: False)
    with pytest.raises(ConfigError, match="they need Triton, which is not installed; take runtime.fused_kernels=null"):
        fused_for(True, dims, "cuda", "bfloat16", True)

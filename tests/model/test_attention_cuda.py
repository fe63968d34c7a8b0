"""Every kernel on a GPU, forward and backward, eager and compiled, against `plain` in float64."""

import importlib.util
from collections.abc import Callable
from functools import partial

import pytest
import torch
from models import drawn_on_gpu
from torch import Tensor

from nanochat.errors import ConfigError
from nanochat.model.attention_backends import attend, document_numbers, look
from nanochat.model.attention_choice import AttentionFacts, attention_for, choose_attention
from nanochat.plan.dims import ModelDims

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
MakeDims = Callable[..., ModelDims]
KERNELS = ["flash4", "flex", "cudnn", "flash", "efficient", "sdpa", "plain"]
BOS = 7


def skip_without(backend: str, window: bool, documents: bool, compiled: bool) -> None:
    facts = AttentionFacts("cuda", "bfloat16", 128, compiled, torch.cuda.get_device_capability())
    try:
        choose_attention(backend, facts, window, documents)
    except ConfigError as error:
        pytest.skip(str(error))


def with_gradients(run: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor]) -> list[Tensor]:
    q, k, v = (x.detach().requires_grad_() for x in inputs)
    y = run(q, k, v)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64, device="cuda").view(y.shape)
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), weights.to(y.dtype))]


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("sight", ["causal", "window", "documents", "both"])
@pytest.mark.parametrize(("length", "kv_heads"), [(512, 4), (512, 1), (333, 2)])
def test_against_float64(backend: str, compiled: bool, sight: str, length: int, kv_heads: int) -> None:
    window, masked = 100 if sight in ("window", "both") else None, sight in ("documents", "both")
    skip_without(backend, window is not None, masked, compiled)
    generator = torch.Generator("cuda").manual_seed(1)
    inputs = [
        torch.randn(2, length, heads, 128, device="cuda", generator=generator).bfloat16()
        for heads in (4, kv_heads, kv_heads)
    ]
    idx = torch.randint(0, 60, (2, length), device="cuda", generator=generator)

    def run(q: Tensor, k: Tensor, v: Tensor, name: str) -> Tensor:
        documents = document_numbers(idx, BOS) if masked else None
        return attend(q, k, v, look(name, length, window, documents, q.device))

    torch._dynamo.reset()
    f = torch.compile(run, dynamic=False, fullgraph=True) if compiled else run
    found = with_gradients(partial(f, name=backend), inputs)
    wanted = with_gradients(partial(run, name="plain"), [x.double() for x in inputs])
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).norm() < 1e-2 * b.norm()  # bfloat16 has eight bits
        assert (a.double() - b).abs().max() < 0.03 * b.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", *KERNELS])
@pytest.mark.parametrize("masked", [False, True], ids=["", "documents"])
@pytest.mark.parametrize("recompute", [False, True], ids=["", "checkpointing"])
def test_a_compiled_network(
    make_dims: MakeDims, modern: dict[str, object], backend: str, masked: bool, recompute: bool
) -> None:
    """One graph, and gradients that differ from those of plain attention by rounding alone."""
    if backend != "auto":
        skip_without(backend, True, masked, True)
    sizes = {"n_embd": 512, "n_head": 4, "n_kv_head": 2, "head_dim": 128, "seq_len": 512, "vocab_size": 510}
    dims = make_dims(**modern | sizes | {"document_mask": masked, "bos_id": BOS if masked else None})
    idx = torch.randint(510, (4, 512), device="cuda", generator=torch.Generator("cuda").manual_seed(2))
    grads = {}
    for name in (backend, "plain"):
        model = drawn_on_gpu(dims, "bfloat16")
        model.activation_checkpointing = recompute
        model.attention = attention_for(name, dims, "cuda", "bfloat16", compiled=True)
        torch._dynamo.reset()
        torch.compile(model, dynamic=False, fullgraph=True)(idx).square().mean().backward()
        grads[name] = torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])
    assert (grads[backend] - grads["plain"]).norm() < 3e-2 * grads["plain"].norm()


def test_what_auto_takes_is_there() -> None:
    """With the package, flash4; without it, none of it is needed."""
    facts = AttentionFacts("cuda", "bfloat16", 128, True, torch.cuda.get_device_capability())
    name, reason = choose_attention("auto", facts, False, False)
    if importlib.util.find_spec("flash_attn") is None and torch.cuda.get_device_capability() >= (9, 0):
        assert name == "cudnn" and "flash-attn-4 is not installed" in reason

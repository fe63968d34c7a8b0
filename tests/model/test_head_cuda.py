"""What only a GPU can show of the head, of 8-bit and of 16-bit floats. Skipped where there is none."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from models import drawn_on_gpu
from torch import Tensor

from nanochat.model.build import use_fp8
from nanochat.model.head import Terms, head_loss, summed_loss
from nanochat.model.head_fused import CHUNK, chunk_tokens
from nanochat.model.layers import Linear
from nanochat.plan.dims import ModelDims

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
MakeDims = Callable[..., ModelDims]
TOKENS, WIDTH, WORDS = 32_768, 512, 65_536  # several chunks
needs_fp8 = pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="needs products of 8-bit floats"
)


def case(dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Linear, Tensor]:
    torch.manual_seed(0)
    layer = Linear(WIDTH, WORDS).cuda()
    torch.nn.init.normal_(layer.weight, std=0.1)
    hidden = torch.randn(TOKENS, WIDTH, device="cuda", dtype=dtype, requires_grad=True)
    targets = torch.randint(WORDS, (TOKENS,), device="cuda")
    targets[::5] = -1
    return hidden, layer, targets


def gradients(loss: Tensor, hidden: Tensor, layer: Linear) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, [hidden, layer.weight])]


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_chunks_equal_the_logits_of_everything(compiled: bool, dtype: torch.dtype) -> None:
    hidden, layer, targets = case(dtype)
    loss = torch.compile(head_loss, fullgraph=True, dynamic=False) if compiled else head_loss
    found = gradients(loss(hidden, layer, targets, Terms(WORDS, 15.0)), hidden, layer)
    logits = 15 * torch.tanh(F.linear(hidden, layer.weight.to(dtype)).float() / 15)
    wanted = gradients(F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum"), hidden, layer)
    assert float((found[0] - wanted[0]).abs() / wanted[0]) < 1e-4
    for f, w in zip(found[1:], wanted[1:], strict=True):
        assert float((f.float() - w.float()).norm() / w.float().norm()) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("fp8", [False, pytest.param(True, marks=needs_fp8)], ids=["16 bits", "8 bits"])
def test_memory_of_the_compiled_head(fp8: bool) -> None:
    """One chunk of logits, what belongs to the weight, and the result of each token; fp32 logits would be 4 GiB.

    16 bits: the chunk, the weight's copy and its gradient in fp32. 8 bits: the chunk, its slope, two copies of the
    weight, its gradient and a part of it.
    """
    hidden, layer, targets = case()
    layer.fp8 = fp8
    compiled = torch.compile(head_loss, fullgraph=True, dynamic=False)
    chunk, weight = _chunk(layer), WIDTH * WORDS
    wanted = chunk * (3 if fp8 else 2) + weight * (10 if fp8 else 6) + TOKENS * WIDTH * 2
    assert _peak(lambda: gradients(compiled(hidden, layer, targets, Terms(WORDS, 15.0)), hidden, layer)) < 1.2 * wanted


@pytest.mark.slow
def test_memory_of_the_compiled_evaluation() -> None:
    hidden, layer, targets = case()
    compiled = torch.compile(head_loss, fullgraph=True, dynamic=False)
    with torch.no_grad():
        peak = _peak(lambda: compiled(hidden, layer, targets, Terms(WORDS, 15.0)))
    assert peak < 1.2 * (_chunk(layer) * 2 + WIDTH * WORDS * 2)


def _chunk(layer: Linear) -> int:
    """Numbers of a chunk of logits."""
    return chunk_tokens(TOKENS, len(layer.weight), CHUNK) * WORDS


def _peak(run: Callable[[], object]) -> int:
    """Bytes that a second run needs at most beside what is there."""
    run()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.slow
@needs_fp8
@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
def test_fp8_network_compiled(make_dims: MakeDims, modern: dict[str, object], new: bool) -> None:
    """Compiled is as near to 16 bits as eager is.

    Eager and compiled code round to bfloat16 in other places. Where such numbers are rounded on to 8 bits, a last bit
    of 16 decides between two neighbours that are an eighth apart, so the two gradients differ from each other about as
    much as each does from 16 bits: their likeness would say nothing about either.
    """
    sizes = {"n_embd": 128, "n_head": 2, "n_kv_head": 1, "head_dim": 64, "seq_len": 64, "vocab_size": 512}
    dims = make_dims(**(modern if new else {}) | sizes)
    idx = torch.randint(512, (4, 161), device="cuda", generator=torch.Generator("cuda").manual_seed(2))
    losses, grads = [], []
    for fp8, compiled in ((False, False), (True, False), (True, True)):
        model = drawn_on_gpu(dims, "bfloat16")
        if fp8:
            use_fp8(model)
        run = torch.compile(summed_loss, fullgraph=True, dynamic=False) if compiled else summed_loss
        loss = run(model, idx[:, :-1], idx[:, 1:])
        loss.backward()
        losses.append(loss.item())
        grads.append(torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=0.03) and losses[2] == pytest.approx(losses[1], rel=0.01)
    eager, compiled = (float(F.cosine_similarity(grads[0], grad, dim=0)) for grad in grads[1:])
    assert compiled >= eager - 0.02 and min(eager, compiled) > 0.9


@pytest.mark.slow
def test_float16_network_compiled(make_dims: MakeDims, modern: dict[str, object]) -> None:
    dims = make_dims(**modern | {"seq_len": 64})
    idx = torch.randint(61, (4, 65), device="cuda", generator=torch.Generator("cuda").manual_seed(2))
    losses = []
    for dtype in ("float32", "float16"):
        compiled = torch.compile(summed_loss, fullgraph=True, dynamic=False)
        losses.append(compiled(drawn_on_gpu(dims, dtype), idx[:, :-1], idx[:, 1:]).item())
    assert losses[1] == pytest.approx(losses[0], rel=0.01)

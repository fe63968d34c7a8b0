"""What only a GPU can show of the fused kernels. Skipped where there is none."""

from collections.abc import Callable

import pytest
import torch
from models import drawn_on_gpu
from torch import Tensor

from nanochat.model import stream_ops
from nanochat.model.head import summed_loss
from nanochat.model.kernels import fast_on
from nanochat.model.layers import rotary_tables
from nanochat.model.stream import Fused
from nanochat.plan.dims import ModelDims

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or not fast_on(torch.device("cuda")), reason="needs CUDA with Triton"
)
MakeDims = Callable[..., ModelDims]
EPS = 1e-6
WIDTHS = [100, 768, 1280, 4096, 8192]
DTYPES = [torch.bfloat16, torch.float32]


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=dtype)


def on_cpu(tensors: tuple[object, ...]) -> tuple[object, ...]:
    """The same numbers in float64 on the CPU, where the operators are plain operations."""
    return tuple(x.detach().double().cpu() if isinstance(x, Tensor) else x for x in tensors)


def check(operator: Callable[..., object], *inputs: object) -> None:
    """Every number within the rounding of its dtype."""
    torch.manual_seed(0)
    found, wanted = operator(*inputs), operator(*on_cpu(inputs))
    found, wanted = (x if isinstance(x, tuple) else (x,) for x in (found, wanted))
    for f, w in zip(found, wanted, strict=True):
        assert f.shape == w.shape
        rounding = 2**-8 if f.dtype == torch.bfloat16 else 2e-5
        largest = float(w.abs().max())
        assert float(((f.double().cpu() - w).abs() - rounding * w.abs()).max()) < 1e-4 * largest


@pytest.mark.parametrize("width", [32, 64, 128, 256])
@pytest.mark.parametrize("rope", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_turn(dtype: torch.dtype, rope: torch.dtype, width: int) -> None:
    """Rows that are no multiple of a program's, fewer heads of keys, parts of larger tensors."""
    torch.manual_seed(0)
    tables = [table[:333, None].cuda() for table in rotary_tables(400, width, 10_000.0, rope)]
    q, k = draw(2, 333, 10, width, dtype=dtype), draw(2, 333, 3, width, dtype=dtype)[:, :, :2]
    check(stream_ops.turn, q, k, *tables, EPS, 1.2)
    check(stream_ops.turn_backward, torch.randn_like(q), torch.randn_like(k), q, k, *tables, EPS, 1.2)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norms(dtype: torch.dtype, width: int) -> None:
    torch.manual_seed(0)
    x, y, grad, grad_normed = (draw(3, 37, width, dtype=dtype) for _ in range(4))
    a, b = torch.tensor(1.1, device="cuda"), torch.tensor(0.15, device="cuda")
    check(stream_ops.norm, x, EPS)
    check(stream_ops.norm_backward, grad, grad_normed, x, EPS)
    # The sum is rounded before it is normed: what is behind it is compared from the rounded sum on.
    for total, normed in (stream_ops.add_norm(x, y, EPS), stream_ops.mix_norm(x, y, a, b, EPS)):
        torch.testing.assert_close(normed, stream_ops.norm(total, EPS))
    check(lambda *inputs: stream_ops.add_norm(*inputs)[0], x, y, EPS)
    check(lambda *inputs: stream_ops.mix_norm(*inputs)[0], x, y, a, b, EPS)
    found = stream_ops.mix_norm_backward(grad, grad_normed, x, y, a, b, EPS)
    wanted = stream_ops.mix_norm_backward(*on_cpu((grad, grad_normed, x, y, a, b)), EPS)
    again = stream_ops.mix_norm_backward(grad, grad_normed, x, y, a, b, EPS)
    for f, w, g in zip(found, wanted, again, strict=True):
        assert float((f.double().cpu() - w).norm() / w.norm()) < (5e-3 if dtype == torch.bfloat16 else 1e-5)
        assert torch.equal(f, g)


@pytest.mark.parametrize("count", [5, 4096, 100_003])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_relu_squared(dtype: torch.dtype, count: int) -> None:
    torch.manual_seed(0)
    u, grad = draw(count, dtype=dtype), draw(count, dtype=dtype)
    check(stream_ops.relu_squared, u)
    check(stream_ops.relu_squared_backward, grad, stream_ops.relu_squared(u))
    u[3] = float("nan")
    assert stream_ops.relu_squared(u)[3].isnan()


@pytest.mark.slow  # 9 GB
def test_more_numbers_than_31_bits_count() -> None:
    u = torch.full((2**31 + 4096,), 3.0, device="cuda", dtype=torch.bfloat16)
    assert torch.equal(stream_ops.relu_squared(u)[-8192:], torch.full_like(u[-8192:], 9.0))
    x = u.view(-1, 4096)
    assert torch.equal(stream_ops.norm(x, EPS)[-2:], torch.ones_like(x[-2:]))


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["nothing", "cheap", "blocks"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
def test_a_compiled_network(
    make_dims: MakeDims, modern: dict[str, object], new: bool, dtype: str, recompute: str
) -> None:
    """In one graph; loss and gradients differ from those of plain operations, eager and compiled, by rounding."""
    sizes = {"n_embd": 256, "n_head": 2, "n_kv_head": 1, "head_dim": 128, "seq_len": 512, "vocab_size": 510}
    dims = make_dims(**(modern if new else {}) | sizes)
    idx = torch.randint(510, (4, 514), device="cuda", generator=torch.Generator("cuda").manual_seed(2))
    losses, grads = [], []
    for fused, compiled in ((Fused.never, False), (Fused.never, True), (Fused.always, False), (Fused.always, True)):
        model = drawn_on_gpu(dims, dtype)
        model.fused = fused
        model.activation_checkpointing, model.recompute_cheap = recompute == "blocks", recompute == "cheap"
        torch._dynamo.reset()
        run = torch.compile(summed_loss, fullgraph=True, dynamic=False) if compiled else summed_loss
        loss = run(model, idx[:, :-1], idx[:, 1:])
        loss.backward()
        losses.append(loss.item())
        grads.append(torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None]))
    for loss_found, found in zip(losses[1:], grads[1:], strict=True):
        assert loss_found == pytest.approx(losses[0], rel=1e-4 if dtype == "float32" else 1e-2)
        assert float((found - grads[0]).norm() / grads[0].norm()) < (1e-3 if dtype == "float32" else 3e-2)

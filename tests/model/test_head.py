"""The chunked loss against float64 cross-entropy on the logits of everything, and what it keeps in memory."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nanochat.model import head, head_fused, wide
from nanochat.model.gpt import GPT
from nanochat.model.head import Terms, head_loss, summed_loss, token_nll
from nanochat.model.layers import Linear

TOKENS, WIDTH, VOCAB, ROWS = 101, 24, 50, 64


@pytest.fixture
def plain_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 tokens: seven of them, the last of 5."""
    chunk(monkeypatch, 16)


def chunk(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """The sizes of chunks, for both ways there are."""
    monkeypatch.setattr(head, "_CHUNK_ELSEWHERE", tokens * ROWS)
    for name, value in {"CHUNK": tokens * ROWS, "_FEWEST": 1, "_ROWS": 16}.items():
        monkeypatch.setattr(head_fused, name, value)


def fuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator that the compiler calls on a GPU."""
    monkeypatch.setattr(head, "_is_fused", lambda hidden: True)


@pytest.fixture(params=["definition", "operator"])
def small_chunks(plain_chunks: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways there are."""
    if request.param == "operator":
        fuse(monkeypatch)


def case(dtype: torch.dtype, rows: int = ROWS) -> tuple[Tensor, Linear, Tensor]:
    """Activations, a head whose logits reach the cap, and targets of which some are none."""
    draw = torch.Generator().manual_seed(0)
    layer = Linear(WIDTH, rows).to(torch.float64 if dtype == torch.float64 else torch.float32)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(rows, WIDTH, generator=draw) * 2)
    hidden = torch.randn(TOKENS, WIDTH, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(VOCAB, (TOKENS,), generator=draw)
    targets[::4] = -1
    return hidden, layer, targets


def reference(hidden: Tensor, weight: Tensor, targets: Tensor, terms: Terms, weights: Tensor | None) -> Tensor:
    """All logits at once, with torch's own loss."""
    logits = (hidden @ weight.T)[:, :VOCAB]
    if terms.cap:
        logits = terms.cap * torch.tanh(logits / terms.cap)
    losses = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none", label_smoothing=terms.smoothing)
    losses = losses + terms.z * logits.logsumexp(-1).square() * (targets >= 0)
    return (losses if weights is None else losses * weights).sum()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "terms",
    [Terms(VOCAB, 15.0), Terms(VOCAB, 0.0), Terms(VOCAB, 15.0, z=0.1), Terms(VOCAB, 2.0, z=0.05, smoothing=0.2)],
    ids=["cap", "no cap", "z", "z and smoothing"],
)
def test_against_the_logits_of_everything(terms: Terms, weighted: bool) -> None:
    hidden, layer, targets = case(torch.float64)
    weights = torch.linspace(-1, 2, TOKENS, dtype=torch.float64) if weighted else None
    found, wanted = [], []
    for into, loss in (
        (found, head_loss(hidden, layer, targets, terms, weights)),
        (wanted, reference(hidden, layer.weight, targets, terms, weights)),
    ):
        into += [loss, *torch.autograd.grad(loss / 7, [hidden, layer.weight])]
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    assert float(found[2][VOCAB:].abs().max()) == 0  # spare rows of the head
    with torch.no_grad():
        torch.testing.assert_close(head_loss(hidden, layer, targets, terms, weights), wanted[0].detach())


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_softcap_and_softmax_are_fp32(dtype: torch.dtype) -> None:
    """From logits as the product rounds them, the loss is that of float64; in 16 bits it would be off by 1e-3."""
    hidden, layer, targets = case(dtype)
    loss = head_loss(hidden, layer, targets, Terms(VOCAB, 15.0))
    raw = F.linear(hidden, layer.weight.to(dtype)).detach().double()
    raw.requires_grad_()
    exact = reference(raw, torch.eye(ROWS, dtype=torch.float64), targets, Terms(VOCAB, 15.0), None)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), rel=1e-6)
    (slope,) = torch.autograd.grad(exact, raw)
    grads = torch.autograd.grad(loss, [hidden, layer.weight])
    assert (grads[0].dtype, grads[1].dtype) == (dtype, torch.float32)
    # rounded to 16 bits are the slope, and the gradient of the activations; sums over tokens are fp32
    wanted = slope.to(dtype).double() @ layer.weight.to(dtype).double(), slope.to(dtype).double().T @ hidden.double()
    assert float((grads[0] - wanted[0]).norm() / wanted[0].norm()) < 4e-3
    assert float((grads[1] - wanted[1]).norm() / wanted[1].norm()) < 1e-4


@pytest.mark.usefixtures("small_chunks")
def test_nothing_supervised_is_zero_and_not_nan() -> None:
    hidden, layer, targets = case(torch.float32)
    loss = head_loss(hidden, layer, torch.full_like(targets, -1), Terms(VOCAB, 15.0))
    grads = torch.autograd.grad(loss, [hidden, layer.weight])
    assert loss.item() == 0 and all(float(g.abs().max()) == 0 for g in grads)


@pytest.mark.usefixtures("small_chunks")
def test_nll_of_each_token(make_model: Callable[..., GPT]) -> None:
    model = make_model()
    idx, targets = torch.randint(61, (2, 3, 16), generator=torch.Generator().manual_seed(1))
    targets[1, 3:7] = -1
    wanted = F.cross_entropy(model(idx).flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    with torch.no_grad():
        torch.testing.assert_close(token_nll(model, idx, targets).flatten(), wanted)
    torch.testing.assert_close(summed_loss(model, idx, targets), wanted.sum())


@pytest.mark.parametrize(("tokens", "rows"), [(1, 50), (300, 50), (300, 2**21), (4097, 2**14), (8192, 2**15)])
def test_chunks_are_bounded_and_whole(tokens: int, rows: int) -> None:
    pieces = [x for (x,) in head._chunks(rows, torch.arange(tokens))]
    assert torch.equal(torch.cat(pieces), torch.arange(tokens))
    sizes = [len(piece) for piece in pieces]
    assert all(size % 128 == 0 for size in sizes[:-1]) and len(set(sizes[:-1])) <= 1
    assert max(sizes) <= max(256, 2**22 // rows + 127)


class Watch(TorchDispatchMode):
    """The largest tensor that an operation makes, how many products there are, and what was called."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.products = 0
        self.called: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        self.called.append(str(func))
        return out


@pytest.mark.usefixtures("plain_chunks")
def test_logits_of_everything_never_exist_and_no_product_is_made_twice() -> None:
    hidden, layer, targets = case(torch.float32)
    with Watch() as watch:
        loss = head_loss(hidden, layer, targets, Terms(VOCAB, 15.0))
    assert watch.largest <= max(16 * ROWS, TOKENS * WIDTH) < TOKENS * VOCAB
    assert watch.products == 3 * 7
    with Watch() as watch:
        loss.backward()
    assert watch.products == 0


def test_the_product_in_fp32_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """ROCm's torch 2.9 has no such mm."""
    for hip, wanted in ((None, "aten.mm.dtype"), ("6.4", "aten.mm.default")):
        monkeypatch.setattr(torch.version, "hip", hip)
        with FakeTensorMode(), Watch() as watch:
            a, b = (torch.empty(8, n, device="cuda", dtype=torch.bfloat16) for n in (5, 3))
            out = wide.wide_product(a.t(), b)
        assert (out.shape, out.dtype, out.is_contiguous()) == ((5, 3), torch.float32, True)
        assert [name for name in watch.called if "mm" in name] == [wanted]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_product_is_added(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 40, generator=draw).to(dtype) for n in (5, 3))
    total = torch.ones(5, 3)
    wide.add_product(total, a, b.t())
    torch.testing.assert_close(total.double(), 1 + a.double() @ b.double().t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fp8", [False, True])
def test_the_operators_keep_what_they_promise_the_compiler(fp8: bool) -> None:
    """Shapes, dtypes and strides without looking inside, and nothing written to."""
    hidden, weight = torch.randn(48, 32).bfloat16(), torch.randn(64, 32)
    targets = torch.randint(VOCAB, (48,))
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    numbers = (VOCAB, 15.0, 0.0, 0.0)
    torch.library.opcheck(
        head_fused.loss_and_gradients, (hidden, weight, targets, torch.ones(48), *numbers, fp8), test_utils=checks
    )
    torch.library.opcheck(head_fused.terms_of_tokens, (hidden, weight, targets, *numbers), test_utils=checks)


Graphs = dict[str, torch.fx.GraphModule]


@pytest.fixture
def graphs() -> Iterator[tuple[Graphs, Callable[..., Any]]]:
    """(forward and backward as the compiler cuts them, once compiled; the backend that notes them)."""
    seen: Graphs = {}

    def note(kind: str) -> Callable[..., Any]:
        def compiler(graph: torch.fx.GraphModule, example: Any) -> Any:
            seen[kind] = graph
            return make_boxed_func(graph.forward)

        return compiler

    cut = min_cut_rematerialization_partition  # as inductor
    yield seen, aot_autograd(fw_compiler=note("forward"), bw_compiler=note("backward"), partition_fn=cut)
    torch._dynamo.reset()


@pytest.mark.parametrize("fused", [False, True], ids=["definition", "operator"])
def test_compiled_it_keeps_the_gradients_and_nothing_else(
    fused: bool, monkeypatch: pytest.MonkeyPatch, graphs: tuple[Graphs, Callable[..., Any]]
) -> None:
    """The compiler is free to move operations from forward to backward: it must not want to keep logits for that."""
    chunk(monkeypatch, 64)
    if fused:
        fuse(monkeypatch)
    hidden, layer, targets = case(torch.bfloat16)
    loss = head_loss(hidden, layer, targets, Terms(VOCAB, 15.0))
    wanted = [loss, *torch.autograd.grad(loss, [hidden, layer.weight])]
    seen, backend = graphs
    compiled = torch.compile(head_loss, backend=backend, fullgraph=True, dynamic=False)
    loss = compiled(hidden, layer, targets, Terms(VOCAB, 15.0))
    torch.testing.assert_close([loss, *torch.autograd.grad(loss, [hidden, layer.weight])], wanted)
    kept = [node.meta["val"] for node in list(seen["forward"].graph.nodes)[-1].args[0][1:]]
    assert sorted(tuple(x.shape) for x in kept) == sorted([(ROWS, WIDTH), (TOKENS, WIDTH)])
    names = [str(node.target) for node in seen["backward"].graph.nodes]
    assert not any("mm" in name for name in names)
    sizes = [n.meta["val"].numel() for g in seen.values() for n in g.graph.nodes if hasattr(n.meta.get("val"), "numel")]
    assert max(sizes) < TOKENS * ROWS
    assert fused == any("head_loss" in str(node.target) for node in seen["forward"].graph.nodes)

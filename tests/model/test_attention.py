"""Every kernel of attention that a CPU can run, forward and backward, against query after query in float64."""

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_flash4 import fake_module
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from nanochat.model.attention_backends import attend, document_numbers, look, sight_mask
from nanochat.model.attention_choice import AttentionChoice
from nanochat.model.attention_flash4 import flash4, flash4_problem
from nanochat.model.attention_flex import TILE, block_mask, tiles
from nanochat.model.gpt import GPT

Make = Callable[..., GPT]
BOS = 7
CPU = torch.device("cpu")
CAUSAL: dict[str, Any] = {"window": None, "documents": False}
SIGHTS = {
    "causal": CAUSAL,
    "window": CAUSAL | {"window": 5},
    "documents": CAUSAL | {"documents": True},
    "both": {"window": 5, "documents": True},
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the stand-in for flash-attn-4 was asked for."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", fake_module(asked))
    return asked


@pytest.fixture
def flex_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch refuses gradients of flex_attention on a CPU, where its formulas work all the same."""
    monkeypatch.setattr(sys.modules[flex_attention.__module__], "_validate_device", lambda *_: None)


@pytest.fixture
def graphs() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def rows(rows: int, length: int, starts: float = 0.1) -> Tensor:
    """Token ids with documents of many lengths, some of one token; the first row starts with one, others may not."""
    generator = torch.Generator().manual_seed(5)
    idx = torch.randint(8, 60, (rows, length), generator=generator)
    idx[torch.rand(idx.shape, generator=generator) < starts] = BOS
    idx[0, 0] = BOS
    idx[-1, :3] = torch.tensor([9, BOS, BOS])
    return idx


def one_by_one(q: Tensor, k: Tensor, v: Tensor, idx: Tensor, window: int | None, documents: bool) -> Tensor:
    """For each row and query: walk back from the query, and stop at the window or at a start."""
    rows, length, heads, width = q.shape
    shared = [h * k.shape[2] // heads for h in range(heads)]
    out = []
    for b in range(rows):
        for i in range(length):
            first = i
            while first > 0 and not (documents and idx[b, first] == BOS) and (window is None or i - first < window):
                first -= 1
            scores = torch.einsum("he,jhe->hj", q[b, i], k[b, first : i + 1, shared]) / width**0.5
            out.append(torch.einsum("hj,jhe->he", scores.softmax(-1), v[b, first : i + 1, shared]))
    return torch.stack(out).view(q.shape)


def with_gradients(run: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of a weighted sum of it."""
    q, k, v = (x.detach().clone().requires_grad_() for x in inputs)
    y = run(q, k, v)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), (q, k, v))]


def inputs(heads: int, kv_heads: int, length: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, length, h, 8) for h in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


@pytest.mark.usefixtures("flex_learns", "calls")
@pytest.mark.parametrize(("sight", "kv_heads"), [*((name, 2) for name in SIGHTS), ("both", 1)])
def test_against_one_query_at_a_time(sight: str, kv_heads: int) -> None:
    idx, asked = rows(2, 13), SIGHTS[sight]
    qkv = inputs(4, kv_heads, 13, torch.float64)
    wanted = with_gradients(partial(one_by_one, idx=idx, **asked), qkv)
    documents = document_numbers(idx, BOS) if asked["documents"] else None
    for backend in ("plain", "sdpa", "flex", "flash", *(() if asked["documents"] else ("flash4",))):
        seen = look(backend, 13, asked["window"], documents, CPU)
        found = with_gradients(partial(attend, sight=seen), qkv)
        close = 1e-6 if backend == "flash4" else 1e-12  # it keeps the log-sum-exp in float32
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=close, msg=lambda m, backend=backend: f"{backend}: {m}")


def test_efficient_attention_gets_heads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel, which no CPU has, knows no shared heads; by another kernel the numbers are right."""
    entered = []
    kernel = torch.nn.attention.sdpa_kernel
    math = torch.nn.attention.SDPBackend.MATH
    monkeypatch.setattr(
        "nanochat.model.attention_backends.sdpa_kernel", lambda asked: (entered.append(asked), kernel(math))[1]
    )
    heads = []
    sdpa = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda q, k, v, **more: (heads.append((k.shape[1], more["enable_gqa"])), sdpa(q, k, v, **more))[1],
    )
    qkv = inputs(4, 2, 21, torch.float64)
    for name in ("efficient", "cudnn"):
        found = attend(*qkv, look(name, 21, 5, None, CPU))
        torch.testing.assert_close(found, attend(*qkv, look("plain", 21, 5, None, CPU)))
    assert [str(each).split(".")[-1] for each in entered] == ["EFFICIENT_ATTENTION", "CUDNN_ATTENTION"]
    assert heads == [(4, False), (2, True)]


def test_plain_computes_in_float32() -> None:
    qkv = inputs(4, 2, 21, torch.bfloat16)
    seen = look("plain", 21, None, None, CPU)
    exact = attend(*(x.double() for x in qkv), seen)
    found = attend(*qkv, seen)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.to(torch.bfloat16)) or (found - exact).abs().max() < 2**-8


def test_a_window_that_cuts_nothing_is_none() -> None:
    for window in (20, 21, 500):
        assert look("sdpa", 21, window, None, CPU) == ("sdpa", None, None, None)
    assert look("sdpa", 21, 19, None, CPU).mask is not None


def test_document_numbers() -> None:
    idx = torch.tensor([[5, BOS, 5, BOS, BOS], [BOS, 5, 5, 5, BOS]])
    assert document_numbers(idx, BOS).tolist() == [[0, 1, 1, 2, 3], [1, 1, 1, 1, 2]]


@pytest.mark.parametrize("length", [3 * TILE, 3 * TILE - 1, 2 * TILE + 1, TILE // 2])
@pytest.mark.parametrize("window", [None, 1, TILE - 1, TILE, 200])
@pytest.mark.parametrize("starts", [None, 0.002, 0.02, 0.4])
def test_tiles(length: int, window: int | None, starts: float | None) -> None:
    """No allowed pair is outside of the tiles read; the tiles that are read unmasked hold allowed pairs alone."""
    documents = None if starts is None else document_numbers(rows(3, length, starts), BOS)
    count = -(-length // TILE)
    dense = sight_mask(length, window, documents, CPU)
    dense = dense[None, None] if documents is None else dense
    allowed = torch.zeros(*dense.shape[:2], count * TILE, count * TILE, dtype=torch.bool)
    allowed[..., :length, :length] = dense
    harmless = allowed.clone()
    harmless[..., length:, :length] = True  # queries behind the end count for nothing, keys do
    of_tiles = [x.unflatten(3, (count, TILE)).unflatten(2, (count, TILE)).transpose(3, 4) for x in (allowed, harmless)]
    holds, whole_needed = of_tiles[0].flatten(4).any(-1), of_tiles[1].flatten(4).all(-1)
    some, whole = tiles(length, window, documents, CPU)
    assert not (holds & ~some).any() and not (whole & ~whole_needed).any()
    if length % TILE == 0:
        assert torch.equal(whole, whole_needed)  # and none of these is masked for nothing
    blocks = block_mask(length, window, documents, CPU)
    read = blocks.to_dense().bool()
    assert torch.equal(read, some) or torch.equal(read, some & ~whole)
    assert blocks.full_kv_num_blocks is not None and int(blocks.full_kv_num_blocks.sum()) == int(whole.sum())


def test_flash4_passes_on_what_it_is_asked(calls: list[dict[str, Any]]) -> None:
    qkv = inputs(4, 2, 9, torch.bfloat16)
    for window, left in ((None, None), (3, 3)):
        with_gradients(partial(attend, sight=look("flash4", 9, window, None, CPU)), qkv)
        wanted = {"causal": True, "window_size_left": left, "window_size_right": 0}
        assert calls[-2:] == [wanted, wanted]
    assert len(calls) == 4


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("window", [None, 3])
def test_flash4_is_an_operator(window: int | None) -> None:
    """Shapes, dtypes and strides on fake tensors are those of real ones; the gradient is registered."""
    q, k, v = (x.requires_grad_() for x in inputs(4, 2, 9, torch.bfloat16))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")  # compiling it is test_one_graph
    torch.library.opcheck(flash4, (q, k, v, window), test_utils=checks)


def test_what_keeps_flash4_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert "flash-attn-4 is not installed" in (flash4_problem() or "")
    monkeypatch.delitem(sys.modules, "flash_attn")
    package = tmp_path / "flash_attn" / "cute"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    for text, said in (
        ("import no_such_package", "needs no_such_package"),
        ("raise RuntimeError('no driver')", "cannot be imported (no driver)"),
        ("_flash_attn_fwd = 1", "another interface"),
        ("_flash_attn_fwd = _flash_attn_bwd = 1", None),
    ):
        (package / "interface.py").write_text(f"{text}  # {len(text)}")
        importlib.invalidate_caches()
        found = flash4_problem()
        for name in [name for name in sys.modules if name.split(".")[0] == "flash_attn"]:
            del sys.modules[name]
        assert (found is None) if said is None else (said in (found or ""))


def masked(make: Make, modern: dict[str, object]) -> GPT:
    return make("float64", rope_dtype="float64", **modern | {"document_mask": True, "bos_id": BOS, "seq_len": 24})


@torch.no_grad()
@pytest.mark.parametrize("new", [False, True], ids=["gpt", "modern"])
def test_a_document_is_what_it_is_alone(make_model: Make, modern: dict[str, object], new: bool) -> None:
    """Positions count by their distance, so a document gives the same numbers wherever it stands."""
    model = masked(make_model, modern if new else {})
    idx, starts = rows(1, 220, 0), [0, 3, 4, 5, 150, 220]  # one is longer than a short window
    idx[0, starts[1:-1]] = BOS
    packed = model.hidden(idx)[0]
    alone = torch.cat([model.hidden(idx[:, a:b])[0] for a, b in pairwise(starts)])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-9)
    model.dims = replace(model.dims, document_mask=False)  # without the mask they see each other
    assert (model.hidden(idx)[0] - alone).abs().max() > 1e-3


@pytest.mark.usefixtures("graphs", "flex_learns", "calls")
@pytest.mark.parametrize("backend", ["flash", "flex", "flash4"])
def test_one_graph(backend: str) -> None:
    """What may be seen and attention compile without a break, gradients included, to the same numbers."""

    def run(q: Tensor, k: Tensor, v: Tensor, idx: Tensor) -> Tensor:
        documents = None if backend == "flash4" else document_numbers(idx, BOS)
        return attend(q, k, v, look(backend, 21, 5, documents, CPU))

    graph = torch.compile(run, backend="aot_eager", dynamic=False, fullgraph=True)
    qkv, idx = inputs(4, 2, 21, torch.float32), rows(2, 21)
    for a, b in zip(*(with_gradients(partial(f, idx=idx), qkv) for f in (graph, run)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("graphs")
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("length", "window", "starts"), [(300, 70, 0.005), (384, None, 0.02)])
def test_the_tiles_are_what_a_kernel_reads(length: int, window: int | None, starts: float) -> None:
    """Torch's kernel for CPUs computes only the tiles that it is told of."""
    qkv, idx = inputs(4, 2, length, torch.float32), rows(2, length, starts)

    def run(q: Tensor, k: Tensor, v: Tensor, documents: Tensor) -> Tensor:
        return attend(q, k, v, look("flex", length, window, documents, CPU))

    documents = document_numbers(idx, BOS)
    found = torch.compile(run, dynamic=False, fullgraph=True)(*qkv, documents)
    torch.testing.assert_close(found, attend(*qkv, look("plain", length, window, documents, CPU)), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("graphs", "flex_learns", "calls")
@pytest.mark.parametrize("recompute", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("documents", [False, True], ids=["", "documents"])
def test_a_network_is_one_graph(make_model: Make, modern: dict[str, object], documents: bool, recompute: bool) -> None:
    idx = rows(2, 150)
    more = {"document_mask": True, "bos_id": BOS} if documents else {}
    model = make_model(**modern | {"n_layer": 2, "window_pattern": "S"} | more)
    model.activation_checkpointing = recompute
    found = {}
    for backend in ("plain", "sdpa", "flash", "flex", *(() if documents else ("flash4",))):
        torch._dynamo.reset()
        model.attention = AttentionChoice(backend, backend, True)
        graph = torch.compile(model, backend="aot_eager", dynamic=False, fullgraph=True)
        grads = torch.autograd.grad(graph(idx).square().sum(), list(model.parameters()))
        found[backend] = torch.cat([g.flatten() for g in grads])
    for backend, grads in found.items():
        assert (grads - found["plain"]).norm() < 1e-5 * found["plain"].norm(), backend


def test_outside_of_the_graph_a_compiled_run_takes_torchs_own() -> None:
    assert AttentionChoice("flex", "flash4", compiled=True).backend(short=True) == "sdpa"
    chosen = AttentionChoice("cudnn", "flash4")
    assert (chosen.backend(short=False), chosen.backend(short=True)) == ("cudnn", "flash4")

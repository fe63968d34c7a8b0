"""`model=modern` as a whole, and each of its features alone, against the plain network in tests/support/."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_gpt import plain_hidden, plain_logits

from nanochat.config.load import compose_run
from nanochat.config.model import BEFORE
from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache
from nanochat.plan.dims import ModelDims, count_params, derive_dims

Make = Callable[..., GPT]
MakeDims = Callable[..., ModelDims]
Features = dict[str, object]
KEYS = ["vocab_multiple", "qk_scale", "window_pattern", "value_embeds", "residual_scalars", "smear", "backout"]


def exact(make: Make, **changes: object) -> GPT:
    """A model that computes in float64, rotary tables too."""
    return make("float64", rope_dtype="float64", **changes)


def tokens(rows: int, length: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(61, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("n_kv_head", [4, 2, 1])
def test_the_whole_network(make_model: Make, modern: Features, n_kv_head: int) -> None:
    """More than a window of 128 and the key itself, so that short layers cut."""
    model = exact(make_model, **modern | {"n_kv_head": n_kv_head})
    idx = tokens(2, 150)
    hidden, logits = model.hidden(idx), model(idx)
    assert logits.shape == (2, 150, 61)
    for row in range(2):
        state, ids = model.state_dict(), idx[row].tolist()
        np.testing.assert_allclose(hidden[row], plain_hidden(state, model.dims, ids), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(logits[row], plain_logits(state, model.dims, ids), atol=2e-5)  # capped in fp32


@torch.no_grad()
@pytest.mark.parametrize("key", [*KEYS, "rope_base"])
def test_each_feature_alone(make_model: Make, modern: Features, key: str) -> None:
    model = exact(make_model, **{key: modern[key], "n_layer": 4})
    idx = tokens(1, 150)
    plain = plain_hidden(model.state_dict(), model.dims, idx[0].tolist())
    np.testing.assert_allclose(model.hidden(idx)[0], plain, rtol=1e-9, atol=1e-9)
    assert model(idx).shape[-1] == 61


@torch.no_grad()
def test_each_feature_matters(make_model: Make, modern: Features) -> None:
    """Without any one of them the same weights give other numbers, so that the comparisons above compare them."""
    idx, whole = tokens(1, 150), exact(make_model, **modern)
    reference = whole.hidden(idx)
    for key in [k for k in KEYS if k != "vocab_multiple"]:
        other = exact(make_model, **modern | {key: BEFORE[key]})
        kept = other.state_dict().keys()
        other.load_state_dict({name: p for name, p in whole.state_dict().items() if name in kept})
        assert (other.hidden(idx) - reference).abs().max() > 1e-3, key


def test_the_options_of_conf(modern: Features) -> None:
    """gpt has every feature off, as runs had before the keys; modern has all of them on."""
    chosen = {name: compose_run([f"model={name}"]).config.model for name in ("gpt", "modern")}
    gpt, new = (asdict(derive_dims(model, 32_768)) for model in chosen.values())
    assert {key: gpt[key] for key in BEFORE} == BEFORE
    features = [key for key in BEFORE if key != "document_mask"]  # which is off in both
    assert {key: new[key] for key in [*features, "rope_base"]} == {k: modern[k] for k in [*features, "rope_base"]}
    assert {key for key in gpt if gpt[key] != new[key]} == {*features, "rope_base"}
    assert chosen["modern"].round_width and not chosen["gpt"].round_width
    assert ModelDims(**{key: value for key, value in gpt.items() if key not in BEFORE}) == ModelDims(**gpt)


def test_windows(make_dims: MakeDims) -> None:
    dims = make_dims(n_layer=10, window_pattern="SSSL", seq_len=2048)
    assert dims.windows == (512, 512, 512, None, 512, 512, 512, None, 512, None)
    sizes = {1: 128, 512: 128, 513: 256, 1024: 256, 2048: 512, 3000: 768}
    assert {length: make_dims(seq_len=length).short_window for length in sizes} == sizes
    assert make_dims(n_layer=3).windows == (None, None, None)


@torch.no_grad()
def test_a_short_window_ends_where_it_should(make_model: Make) -> None:
    """One short layer and one that sees all, whose attention is silenced: key i - 128 is seen, i - 129 is not."""
    model = exact(make_model, n_layer=2, window_pattern="S")
    model.blocks[1].attn.o_proj.weight.zero_()  # type: ignore[union-attr, operator]
    idx = tokens(1, 140)
    before = model.hidden(idx)
    changed = idx.clone()
    changed[0, 5] = (idx[0, 5] + 1) % 61
    moved = (model.hidden(changed) - before).abs().amax(dim=-1)[0] > 1e-12
    assert moved.nonzero().flatten().tolist() == list(range(5, 5 + 128 + 1))


@torch.no_grad()
def test_no_token_sees_the_future(make_model: Make, modern: Features) -> None:
    model = make_model(**modern)
    idx = tokens(1, 140)
    changed = idx.clone()
    changed[0, 70] = (changed[0, 70] + 1) % 61
    a, b = model(idx), model(changed)
    torch.testing.assert_close(a[:, :70], b[:, :70], rtol=0, atol=0)
    assert (a[:, 70:] - b[:, 70:]).abs().amax(dim=-1).min() > 0


@pytest.mark.parametrize("keys", [[key] for key in KEYS] + [KEYS])
@pytest.mark.parametrize("n_layer", [1, 4, 5])
def test_parameter_groups_match_the_plan(make_dims: MakeDims, modern: Features, keys: list[str], n_layer: int) -> None:
    dims = make_dims(**{key: modern[key] for key in keys} | {"n_layer": n_layer, "n_kv_head": 2})
    with torch.device("meta"):
        model = GPT(dims)
    roles, counts = model.parameter_roles(), count_params(dims)
    found = {"embedding": 0, "unembedding": 0, "matrix": 0, "value_embedding": 0, "scalar": 0, "gate": 0}
    for name, p in model.named_parameters():
        small = "scalar" if p.ndim == 1 else "gate"
        found[roles[name] if roles[name] in found else small] += p.numel()
    assert found == {
        "embedding": counts.embedding,
        "unembedding": counts.unembedding,
        "matrix": counts.matrices,
        "value_embedding": counts.value_embeddings,
        "scalar": counts.scalars,
        "gate": counts.smear_gate,
    }
    assert counts.total == sum(p.numel() for p in model.parameters())


def test_value_embeddings_are_on_the_parity_of_the_last_layer(make_model: Make) -> None:
    for n_layer, layers in ((1, [0]), (4, [1, 3]), (5, [0, 2, 4])):
        model = make_model(n_layer=n_layer, value_embeds=True)
        there = [i for i, block in enumerate(model.blocks) if block.attn.value_embed is not None]  # type: ignore[union-attr]
        assert there == layers


def test_gradient_against_finite_differences(make_model: Make, modern: Features) -> None:
    """Along the gradient of each parameter in turn, the loss moves by |g| per unit of length."""
    model = exact(make_model, **modern | {"n_layer": 3})
    idx = tokens(2, 9)

    def loss() -> torch.Tensor:
        return F.cross_entropy(model(idx[:, :-1]).flatten(0, 1).double(), idx[:, 1:].flatten())

    grads = torch.autograd.grad(loss(), list(model.parameters()))
    with torch.no_grad():
        for (name, p), g in zip(model.named_parameters(), grads, strict=True):
            length, saved = 1e-2 / float(g.norm()), p.clone()
            up = float((p.copy_(saved + length * g), loss())[1])
            down = float((p.copy_(saved - length * g), loss())[1])
            p.copy_(saved)
            assert (up - down) / 2e-2 == pytest.approx(float(g.norm()), rel=0.05), name


def test_activation_checkpointing_changes_no_gradient(make_model: Make, modern: Features) -> None:
    idx, grads = tokens(2, 140), []
    for on in (False, True):
        model = make_model(**modern)
        model.activation_checkpointing = on
        model(idx).square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0)


def test_bfloat16_compute(make_model: Make, modern: Features) -> None:
    """Tables that are looked up are stored in bfloat16, all else in float32; nothing widens the activations."""
    model, full = make_model("bfloat16", **modern), make_model("float32", **modern)
    narrow = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
    tables = {f"blocks.{i}.attn.value_embed.table.weight" for i in (0, 2, 4)}
    assert narrow == {"wte.weight", *tables}
    seen: set[torch.dtype] = set()
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    idx = tokens(2, 140)
    logits = model(idx)
    assert seen == {torch.bfloat16} and logits.dtype == torch.float32
    assert (logits - full(idx)).abs().mean().item() < 0.2
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())


@torch.no_grad()
def test_nothing_waits_for_the_device(make_dims: MakeDims, modern: Features) -> None:
    """Tensors of the meta device hold no numbers: reading one back, or branching on it, is an error."""
    with torch.device("meta"):
        model = GPT(make_dims(**modern))
    idx = torch.zeros(2, 140, dtype=torch.int64, device="meta")
    assert model(idx).shape == (2, 140, 61)
    cache = KVCache(model.dims, 2, 150, torch.device("meta"), torch.float32)
    for length in (4, 1, 1):
        assert model(idx[:, :length], cache).shape == (2, length, 61)


def test_one_graph(make_model: Make, modern: Features) -> None:
    """The compiler can follow the whole forward pass without a break."""
    model = make_model(**modern | {"n_layer": 2})
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    idx = tokens(2, 140)
    torch.testing.assert_close(compiled(idx), model(idx), rtol=1e-4, atol=1e-5)


def test_a_fresh_network_guesses_nearly_uniformly(make_dims: MakeDims, modern: Features) -> None:
    model = build_model(make_dims(**modern), "cpu", "float32", 0)
    assert 0 < model(tokens(1, 16)).abs().max() < 0.05


def test_the_seed_decides_every_drawn_weight(make_dims: MakeDims, modern: Features) -> None:
    first, again, other = (build_model(make_dims(**modern), "cpu", "float32", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    same = {name for name in first if torch.equal(first[name], other[name])}
    assert {name.split(".")[-2] for name in same} == {"o_proj", "down", "residual", "smear", "backout"}
    drawn = [p for name, p in first.items() if name not in same]
    assert all(not torch.equal(a, b) for a, b in pairwise(drawn) if a.shape == b.shape)

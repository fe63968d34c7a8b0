from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_gpt import plain_logits

from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.plan.dims import ModelDims, count_params

Make = Callable[..., GPT]
MakeDims = Callable[..., ModelDims]


@pytest.mark.parametrize("n_kv_head", [4, 2, 1])
def test_forward_against_float64(make_model: Make, n_kv_head: int) -> None:
    model = make_model(n_kv_head=n_kv_head)
    idx = torch.randint(61, (2, 16), generator=torch.Generator().manual_seed(3))
    logits = model(idx)
    assert logits.shape == (2, 16, 61) and logits.dtype == torch.float32
    for row in range(2):
        np.testing.assert_allclose(
            logits[row].detach(), plain_logits(model.state_dict(), model.dims, idx[row].tolist()), atol=2e-4
        )


def test_gradient_against_finite_differences(make_model: Make) -> None:
    """Along the gradient of each parameter in turn, the loss moves by |g| per unit of length."""
    model = make_model(n_layer=1, n_kv_head=2)
    idx = torch.randint(61, (2, 9))

    def loss() -> torch.Tensor:
        logits = model(idx[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).double(), idx[:, 1:].flatten())

    grads = torch.autograd.grad(loss(), list(model.parameters()))
    with torch.no_grad():
        for (name, p), g in zip(model.named_parameters(), grads, strict=True):
            length, saved = 1e-2 / float(g.norm()), p.clone()
            up = float((p.copy_(saved + length * g), loss())[1])
            down = float((p.copy_(saved - length * g), loss())[1])
            p.copy_(saved)
            assert (up - down) / 2e-2 == pytest.approx(float(g.norm()), rel=0.02), name


def test_no_token_sees_the_future(make_model: Make) -> None:
    model = make_model()
    idx = torch.randint(61, (1, 12))
    changed = idx.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 61
    a, b = model(idx), model(changed)
    torch.testing.assert_close(a[:, :7], b[:, :7], rtol=0, atol=0)
    assert (a[:, 7:] - b[:, 7:]).abs().amax(dim=-1).min() > 0


def test_parameters_of_d20_on_the_meta_device() -> None:
    dims = ModelDims(20, 1280, 10, 10, 128, 65_536, 2048, 10_000.0, "float32", 1e-6, 15.0)
    with torch.device("meta"):
        model = GPT(dims)
    assert sum(p.numel() for p in model.parameters()) == count_params(dims).total == 560_988_160


@pytest.mark.parametrize(
    "changes", [{}, {"n_kv_head": 2}, {"n_layer": 1, "vocab_size": 7}, {"n_embd": 64, "n_head": 8}]
)
def test_parameter_groups_match_the_plan(make_dims: MakeDims, changes: dict[str, int]) -> None:
    dims = make_dims(**({"n_kv_head": changes.get("n_head", 4)} | changes))
    model = build_model(dims, "cpu", "float32", 0)
    roles = model.parameter_roles()
    sizes = dict.fromkeys(("embedding", "unembedding", "matrix"), 0)
    for name, p in model.named_parameters():
        sizes[roles[name]] += p.numel()
    counts = count_params(dims)
    assert sizes == {"embedding": counts.embedding, "unembedding": counts.unembedding, "matrix": counts.matrices}
    assert roles.keys() == dict(model.named_parameters()).keys()


def test_parameter_names(make_model: Make) -> None:
    block = [f"blocks.0.{part}.weight" for part in
             ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj", "mlp.up", "mlp.down")]  # fmt: skip
    model = make_model(n_layer=1)
    assert list(model.state_dict()) == ["wte.weight", *block, "lm_head.weight"]


def test_init_leaves_nothing_uninitialised(make_dims: MakeDims) -> None:
    with torch.device("meta"):
        model = GPT(make_dims())
    model.to_empty(device="cpu")
    everything = [*model.parameters(), *model.buffers()]
    with torch.no_grad():
        for tensor in everything:
            tensor.fill_(float("nan"))
    model.init_weights(0)
    assert all(bool(tensor.isfinite().all()) for tensor in everything)


def test_init_distributions(make_dims: MakeDims) -> None:
    model = build_model(make_dims(n_embd=256, n_head=2, n_kv_head=1, head_dim=128, vocab_size=500), "cpu", "float32", 0)
    expected = {"wte.weight": 1.0, "lm_head.weight": 0.0}
    for i in range(3):
        expected |= {f"blocks.{i}.attn.q_proj.weight": 1 / 16, f"blocks.{i}.attn.o_proj.weight": 0.0}
        # 128 x 256: fan_out smaller than fan_in, so sqrt(128/256) narrower
        expected |= {f"blocks.{i}.attn.{n}_proj.weight": 1 / 16 / sqrt(2) for n in "kv"}
        expected |= {f"blocks.{i}.mlp.up.weight": 1 / 16, f"blocks.{i}.mlp.down.weight": 0.0}
    assert {name: float(p.detach().std()) for name, p in model.named_parameters()} == pytest.approx(expected, rel=0.02)


def test_first_loss_is_that_of_a_uniform_guess(make_dims: MakeDims) -> None:
    model = build_model(make_dims(), "cpu", "float32", 0)
    assert model(torch.randint(61, (1, 16))).abs().max() == 0


def test_seed_decides_the_weights(make_dims: MakeDims) -> None:
    first, again, other = (build_model(make_dims(), "cpu", "float32", seed).wte.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_bfloat16_compute(make_model: Make) -> None:
    model, exact = make_model("bfloat16"), make_model("float32")
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    assert dtypes.pop("wte.weight") == torch.bfloat16
    assert set(dtypes.values()) == {torch.float32}
    idx = torch.randint(61, (2, 16))
    assert model.hidden(idx).dtype == torch.bfloat16
    logits = model(idx)
    assert logits.dtype == torch.float32
    assert (logits - exact(idx)).abs().mean().item() < 0.15
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())


def test_rope_dtype_is_that_of_the_tables(make_model: Make) -> None:
    model = make_model(rope_dtype="bfloat16")
    assert model.rope_cos.dtype == torch.bfloat16
    assert model.rope_cos.shape == (160, 8)
    assert model(torch.randint(61, (1, 4))).isfinite().all()


def test_activation_checkpointing_changes_no_gradient(make_model: Make) -> None:
    idx = torch.randint(61, (2, 16))
    grads = []
    for on in (False, True):
        model = make_model()
        model.activation_checkpointing = on
        model(idx).square().mean().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0)

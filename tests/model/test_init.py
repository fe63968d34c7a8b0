"""First numbers, parameter by parameter."""

from collections.abc import Callable
from math import sqrt

import pytest
import torch

from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.model.init import rule_of
from nanochat.plan.dims import ModelDims

MakeDims = Callable[..., ModelDims]
Features = dict[str, object]
EXTRAS = ["vocab_multiple", "value_embeds", "residual_scalars", "smear", "backout"]
WIDE = {"n_embd": 256, "n_head": 2, "n_kv_head": 1, "head_dim": 128, "vocab_size": 500}


def spread(model: GPT) -> dict[str, tuple[float, float]]:
    """(standard deviation, largest absolute value) by the end of the name, over all layers."""
    together: dict[str, list[torch.Tensor]] = {}
    for name, p in model.named_parameters():
        parts = name.removesuffix(".weight").split(".")
        together.setdefault(".".join(parts[-2:]), []).append(p.detach().float().flatten())
    joined = {name: torch.cat(tensors) for name, tensors in together.items()}
    return {name: (float(x.std()), float(x.abs().max())) for name, x in joined.items() if len(x) > 1}


@pytest.mark.parametrize("init", ["gpt", "modern"])
def test_nothing_is_left_uninitialised(make_dims: MakeDims, modern: Features, init: str) -> None:
    with torch.device("meta"):
        model = GPT(make_dims(**modern | {"init": init}))
    model.to_empty(device="cpu")
    everything = [*model.parameters(), *model.buffers()]
    with torch.no_grad():
        for tensor in everything:
            tensor.fill_(float("nan"))
    model.init_weights(0)
    assert all(bool(tensor.isfinite().all()) for tensor in everything)


@pytest.mark.parametrize("init", ["gpt", "modern"])
def test_a_built_network_has_no_number_of_the_allocator(make_dims: MakeDims, modern: Features, init: str) -> None:
    """The real way, from the meta device: torch can fill with NaN whatever memory is taken."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all(), "it does fill"
        model = build_model(make_dims(**modern | {"init": init}), "cpu", "float32", 0)
    finally:
        torch.use_deterministic_algorithms(False)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert [name for name, tensor in tensors.items() if not tensor.isfinite().all()] == []


def test_distributions_of_modern(make_dims: MakeDims, modern: Features) -> None:
    model = build_model(make_dims(**modern | WIDE), "cpu", "float32", 0)
    uniform = {"attn.q_proj": 1 / 16, "attn.k_proj": 1 / 16, "attn.v_proj": 1 / 16, "mlp.up": 0.4 / 16}
    uniform |= {"value_embed.table": 1 / 16}
    found = spread(model)
    for name, std in uniform.items():
        assert found[name] == pytest.approx((std, sqrt(3) * std), rel=0.02), name
        assert found[name][1] <= sqrt(3) * std
    for name, std in {"wte": 0.8, "lm_head": 0.001}.items():
        assert found[name][0] == pytest.approx(std, rel=0.02)
        assert found[name][1] > 4 * std, "normal, so some are far out"
    assert found["attn.o_proj"] == found["mlp.down"] == (0.0, 0.0)


@pytest.mark.parametrize("init", ["gpt", "modern"])
def test_gates_and_scalars(make_dims: MakeDims, modern: Features, init: str) -> None:
    """The same under both: they belong to their feature."""
    weights = build_model(make_dims(**modern | WIDE | {"init": init}), "cpu", "float32", 0).state_dict()
    gates = [weights["smear.gate.weight"]] + [weights[f"blocks.{i}.attn.value_embed.gate.weight"] for i in (0, 2, 4)]
    drawn = torch.cat([gate.flatten() for gate in gates])
    assert 0 <= float(drawn.min()) < 0.003 and 0.017 < float(drawn.max()) <= 0.02
    torch.testing.assert_close(weights["residual.a"], torch.tensor([1.15, 1.125, 1.1, 1.075, 1.05]))
    torch.testing.assert_close(weights["residual.b"], torch.tensor([0.2, 0.1625, 0.125, 0.0875, 0.05]))
    assert weights["smear.scale"].tolist() == [0.0]
    torch.testing.assert_close(weights["backout.scale"], torch.tensor([0.2]))


def test_scalars_of_one_layer(make_dims: MakeDims) -> None:
    weights = build_model(make_dims(n_layer=1, residual_scalars=True), "cpu", "float32", 0).state_dict()
    torch.testing.assert_close(weights["residual.a"], torch.tensor([1.15]))
    torch.testing.assert_close(weights["residual.b"], torch.tensor([0.2]))


def test_a_parameter_without_a_rule_is_noticed(make_dims: MakeDims) -> None:
    with pytest.raises(AssertionError, match=r"blocks.0.attn.extra.weight has 0 rules"):
        rule_of("blocks.0.attn.extra.weight", make_dims())

"""Small networks with numbers everywhere: a fresh one has zeros in every block's output and in the head."""

from collections.abc import Callable

import pytest
import torch

from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.plan.dims import ModelDims

MODERN = {
    "n_layer": 5,
    "n_kv_head": 2,
    "rope_base": 100_000.0,
    "vocab_multiple": 64,
    "qk_scale": 1.2,
    "window_pattern": "SSSL",
    "value_embeds": True,
    "residual_scalars": True,
    "smear": True,
    "backout": True,
    "init": "modern",
}


@pytest.fixture
def modern() -> dict[str, object]:
    """What model=modern changes, in a network of five layers: three short windows, two that see all."""
    return dict(MODERN)


@pytest.fixture
def make_dims() -> Callable[..., ModelDims]:
    def make(**changes: object) -> ModelDims:
        values: dict[str, object] = {
            "n_layer": 3,
            "n_embd": 32,
            "n_head": 4,
            "n_kv_head": 4,
            "head_dim": 8,
            "vocab_size": 61,
            "seq_len": 16,
            "rope_base": 10_000.0,
            "rope_dtype": "float32",
            "norm_eps": 1e-6,
            "logit_softcap": 15.0,
        }
        return ModelDims(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_model(make_dims: Callable[..., ModelDims]) -> Callable[..., GPT]:
    def make(dtype: str = "float32", seed: int = 0, **changes: object) -> GPT:
        model = build_model(make_dims(**changes), "cpu", dtype, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name != "wte.weight":
                    fan_in = weight.shape[1] if weight.ndim == 2 else 4
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 2 / fan_in**0.5)
        return model

    return make

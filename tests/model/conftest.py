"""Small networks with numbers everywhere: a fresh one has zeros in every block's output and in the head."""

from collections.abc import Callable

import pytest
import torch

from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.plan.dims import ModelDims


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
                    weight.copy_(torch.randn(weight.shape, generator=generator) * 2 / weight.shape[1] ** 0.5)
        return model

    return make

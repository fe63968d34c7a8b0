"""Optimizer configs with the values of the original guide."""

from collections.abc import Callable

import pytest

from nanochat.config.optim import AdamWConfig, MomentumConfig, MuonAdamWConfig, NSDtype, OptimConfig, OptimName

COMMON = {
    "embedding_lr": 0.2,
    "unembedding_lr": 0.004,
    "matrix_lr": 0.02,
    "scalar_lr": 0.5,
    "smear_lr": 0.2,
    "weight_decay": 0.0,
    "grad_clip": 1.0,
    "beta1": 0.8,
    "beta2": 0.95,
    "eps": 1e-10,
    "batch_lr_scaling": False,
}


@pytest.fixture
def make_config() -> Callable[..., OptimConfig]:
    def make(name: str, **changes: object) -> OptimConfig:
        values = COMMON | changes
        if name == "adamw":
            return AdamWConfig(name=OptimName.adamw, **values)  # type: ignore[arg-type]
        momentum = MomentumConfig(start=0.85, end=0.95, warmup_steps=300)
        muon = {"momentum": momentum, "ns_steps": 5, "ns_dtype": NSDtype.float32} | values
        return MuonAdamWConfig(name=OptimName.muon_adamw, **muon)  # type: ignore[arg-type]

    return make

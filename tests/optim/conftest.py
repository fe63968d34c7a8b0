"""Optimizer configs with the values of conf/optim, but Newton-Schulz steps in float32 and no clipping."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from nanochat.config.load import compose_run
from nanochat.config.optim import MuonAdamWConfig, MuonModernConfig, NSDtype, OptimConfig


@cache
def composed(name: str) -> OptimConfig:
    config = compose_run([f"optim={name}"]).config.optim
    return (
        replace(config, ns_dtype=NSDtype.float32) if isinstance(config, MuonAdamWConfig | MuonModernConfig) else config
    )


@pytest.fixture(scope="session")
def make_config() -> Callable[..., OptimConfig]:
    def make(name: str, **changes: object) -> OptimConfig:
        return replace(composed(name), **changes)  # type: ignore[arg-type]

    return make

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from nanochat.checkpoint.save import save_checkpoint
from nanochat.plan.dims import ModelDims

DIMS = ModelDims(
    n_layer=1,
    n_embd=4,
    n_head=1,
    n_kv_head=1,
    head_dim=4,
    vocab_size=8,
    seq_len=16,
    rope_base=1e4,
    rope_dtype="float32",
    norm_eps=1e-6,
    logit_softcap=15.0,
)


@pytest.fixture
def dims() -> ModelDims:
    return DIMS


@pytest.fixture(scope="session")
def save() -> Callable[[Path, int], Path]:
    """Write a tiny checkpoint of a run; returns its folder."""

    def write(run_dir: Path, step: int) -> Path:
        folder = run_dir / "checkpoints" / f"step_{step:06d}"
        weights = {"wte.weight": torch.full((8, 4), float(step))}
        moments = {"wte.weight/exp_avg": torch.ones(8, 4)}
        save_checkpoint(folder, model=weights, model_yaml=asdict(DIMS), optimizer=moments, state={"step": step})
        return folder

    return write

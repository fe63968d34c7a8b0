"""Writing a checkpoint: `checkpoints/step_000500/` with model, optimizer, state and, last, the manifest.

    model.safetensors                     weights by plain name (no wrapper's prefix)
    model.yaml                            the dimensions the network is built from
    optim_rank_00000_of_00001.safetensors optimizer state of each rank
    state.json                            loader, RNG and loop state
    manifest.json                         sizes and hashes (manifest.py): complete or absent

Notable: nothing here is pickled, so that reading a checkpoint cannot run code.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file

from nanochat.checkpoint.manifest import MANIFEST, step_of, write_manifest
from nanochat.checkpoint.names import plain_names
from nanochat.errors import NanochatError
from nanochat.tracking.atomic import sync_folder, write_bytes, write_json

MODEL_FILE = "model.safetensors"
MODEL_YAML = "model.yaml"
STATE_FILE = "state.json"


def optimizer_file(rank: int, world: int) -> str:
    """Name of one rank's share of the optimizer state."""
    return f"optim_rank_{rank:05d}_of_{world:05d}.safetensors"


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file({name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}, path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _clear(folder: Path) -> None:
    """An empty folder. The manifest goes first: a folder that is half deleted must not look complete."""
    (folder / MANIFEST).unlink(missing_ok=True)
    if folder.exists():
        sync_folder(folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    sync_folder(folder.parent)


def _alone() -> None:
    """The barrier of one rank."""


def save_checkpoint(
    folder: Path,
    *,
    model: Mapping[str, torch.Tensor],
    model_yaml: dict[str, Any],
    optimizer: Mapping[str, torch.Tensor],
    state: dict[str, Any],
    rank: int = 0,
    world: int = 1,
    barrier: Callable[[], None] = _alone,
) -> None:
    """Write a checkpoint; called by every rank, each giving its own optimizer state.

    `folder` is `{run_dir}/checkpoints/step_000500`; `model_yaml` the fields of ModelDims; `state` anything
    JSON can hold. Raises NanochatError if the disk refuses; the checkpoint is then absent, older ones are whole.
    """
    step = step_of(folder)
    assert step is not None, f"{folder.name} is not named step_000000"
    assert world == 1 or barrier is not _alone, "several ranks need a barrier"
    try:
        if rank == 0:
            _clear(folder)
        barrier()
        _write_tensors(folder / optimizer_file(rank, world), optimizer)
        if rank == 0:
            _write_tensors(folder / MODEL_FILE, plain_names(model))
            write_bytes(folder / MODEL_YAML, yaml.safe_dump(model_yaml, sort_keys=False).encode())
            write_json(folder / STATE_FILE, state)
        barrier()
        if rank == 0:
            write_manifest(folder, step, world)
        barrier()
    except (OSError, SafetensorError) as error:
        raise NanochatError(
            f"cannot write the checkpoint {folder}: {error}; {_free(folder)}; make room or set base_dir to "
            f"another disk, then run the same command again: it resumes from the checkpoint before"
        ) from error


def _free(folder: Path) -> str:
    """How much room the disk has, for an error message."""
    there = next(parent for parent in folder.resolve().parents if parent.exists())
    return f"{shutil.disk_usage(there).free / 1e9:.1f} GB are free there"

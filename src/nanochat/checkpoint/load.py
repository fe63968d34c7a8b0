"""Reading a checkpoint back. Every file read is checked against the manifest first.

Notable: files that the manifest does not name are never opened, and nothing is unpickled: a folder of
.pt or .bin files is refused, and a pickle under the name of a safetensors file is no safetensors file.
"""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from nanochat.checkpoint.manifest import Manifest, check_hash, damage, read_manifest
from nanochat.checkpoint.names import plain_names
from nanochat.checkpoint.save import MODEL_FILE, MODEL_YAML, STATE_FILE, optimizer_file
from nanochat.errors import CorruptError, MismatchError, MissingError
from nanochat.plan.dims import ModelDims, dims_from
from nanochat.tracking.atomic import decode

PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".distcp", ".metadata"}


def _refuse_pickle(ckpt: Path) -> None:
    """Raise CorruptError if what was given is pickle, or a folder of it (also torch's distributed checkpoints)."""
    paths = [ckpt] if ckpt.is_file() else list(ckpt.iterdir())
    found = sorted(path.name for path in paths if path.suffix in PICKLES or path.name in PICKLES)
    if found:
        raise CorruptError(
            f"{ckpt}: {', '.join(found[:4])} holds pickle, which can run any code when it is read, so it is not "
            f"read; a checkpoint here is a folder with {MODEL_FILE} and manifest.json: convert it where you trust it"
        )


def open_checkpoint(ckpt: Path) -> Manifest:
    """The manifest of a complete checkpoint.

    Raises MissingError if the folder is none, CorruptError if a file is missing, has another size, or is pickle.
    """
    if not ckpt.exists():
        raise MissingError(f"there is no checkpoint {ckpt}; `nanochat runs ls` shows what there is")
    manifest = read_manifest(ckpt)
    if manifest is None:
        _refuse_pickle(ckpt)
        raise MissingError(f"{ckpt} is not a complete checkpoint: it has no manifest.json; take another step")
    if (reason := damage(ckpt, manifest)) is not None:
        raise CorruptError(f"{reason}; take another checkpoint of {ckpt.parent}")
    return manifest


def _checked(ckpt: Path, name: str) -> Path:
    """Path of a file whose content is what was saved."""
    manifest = open_checkpoint(ckpt)
    if name not in manifest.files:
        raise MissingError(f"checkpoint {ckpt} has no {name}; it has {', '.join(sorted(manifest.files))}")
    check_hash(ckpt, manifest, name)
    return ckpt / name


def _read_tensors(path: Path, device: str) -> dict[str, torch.Tensor]:
    try:
        return load_file(path, device=device)
    except SafetensorError as error:
        raise CorruptError(f"{path} is not a safetensors file ({error}); take another checkpoint") from error


def load_model(ckpt: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The weights, by plain parameter name, on `device`, in the dtypes they were saved in."""
    return plain_names(_read_tensors(_checked(ckpt, MODEL_FILE), device))


def load_optimizer(ckpt: Path, device: str = "cpu", rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """One rank's optimizer state. Raises MismatchError if it was saved by another number of ranks."""
    saved = open_checkpoint(ckpt).world
    if saved != world:
        raise MismatchError(f"{ckpt}: the optimizer state was saved by {saved} ranks and cannot be read by {world}")
    return _read_tensors(_checked(ckpt, optimizer_file(rank, world)), device)


def _read_mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that holds a mapping; YAML by the safe loader, which makes no objects."""
    try:
        content = path.read_bytes()
        loaded = yaml.safe_load(content) if path.suffix == ".yaml" else decode(json.loads(content))
    except (ValueError, yaml.YAMLError) as error:
        raise CorruptError(
            f"{path} cannot be read ({' '.join(str(error).split())}); take another checkpoint"
        ) from error
    if not isinstance(loaded, dict):
        raise CorruptError(f"{path} is not a mapping; take another checkpoint")
    return loaded


def load_state(ckpt: Path) -> dict[str, Any]:
    """Loader, RNG and loop state as it was given to save_checkpoint (tuples come back as lists)."""
    return _read_mapping(_checked(ckpt, STATE_FILE))


def load_model_yaml(ckpt: Path) -> dict[str, Any]:
    """model.yaml as it stands."""
    return _read_mapping(_checked(ckpt, MODEL_YAML))


def load_dims(ckpt: Path) -> ModelDims:
    """What the network is built from; files from before `model=modern` have fewer keys and mean the same.

    Raises MismatchError naming keys that are missing or that nothing here reads.
    """
    saved = load_model_yaml(ckpt)
    dims, missing, foreign = dims_from(saved)
    if dims is None:
        told = [f"{verb} {', '.join(names)}" for verb, names in (("lacks", missing), ("has unknown", foreign)) if names]
        raise MismatchError(
            f"{ckpt / MODEL_YAML} {' and '.join(told)}: it was written by another version of nanochat; "
            f"environment.json in the run's folder says which"
        )
    return dims

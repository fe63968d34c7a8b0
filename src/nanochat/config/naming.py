"""Names of runs and folders where they are not asked for."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nanochat.config.root import RunConfig, Stage

# Where a stage starts from when init_from is null: the first of these that exists under the run's name.
ORIGINS: dict[Stage, tuple[str, ...]] = {
    Stage.mid: ("base",),
    Stage.sft: ("mid", "base"),
    Stage.eval: ("sft", "mid", "base"),
}
_MAX_NAME = 80  # characters of a run name; longer ones end in a hash
_NOT_IN_NAME = ("run", "stage")  # swept keys that are in the folder's path anyway


def base_dir(config: RunConfig) -> Path:
    """The folder that everything is written below, absolute."""
    return Path(os.path.abspath(Path(config.base_dir).expanduser()))  # noqa: PTH100 - links stay as they are


def run_name(config: RunConfig) -> str:
    """`run`, else the run of `init_from` in the stages that have one, else d{depth}; in identity the persona's name.

    An evaluation of `eval.hf_model` is named like its folder.
    """
    if config.run is not None:
        return config.run
    if config.stage == Stage.eval and config.eval.hf_model is not None:
        return _safe(Path(os.path.abspath(config.eval.hf_model)).name).lstrip("._=-") or "hf"  # noqa: PTH100
    if config.stage == Stage.identity:
        return _safe(config.persona.name.strip()).lstrip("._=-") or "persona"
    if config.init_from is not None and config.stage != Stage.base:
        return run_of_ref(config.init_from)
    return f"d{config.model.depth}"


def run_of_ref(ref: str) -> str:
    """The run's name in a reference: `sft/d20@500` -> d20, a path -> the name of the run folder."""
    bare = ref.partition("@")[0].rstrip("/")
    parts = [p for p in bare.split("/") if p not in (".", "..", "~", "")]
    if "checkpoints" in parts:
        parts = parts[: parts.index("checkpoints")]
    return parts[-1] if parts else bare


def run_dir(config: RunConfig) -> Path:
    """`{base_dir}/{stage}/{run}`."""
    return base_dir(config) / str(config.stage) / run_name(config)


def tokenizer_dir(config: RunConfig) -> Path:
    """`{base_dir}/tokenizer/{name}`."""
    return base_dir(config) / "tokenizer" / config.tokenizer.name


def job_name(run: str, overrides: Sequence[str], swept: Sequence[str]) -> str:
    """A name for one job of a multirun: `{run}-{short sorted overrides}`, with a hash where it is long or ambiguous."""
    pairs = [o.lstrip("+~").partition("=") for o in overrides]
    values = {key: value for key, _, value in pairs if key in swept and key not in _NOT_IN_NAME}
    short = "-".join(f"{_short(key, list(values))}={_safe(values[key])}" for key in sorted(values))
    name = f"{run}-{short}" if short else run
    lossy = any(_safe(value) != value for value in values.values())
    if len(name) <= _MAX_NAME and not lossy:
        return name
    digest = hashlib.sha256(repr((run, sorted(values.items()))).encode()).hexdigest()[:8]
    return f"{name[: _MAX_NAME - 9]}-{digest}"


def _short(key: str, keys: Sequence[str]) -> str:
    """The last words of a key, as many as tell it from the other keys."""
    words = key.split(".")
    for count in range(1, len(words)):
        tail = words[-count:]
        if not any(other != key and other.split(".")[-count:] == tail for other in keys):
            return ".".join(tail)
    return _safe(key)


def _safe(value: str) -> str:
    return "".join(c if c.isalnum() or c in "._=-" else "_" for c in value)


def with_names(config: RunConfig) -> RunConfig:
    """The config with `run` and `base_dir` filled in, as it is frozen and saved."""
    return replace(config, run=run_name(config), base_dir=str(base_dir(config)))

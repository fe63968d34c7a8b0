"""Composing a RunConfig with Hydra.

`stages:` of an experiment (and of a debug option) cannot be expressed inside Hydra, because an override may
not depend on another group's choice. It is read before composing and put in front of the user's overrides.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nanochat.config.checks import check_config
from nanochat.config.compose_errors import translate
from nanochat.config.options import option_file, parents, read_option
from nanochat.config.overrides import check_choices, normalize_override, split_later, values_of
from nanochat.config.raw import compose_cfg
from nanochat.config.root import RunConfig, Stage
from nanochat.config.validate import build_run_config
from nanochat.errors import ConfigError, nearest

_STAGED = ("experiment", "debug")  # the groups whose options may have `stages:`


@dataclass(frozen=True)
class Composed:
    """A checked config with the overrides that made it (but for Hydra's own) and the options of the groups."""

    config: RunConfig
    overrides: list[str]
    choices: dict[str, Any]


def to_run_config(cfg: DictConfig) -> RunConfig:
    """A checked RunConfig from Hydra's composed config. Raises ConfigError, or OmegaConf's errors of interpolation."""
    data = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(data, dict)
    config = build_run_config({str(key): value for key, value in data.items()})
    check_config(config)
    return config


def compose_run(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Composed:
    """Composes one run from override strings, with those of the experiment's `stages:` in front."""
    first = stage_overrides(overrides, config_dirs)
    ordered = [*first, *overrides]
    with in_our_words(first, overrides, config_dirs):
        cfg = compose_cfg(split_later(ordered)[0], config_dirs)
        without_hydra = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        own = [o for o in ordered if not o.lstrip("+~").startswith(("hydra.", "hydra/"))]
        return Composed(to_run_config(without_hydra), own, dict(cfg.hydra.runtime.choices))


@contextmanager
def in_our_words(first: Sequence[str], given: Sequence[str], config_dirs: Sequence[str] = ()) -> Iterator[None]:
    """Within the block errors become a ConfigError that says so if the mistake is in `first`, an experiment's own."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        said = str(translate(error, [*first, *given], config_dirs))
        mine = {o.lstrip("+~").partition("=")[0] for o in first} - {o.lstrip("+~").partition("=")[0] for o in given}
        key = next((key for key in mine if re.match(rf"~?{re.escape(key)}\b", said)), None)
        raise ConfigError(said + (f" ({key} is given by the experiment for this stage)" if key else "")) from error


def stage_overrides(overrides: Iterable[str], config_dirs: Sequence[str] = ()) -> list[str]:
    """What the chosen experiment and debug option want for the chosen stage alone, but for what is given already."""
    given = list(overrides)
    check_choices(given, config_dirs)
    chosen = {"stage": "base", **values_of(("stage", *_STAGED), given)}
    found: list[str] = []
    for group in _STAGED:
        for name in _names(chosen.get(group, "")):
            found += _stages_of(group, name, chosen["stage"], config_dirs)
    return [override for override in found if override not in given]


def _names(value: str) -> list[str]:
    """`a` and `[a,b]`; `a,b` is a sweep, whose jobs come here one by one."""
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    return [name.strip() for name in inner.split(",")] if inner is not value or "," not in value else []


def _stages_of(group: str, name: str, stage: str, config_dirs: Sequence[str]) -> list[str]:
    """The overrides for one stage of the options that `name` starts from, then its own."""
    path = option_file(group, name, config_dirs)
    if path is None:
        return []
    inherited = [o for parent in parents(path) for o in _stages_of(group, parent, stage, config_dirs)]
    body = read_option(path)
    if "stage" in body or any("override /stage" in entry for entry in body.get("defaults") or () if entry):
        raise ConfigError(f"{path}: an option of {group} cannot choose the stage; give stage= on the command line")
    stages = body.get("stages") or {}
    known = [str(s) for s in Stage]
    for key in stages:
        if key not in known:
            raise ConfigError(f"{path}: stages.{key} is no stage; {nearest(str(key), known)}")
    listed = stages.get(stage) or []
    if not isinstance(listed, list) or not all(isinstance(o, str) for o in listed):
        raise ConfigError(f"{path}: stages.{stage} must be a list of overrides such as 'train.num_epochs=2'")
    return inherited + [normalize_override(o) for o in listed]

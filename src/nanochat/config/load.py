"""Composing a RunConfig with Hydra, and what is done to override strings before it.

`stages:` of an experiment (and of a debug option) cannot be expressed inside Hydra, because an override may
not depend on another group's choice. It is read before composing and put in front of the user's overrides.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nanochat.config.checks import check_config
from nanochat.config.compose_errors import translate
from nanochat.config.options import option_file, parents, read_option
from nanochat.config.raw import compose_cfg
from nanochat.config.root import RunConfig, Stage
from nanochat.config.validate import build_run_config
from nanochat.errors import ConfigError, nearest

_STAGED = ("experiment", "debug")  # the groups whose options may have `stages:`


@dataclass(frozen=True)
class Composed:
    """A checked config with the overrides and the options of the groups that made it."""

    config: RunConfig
    overrides: list[str]
    choices: dict[str, Any]


def to_run_config(cfg: DictConfig, overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> RunConfig:
    """A checked RunConfig from Hydra's composed config; the overrides that made it are for messages only."""
    try:
        data = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise translate(error, overrides, config_dirs) from error
    assert isinstance(data, dict)
    config = build_run_config({str(key): value for key, value in data.items() if key != "hydra"}, config_dirs)
    check_config(config)
    return config


def compose_run(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Composed:
    """Composes one run from override strings, with those of the experiment's `stages:` in front."""
    ordered = [*stage_overrides(overrides, config_dirs), *overrides]
    try:
        cfg = compose_cfg(ordered, config_dirs)
    except (HydraException, OmegaConfBaseException) as error:
        raise translate(error, ordered, config_dirs) from error
    choices = dict(cfg.hydra.runtime.choices)
    with_hydra = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return Composed(to_run_config(with_hydra, ordered, config_dirs), ordered, choices)


def stage_overrides(overrides: Iterable[str], config_dirs: Sequence[str] = ()) -> list[str]:
    """What the chosen experiment and debug option want for the chosen stage alone, but for what is given already."""
    given = list(overrides)
    chosen = {"stage": "base"}
    for override in given:
        key, _, value = override.lstrip("+").partition("=")
        if key in ("stage", *_STAGED):
            chosen[key] = value.strip("'\"")
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


def normalize_override(text: str) -> str:
    """Quotes what Hydra's grammar refuses unquoted: `=` inside a value, as in run names and override lists."""
    key, equals, value = text.partition("=")
    if not equals or "=" not in value or value[:1] in "'\"{":
        return text
    if not value.startswith("["):
        return text if "," in value or "(" in value else f"{key}='{value}'"
    if not key.startswith("pipeline.overrides.") or "'" in value or '"' in value:
        return text
    items = re.split(r",(?![^\[{(]*[\]})])", value[1:-1])
    return f"{key}=[" + ",".join(f"'{item.strip()}'" for item in items) + "]"


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a multirun as Hydra's basic sweeper makes them: the product of all choices, in order."""
    jobs: list[list[str]] = [[]]
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise translate(error, overrides) from error
    for override, text in zip(parsed, overrides, strict=True):
        if override.is_sweep_override():
            prefix = override.get_key_element()
            variants = [f"{prefix}={value}" for value in override.sweep_string_iterator()]
        else:
            variants = [text]
        jobs = [[*job, variant] for job in jobs for variant in variants]
    return jobs


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that a multirun varies."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [str(o.key_or_group) for o in parsed if o.is_sweep_override()]

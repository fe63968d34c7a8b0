"""Composing a RunConfig with Hydra: where `conf/` is, stage overrides of experiments, errors in our words.

`stages:` of an experiment (and of a debug option) cannot be expressed inside Hydra, because an override may
not depend on another group's choice. It is read before composing and put in front of the user's overrides.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from nanochat.config.conf import conf_dir
from nanochat.config.register import register_schemas
from nanochat.config.root import RunConfig
from nanochat.config.validate import all_keys, build_run_config, unknown_key
from nanochat.errors import ConfigError, NanochatError, nearest


@dataclass(frozen=True)
class Composed:
    """A checked config with the overrides and the options of the groups that made it."""

    config: RunConfig
    overrides: list[str]
    choices: dict[str, Any]


def to_run_config(cfg: DictConfig) -> RunConfig:
    """A checked RunConfig from Hydra's composed config."""
    try:
        data = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise translate(error) from error
    assert isinstance(data, dict)
    return build_run_config(data)  # type: ignore[arg-type]


def compose_run(overrides: Sequence[str], config_dirs: Sequence[str] = (), choose: bool = True) -> Composed:
    """Composes one run from override strings, with those of the experiment's `stages:` in front."""
    register_schemas()
    ordered = [*stage_overrides(overrides, config_dirs), *overrides] if choose else list(overrides)
    search = [f"hydra.searchpath=[{','.join('file://' + str(Path(d).resolve()) for d in config_dirs)}]"]
    try:
        GlobalHydra.instance().clear()  # a launcher or pipeline composes inside a Hydra application
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", [*ordered, *(search if config_dirs else [])], return_hydra_config=True)
        choices = dict(cfg.hydra.runtime.choices)
        OmegaConf.set_struct(cfg, False)
        cfg.pop("hydra")
        return Composed(to_run_config(cfg), ordered, choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise translate(error, config_dirs) from error


def stage_overrides(overrides: Iterable[str], config_dirs: Sequence[str] = ()) -> list[str]:
    """What the chosen experiment and debug option want for the chosen stage alone."""
    chosen = {"stage": "base"}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("stage", "experiment", "debug"):
            chosen[key] = value
    found: list[str] = []
    for group in ("experiment", "debug"):
        for name in chosen.get(group, "").strip("[]").split(","):
            found += _stages_of(group, name, chosen["stage"], config_dirs)
    return found


def _stages_of(group: str, name: str, stage: str, config_dirs: Sequence[str]) -> list[str]:
    for folder in (*map(Path, config_dirs), conf_dir()):
        path = folder / group / f"{name}.yaml"
        if name and path.is_file():
            body = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            listed = (body.get("stages") or {}).get(stage) or []
            if not isinstance(listed, list) or not all(isinstance(o, str) for o in listed):
                raise ConfigError(f"{path}: stages.{stage} must be a list of overrides such as 'train.num_epochs=2'")
            return listed
    return []


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
        raise translate(error) from error
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


def translate(error: Exception, config_dirs: Sequence[str] = ()) -> NanochatError:
    """Hydra's and OmegaConf's exceptions as one paragraph in this project's words."""
    if isinstance(error, NanochatError):
        return error
    if isinstance(error, OverrideParseException):
        reason = str(error).splitlines()[0].strip()
        return ConfigError(
            f"the override '{error.override}' cannot be read: {reason}. Write key=value without spaces, and quote "
            f"values with special characters: key='\"a b, c\"'"
        )
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(error, ConfigCompositionException) and "Could not find" in str(error):
        return _unknown_group(str(error), config_dirs)
    if isinstance(cause, ValidationError):
        key = cause.full_key or str(cause.key)
        value = re.search(r"Value '(.*?)'", str(cause))
        wanted = re.search(r"could not be converted to (\w+)", str(cause))
        shown = f"{key}={value.group(1)}" if value else key
        return ConfigError(f"{shown} has the wrong type; {_kind_words(wanted.group(1) if wanted else '', str(cause))}")
    if cause is not None:
        key = getattr(cause, "full_key", None) or str(getattr(cause, "key", "") or "")
        if (key and "not in" in str(cause)) or "does not contain" in str(cause):
            return unknown_key(key, _siblings(key))
        return ConfigError(f"{key or 'the configuration'}: {str(cause).splitlines()[0]}")
    return ConfigError(" ".join(str(error).split()))


def _siblings(key: str) -> list[str]:
    prefix = key.rpartition(".")[0]
    return [k for k in all_keys() if k.rpartition(".")[0] == prefix] if prefix else []


def _kind_words(kind: str, text: str) -> str:
    words = {"Integer": "it must be a whole number", "Float": "it must be a number", "Bool": "it must be true or false"}
    enum = re.search(r"from (?:enum )?.*?\[([^\]]*)\]", text) or re.search(r"expected one of \[([^\]]*)\]", text)
    if enum:
        return f"it must be one of {enum.group(1)}"
    return words.get(kind, text.splitlines()[0])


def _missing_option(error: MissingConfigException) -> NanochatError:
    wanted = error.missing_cfg_file or ""
    group, _, option = str(wanted).rpartition("/")
    options = [str(o) for o in (error.options or [])]
    if not options:
        return ConfigError(f"{group or 'config'}={option} is not an option: {str(error).splitlines()[0]}")
    return ConfigError(f"{group}={option} is not an option; {nearest(option, options)}")


def _unknown_group(text: str, config_dirs: Sequence[str]) -> NanochatError:
    found = re.search(r"Could not (?:find|override) '?([\w/.@]+)'?", text)
    key = found.group(1) if found else ""
    groups = [p.name for folder in (*map(Path, config_dirs), conf_dir()) for p in folder.iterdir() if p.is_dir()]
    return unknown_key(key, groups) if key else ConfigError(" ".join(text.split()))

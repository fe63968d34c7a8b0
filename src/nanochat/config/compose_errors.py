"""Hydra's and OmegaConf's exceptions as one paragraph in this project's words.

Notable: most of Hydra's messages name neither the allowed values nor the nearest option, so the schema and the
option files are asked again for what the exception leaves out.
"""

import re
from collections.abc import Sequence
from typing import get_args

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    OmegaConfBaseException,
)

from nanochat.config.keys import Field, all_fields, unknown_entry, unknown_key
from nanochat.config.options import group_names, option_names
from nanochat.config.raw import compose_cfg
from nanochat.config.validate import check_value, wrong_value
from nanochat.errors import ConfigError, NanochatError, nearest

_GRAMMAR = "Write key=value without spaces, and quote what has special characters: \"key='a b, c'\""


def translate(error: Exception, overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> NanochatError:
    """The error to show for one that came up while composing `overrides`."""
    if isinstance(error, NanochatError):
        return error
    if isinstance(error, OverrideParseException):
        return ConfigError(f"the override '{error.override}' cannot be read. {_GRAMMAR}")
    if isinstance(error, MissingConfigException):
        return _missing_option(error, config_dirs)
    in_file = re.match(r"In '(.*?)': \w+ raised while composing", str(error))
    if in_file and error.__context__ is not None and isinstance(error.__context__, OmegaConfBaseException):
        return ConfigError(f"{in_file.group(1)}.yaml: {translate(error.__context__, (), config_dirs)}")
    cause = _omegaconf_cause(error)
    if isinstance(cause, InterpolationKeyError):
        return _dangling(cause, overrides)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _unknown(cause, config_dirs)
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return _wrong_value(cause, overrides)
    return _composition(error, overrides, config_dirs)


def _omegaconf_cause(error: BaseException) -> OmegaConfBaseException | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    return cause


def _unknown(cause: OmegaConfBaseException, config_dirs: Sequence[str]) -> ConfigError:
    key, owner = str(cause.full_key), cause.object_type
    if key in ("experiment", "debug"):
        return ConfigError(f"an option of {key} must have `# @package _global_` as its first line")
    if "/" in key and "." not in key:
        return _unknown_group(key, config_dirs)
    if isinstance(owner, type) and owner is not dict:
        return unknown_key(key, owner, config_dirs)
    holder = cause.parent_node
    return unknown_entry(key, map(str, holder.keys()) if isinstance(holder, DictConfig) else ())


def _unknown_group(key: str, config_dirs: Sequence[str]) -> ConfigError:
    groups = [*group_names(config_dirs), "hydra/launcher"]
    return ConfigError(f"{key} is not a group; {nearest(key, groups)}")


def _missing_option(error: MissingConfigException, config_dirs: Sequence[str]) -> ConfigError:
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    options = [str(o) for o in error.options or ()] or option_names(group, config_dirs)
    if not group or not options:
        return ConfigError(" ".join(str(error).split("Config search path")[0].split()))
    return ConfigError(f"{group}={option} is not an option; {nearest(option, options)}")


def _wrong_value(cause: OmegaConfBaseException, overrides: Sequence[str]) -> ConfigError:
    """Says what the field accepts, by the same check that a frozen config goes through."""
    key, value = str(cause.full_key), cause.value
    field_key, index, _ = key.partition("[")  # schedule.milestones[1] is an item of schedule.milestones
    found = next((f for f in all_fields() if f.key == field_key), None)
    if found is None:
        return ConfigError(f"{key}: {str(cause).splitlines()[0]}")
    beside = _beside(found, overrides)
    if beside is not None:
        return beside
    if found.is_group:
        inner = ", ".join(f.key for f in all_fields() if f.key.rpartition(".")[0] == key)
        return ConfigError(f"{key}={value} is not possible: {key} is a group of keys: {inner}")
    hint = get_args(found.hint)[0] if index else found.hint
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    try:
        check_value(key, plain, hint, found.metadata)
    except ConfigError as error:
        return error
    return wrong_value(key, plain, hint, found.metadata)


def _beside(found: Field, overrides: Sequence[str]) -> ConfigError | None:
    """The error for an override that is not about the field's value: model.depth.x=3, ~model.depth."""
    for override in overrides:
        name = override.partition("=")[0]
        if name == f"~{found.key}":
            return ConfigError(
                f"~{found.key}: only entries such as those of data.tasks can be removed; set {found.key}=..."
            )
        if not found.is_group and name.lstrip("+~").startswith(found.key + "."):
            return ConfigError(f"{name} is not a key; {found.key} is a single value: {found.key}=...")
    return None


def _dangling(cause: OmegaConfBaseException, overrides: Sequence[str]) -> ConfigError:
    target = re.search(r"'(.*?)'", str(cause))
    name = target.group(1) if target else "?"
    user = next((o for o in overrides if "${" + name + "}" in o), str(cause.full_key))
    return ConfigError(f"{user}: there is no key {name} to take the value from")


def _composition(error: Exception, overrides: Sequence[str], config_dirs: Sequence[str]) -> ConfigError:
    """Messages about the defaults list and about removed keys."""
    text = " ".join(str(error).split())
    if text.startswith("Could not delete"):
        return _deletion(text, overrides, config_dirs)
    if text.startswith(("Ambiguous value", "Sweep parameters")):
        given = re.search(r"'(.*?)'(?: | requires|$)", text)
        override = given.group(1) if given else "key=a,b"
        return ConfigError(f"{override} names several values; -m runs each of them, and key=[a,b] makes a list")
    twice = re.match(r"Multiple values for (\S+?)\.|(\S+) appears more than once", text)
    if twice:
        group = twice.group(1) or twice.group(2)
        return ConfigError(f"{group} is chosen already; write {group}=... without the +")
    package = re.match(r"Could not override '(.*?)'|Override (\S+?)=", text)
    if package and "@" in (package.group(1) or package.group(2)):
        name = package.group(1) or package.group(2)
        return ConfigError(f"{name}: a group stands where it is; write {name.partition('@')[0]}=... without the @")
    return ConfigError(text)


def _deletion(text: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> ConfigError:
    """`~key` of what is not there: lists what stands beside it, which takes composing again without the removals."""
    found = re.search(r"'(.*?)'", text)
    key = found.group(1) if found else "?"
    kept = [o for o in overrides if not o.startswith("~")]
    holder, _, name = key.rpartition(".")
    try:
        node = OmegaConf.select(compose_cfg(kept, config_dirs), holder) if holder else None
    except (HydraException, OmegaConfBaseException):
        node = None
    if not holder or not isinstance(node, DictConfig):
        return unknown_key(key)
    return ConfigError(f"~{key}: there is no {name} in {holder}; {nearest(name, map(str, node.keys()))}")

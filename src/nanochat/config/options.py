"""The options of the config groups: the YAML files of `conf/` and of the user's own folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nanochat.config.conf import conf_dir
from nanochat.errors import ConfigError


def folders(config_dirs: Sequence[str] = ()) -> list[Path]:
    """Where options are looked for, in the order in which they are found: ours, then the user's."""
    return [conf_dir(), *map(Path, config_dirs)]


def group_names(config_dirs: Sequence[str] = ()) -> list[str]:
    """The groups that have a folder."""
    return sorted({p.name for folder in folders(config_dirs) for p in folder.iterdir() if p.is_dir()})


def option_names(group: str, config_dirs: Sequence[str] = ()) -> list[str]:
    """The options of a group; empty for what is no group."""
    return sorted({p.stem for folder in folders(config_dirs) for p in (folder / group).glob("*.yaml")})


def option_file(group: str, name: str, config_dirs: Sequence[str] = ()) -> Path | None:
    """The file of an option, None if there is none."""
    return next((p for f in folders(config_dirs) if (p := f / group / f"{name}.yaml").is_file()), None)


def read_option(path: Path) -> dict[str, Any]:
    """An option's YAML. Raises ConfigError naming file and line if it is none."""
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"{path} holds no mapping of keys")
    return body


def parents(path: Path) -> list[str]:
    """The options of the same group that an option's defaults list starts from."""
    listed = read_option(path).get("defaults") or []
    names = [str(entry).removeprefix(f"/{path.parent.name}/") for entry in listed if isinstance(entry, str)]
    return [name for name in names if name != "_self_" and "/" not in name]


def option_settings(group: str, key: str, config_dirs: Sequence[str] = ()) -> dict[str, str]:
    """Option -> its value of `key` (its own or inherited), for the options that have one."""
    found = {name: _setting(group, name, key, config_dirs) for name in option_names(group, config_dirs)}
    return {name: value for name, value in found.items() if value is not None}


def _setting(group: str, name: str, key: str, config_dirs: Sequence[str]) -> str | None:
    path = option_file(group, name, config_dirs)
    if path is None:
        return None
    value = read_option(path).get(key)
    if value is not None:
        return str(value)
    inherited = (_setting(group, parent, key, config_dirs) for parent in parents(path))
    return next((v for v in inherited if v is not None), None)


def check_no_shadow(config_dirs: Sequence[str]) -> None:
    """Refuses a user's option that has the name of one of ours: Hydra would take ours and say nothing."""
    for folder in map(Path, config_dirs):
        for path in sorted(folder.glob("*/*.yaml")):
            if (conf_dir() / path.relative_to(folder)).is_file():
                raise ConfigError(
                    f"{path} has the name of an option that comes with nanochat, which would win; name it differently, "
                    f"for example my_{path.name}"
                )

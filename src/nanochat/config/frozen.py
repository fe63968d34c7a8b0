"""A RunConfig as a YAML file: written before anything starts, read back by worker processes and `runs`."""

from pathlib import Path
from typing import Any

import yaml

from nanochat.config.root import RunConfig
from nanochat.config.validate import build_run_config, plain
from nanochat.errors import CorruptError, MissingError


def write_config(config: RunConfig, path: Path) -> None:
    """Writes the resolved config; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_config(path: Path) -> RunConfig:
    """Reads and checks a config that write_config wrote. Raises MissingError, CorruptError, ConfigError."""
    return build_run_config(read_yaml(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from disk."""
    if not path.is_file():
        raise MissingError(f"no file {path}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CorruptError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise CorruptError(f"{path} holds no mapping of keys")
    return data

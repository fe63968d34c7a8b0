"""One entry of `data.tasks`: which task, which rows of it, how often."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nanochat.errors import ConfigError, nearest


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """`{task: spelling_bee, split: train, stop: 5000, repeat: 2}`. Rows are task[start:stop:step], `repeat` times.

    Generated tasks have as many rows as `stop` says; for the others `stop` null is the end. `key` is where the entry
    stands in the config, for error messages.
    """

    task: str
    split: str = "train"
    subset: str | None = None
    repeat: int = 1
    start: int = 0
    stop: int | None = None
    step: int = 1
    path: str | None = None
    key: str = field(default="data.tasks", compare=False)


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """What tasks need of the run: where its files are, the user's own files (or None), the seed."""

    base_dir: Path
    word_list: str | None = None
    identity: str | None = None
    seed: int = 42


FIELDS = {item.name: item.type for item in fields(TaskSpec) if item.name != "key"}
LOWEST = {"repeat": 1, "start": 0, "stop": 1, "step": 1}
NULLABLE = {"subset", "stop", "path"}


def parse_spec(key: str, value: Any) -> TaskSpec:
    """Check one entry found at `key` (`data.tasks.mine`). ConfigError names the key, the value and the nearest fix.

    That the task exists is checked where it is built (registry.py).
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}={value!r}: an entry is a dict, like {{task: custom_json, path: my.jsonl}}.")
    for name in value:
        if name not in FIELDS:
            raise ConfigError(f"{key}.{name} is not a field of a task; {nearest(str(name), FIELDS)}")
    if value.get("task") is None:
        raise ConfigError(f"{key}.task is not set. Say which task it is, like {{task: spelling_bee}}.")
    for name, given in value.items():
        check_field(f"{key}.{name}", str(name), given)
    spec = TaskSpec(**value, key=key)
    if spec.stop is not None and spec.stop <= spec.start:
        raise ConfigError(f"{key}.stop={spec.stop} must be above {key}.start={spec.start}.")
    return spec


def check_field(key: str, name: str, given: Any) -> None:
    """Type and lower bound of one field."""
    or_null = " or null" if name in NULLABLE else ""
    if given is None and name in NULLABLE:
        return
    if name not in LOWEST:
        if not isinstance(given, str):
            raise ConfigError(f"{key}={given!r} must be a string{or_null}.")
    elif not isinstance(given, int) or isinstance(given, bool):
        raise ConfigError(f"{key}={given!r} must be a whole number{or_null}.")
    elif given < LOWEST[name]:
        raise ConfigError(f"{key}={given} must be at least {LOWEST[name]}.")

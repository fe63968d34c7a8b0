"""One entry of `data.tasks`: which task, which rows of it, how often."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nanochat.errors import ConfigError, nearest


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """`{task: spelling_bee, split: train, stop: 5000, repeat: 2}`. Rows are task[start:stop:step], `repeat` times.

    Generated tasks have as many rows as `stop` says; for the others `stop` null is the end. `weight` is a share of the
    mixture (mixture.py). A class of the user's own has `target`, in the config `_target_`, and `args` instead of
    `split`, `subset` and `path`. `key` is where the entry stands in the config, for error messages.
    """

    task: str = ""
    split: str = "train"
    subset: str | None = None
    repeat: int = 1
    weight: float | None = None
    start: int = 0
    stop: int | None = None
    step: int = 1
    path: str | None = None
    target: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    key: str = field(default="data.tasks", compare=False)


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """What tasks need of the run: where its files are, the user's own files (or None), the seed.

    `hub_root` is a local mirror of the hub (hub.py); `plugins` are the modules that `_target_` may name;
    `allow_unsafe_code` is eval's: what a model wrote may run without isolation.
    """

    base_dir: Path
    word_list: str | None = None
    identity: str | None = None
    seed: int = 42
    hub_root: str | None = None
    plugins: tuple[str, ...] = ()
    allow_unsafe_code: bool = False


TARGET = "_target_"
FIELDS = [TARGET if item.name == "target" else item.name for item in fields(TaskSpec) if item.name != "key"]
LOWEST = {"repeat": 1, "start": 0, "stop": 1, "step": 1}
NULLABLE = {"task", "subset", "stop", "path", "weight", "args", TARGET}
NOT_WITH_TARGET = ("task", "split", "subset", "path")


def parse_spec(key: str, value: Any) -> TaskSpec:
    """Check one entry found at `key` (`data.tasks.mine`). ConfigError names the key, the value and the nearest fix.

    That the task exists is checked where it is built (registry.py).
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}={value!r}: an entry is a dict, like {{task: custom_json, path: my.jsonl}}.")
    for name in value:
        if name not in FIELDS:
            raise ConfigError(f"{key}.{name} is not a field of a task; {nearest(str(name), FIELDS)}")
    for name, given in value.items():
        check_field(f"{key}.{name}", str(name), given)
    check_one_kind(key, value)
    given = {name: item for name, item in value.items() if name not in (TARGET, "args", "task")}
    if value.get(TARGET) is not None:
        given = {name: item for name, item in given.items() if name not in NOT_WITH_TARGET}
    spec = TaskSpec(
        **given, task=value.get("task") or "", target=value.get(TARGET), args=value.get("args") or {}, key=key
    )
    if spec.stop is not None and spec.stop <= spec.start:
        raise ConfigError(f"{key}.stop={spec.stop} must be above {key}.start={spec.start}.")
    return spec


def check_one_kind(key: str, value: Mapping[str, Any]) -> None:
    """Either a task of ours or a class of the user's, and nothing that belongs to the other."""
    own = value.get(TARGET)
    if own is None:
        if not value.get("task"):
            raise ConfigError(
                f"{key}.task is not set. Say which task it is, like {{task: spelling_bee}}, or give a class of your "
                f"own: {{_target_: my_tasks.MyTask}}."
            )
        if value.get("args"):
            raise ConfigError(f"{key}.args={value['args']} belongs to a class of your own, named by {key}._target_.")
        return
    for name in NOT_WITH_TARGET:
        if value.get(name) is not None:
            raise ConfigError(
                f"{key}.{name}={value[name]} cannot stand beside {key}._target_={own}; what the class needs goes into "
                f"{key}.args."
            )


def check_field(key: str, name: str, given: Any) -> None:
    """Type and lower bound of one field."""
    or_null = " or null" if name in NULLABLE else ""
    if given is None and name in NULLABLE:
        return
    if name == "args":
        if not isinstance(given, Mapping) or not all(isinstance(word, str) for word in given):
            raise ConfigError(f"{key}={given!r} must be a dict of arguments by name{or_null}.")
    elif name == "weight":
        if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given < float("inf"):
            raise ConfigError(f"{key}={given!r} must be a number above 0{or_null}.")
    elif name not in LOWEST:
        if not isinstance(given, str):
            raise ConfigError(f"{key}={given!r} must be a string{or_null}.")
    elif not isinstance(given, int) or isinstance(given, bool):
        raise ConfigError(f"{key}={given!r} must be a whole number{or_null}.")
    elif given < LOWEST[name]:
        raise ConfigError(f"{key}={given} must be at least {LOWEST[name]}.")

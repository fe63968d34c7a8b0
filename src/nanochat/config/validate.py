"""From a plain nested dict to a checked RunConfig: unknown keys, types, unions, enums, bounds.

OmegaConf checks most types while composing, but lets `+key` through on typed nodes, takes any string for
`int | str` and knows no bounds. This walk is the one that decides, and it also reads a frozen config.yaml.
"""

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nanochat.config.fields import Role
from nanochat.config.keys import join, unknown_key
from nanochat.config.root import RunConfig
from nanochat.config.variants import VARIANTS
from nanochat.errors import ConfigError, nearest

T = TypeVar("T")
_BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_KIND_WORDS = {int: "a whole number", float: "a number", str: "text"}
_MISSING = "???"  # how OmegaConf writes a value that must be given


def build_run_config(data: Mapping[str, Any]) -> RunConfig:
    """A typed RunConfig from a resolved nested dict. Raises ConfigError naming key, value, bound and fix."""
    return _build(RunConfig, data, "")


def build_group(schema: type[T], data: Any, path: str) -> T:
    """One group of a config alone, checked; for what an older version wrote, whose other groups may have changed."""
    return _build(schema, data, path)


def _variant(cls: type, data: Mapping[str, Any], path: str) -> type:
    """The dataclass that the discriminating key of `data` chooses, for groups that have several."""
    if cls not in VARIANTS:
        return cls
    key, options = VARIANTS[cls]
    choice = str(data.get(key, _MISSING))
    if choice == _MISSING:
        raise ConfigError(f"{path} has no {path}.{key}; choose an option, for example {path}={next(iter(options))}")
    if choice not in options:
        raise ConfigError(f"{path}.{key}={choice} is not an option; {nearest(choice, options)}")
    return options[choice]


def _build(cls: type[T], data: Any, path: str) -> T:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}={_shown(data)} must be a group of keys, not a single value")
    chosen = _variant(cls, data, path)
    hints = get_type_hints(chosen)
    known = {f.name: f for f in fields(chosen)}
    for key in data:
        if key not in known:
            raise unknown_key(join(path, str(key)), chosen)
    values: dict[str, Any] = {}
    for name, declared in known.items():
        key = join(path, name)
        value = data.get(name, _MISSING)
        if value == _MISSING:
            raise ConfigError(f"{key} has no value; set it: {key}=...")
        if is_dataclass(hints[name]):
            values[name] = _build(hints[name], value, key)
        else:
            values[name] = check_value(key, value, hints[name], declared.metadata)
    result: T = chosen(**values)
    return result


def check_value(key: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    """`value` as the type that `hint` says, in its bounds. Raises ConfigError naming key, value and what is allowed."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        if type(None) in options:
            return None
        raise ConfigError(f"{key}=null is not allowed; it must be {expected(options, meta)}")
    for kind in options:
        converted = _convert(key, value, kind, meta)
        if converted is not None:
            _check_bounds(key, converted, options, meta)
            return converted
    raise wrong_value(key, value, hint, meta)


def wrong_value(key: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> ConfigError:
    """The error for a value that is not of its field's type, in words of the command line."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    enum = next((o for o in options if isinstance(o, type) and issubclass(o, Enum)), None)
    verdict = "is not an option" if enum is not None else "has the wrong type"
    return ConfigError(f"{key}={_shown(value)} {verdict}; it must be {expected(options, meta)}")


def _convert(key: str, value: Any, kind: Any, meta: Mapping[str, Any]) -> Any:
    """`value` as `kind`, or None where it is not of that kind."""
    origin = get_origin(kind)
    if origin is list:
        item = get_args(kind)[0]
        is_list = isinstance(value, list | tuple)
        return [check_value(f"{key}[{i}]", v, item, meta) for i, v in enumerate(value)] if is_list else None
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) else None
    if isinstance(kind, type) and issubclass(kind, Enum):
        word = str(value.value if isinstance(value, Enum) else value)
        return kind(word) if word in [str(member.value) for member in kind] else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if kind is float:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind is str and isinstance(value, str):
        return value if value in (meta.get("words") or (value,)) else None
    return None


def _check_bounds(key: str, value: Any, options: Sequence[Any], meta: Mapping[str, Any]) -> None:
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise ConfigError(f"{key}={value} is out of range; it must be {expected(options, meta)}")
    for name, bound in meta.get("bounds", {}).items():
        ok = {"ge": value >= bound, "gt": value > bound, "le": value <= bound, "lt": value < bound}[name]
        if not ok:
            raise ConfigError(f"{key}={value} is out of range; it must be {_bounds_text(meta)}")


def _bounds_text(meta: Mapping[str, Any]) -> str:
    bounds = meta.get("bounds", {})
    if bounds.get("ge") is not None and bounds.get("ge") == bounds.get("le"):
        return f"{bounds['ge']}"
    shown = {name: str(bound) if isinstance(bound, int) else f"{bound:g}" for name, bound in bounds.items()}
    return " and ".join(f"{_BOUND_WORDS[name]} {bound}" for name, bound in shown.items())


def expected(options: Sequence[Any], meta: Mapping[str, Any]) -> str:
    """What a field of these types accepts, for the end of a sentence: `a whole number or auto, at least 1`."""
    words = [str(word) for word in meta.get("words", ())]
    said = [_kind_text(kind) for kind in options if not (kind is str and words)] + words
    nothing = ["null"] if type(None) in options else []
    bounds = _bounds_text(meta)
    kinds = ["true", "false"] if bool in options else []
    kinds += [text for text in [*said, *nothing] if text]
    listed = " or ".join([*([", ".join(kinds[:-1])] if len(kinds) > 1 else []), *kinds[-1:]])
    return listed + (f", {bounds}" if bounds else "")


def _kind_text(kind: Any) -> str:
    if kind in _KIND_WORDS:
        return _KIND_WORDS[kind]
    if get_origin(kind) is list:
        return f"a list of {'numbers' if get_args(kind)[0] in (int, float) else 'texts'}, [a,b]"
    if get_origin(kind) is dict:
        return "a dict, {key: value}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    return ""


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def flatten(config: Any, role: Role | None = None, path: str = "") -> dict[str, Any]:
    """Dotted key -> plain value of every field of a config, or of those with one role."""
    flat: dict[str, Any] = {}
    for declared in fields(config):
        key, value = join(path, declared.name), getattr(config, declared.name)
        if is_dataclass(value):
            flat.update(flatten(value, role, key))
        elif role is None or declared.metadata.get("role") == role:
            flat[key] = plain(value)
    return flat


def plain(value: Any) -> Any:
    """Enums as their text, dataclasses as dicts; for JSON and YAML."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value

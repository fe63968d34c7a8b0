"""From a plain nested dict to a checked RunConfig: unknown keys, types, unions, enums, bounds.

OmegaConf checks most types while composing, but lets `+key` through on typed nodes, takes any string for
`int | str` and knows no bounds. This walk is the one that decides, and it also reads a frozen config.yaml.
"""

import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nanochat.config.fields import Role
from nanochat.config.root import RunConfig
from nanochat.config.variants import VARIANTS
from nanochat.errors import ConfigError, nearest

T = TypeVar("T")
_BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def build_run_config(data: Mapping[str, Any]) -> RunConfig:
    """A typed RunConfig from a resolved nested dict. Raises ConfigError naming key, value, bound and fix."""
    return _build(RunConfig, data, "")


def _variant(cls: type, data: Mapping[str, Any], path: str) -> type:
    """The dataclass that the discriminating key of `data` chooses, for groups that have several."""
    if cls not in VARIANTS:
        return cls
    key, options = VARIANTS[cls]
    choice = str(data.get(key))
    if choice not in options:
        raise ConfigError(f"{path}.{key}={choice} is not an option; {nearest(choice, options)}")
    return options[choice]


def _build(cls: type[T], data: Any, path: str) -> T:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}={data!r} must be a group of keys, not a {type(data).__name__}")
    chosen = _variant(cls, data, path)
    hints = get_type_hints(chosen)
    known = {f.name: f for f in fields(chosen)}
    for key in data:
        if key not in known:
            raise unknown_key(_join(path, str(key)), [_join(path, name) for name in known])
    values: dict[str, Any] = {}
    for name, declared in known.items():
        key = _join(path, name)
        value = data.get(name, "???")
        if value == "???":
            raise ConfigError(f"{key} has no value; set it, for example {key}=...")
        if is_dataclass(hints[name]):
            values[name] = _build(hints[name], value, key)
        else:
            values[name] = _leaf(key, value, hints[name], declared.metadata)
    result: T = chosen(**values)
    return result


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def unknown_key(key: str, siblings: list[str]) -> ConfigError:
    """The error for a key that no schema has: names the nearest sibling, else the nearest key of all."""
    everywhere = sorted(set(all_keys()) | set(siblings))
    last = key.rsplit(".", 1)[-1]
    same_name = [k for k in everywhere if k.rsplit(".", 1)[-1] == last]
    if same_name:
        return ConfigError(f"{key} is not a key; did you mean {' or '.join(same_name[:3])}?")
    prefix = key.rpartition(".")[0]
    pool = siblings or [k for k in everywhere if k.startswith(prefix + ".")] or everywhere
    clause = nearest(key, pool)
    if clause.startswith("known") and not siblings:
        clause = nearest(key, everywhere)
    return ConfigError(f"{key} is not a key; {clause}")


def _leaf(key: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        if type(None) in options:
            return None
        raise ConfigError(f"{key}=null is not allowed; {_expected(options, meta)}")
    kinds = tuple(o for o in options if o is not type(None))
    for kind in kinds:
        converted = _convert(key, value, kind, meta)
        if converted is not None:
            _check_bounds(key, converted, meta)
            return converted
    raise ConfigError(f"{key}={value!r} has the wrong type; {_expected(kinds, meta)}")


def _convert(key: str, value: Any, kind: Any, meta: Mapping[str, Any]) -> Any:
    """`value` as `kind`, or None where it is not of that kind."""
    origin = get_origin(kind)
    if origin is list:
        return _convert_list(key, value, get_args(kind)[0], meta)
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) else None
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _convert_enum(key, value, kind)
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if kind is float:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind is str and isinstance(value, str):
        words = meta.get("words", ())
        if words and value not in words:
            raise ConfigError(f"{key}={value} has the wrong type; it must be a whole number or {' or '.join(words)}")
        return value
    return None


def _convert_list(key: str, value: Any, item: Any, meta: Mapping[str, Any]) -> list[Any] | None:
    if not isinstance(value, list | tuple):
        return None
    return [_leaf(f"{key}[{i}]", v, item, meta) for i, v in enumerate(value)]


def _convert_enum(key: str, value: Any, kind: type[Enum]) -> Enum:
    names = [str(member.value) for member in kind]
    word = str(value.value if isinstance(value, Enum) else value)
    if word not in names:
        raise ConfigError(f"{key}={word} is not an option; {nearest(word, names)}")
    return kind(word)


def _check_bounds(key: str, value: Any, meta: Mapping[str, Any]) -> None:
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        return
    for name, bound in meta.get("bounds", {}).items():
        ok = {"ge": value >= bound, "gt": value > bound, "le": value <= bound, "lt": value < bound}[name]
        if not ok:
            raise ConfigError(f"{key}={value} is out of range; it must be {_bounds_text(meta)}")


def _bounds_text(meta: Mapping[str, Any]) -> str:
    return " and ".join(f"{_BOUND_WORDS[name]} {bound:g}" for name, bound in meta.get("bounds", {}).items())


def _expected(kinds: tuple[Any, ...], meta: Mapping[str, Any]) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    listed = [
        names.get(k, "a list" if get_origin(k) is list else "a dict" if get_origin(k) is dict else "") for k in kinds
    ]
    words = meta.get("words", ())
    text = " or ".join([w for w in listed if w and not (w == "text" and words)] + list(words))
    bounds = _bounds_text(meta)
    return f"it must be {text}" + (f", {bounds}" if bounds else "")


def all_keys(cls: type = RunConfig, path: str = "") -> Iterator[str]:
    """Every dotted key that some option of some group has."""
    classes = {cls, *VARIANTS[cls][1].values()} if cls in VARIANTS else {cls}
    for each in classes:
        hints = get_type_hints(each)
        for declared in fields(each):
            key = _join(path, declared.name)
            if is_dataclass(hints[declared.name]):
                yield from all_keys(hints[declared.name], key)
            else:
                yield key


def flatten(config: Any, role: Role | None = None, path: str = "") -> dict[str, Any]:
    """Dotted key -> plain value of every field of a config, or of those with one role."""
    flat: dict[str, Any] = {}
    for declared in fields(config):
        key, value = _join(path, declared.name), getattr(config, declared.name)
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

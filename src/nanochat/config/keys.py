"""The keys that exist, over all options of all groups, and what to say about a key that does not.

Notable: some groups have several schemas (variants.py), so a key can exist in one option and not in another. The
message then names the options that have it, read from `conf/` and the user's own folders.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Any, get_type_hints

from nanochat.config.options import option_settings
from nanochat.config.root import RunConfig
from nanochat.config.variants import VARIANTS
from nanochat.errors import ConfigError, nearest

_SHOWN = 3  # keys named in a message
# What stands beside the groups of RunConfig on a command line.
_PSEUDO_GROUPS = ("experiment", "debug", "stage")
# Dicts whose names are the user's; the entries of pipeline.overrides, for one, are not.
_OPEN = ("data.tasks", "data.val_tasks", "eval.tasks")


@dataclass(frozen=True)
class Field:
    """A field of some schema: its dotted key, the class that declares it, its type and its metadata."""

    key: str
    owner: type
    hint: Any
    metadata: Mapping[str, Any]

    @property
    def is_group(self) -> bool:
        """Whether it holds further keys."""
        return is_dataclass(self.hint)


def schemas_of(cls: type) -> list[type]:
    """The dataclasses that a group may hold: the class itself, then its variants."""
    return list(dict.fromkeys([cls, *VARIANTS[cls][1].values()])) if cls in VARIANTS else [cls]


def all_fields(cls: type = RunConfig, path: str = "") -> Iterator[Field]:
    """Every field of every schema, groups included; a key that several schemas share comes several times."""
    for each in schemas_of(cls):
        yield from _fields_of(each, path)


def _fields_of(each: type, path: str) -> Iterator[Field]:
    """Every field of one schema, and of the groups in it."""
    hints = get_type_hints(each)
    for declared in fields(each):
        found = Field(join(path, declared.name), each, hints[declared.name], declared.metadata)
        yield found
        if found.is_group:
            yield from all_fields(found.hint, found.key)


def all_keys() -> list[str]:
    """Every dotted key with a value that some option of some group has, each once."""
    return list(dict.fromkeys(f.key for f in all_fields() if not f.is_group))


def join(path: str, name: str) -> str:
    """A dotted key."""
    return f"{path}.{name}" if path else name


def unknown_key(key: str, owner: type | None = None, config_dirs: Sequence[str] = ()) -> ConfigError:
    """The error for a key that the config has not. `owner` is the schema in which it was looked up, if known."""
    group, _, leaf = key.rpartition(".")
    if not group:
        return _unknown_root(key)
    elsewhere = _in_other_options(key, owner, config_dirs)
    if elsewhere is not None:
        return ConfigError(f"{key} is not a key of {elsewhere}")
    longer = [known for known in all_keys() if known.endswith(f".{key}")]
    if longer:
        return ConfigError(f"{key} is not a key; did you mean {' or '.join(longer)}?")
    siblings = [f.name for f in fields(owner)] if owner else _leaves_of(group)
    close = get_close_matches(leaf, siblings, n=_SHOWN, cutoff=0.5)
    similar = [join(group, word) for word in close] or _same_leaf(key)
    if similar:
        return ConfigError(f"{key} is not a key; did you mean {' or '.join(similar)}?")
    if siblings:
        return ConfigError(f"{key} is not a key; keys of {group}: {', '.join(sorted(siblings))}")
    return ConfigError(f"{key} is not a key; {nearest(key, all_keys())}")


def unknown_entry(key: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that a dict of free names, such as data.tasks, does not hold."""
    holder, _, name = key.rpartition(".")
    names = [str(k) for k in known]
    clause = nearest(name, names) if names else "it is empty"
    adding = f" (+{key}=... adds a new one)" if holder in _OPEN else ""
    return ConfigError(f"{key}: there is no {name} in {holder}; {clause}{adding}")


def _unknown_root(key: str) -> ConfigError:
    groups = [f.name for f in fields(RunConfig) if f.metadata.get("group")] + list(_PSEUDO_GROUPS)
    values = [f.name for f in fields(RunConfig) if f.name not in groups and f.name != "stages"]
    inner = sorted({known[: known.index(f".{key}.") + len(key) + 1] for known in all_keys() if f".{key}." in known})
    similar = inner or get_close_matches(key, [*groups, *values], n=_SHOWN, cutoff=0.5) or _same_leaf(key)
    if similar:
        return ConfigError(f"{key} is not a key; did you mean {' or '.join(similar)}?")
    return ConfigError(f"{key} is not a key; groups: {', '.join(sorted(groups))}; keys: {', '.join(sorted(values))}")


def _leaves_of(group: str) -> list[str]:
    found = (f.key.rpartition(".") for f in all_fields())
    return list(dict.fromkeys(leaf for head, _, leaf in found if head == group))


def _same_leaf(key: str) -> list[str]:
    """Keys of other groups that end in the same word, the most similar first."""
    leaf = key.rpartition(".")[2]
    found = [k for k in all_keys() if k.rpartition(".")[2] == leaf]
    return sorted(found, key=lambda k: -SequenceMatcher(None, k, key).ratio())[:_SHOWN]


def _in_other_options(key: str, owner: type | None, config_dirs: Sequence[str]) -> str | None:
    """`optim=adamw; it belongs to optim=muon_adamw`, if another option of the group has the key."""
    group, _, holder = key.rpartition(".")[0].partition(".")
    base = get_type_hints(RunConfig).get(group)
    if base not in VARIANTS or owner is None:
        return None
    known = {each: {f.key: f.hint for f in _fields_of(each, group)} for each in schemas_of(base)}
    # `owner` is the schema of the option, or of a group in it, such as optim.momentum.
    here = tuple(c for c, keys in known.items() if (keys.get(f"{group}.{holder}") if holder else c) is owner)
    holders = tuple(c for c, keys in known.items() if key in keys)
    if not here or not holders:
        return None
    mine, theirs = (_options_of(base, classes, group, config_dirs) for classes in (here, holders))
    return f"{' or '.join(mine)}; it belongs to {' or '.join(theirs)}"


def _options_of(base: type, classes: tuple[type, ...], group: str, config_dirs: Sequence[str]) -> list[str]:
    """`group=option` for every option whose schema is one of the classes."""
    key, variants = VARIANTS[base]
    choices = {str(choice) for choice, cls in variants.items() if cls in classes}
    return [f"{group}={name}" for name, value in option_settings(group, key, config_dirs).items() if value in choices]

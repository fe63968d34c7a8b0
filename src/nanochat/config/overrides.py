"""Override strings before Hydra sees them: what is quoted, refused, kept for later, or made into jobs of a multirun."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException

from nanochat.config.compose_errors import translate
from nanochat.config.data import CorpusConfig, MixtureConfig
from nanochat.config.options import group_names, option_names
from nanochat.config.root import RunConfig, Stage
from nanochat.config.variants import VARIANTS
from nanochat.errors import ConfigError

_NO_OPTION = re.compile(r"null|[-+]?[\d.]*")  # what Hydra refuses as the name of an option, with a traceback
_UNREADABLE = re.compile(r"[=~!#&;<>^`']|[^\x00-\x7f]")
_SYNTAX = re.compile(r"[,(\[{]|\$\{")  # a sweep, a function, an interpolation: quoting would change what it means


def values_of(keys: Sequence[str], overrides: Iterable[str]) -> dict[str, str]:
    """The last value given for each of the keys, without quotes."""
    pairs = (o.lstrip("+").partition("=") for o in overrides)
    return {key: value.strip("'\"") for key, _, value in pairs if key in keys}


def check_choices(overrides: Sequence[str], config_dirs: Sequence[str]) -> None:
    """What can be seen of a choice before composing."""
    hints = get_type_hints(RunConfig)
    set_by_option = {
        f"{f.name}.{VARIANTS[hints[f.name]][0]}": f.name for f in fields(RunConfig) if hints[f.name] in VARIANTS
    }
    groups = group_names(config_dirs)
    for override in overrides:
        key, equals, value = override.lstrip("+").partition("=")
        if key.partition(".")[0] == "stages":
            raise ConfigError(
                f"{key} belongs in the file of an experiment; here give the overrides themselves, or in a pipeline "
                f"pipeline.overrides.{key.partition('.')[2] or 'sft'}='[...]'"
            )
        if key in set_by_option:
            group = set_by_option[key]
            raise ConfigError(f"{key} is set by the option of {group}; write {group}={value}")
        if equals and key in groups and _NO_OPTION.fullmatch(value):
            raise ConfigError(f"{key}={value} is not an option; known: {', '.join(option_names(key, config_dirs))}")
        if key == "stage" and value.startswith("["):
            raise ConfigError(f"{override}: a run has one stage; stage=pipeline runs several, one after the other")


def split_later(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that the config itself takes, and those that only later stages of a pipeline can take.

    A pipeline is composed with a corpus, so keys of mixtures (data.tasks.*) would be unknown to it.
    """
    if values_of(("stage",), overrides).get("stage") != Stage.pipeline:
        return list(overrides), []
    later = [o for o in overrides if _is_mixture_key(o)]
    return [o for o in overrides if o not in later], later


def _is_mixture_key(override: str) -> bool:
    own = {f.name for f in fields(MixtureConfig)} - {f.name for f in fields(CorpusConfig)}
    words = override.lstrip("+~").partition("=")[0].split(".")
    return words[0] == "data" and len(words) > 1 and words[1] in own


def defer_in_multirun(overrides: Sequence[str]) -> list[str]:
    """Keys of mixtures as one-valued choices: Hydra composes a multirun once without its sweeps, where the stage may
    not be the one that has these keys.
    """
    parsed = _parse(overrides)
    single = {o.input_line for o in parsed if not o.is_sweep_override() and not o.is_delete()}
    return [_as_choice(o) if _is_mixture_key(o) and o in single else o for o in overrides]


def _as_choice(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key}=choice({value})"


def normalize_override(text: str) -> str:
    """Quotes what Hydra's grammar refuses unquoted: `=` in run names and lists of overrides, `~` in paths, umlauts."""
    key, equals, value = text.partition("=")
    if not equals or not _UNREADABLE.search(value) or value[:1] in "'\"{":
        return text
    if not value.startswith("["):
        escaped = value.replace("'", "\\'")
        return text if _SYNTAX.search(value) else f"{key}='{escaped}'"
    if not key.startswith("pipeline.overrides.") or "'" in value or '"' in value:
        return text
    items = re.split(r",(?![^\[{(]*[\]})])", value[1:-1])
    return f"{key}=[" + ",".join(f"'{item.strip()}'" for item in items) + "]"


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a multirun as Hydra's basic sweeper makes them: the product of all choices, in order."""
    jobs: list[list[str]] = [[]]
    for override, text in zip(_parse(overrides), overrides, strict=True):
        if override.is_sweep_override():
            prefix = override.get_key_element()
            variants = [f"{prefix}={value}" for value in override.sweep_string_iterator()]
        else:
            variants = [text]
        jobs = [[*job, variant] for job in jobs for variant in variants]
    return jobs


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that a multirun varies: those with more than one value."""
    swept = [o for o in _parse(overrides) if o.is_sweep_override()]
    return [str(o.key_or_group) for o in swept if not o.is_discrete_sweep() or len(list(o.sweep_string_iterator())) > 1]


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise translate(error, overrides) from error

"""The command line of a run, taken apart: Hydra's flags, overrides, the user's configuration folders.

Everything is checked here, so that Hydra's own parser, which answers with a page of usage, has nothing to refuse.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.config.options import check_no_shadow, group_names, option_names
from nanochat.config.overrides import normalize_override
from nanochat.errors import ConfigError, nearest

_SHORT = {"-m": "--multirun", "-h": "--help", "-sc": "--shell-completion", "-c": "--cfg", "-p": "--package"}
_SHORT |= {"-cd": "--config-dir", "-i": "--info"}
_SWITCHES = ("--multirun", "--help", "--shell-completion", "--resolve", "--hydra-help", "--version")
# Flags that take a value, and the values they know; None: any.
_VALUED: dict[str, tuple[str, ...] | None] = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": None,
    "--config-dir": None,
}


@dataclass(frozen=True)
class Arguments:
    """`flags` are Hydra's but for --config-dir, by their long names; `config_dirs` are absolute."""

    flags: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    config_dirs: tuple[str, ...] = ()

    @property
    def multirun(self) -> bool:
        """Whether each combination of the values is to be run."""
        return "--multirun" in self.flags

    @property
    def completes(self) -> bool:
        """Whether the shell asks for completions; Hydra then wants its words as they are."""
        return "--shell-completion" in self.flags


def split_args(argv: Sequence[str]) -> Arguments:
    """Flags, overrides (quoted where Hydra needs it) and folders. Raises ConfigError for a word that is neither."""
    flags: list[str] = []
    bare: list[str] = []
    folders: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            bare.append(word)
            continue
        name, value = _flag(word, words)
        if name == "--config-dir":
            folders.append(_folder(value))
        else:
            flags += [name] if name in _SWITCHES else [name, value]
    check_no_shadow(folders)
    parsed = Arguments(tuple(flags), tuple(bare), tuple(folders))
    if not parsed.completes:
        parsed = Arguments(parsed.flags, tuple(_override(w, folders) for w in bare), parsed.config_dirs)
    _check_together(parsed)
    return parsed


def _flag(word: str, rest: list[str]) -> tuple[str, str]:
    """The long name of a flag and its value, which is taken from `rest` unless it follows an `=`."""
    head, equals, value = word.partition("=")
    name = _SHORT.get(head, head)
    if name in _SWITCHES and not equals:
        return name, ""
    if name not in _VALUED:
        known = [*_SWITCHES, *_VALUED]
        raise ConfigError(f"{word} is no flag; {nearest(name, known)}; -m runs a sweep, and settings are key=value")
    allowed = _VALUED[name]
    if not equals:
        optional = name == "--info" and (not rest or rest[0] not in (allowed or ()))
        value = "all" if optional else rest.pop(0) if rest else ""
    if not value or (allowed is not None and value not in allowed):
        wanted = "a folder" if name == "--config-dir" else "a dotted key" if allowed is None else " or ".join(allowed)
        raise ConfigError(f"{name} {value}: it takes {wanted}".replace(" :", ":"))
    return name, value


def _folder(value: str) -> str:
    path = Path(value).expanduser()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {value}: there is no such folder (looked for {path.absolute()})")
    return str(path.resolve())


def _override(word: str, folders: Sequence[str]) -> str:
    key = word.lstrip("+~").partition("=")[0]
    if not key.strip():
        raise ConfigError(f"'{word}' names no key; write key=value, for example model.depth=4")
    if key == "hydra.searchpath":
        raise ConfigError("hydra.searchpath is set by nanochat; your own options are found by --config-dir FOLDER")
    if "=" in word or word.startswith("~"):
        return normalize_override(word)
    raise ConfigError(f"'{word}' is no override; {suggest(word, folders)}")


def suggest(word: str, config_dirs: Sequence[str] = ()) -> str:
    """What someone who wrote a bare word may have meant: an option (`quickstart`), a group, a key."""
    groups = group_names(config_dirs)
    choices = [f"{group}={word}" for group in _by_weight(groups) if word in option_names(group, config_dirs)]
    if choices:
        return f"did you mean {' or '.join(choices[:3])}?"
    if word in groups:
        return f"{word} is a group: write {word}=OPTION with one of {', '.join(option_names(word, config_dirs))}"
    return "write key=value, for example model.depth=4"


def _by_weight(groups: Sequence[str]) -> Iterator[str]:
    """What is most often meant comes first."""
    first = ("stage", "experiment")
    yield from (g for g in first if g in groups)
    yield from (g for g in groups if g not in first)


def _check_together(arguments: Arguments) -> None:
    modes = [f for f in ("--multirun", "--cfg", "--info", "--shell-completion") if f in arguments.flags]
    if len(modes) > 1:
        raise ConfigError(f"{' and '.join(modes)} cannot be combined; use one of them")
    if "--resolve" in arguments.flags and "--cfg" not in arguments.flags and "--help" not in arguments.flags:
        raise ConfigError("--resolve belongs to --cfg: write --cfg job --resolve")

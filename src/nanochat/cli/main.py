"""`nanochat`: the verb is the first word, everything else belongs to it; without a verb a stage is run."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from nanochat.errors import ConfigError, nearest

# Names, not functions: a verb imports only what it needs, so that `nanochat --help` is quick.
_VERBS: dict[str, tuple[str, str]] = {
    "plan": ("nanochat.cli.plan", "what a run would be: sizes, steps, batch, rates, and the rule behind each"),
    "chat": ("nanochat.cli.chat", "talk to a model: nanochat chat sft/quickstart -p 'Who are you?'"),
    "runs": ("nanochat.cli.runs", "the runs on disk: runs ls, runs show REF, runs diff A B"),
}
_COMPLETING = ("-sc", "--shell-completion")


def main() -> None:
    """The console script; exits with the command's code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(argv: Sequence[str]) -> int:
    """One command line, errors printed; returns the exit code."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        from nanochat.cli.help import print_help

        return print_help({verb: summary for verb, (_, summary) in _VERBS.items()})
    from nanochat.train import guarded

    return guarded(lambda: _dispatch(list(argv)))


def _dispatch(argv: list[str]) -> int:
    if argv[0] in _VERBS:
        command: Callable[[list[str]], int] = import_module(_VERBS[argv[0]][0]).main
        return command(argv[1:])
    if not argv[0].startswith(("-", "~")) and "=" not in argv[0]:
        raise _unknown_word(argv[0])
    if any(word in _COMPLETING for word in argv):
        _hide_verb()
    from nanochat.train import run

    return run(argv)


def _unknown_word(word: str) -> ConfigError:
    from nanochat.config.arguments import suggest

    close = nearest(word, _VERBS)
    meant = suggest(word) if close.startswith("known") else close
    return ConfigError(f"'{word}' is neither a command ({', '.join(_VERBS)}) nor an override; {meant}")


def _hide_verb() -> None:
    """Completion after a verb is that of the overrides: Hydra reads the line from COMP_LINE and knows no verbs."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split(" ")
    if len(words) > 2 and words[1] in _VERBS:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])

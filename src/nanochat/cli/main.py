"""`nanochat`: the verb is the first word, everything else belongs to it; without a verb a stage is run."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise

from nanochat.errors import ConfigError, nearest

# Names, not functions: a verb imports only what it needs, so that `nanochat --help` is quick.
_VERBS: dict[str, tuple[str, str]] = {
    "plan": ("nanochat.cli.plan", "what a run would be: sizes, steps, batch, rates, and the rule behind each"),
    "mix": ("nanochat.cli.mix", "what a stage learns from: tasks, tokens, conversations with the loss mask"),
    "data": ("nanochat.cli.data", "download, verify and list a corpus: nanochat data data=fineweb_edu"),
    "chat": ("nanochat.cli.chat", "talk to a model: nanochat chat sft/quickstart -p 'Who are you?'"),
    "serve": ("nanochat.cli.serve", "an OpenAI-compatible API and a web page: nanochat serve sft/quickstart"),
    "runs": ("nanochat.cli.runs", "the runs on disk: runs ls, runs show REF, runs diff A B"),
}
_HELP = {"--help", "-h"}
_COMPLETING = {"-sc", "--shell-completion"}


def main() -> None:
    """The console script; exits with the command's code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(argv: Sequence[str]) -> int:
    """One command line, errors printed; returns the exit code."""
    if not argv or argv[0] == "help" or (argv[0] not in _VERBS and _HELP & set(argv)):
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
    if _COMPLETING & set(argv):
        _complete_verb()
    else:
        _check_no_late_verb(argv)
    from nanochat.train import run

    return run(argv)


def _check_no_late_verb(argv: Sequence[str]) -> None:
    for before, word in pairwise(argv):
        takes_a_value = before.startswith("-") and "=" not in before and before not in ("-m", "--multirun")
        if word in _VERBS and not takes_a_value:
            raise ConfigError(f"'{word}' is a command and comes first: nanochat {word} ...")


def _unknown_word(word: str) -> ConfigError:
    from nanochat.config.arguments import suggest

    close = nearest(word, _VERBS)
    meant = suggest(word) if close.startswith("known") else close
    return ConfigError(f"'{word}' is neither a command ({', '.join(_VERBS)}) nor an override; {meant}")


def _complete_verb() -> None:
    """Adds the verbs to the completions of the first word, and takes one that is there out of the line, which Hydra
    reads from COMP_LINE: it knows no verbs.
    """
    words = os.environ.get("COMP_LINE", "").split(" ")
    if len(words) == 2:
        print(" ".join(verb for verb in _VERBS if verb.startswith(words[1])))
    elif len(words) > 2 and words[1] in _VERBS:
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])

"""`nanochat`: the verb is the first word, everything else belongs to it; without a verb a stage is run."""

import sys
from collections.abc import Callable
from importlib import import_module

from nanochat.errors import ConfigError, nearest

# Names, not functions: a verb imports only what it needs, so that `nanochat --help` is quick.
_VERBS: dict[str, tuple[str, str]] = {
    "plan": ("nanochat.cli.plan", "what a run would be: sizes, steps, batch, rates, and the rule behind each"),
    "chat": ("nanochat.cli.chat", "talk to a model: nanochat chat sft/quickstart -p 'Who are you?'"),
    "runs": ("nanochat.cli.runs", "the runs on disk: runs ls, runs show REF, runs diff A B"),
}


def main() -> None:
    """The console script; exits with the command's code."""
    from nanochat.train import guarded

    sys.exit(guarded(lambda: _dispatch(sys.argv[1:])))


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        from nanochat.cli.help import print_help

        return print_help({verb: summary for verb, (_, summary) in _VERBS.items()})
    if argv[0] in _VERBS:
        command: Callable[[list[str]], int] = import_module(_VERBS[argv[0]][0]).main
        return command(argv[1:])
    if not argv[0].startswith(("-", "~")) and "=" not in argv[0]:
        raise ConfigError(
            f"'{argv[0]}' is neither a command nor an override; {nearest(argv[0], _VERBS)} "
            f"(commands: {', '.join(_VERBS)}; overrides are key=value, as in stage=base model.depth=4)"
        )
    from nanochat.train import run

    return run(argv)

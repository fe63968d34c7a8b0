"""`nanochat runs ls|show|diff`: what is on disk. Imports no torch, so it answers at once."""

import argparse
import os
import sys
from pathlib import Path

from nanochat.errors import ConfigError
from nanochat.reporting.registry import STAGES, diff_runs, find_run, list_runs, show_diff, show_list, show_run


def default_base_dir() -> Path:
    """`$NANOCHAT_BASE_DIR`, else `~/.cache/nanochat`."""
    return Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat").expanduser()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nanochat runs",
        description="The runs on disk.",
        epilog="RUN is stage/run (sft/d20), a stage alone (its newest run), or a path to a run's folder.",
    )
    parser.add_argument("--base-dir", type=Path, help="default: $NANOCHAT_BASE_DIR or ~/.cache/nanochat")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{ls,show,diff}")
    ls = commands.add_parser("ls", help="all runs: status, step, loss, bits per byte")
    ls.add_argument("stage", nargs="?", choices=STAGES, help="only this stage")
    show = commands.add_parser("show", help="one run: plan, metrics, environment")
    show.add_argument("run", metavar="RUN")
    diff = commands.add_parser("diff", help="two runs: config keys, versions and metrics that differ")
    diff.add_argument("a", metavar="A")
    diff.add_argument("b", metavar="B")
    return parser


def _split_base_dir(argv: list[str]) -> tuple[list[str], Path | None]:
    """Take `base_dir=DIR` or `--base-dir DIR`, which may stand anywhere, out of the words."""
    rest, base_dir, words = [], None, iter(argv)
    for word in words:
        key, equals, value = word.partition("=")
        if key not in ("base_dir", "--base-dir"):
            rest.append(word)
            continue
        given = value if equals else next(words, "")
        if not given:
            raise ConfigError(f"{word} needs a folder: --base-dir DIR or base_dir=DIR")
        base_dir = Path(given).expanduser()
    return rest, base_dir


def _run(arguments: argparse.Namespace, base_dir: Path) -> str:
    if arguments.command == "show":
        return show_run(find_run(base_dir, arguments.run))
    if arguments.command == "diff":
        return show_diff(diff_runs(find_run(base_dir, arguments.a), find_run(base_dir, arguments.b)))
    rows = list_runs(base_dir, arguments.stage)
    if not rows:
        return f"no runs in {base_dir}; `nanochat stage=pipeline experiment=quickstart` makes some in minutes"
    return show_list(rows)


def main(argv: list[str]) -> int:
    """Run `nanochat runs ...`; `argv` is what follows the verb. Raises NanochatError for what does not exist."""
    rest, base_dir = _split_base_dir(argv)
    text = _run(_parser().parse_args(rest), base_dir or default_base_dir())
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

"""Flags of `chat` and `serve`. Notable: mistakes are a paragraph like all others, not a page of usage."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from nanochat.errors import ConfigError, nearest


class Parser(argparse.ArgumentParser):
    """argparse with errors in our form. `prog` is the command as it is typed, such as `nanochat chat`."""

    def parsed(self, argv: Sequence[str]) -> argparse.Namespace:
        """The options; `base_dir=X` is understood as `--base-dir=X`. ConfigError for what is not known."""
        words = [f"--base-dir={w.partition('=')[2]}" if w.startswith("base_dir=") else w for w in argv]
        options, unknown = self.parse_known_args(words)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            close = nearest(unknown[0].partition("=")[0], flags)
            raise ConfigError(f"{self.prog}: {unknown[0]!r} is not known; {close}")
        return options

    def error(self, message: str) -> NoReturn:
        """What argparse finds wrong."""
        raise ConfigError(f"{self.prog}: {message}; {self.prog} --help shows the flags")

"""The errors a user can cause. They are printed as one paragraph, without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class NanochatError(Exception):
    """A mistake in what was asked, or something missing on disk.

    The message names the key, its value, what is allowed and the nearest fix.
    `exit_code` is what the process returns to the shell.
    """

    exit_code = 1


class ConfigError(NanochatError):
    """The configuration cannot mean anything: unknown key, wrong type, value out of bounds."""

    exit_code = 2


class MissingError(NanochatError):
    """Data, a tokenizer or a checkpoint is not where it was looked for."""


class MismatchError(NanochatError):
    """What is on disk was made from another configuration than the one asked for."""


class CorruptError(NanochatError):
    """A file on disk is not what its manifest or format says."""


class Interrupted(NanochatError):
    """The user or the system asked the run to stop; everything is saved."""

    exit_code = 130


def nearest(word: str, known: Iterable[str], limit: int = 3) -> str:
    """A clause naming the known words closest to `word`, for the end of an error message."""
    options = sorted(known)
    close = get_close_matches(word, options, n=limit, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    shown = ", ".join(options[:24]) + (", ..." if len(options) > 24 else "")
    return f"known: {shown}"

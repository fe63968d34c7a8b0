"""How a config field is declared: its role in the identity of a run, and the bounds of its value.

Every field has one of three roles. *identity*: another value makes another run, and resuming is
refused. *placement*: where and how fast it runs; free to change between attempts. *cosmetic*: what is
measured, saved or called; free to change. `tests/config/test_schema.py` fails on a field without a role.

A field has no default here: values live in `conf/`, in one place.
"""

from dataclasses import field
from enum import StrEnum, auto
from typing import Any


class Role(StrEnum):
    """What a change of the field's value does to a run that has already begun."""

    identity = auto()
    placement = auto()
    cosmetic = auto()


def _declare(role: Role, bounds: dict[str, float], words: tuple[str, ...]) -> Any:
    """A dataclass field; `words` are the strings that a number-or-word field accepts."""
    return field(metadata={"role": role, "bounds": bounds, "words": words})


def identity(*, words: tuple[str, ...] = (), **bounds: float) -> Any:
    """A field that is part of what the run *is*. Bounds: ge, gt, le, lt."""
    return _declare(Role.identity, bounds, words)


def placement(*, words: tuple[str, ...] = (), **bounds: float) -> Any:
    """A field that says where or how fast the run runs. Bounds: ge, gt, le, lt."""
    return _declare(Role.placement, bounds, words)


def cosmetic(*, words: tuple[str, ...] = (), **bounds: float) -> Any:
    """A field that changes what is measured, saved or shown, never the weights. Bounds: ge, gt, le, lt."""
    return _declare(Role.cosmetic, bounds, words)


def group() -> Any:
    """A nested config group; its own fields carry the roles."""
    return field(metadata={"group": True})

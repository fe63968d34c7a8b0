"""`guards=`: what happens when training goes wrong."""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import identity


class OnNonFinite(StrEnum):
    """warn: log and update anyway; skip: log and leave the weights alone; stop: save nothing more and end."""

    warn = auto()
    skip = auto()
    stop = auto()


@dataclass(kw_only=True)
class GuardsConfig:
    """`max_skips`: that many skipped steps in a row end the run."""

    non_finite: OnNonFinite = identity()
    max_skips: int = identity(ge=1)

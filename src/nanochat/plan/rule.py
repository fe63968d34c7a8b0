"""How the plan explains itself: a derived number and the rule that gave it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rule:
    """A derived number and where it comes from."""

    name: str
    value: Any
    rule: str

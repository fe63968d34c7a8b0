"""What has been made so far and what it cost."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from nanochat.synthesis.workfile import Entry
from nanochat.tracking.console import format_count, format_seconds


@dataclass
class Tally:
    """Counts over all attempts at a run. `asked` counts those of this process, `since` its refusals in a row."""

    wanted: int
    price_in: float | None = None
    price_out: float | None = None
    accepted: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    asked: int = 0
    refused_now: int = 0
    since: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def begin(self, entries: Iterable[Entry]) -> None:
        """Counts what former processes made."""
        for entry in entries:
            self.take(entry)
        self.asked = self.refused_now = self.since = 0

    def take(self, entry: Entry) -> None:
        """Counts one more."""
        self.asked += 1
        self.tokens_in += entry.tokens_in
        self.tokens_out += entry.tokens_out
        if entry.refused is None:
            self.accepted += 1
            self.since = 0
        else:
            self.refused[entry.refused] += 1
            self.refused_now += 1
            self.since += 1

    @property
    def cost(self) -> float | None:
        """Dollars; None where a price is unknown."""
        if self.price_in is None or self.price_out is None:
            return None
        return (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / 1e6

    @property
    def reasons(self) -> str:
        """`3 near duplicate, 1 no conversation in JSON`; empty if nothing was refused."""
        return ", ".join(f"{number} {reason}" for reason, number in self.refused.most_common())


def status_line(tally: Tally, seconds: float) -> str:
    """The progress line: how many, how many refused, tokens and dollars so far, the time that is left."""
    left = "-"
    done = tally.asked - tally.refused_now
    if done:
        left = format_seconds(seconds / done * max(0, tally.wanted - tally.accepted))
    parts = [f"conversations {tally.accepted:,}/{tally.wanted:,}", f"refused {sum(tally.refused.values()):,}"]
    if tally.tokens_in or tally.tokens_out:
        parts.append(f"tokens {format_count(tally.tokens_in)} in {format_count(tally.tokens_out)} out")
    if tally.cost is not None:
        parts.append(f"${tally.cost:.4f}")
    return "  ".join([*parts, f"eta {left}"])

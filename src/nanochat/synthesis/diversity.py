"""How varied a set of conversations is: distinct n-grams (Li et al. 2016, arXiv 1510.03055) and repeated messages."""

from collections.abc import Sequence

from nanochat.synthesis.duplicates import normalised
from nanochat.tasks.base import Conversation


def distinct(conversations: Sequence[Conversation], n: int) -> float:
    """Share of the n-grams of words that are different ones, over all messages; 0 without any."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for conversation in conversations:
        for message in normalised(conversation).split("\n"):
            words = message.split()
            grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
            seen.update(grams)
            total += len(grams)
    return len(seen) / total if total else 0.0


def repeated_openings(conversations: Sequence[Conversation]) -> float:
    """Share of the conversations whose first message another one has too, case and marks apart."""
    openings = [normalised({"messages": conversation["messages"][:1]}) for conversation in conversations]
    return 1 - len(set(openings)) / len(openings) if openings else 0.0

"""A cache with a budget: the least recently used values leave when the sum of costs passes it.

`functools.lru_cache` counts entries; blocks of text differ in size by orders of magnitude, so this one
counts what its user says they cost. At least `keep` entries stay however dear they are.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """Mapping with eviction; `budget` and the costs of `put` are in one unit of the user's choice."""

    def __init__(self, budget: int, keep: int = 4) -> None:
        """`keep` entries stay even above the budget."""
        self._budget = budget
        self._keep = keep
        self._total = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which is now the most recently used, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, cost: int) -> None:
        """Keep `value`, and let the oldest go while the costs exceed the budget."""
        if key in self._entries:
            self._total -= self._entries.pop(key)[1]
        self._entries[key] = (value, cost)
        self._total += cost
        while self._total > self._budget and len(self._entries) > self._keep:
            self._total -= self._entries.popitem(last=False)[1][1]

"""How many rows of each task a mixture has, where tasks have weights.

With weights w_k the mixture is the largest one whose shares are proportional to them and in which no task is read more
than `repeat` times over: task k gives s * w_k, where s = min over k of n_k * repeat_k / w_k. Notable: a weight is taken
as the decimal that was written (0.3 is 3/10), so that 0.1 and 0.3 are exactly 1 to 3. In the last, partial pass over a
task a permutation drawn from the seed says which rows are read.
"""

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.errors import ConfigError
from nanochat.tasks.spec import TaskSpec

Ints = npt.NDArray[np.int64]


class Share:
    """`count` conversations of a task of `size` rows: whole passes, then the first rows of `partial`."""

    def __init__(self, size: int, count: int, partial: Ints | None = None) -> None:
        """`partial` holds the rows of the last pass (all of them or the first), needed where it is not whole."""
        self.size = size
        self.count = count
        self._whole = count - count % size
        left = count - self._whole
        assert left == 0 or (partial is not None and len(partial) >= left), (size, count)
        self._partial = None if partial is None else partial[:left].copy()

    def row(self, place: int) -> int:
        """Which row the conversation number `place` of the task is."""
        if place < self._whole:
            return place % self.size
        assert self._partial is not None
        return int(self._partial[place - self._whole])

    def rows(self) -> Ints:
        """`row` of 0 .. count-1."""
        whole = np.tile(np.arange(self.size), self._whole // self.size)
        return whole if self._partial is None else np.concatenate([whole, self._partial])

    @property
    def passes(self) -> int | float:
        """How often the task is read over; a whole number where it is one."""
        return self.count // self.size if self.count % self.size == 0 else self.count / self.size

    def fingerprint(self) -> dict[str, Any]:
        """JSON that differs where the rows do."""
        if self.count % self.size == 0:
            return {"repeat": self.count // self.size}
        assert self._partial is not None
        return {"count": self.count, "partial": hashlib.sha256(self._partial.tobytes()).hexdigest()}


def share_rows(specs: Mapping[str, TaskSpec], sizes: Mapping[str, int], seed: int) -> dict[str, Share]:
    """Shares of the rows: within one row of the weights. ConfigError for a task that gets none."""
    scale = _scale(specs, sizes)
    shares = {}
    for name, size in sizes.items():
        count = int(scale * weight(specs[name]))
        if count == 0:
            raise _too_light(specs[name])
        shares[name] = Share(size, count, permutation(name, size, seed) if count % size else None)
    return shares


def share_tokens(specs: Mapping[str, TaskSpec], costs: Mapping[str, Ints], seed: int) -> dict[str, Share]:
    """Shares of what the rows cost (supervised tokens): each within its last row of the weights."""
    totals = {name: int(cost.sum()) for name, cost in costs.items()}
    for name, total in totals.items():
        if total == 0:
            raise ConfigError(
                f"{specs[name].key}.weight={specs[name].weight}: none of its {len(costs[name]):,} rows has a "
                f"supervised token within the context, so it can have no share; remove it, or data.weight_by=rows"
            )
    scale = _scale(specs, totals)
    shares = {}
    for name, cost in costs.items():
        wanted = int(scale * weight(specs[name]))
        passes, left = divmod(wanted, totals[name])
        rows = permutation(name, len(cost), seed)
        taken = int(np.searchsorted(np.cumsum(cost[rows]), left, side="right")) if left else 0
        if passes * len(cost) + taken == 0:
            raise _too_light(specs[name])
        shares[name] = Share(len(cost), passes * len(cost) + taken, rows if taken else None)
    return shares


def weight(spec: TaskSpec) -> Fraction:
    """The weight as it was written."""
    return Fraction(str(spec.weight))


def permutation(name: str, size: int, seed: int) -> Ints:
    """The order of a task's rows in its partial pass."""
    rows = list(range(size))
    Random(f"{seed} {name} partial pass").shuffle(rows)
    return np.array(rows, np.int64)


def _scale(specs: Mapping[str, TaskSpec], amounts: Mapping[str, int]) -> Fraction:
    return min(amounts[name] * specs[name].repeat / weight(specs[name]) for name in amounts)


def _too_light(spec: TaskSpec) -> ConfigError:
    return ConfigError(
        f"{spec.key}.weight={spec.weight} leaves it not one row, since the other tasks have too few; raise this weight "
        f"or their repeat, or leave the task out: '~{spec.key}'"
    )

"""Several tasks as one list of conversations.

Notable: each conversation has a number. Task after task, pass after pass over its rows, they are counted through; the
order is an array of these numbers (8 bytes a conversation), drawn once from the seed. So it is the same for every
world size, and any conversation can be asked for without the ones before it.
"""

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np

from nanochat.config.data import Order, WeightBy
from nanochat.errors import ConfigError
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.measures import Measure, characters, supervised_bytes
from nanochat.tasks.registry import build_task
from nanochat.tasks.shares import Ints, Share, share_rows, share_tokens
from nanochat.tasks.spec import TaskContext, TaskSpec, parse_spec


class Mixture:
    """`shares[name]` of each task, in one order. `notes` says what was chosen for the user."""

    def __init__(
        self,
        tasks: dict[str, Task],
        shares: Mapping[str, Share | int] | None = None,
        seed: int = 42,
        order: Order = Order.shuffled,
        lengths: Mapping[str, Ints] | None = None,
    ) -> None:
        """A task missing in `shares` is taken once; a number is so many passes over it.

        `lengths` of each task's rows are needed to put short conversations first.
        """
        self.tasks = tasks
        self.names = list(tasks)
        self.shares = {name: _as_share((shares or {}).get(name, 1), len(task)) for name, task in tasks.items()}
        self.seed = seed
        self.kind = order
        self.notes = list(dict.fromkeys(note for task in tasks.values() for note in task.notes))
        # Task k owns the numbers ends[k-1] .. ends[k]-1; numbers in an array take 8 bytes a row, pairs over 100.
        self.ends = list(accumulate(share.count for share in self.shares.values()))
        self.order = array("q", range(self.ends[-1] if self.ends else 0))
        Random(seed).shuffle(self.order)
        self._lengths_mark: str | None = None
        if order is not Order.shuffled:
            self._sort(order, lengths)

    def _sort(self, order: Order, lengths: Mapping[str, Ints] | None) -> None:
        """By task, or by length; what is equal keeps its shuffled order."""
        numbers = np.frombuffer(self.order, dtype=np.int64)
        if order is Order.tasks:
            key = np.searchsorted(np.array(self.ends), numbers, side="right")
        else:
            assert lengths is not None, "order=length needs the lengths of all rows"
            taken = [lengths[name][self.shares[name].rows()] for name in self.names]
            key = np.concatenate(taken)[numbers]
            self._lengths_mark = hashlib.sha256(key.tobytes()).hexdigest()
        self.order = array("q", numbers[np.argsort(key, kind="stable")].tobytes())

    def __len__(self) -> int:
        """Number of conversations, repeats counted."""
        return len(self.order)

    def origin(self, index: int) -> tuple[str, int]:
        """Which task and which of its rows conversation `index` is."""
        number = self.order[index]
        which = bisect_right(self.ends, number)
        name = self.names[which]
        return name, self.shares[name].row(number - (self.ends[which - 1] if which else 0))

    def __getitem__(self, index: int) -> Conversation:
        """Conversation `index` of the order."""
        name, row = self.origin(index)
        return self.tasks[name][row]

    def fingerprint(self) -> dict[str, Any]:
        """All that the conversations and their order depend on (JSON)."""
        tasks = {name: {**task.fingerprint(), **self.shares[name].fingerprint()} for name, task in self.tasks.items()}
        # The order of the names is said beside: a dict's is lost where it is compared.
        found: dict[str, Any] = {"seed": self.seed, "order": str(self.kind), "names": self.names, "tasks": tasks}
        if self._lengths_mark is not None:
            found["lengths"] = self._lengths_mark
        return found


def _as_share(asked: Share | int, rows: int) -> Share:
    return Share(rows, rows * asked) if isinstance(asked, int) else asked


def build_mixture(
    specs: Mapping[str, Any],
    context: TaskContext,
    key: str = "data.tasks",
    order: Order = Order.shuffled,
    weight_by: WeightBy = WeightBy.rows,
    cost: Measure | None = None,
) -> Mixture:
    """The mixture that a dict name -> entry asks for; `key` is where the dict stands in the config.

    `cost` counts the supervised tokens of a conversation, for weights by tokens; None: its bytes stand in for them.
    """
    if not specs:
        raise ConfigError(f"{key} is empty. Add a task, like '+{key}.mine={{task: custom_json, path: my.jsonl}}'.")
    parsed = {name: parse_spec(f"{key}.{name}", value) for name, value in specs.items()}
    check_weights(key, parsed)
    tasks = {name: build_task(spec, context) for name, spec in parsed.items()}
    cache = context.base_dir / "cache" / "measures"
    shares = _shares(parsed, tasks, weight_by, (cost or Measure("bytes", supervised_bytes)).cached(cache), context.seed)
    by_length = Measure("characters", characters).cached(cache)
    lengths = {name: by_length.of(task) for name, task in tasks.items()} if order is Order.length else None
    return Mixture(tasks, shares, context.seed, order, lengths)


def check_weights(key: str, specs: Mapping[str, TaskSpec]) -> None:
    """All tasks have a weight above 0, or none has one; ConfigError names those that lack it."""
    given = [name for name, spec in specs.items() if spec.weight is not None]
    missing = [name for name, spec in specs.items() if spec.weight is None]
    if given and missing:
        raise ConfigError(
            f"{key}.{given[0]}.weight={specs[given[0]].weight}, but {', '.join(missing)} "
            f"{'has' if len(missing) == 1 else 'have'} no weight; give every task of {key} one, or none: "
            f"{key}.{missing[0]}.weight=1"
        )


def _shares(
    specs: Mapping[str, TaskSpec], tasks: Mapping[str, Task], weight_by: WeightBy, cost: Measure, seed: int
) -> dict[str, Share]:
    """How many rows of each task: `repeat` passes, or what its weight asks for."""
    if next(iter(specs.values())).weight is None:
        return {name: Share(len(task), len(task) * specs[name].repeat) for name, task in tasks.items()}
    if weight_by is WeightBy.rows:
        return share_rows(specs, {name: len(task) for name, task in tasks.items()}, seed)
    return share_tokens(specs, {name: cost.of(task) for name, task in tasks.items()}, seed)

"""Several tasks as one shuffled list of conversations.

The order is a permutation of all (task, row) pairs, drawn once from the seed: the same for every world size, and any
row can be asked for without the ones before it.
"""

import random
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from nanochat.errors import ConfigError
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.registry import build_task
from nanochat.tasks.spec import TaskContext, parse_spec


class Mixture:
    """`repeats[name]` passes over each task, shuffled together. `notes` says what was chosen for the user."""

    def __init__(self, tasks: dict[str, Task], repeats: dict[str, int] | None = None, seed: int = 42) -> None:
        """A task missing in `repeats` is taken once."""
        self.tasks = tasks
        self.repeats = {name: (repeats or {}).get(name, 1) for name in tasks}
        self.names = list(tasks)
        self.seed = seed
        self.notes = list(dict.fromkeys(note for task in tasks.values() for note in task.notes))
        # Task k owns the numbers ends[k-1] .. ends[k]-1; numbers in an array take 8 bytes a row, pairs over 100.
        self.ends = list(accumulate(len(task) * self.repeats[name] for name, task in tasks.items()))
        self.order = array("q", range(self.ends[-1] if self.ends else 0))
        random.Random(seed).shuffle(self.order)

    def __len__(self) -> int:
        """Number of conversations, repeats counted."""
        return len(self.order)

    def origin(self, index: int) -> tuple[str, int]:
        """Which task and which of its rows conversation `index` is."""
        number = self.order[index]
        which = bisect_right(self.ends, number)
        name = self.names[which]
        before = self.ends[which - 1] if which else 0
        return name, (number - before) % len(self.tasks[name])

    def __getitem__(self, index: int) -> Conversation:
        """Conversation `index` of the shuffled order."""
        name, row = self.origin(index)
        return self.tasks[name][row]

    def fingerprint(self) -> dict[str, Any]:
        """All that the conversations and their order depend on (JSON)."""
        tasks = {name: {**task.fingerprint(), "repeat": self.repeats[name]} for name, task in self.tasks.items()}
        return {"seed": self.seed, "tasks": tasks}


def build_mixture(specs: Mapping[str, Any], context: TaskContext, key: str = "data.tasks") -> Mixture:
    """The mixture that a dict name -> entry asks for; `key` is where the dict stands in the config."""
    if not specs:
        raise ConfigError(f"{key} is empty. Add a task, like '+{key}.mine={{task: custom_json, path: my.jsonl}}'.")
    parsed = {name: parse_spec(f"{key}.{name}", value) for name, value in specs.items()}
    tasks = {name: build_task(spec, context) for name, spec in parsed.items()}
    return Mixture(tasks, {name: spec.repeat for name, spec in parsed.items()}, context.seed)

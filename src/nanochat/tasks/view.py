"""Some rows of a task: task[start:stop:step], without copying."""

from typing import Any, ClassVar

from nanochat.tasks.base import Conversation, Task


class View(Task):
    """Rows start, start+step, ... below stop of another task."""

    splits: ClassVar[tuple[str, ...]] = ()

    def __init__(self, task: Task, start: int, stop: int | None, step: int) -> None:
        """`stop` None or beyond the end means the end, as with Python's slices."""
        self.task = task
        self.rows = range(len(task))[start:stop:step]
        self.kind = task.kind
        self.notes = task.notes
        self.runs_code = task.runs_code

    def __len__(self) -> int:
        """Number of rows in view."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        """Row `index` of the view."""
        return self.task[self.rows[index]]

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """As the task itself judges."""
        return self.task.evaluate(conversation, answer)

    def fingerprint(self) -> dict[str, Any]:
        """The task's, and which rows."""
        return {**self.task.fingerprint(), "view": [self.rows.start, self.rows.stop, self.rows.step]}

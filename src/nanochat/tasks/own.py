"""A task of the user's own, watched: what goes wrong in its code is told by the entry, the row and the line.

Notable: its conversations are checked as they are asked for, since nobody else has seen them before.
"""

from typing import Any

from nanochat.errors import ConfigError
from nanochat.runtime.plugins import told
from nanochat.tasks.base import Conversation, Task

PART_KINDS = ("text", "python", "python_output")


class OwnTask(Task):
    """`task` under its `name` in the config (`data.tasks.mine`); whatever it raises becomes a ConfigError."""

    def __init__(self, task: Task, name: str) -> None:
        """ConfigError if it has no length."""
        self.task, self.name = task, name
        self.kind, self.notes, self.runs_code = task.kind, task.notes, task.runs_code
        with told(f"{name}: its __len__"):
            self.size = len(task)

    def __len__(self) -> int:
        """Number of rows when it was built."""
        return self.size

    def __getitem__(self, index: int) -> Conversation:
        """Row `index`, checked."""
        with told(f"{self.name}: its row {index}"):
            conversation = self.task[index]
        problem = problem_of(conversation)
        if problem is not None:
            raise ConfigError(
                f"{self.name}: its row {index} is no conversation: {problem}. It is a dict like "
                f'{{"messages": [{{"role": "user", "content": "..."}}, {{"role": "assistant", "content": "..."}}]}}.'
            )
        return conversation

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """As the task itself judges."""
        with told(f"{self.name}: its evaluate"):
            return self.task.evaluate(conversation, answer)

    def fingerprint(self) -> dict[str, Any]:
        """The task's own."""
        with told(f"{self.name}: its fingerprint"):
            return self.task.fingerprint()


def problem_of(conversation: Any) -> str | None:
    """What is wrong with its shape, or None. Roles alternate, the user first, a system message may be in front."""
    messages = conversation.get("messages") if isinstance(conversation, dict) else None
    if not isinstance(messages, list) or not messages:
        return "no list `messages`, or nothing in it"
    has_system = isinstance(messages[0], dict) and messages[0].get("role") == "system"
    roles = ["system"] * has_system + ["user", "assistant"] * len(messages)
    for number, (message, role) in enumerate(zip(messages, roles, strict=False), start=1):
        if not isinstance(message, dict) or message.get("role") != role:
            given = message.get("role") if isinstance(message, dict) else message
            return f"message {number} is of {given!r}, expected {role!r}"
        content = message.get("content")
        if not isinstance(content, str) and not (role == "assistant" and _are_parts(content)):
            return f"message {number} ({role}) has no text in `content`" + (
                f", nor a list of parts of type {', '.join(PART_KINDS)}" if role == "assistant" else ""
            )
    return None


def _are_parts(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") in PART_KINDS and isinstance(part.get("text"), str)
        for part in content
    )

"""Conversations of your own, one JSON object a line, and the identity conversations, which are read the same way.

    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}

An answer with tool calls is a list of parts, as in tasks/base.py; `/save` of the terminal chat writes both. The whole
file is checked when it is opened. Nothing is skipped in silence: one bad line is an error that says which line is
first and how many there are.
"""

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Self

from nanochat.errors import ConfigError, MissingError
from nanochat.tasks.base import Conversation, Task, TaskKind, answer_text
from nanochat.tasks.spec import TaskContext, TaskSpec

IDENTITY_FILE = "identity_conversations.jsonl"
PART_KINDS = ("text", "python", "python_output")


class CustomJSON(Task):
    """The conversations of a JSONL file, all of them in the one split `train`."""

    kind: TaskKind = TaskKind.none
    splits: ClassVar[tuple[str, ...]] = ("train",)
    reads: ClassVar[frozenset[str]] = frozenset({"path"})

    def __init__(self, data: bytes, name: str) -> None:
        """`data` is the file's contents, `name` what to call it in errors."""
        self.conversations = parse_jsonl(data, name)
        self.digest = hashlib.sha256(data).hexdigest()

    @classmethod
    def from_spec(cls, spec: TaskSpec, context: TaskContext) -> Self:
        """The file at `path`."""
        if spec.path is None:
            raise ConfigError(
                f"{spec.key}.path is not set. Give the JSONL file, like {{task: custom_json, path: my.jsonl}}."
            )
        return cls(read_file(f"{spec.key}.path", spec.path), spec.path)

    def __len__(self) -> int:
        """Number of conversations."""
        return len(self.conversations)

    def __getitem__(self, index: int) -> Conversation:
        """Conversation `index`."""
        return self.conversations[index]

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Word for word."""
        return answer.strip() == answer_text(conversation).strip()

    def fingerprint(self) -> dict[str, Any]:
        """The file's contents."""
        return {"task": type(self).__name__, "rows": len(self), "sha256": self.digest}


class Identity(CustomJSON):
    """Who the model is, from the entry's own `path`, so that several files fit one mixture.

    Without one: data.identity, else `{base_dir}/identity_conversations.jsonl`, else the packaged conversations.
    """

    @classmethod
    def from_spec(cls, spec: TaskSpec, context: TaskContext) -> Self:
        """The first of the four that there is; the choice is noted."""
        found = context.base_dir / IDENTITY_FILE
        if spec.path is not None:
            task, where = cls(read_file(f"{spec.key}.path", spec.path), spec.path), spec.path
        elif context.identity is not None:
            task, where = cls(read_file("data.identity", context.identity), context.identity), context.identity
        elif found.is_file():
            task, where = cls(found.read_bytes(), str(found)), str(found)
        else:
            task, where = cls(packaged_identity(), IDENTITY_FILE), "the packaged conversations"
        task.notes = (f"identity: {where} ({len(task):,} conversations)",)
        return task


def packaged_identity() -> bytes:
    """The identity conversations that come with the package."""
    return (files("nanochat.tasks") / "resources" / IDENTITY_FILE).read_bytes()


def read_file(key: str, path: str) -> bytes:
    """The contents of the file that `key` names; MissingError if it is not there."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise MissingError(f"{key}={path} is a folder; give one JSONL file, and an entry to each other one.")
    if not file.is_file():
        raise MissingError(f"{key}={path}: no such file (looked for {file.absolute()}).")
    return file.read_bytes()


def parse_jsonl(data: bytes, name: str) -> list[Conversation]:
    """The conversations of a JSONL file; blank lines do not count. ConfigError: file, line, what, how many lines."""
    lines = [(number, line) for number, line in enumerate(data.splitlines(), start=1) if line.strip()]
    wrong = [(number, problem) for number, line in lines if (problem := problem_of_line(line, parts=True)) is not None]
    if wrong:
        number, problem = wrong[0]
        count = "1 line is" if len(wrong) == 1 else f"{len(wrong)} lines are"
        raise ConfigError(f"{name}:{number}: {problem}. {count} wrong of {len(lines)}. {EXPECTED}")
    if not lines:
        raise ConfigError(f"{name}: the file is empty. {EXPECTED}")
    return [json.loads(line) for _, line in lines]


EXPECTED = (
    'Each line is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}.'
)


def problem_of_line(line: bytes, *, parts: bool = False) -> str | None:
    """What is wrong with one line, or None. `parts`: an answer may be a list of parts."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start + 1})"
    except ValueError as error:
        return f"not JSON ({error})"
    except RecursionError:
        return "not JSON of this kind (nested too deeply)"
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        return "no list `messages`"
    has_system = bool(messages) and isinstance(messages[0], dict) and messages[0].get("role") == "system"
    if len(messages) < 2 + has_system:
        return "`messages` needs at least a user and an assistant message"
    roles = ["system"] * has_system + ["user", "assistant"] * len(messages)
    numbered = zip(range(len(messages)), messages, roles, strict=False)
    problems = (problem_of_message(*item, parts=parts) for item in numbered)
    return next((problem for problem in problems if problem is not None), None)


def problem_of_message(position: int, message: Any, role: str, *, parts: bool = False) -> str | None:
    """What is wrong with one message that should be of `role`, or None."""
    if not isinstance(message, dict):
        return f"message {position + 1} is not an object"
    if message.get("role") != role:
        return f"message {position + 1} has role {message.get('role')!r}, expected {role!r}"
    content = message.get("content")
    if parts and role == "assistant" and isinstance(content, list) and all(map(is_part, content)):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or not content.strip():
        return f"message {position + 1} ({role}) has no text in `content`"
    return None


def is_part(part: Any) -> bool:
    """Whether it is {"type": "text" | "python" | "python_output", "text": str}."""
    return isinstance(part, dict) and part.get("type") in PART_KINDS and isinstance(part.get("text"), str)

"""What a task is: conversations by number, and a judge of answers. The class to derive your own task from.

    class Capitals(Task):
        '''Ask for capitals.'''

        def __len__(self) -> int:
            return len(PAIRS)

        def __getitem__(self, index: int) -> Conversation:
            country, city = PAIRS[index]
            return chat(f"What is the capital of {country}?", city)

        def evaluate(self, conversation: Conversation, answer: str) -> bool:
            return conversation["messages"][-1]["content"] in answer

Of a user's own class the config says `_target_` and `args`, in `data.tasks` as in `eval.tasks` (runtime/plugins.py):

    nanochat stage=sft plugins=[my_tasks] +data.tasks.mine='{_target_: my_tasks.Capitals, args: {}}'

A task of lettered choices derives from MultipleChoiceTask (multiple_choice.py) and writes its problems only.

A conversation is `{"messages": [{"role": "user" | "assistant" | "system", "content": ...}, ...]}`. Content is a string
or, for the assistant, a list of parts `{"type": "text" | "python" | "python_output", "text": str}`: what it says,
what it asks the calculator, what the calculator answered. Roles alternate, the user first.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from enum import StrEnum, auto
from typing import Any, ClassVar, Self

from nanochat.tasks.spec import TaskContext, TaskSpec

Conversation = dict[str, Any]
Content = str | list[dict[str, str]]

SAMPLED_ROWS = 64  # of a fingerprint that knows nothing better
FINAL_NUMBER = re.compile(r"#### (-?[0-9.,]+)")


class TaskKind(StrEnum):
    """How answers are judged: sample, then `evaluate`; compare the letters offered; or not at all."""

    generative = auto()
    categorical = auto()
    none = auto()


class Task(ABC):
    """A fixed, ordered set of conversations.

    `splits` are the splits it has, `reads` the fields of its spec beyond the common ones that it looks at (`path`,
    `subset`): anything else in the config is refused rather than ignored. `notes` says in words what was chosen on
    the user's behalf, such as which file was found. `runs_code`: `evaluate` runs what the model wrote.
    """

    kind: TaskKind = TaskKind.generative
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    reads: ClassVar[frozenset[str]] = frozenset()
    notes: tuple[str, ...] = ()
    runs_code: bool = False

    @classmethod
    def from_spec(cls, spec: TaskSpec, context: TaskContext) -> Self:
        """Build the task that a checked spec asks for; start, stop and step are applied outside."""
        raise NotImplementedError(f"{cls.__name__} cannot be built from a config")

    @abstractmethod
    def __len__(self) -> int:
        """Number of conversations."""

    @abstractmethod
    def __getitem__(self, index: int) -> Conversation:
        """Conversation `index`, the same whenever it is asked for; its last message is the right answer."""

    @abstractmethod
    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Is `answer`, what the model said in place of the last message, right?"""

    def fingerprint(self) -> dict[str, Any]:
        """What its rows are made from (JSON): equal fingerprints, equal conversations. A run that is continued asks.

        By default the number of rows and a digest of some of them, spread evenly. A task that knows what its rows
        come from, such as a file, says that instead.
        """
        rows = range(len(self))
        digest = hashlib.sha256()
        for index in rows[:: max(1, len(rows) // SAMPLED_ROWS)]:
            digest.update(json.dumps(self[index], sort_keys=True, default=str).encode())
        return {"task": type(self).__name__, "rows": len(self), "sample": digest.hexdigest()}


def chat(question: str, answer: Content) -> Conversation:
    """A conversation of one question and one answer."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def part(kind: str, text: str) -> dict[str, str]:
    """One piece of an assistant's answer."""
    return {"type": kind, "text": text}


def tool_call(expression: str, result: str) -> list[dict[str, str]]:
    """The assistant asks the calculator, and the calculator answers."""
    return [part("python", expression), part("python_output", result)]


def answer_text(conversation: Conversation) -> str:
    """The text of the last message, tool output included."""
    content: Content = conversation["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(item["text"] for item in content)


def final_number(text: str) -> str | None:
    """The number after the first `#### `, commas and a closing full stop removed; None if there is none."""
    found = FINAL_NUMBER.search(text)
    if found is None:
        return None
    return found.group(1).replace(",", "").rstrip(".") or None

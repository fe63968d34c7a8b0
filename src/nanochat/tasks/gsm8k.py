"""GSM8K (2110.14168): word problems of school mathematics, with the sums handed to the calculator.

An answer such as `48/2 = <<48/2=24>>24 clips.\\n#### 24` becomes text, a call of the tool, its output, and text again.
"""

import re
from typing import ClassVar

from nanochat.tasks.base import Content, Conversation, answer_text, chat, part, tool_call
from nanochat.tasks.hub import HubTask

CALL = re.compile(r"<<([^>]+)>>")
ANSWER = re.compile(r"#### (\-?[0-9\.\,]+)")


class GSM8K(HubTask):
    """Subset `main`, or `socratic`, whose answers ask themselves a question at every step."""

    dataset: ClassVar[str] = "openai/gsm8k"
    subsets: ClassVar[dict[str, tuple[str, ...]]] = {"main": ("train", "test"), "socratic": ("train", "test")}
    default: ClassVar[str | None] = "main"
    reads: ClassVar[frozenset[str]] = frozenset({"subset"})

    @classmethod
    def columns(cls, subset: str) -> tuple[str, ...]:
        """All."""
        return ("question", "answer")

    def __getitem__(self, index: int) -> Conversation:
        """Row `index`."""
        row = self.rows[index]
        return chat(row["question"], with_calls(row["answer"]))

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Compare the numbers after `####` as they are written, but for commas."""
        expected = number(answer_text(conversation))
        return expected is not None and number(answer) == expected


def with_calls(answer: str) -> Content:
    """The answer's parts, none of them empty."""
    parts: list[dict[str, str]] = []
    for place, piece in enumerate(CALL.split(answer)):  # text and calls in turn
        if place % 2 == 0:
            parts += [part("text", piece)] if piece else []
        else:
            expression, _, result = piece.rpartition("=")
            parts += tool_call(expression, result) if expression else [part("python", piece)]
    return parts


def number(text: str) -> str | None:
    """The number after the first `#### `, without commas. Stricter than final_number: published results count so."""
    found = ANSWER.search(text)
    return found.group(1).replace(",", "") if found else None

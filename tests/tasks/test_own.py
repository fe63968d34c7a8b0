"""A user's own class that is wrong somewhere: the error names the entry, the row and the line, and is no traceback."""

from typing import Any

import pytest

from nanochat.errors import ConfigError, MissingError
from nanochat.tasks.base import Conversation, Task, chat
from nanochat.tasks.multiple_choice import MultipleChoiceTask, Problem
from nanochat.tasks.own import OwnTask


class Given(Task):
    """Rows as they are given; an exception is raised."""

    def __init__(self, *rows: Any) -> None:
        self.given = rows

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> Conversation:
        if isinstance(self.given[index], Exception):
            raise self.given[index]
        return self.given[index]

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        return bool(conversation["solution"] == answer)


PARTS = [{"type": "text", "text": "a"}, {"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}]
SYSTEM = {"role": "system", "content": "s"}


def own(*rows: Any) -> OwnTask:
    return OwnTask(Given(*rows), "data.tasks.mine")


@pytest.mark.parametrize(
    "conversation",
    [chat("q", "a"), chat("q", PARTS), {"messages": [SYSTEM, *chat("q", "a")["messages"]], "more": 1}],
)
def test_a_good_row_passes_as_it_is(conversation: Conversation) -> None:
    assert own(conversation)[0] is conversation


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ValueError("boom"), r"mine: its row 1 raised ValueError: boom \(.*test_own.py:\d+\)"),
        (IndexError(), r"its row 1 raised IndexError \("),
        (None, "its row 1 is no conversation: no list `messages`"),
        ({"messages": []}, "no list `messages`, or nothing in it"),
        ({"messages": ["hello"]}, "message 1 is of 'hello', expected 'user'"),
        ({"messages": chat("q", "a")["messages"][1:]}, "message 1 is of 'assistant', expected 'user'"),
        ({"messages": [{"role": "user"}]}, r"message 1 \(user\) has no text in `content`\. "),
        (chat("q", 5), r"message 2 \(assistant\) has no text in `content`, nor a list of parts"),  # type: ignore[arg-type]
        (chat("q", [{"type": "tool", "text": "a"}]), "nor a list of parts of type text, python, python_output"),
        (chat("q", [{"text": "a"}]), "nor a list of parts"),
    ],
)
def test_a_bad_row_is_told_by_its_number(row: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        own(chat("q", "a"), row)[1]


def test_the_judge_and_the_length_are_watched_too() -> None:
    with pytest.raises(ConfigError, match=r"mine: its evaluate raised KeyError: 'solution'"):
        own().evaluate(chat("q", "a"), "a")

    class Endless(Given):
        def __len__(self) -> int:
            return -1

    with pytest.raises(ConfigError, match=r"mine: its __len__ raised ValueError"):
        OwnTask(Endless(), "data.tasks.mine")


def test_our_own_errors_keep_their_words() -> None:
    with pytest.raises(MissingError, match=r"^no such file$"):
        own(MissingError("no such file"))[0]


class Choice(MultipleChoiceTask):
    def __init__(self, letters: tuple[str, ...], answer: str) -> None:
        self.letters, self.answer = letters, answer

    def __len__(self) -> int:
        return 1

    def problem(self, index: int) -> Problem:
        return Problem("?", ("yes", "no"), self.letters, self.answer)


@pytest.mark.parametrize(
    ("letters", "answer", "words"),
    [
        (("A", "B"), "C", r"answer='C' is none of the letters \['A', 'B'\]"),
        (("A",), "A", r"2 choices, but the letters \['A'\]"),
        (("Yes", "No"), "Yes", ".*each is a single character of ASCII"),
        (("А", "B"), "B", ".*each is a single character of ASCII"),  # A is Cyrillic
    ],
)
def test_a_problem_that_cannot_be_answered_rightly(letters: tuple[str, ...], answer: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"eval.tasks.mine: its row 0 raised ValueError: {words}"):
        OwnTask(Choice(letters, answer), "eval.tasks.mine")[0]

"""Questions with lettered choices. The class to derive your own multiple-choice task from.

    class Colours(MultipleChoiceTask):
        '''What colour is it?'''

        def __len__(self) -> int:
            return len(ROWS)

        def problem(self, index: int) -> Problem:
            thing, colour = ROWS[index]
            return Problem(f"What colour is {thing}?", ("red", "green", "blue"), ("A", "B", "C"), colour)

It can be trained on and evaluated like any other task. Evaluation does not let the model write: it compares the
logits of the letters that are offered, so that also a model which does not keep to the form is measured.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from nanochat.tasks.base import Conversation, Task, TaskKind, answer_text, chat


class Problem(NamedTuple):
    """One question: `letters[i]` stands for `choices[i]`, `answer` is the letter of the right one.

    Each letter is a single character of ASCII, so that it is one token in every vocabulary.
    """

    question: str
    choices: Sequence[str]
    letters: Sequence[str]
    answer: str


class MultipleChoiceTask(Task):
    """Implement `__len__` and `problem`; prompt, conversation and judgement follow from them."""

    kind: TaskKind = TaskKind.categorical

    @abstractmethod
    def problem(self, index: int) -> Problem:
        """Question `index`, the same whenever it is asked for."""

    def __getitem__(self, index: int) -> Conversation:
        """The question as a conversation; `letters` are those that evaluation compares."""
        problem = self.problem(index)
        check_problem(problem)
        return {**chat(prompt(problem), problem.answer), "letters": list(problem.letters)}

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Is it the right letter?"""
        return answer.strip() == answer_text(conversation)


def check_problem(problem: Problem) -> None:
    """ValueError for a problem that no answer could be right for, or whose letters cannot be compared."""
    letters = list(problem.letters)
    if len(letters) != len(problem.choices):
        raise ValueError(f"{len(problem.choices)} choices, but the letters {letters}")
    if not all(isinstance(letter, str) and len(letter) == 1 and letter.isascii() for letter in letters):
        raise ValueError(f"letters={letters}: each is a single character of ASCII")
    if problem.answer not in letters:
        raise ValueError(f"answer={problem.answer!r} is none of the letters {letters}")


def prompt(problem: Problem) -> str:
    """What the model reads. The letter stands behind its choice: small models bind it better that way."""
    lines = "".join(f"- {choice}={letter}\n" for choice, letter in zip(problem.choices, problem.letters, strict=True))
    return f"Multiple Choice question: {problem.question}\n{lines}\nRespond only with the letter of the correct answer."

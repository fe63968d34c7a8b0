"""The prompt, word by word, and the judge."""

from collections.abc import Sequence

import pytest

from nanochat.tasks.arc import ARC
from nanochat.tasks.hub import HubRows
from nanochat.tasks.mmlu import MMLU
from nanochat.tasks.multiple_choice import MultipleChoiceTask, Problem
from nanochat.tasks.view import View


class Colours(MultipleChoiceTask):
    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        self.given = rows

    def __len__(self) -> int:
        return len(self.given)

    def problem(self, index: int) -> Problem:
        thing, colour = self.given[index]
        return Problem(f"What colour is {thing}?", ("red", "green"), ("A", "B"), colour)


@pytest.fixture
def colours() -> Colours:
    return Colours([("grass", "B"), ("blood", "A")])


def test_golden_prompt(colours: Colours) -> None:
    assert colours[0] == {
        "messages": [
            {
                "role": "user",
                "content": "Multiple Choice question: What colour is grass?\n- red=A\n- green=B\n"
                "\nRespond only with the letter of the correct answer.",
            },
            {"role": "assistant", "content": "B"},
        ],
        "letters": ["A", "B"],
    }


def test_judges_the_letter(colours: Colours) -> None:
    assert colours.kind == "categorical" == View(colours, 0, 1, 1).kind
    assert colours.evaluate(colours[0], "B") and colours.evaluate(colours[0], " B\n")
    assert not colours.evaluate(colours[0], "A") and not colours.evaluate(colours[0], "green")


def test_the_fingerprint_follows_the_rows(colours: Colours) -> None:
    assert colours.fingerprint() == Colours([("grass", "B"), ("blood", "A")]).fingerprint()
    assert colours.fingerprint() != Colours([("grass", "B"), ("blood", "B")]).fingerprint()


def rows(*given: dict) -> HubRows:
    return HubRows(len(given), lambda row: given[row], lambda: "")


def test_mmlu_wraps_its_training_rows() -> None:
    row = {"question": "?", "choices": ["w", "x", "y", "z"], "answer": 2}
    expected = Problem("?", ["w", "x", "y", "z"], ("A", "B", "C", "D"), "C")
    assert MMLU(rows({"train": row}), "auxiliary_train", "train").problem(0) == expected
    assert MMLU(rows(row), "all", "test").problem(0) == expected


def test_arc_has_letters_of_its_own() -> None:
    row = {"question": "?", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "3"}
    task = ARC(rows(row), "ARC-Easy", "test")
    assert task.problem(0) == Problem("?", ["x", "y", "z"], ["1", "2", "3"], "3")
    assert "- z=3\n" in task[0]["messages"][0]["content"] and task[0]["letters"] == ["1", "2", "3"]

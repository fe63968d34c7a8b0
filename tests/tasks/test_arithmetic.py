import re

import pytest

from nanochat.tasks.arithmetic import Arithmetic, is_test_problem, solution
from nanochat.tasks.base import answer_text


def problem(conversation):
    return re.search(r"^(\d+)([-+*])(\d+)=-?\d+$", answer_text(conversation), re.MULTILINE).groups()


def test_small_problems_by_head_larger_ones_by_tool():
    assert solution("+", 7, 5) == "7+5=12"
    assert solution("*", 12, 3) == [
        {"type": "python", "text": "12*3"},
        {"type": "python_output", "text": "36"},
        {"type": "text", "text": "\n12*3=36"},
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_row_is_right_and_of_its_split(split):
    task = Arithmetic(split=split, size=400)
    for index in range(400):
        first, symbol, second = problem(task[index])
        a, b = int(first), int(second)
        result = {"+": a + b, "-": a - b, "*": a * b}[symbol]
        assert answer_text(task[index]).endswith(f"={result}")
        asked = task[index]["messages"][0]["content"]
        assert first in asked
        assert second in asked
        assert is_test_problem(symbol, a, b) == (split == "test")


def test_a_problem_and_its_mirror_are_in_one_split():
    for a in range(30):
        for b in range(30):
            assert is_test_problem("+", a, b) == is_test_problem("+", b, a)
            assert is_test_problem("*", a, b) == is_test_problem("*", b, a)


def test_subtract_from_keeps_the_order():
    task = Arithmetic(size=3000)
    asked = [task[i] for i in range(3000) if task[i]["messages"][0]["content"].startswith("Subtract")]
    assert asked
    for conversation in asked:
        first, _, second = problem(conversation)
        assert conversation["messages"][0]["content"] == f"Subtract {second} from {first}."


def test_evaluate():
    task = Arithmetic(size=1)
    conversation = {
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": solution("-", 3, 50)}]
    }
    assert task.evaluate(conversation, "3-50-47\n3-50=-47")
    assert task.evaluate(conversation, "3-50 = -47")
    assert not task.evaluate(conversation, "3-50=47")
    assert not task.evaluate(conversation, "3-50=-47, no, 3-50=-46")
    assert not task.evaluate(conversation, "-47")

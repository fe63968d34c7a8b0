import pytest

from nanochat.tasks.base import chat
from nanochat.tasks.gsm8k import GSM8K, number, with_calls
from nanochat.tasks.hub import HubRows


@pytest.fixture
def task() -> GSM8K:
    row = {"question": "How many?", "answer": "48/2 = $<<48/2=24>>24.\n#### 1,024"}
    return GSM8K(HubRows(1, lambda _: row, lambda: ""), "main", "train")


def test_golden_parts(task: GSM8K) -> None:
    assert task[0] == chat(
        "How many?",
        [
            {"type": "text", "text": "48/2 = $"},
            {"type": "python", "text": "48/2"},
            {"type": "python_output", "text": "24"},
            {"type": "text", "text": "24.\n#### 1,024"},
        ],
    )


def test_a_call_is_split_at_the_last_equals_sign() -> None:
    parts = with_calls("<<x=3+4=7>><<5>>")
    assert [(part["type"], part["text"]) for part in parts] == [
        ("python", "x=3+4"),
        ("python_output", "7"),
        ("python", "5"),
    ]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("so it is\n#### 1024", True),
        ("#### 1,024 clips", True),
        ("#### 1024\n#### 3", True),
        ("#### 3\n#### 1024", False),
        ("#### 1024.0", False),
        ("1024", False),
        ("", False),
    ],
)
def test_evaluate(task: GSM8K, answer: str, right: bool) -> None:
    assert task.evaluate(task[0], answer) is right


def test_number() -> None:
    assert number("#### -7") == "-7" and number("#### 3.5") == "3.5" and number("###3") is None

import subprocess
import sys

import pytest

from nanochat.tasks.base import Task, answer_text, chat, final_number, part, tool_call


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("by hand\n#### 3", "3"),
        ("#### 1,234", "1234"),
        ("#### -7 apples", "-7"),
        ("#### 3.5", "3.5"),
        ("#### 12.", "12"),
        ("#### 2\n#### 3", "2"),
        ("####3", None),
        ("3", None),
        ("#### .", None),
        ("", None),
    ],
)
def test_final_number(text, expected):
    assert final_number(text) == expected


def test_answer_text_joins_parts():
    parts = [part("text", "so "), *tool_call("1+1", "2"), part("text", " it is")]
    assert answer_text(chat("q", parts)) == "so 1+12 it is"
    assert answer_text(chat("q", "a")) == "a"


def test_tasks_import_nothing_slow():
    code = "import sys, nanochat.tasks.mixture, nanochat.tasks.plain; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "datasets", "tokenizers", "tiktoken", "pyarrow"} & set(loaded)


class Listed(Task):
    def __init__(self, answers):
        self.answers = answers

    def __len__(self):
        return len(self.answers)

    def __getitem__(self, index):
        return chat("?", self.answers[index])

    def evaluate(self, conversation, answer):
        return answer == answer_text(conversation)


def test_the_fingerprint_of_a_class_that_gives_none_samples_its_rows():
    assert Listed(["a", "b"]).fingerprint() == Listed(["a", "b"]).fingerprint()
    assert Listed(["a", "b"]).fingerprint() != Listed(["a", "c"]).fingerprint()
    assert Listed([]).fingerprint() != Listed(["a"]).fingerprint()
    long = Listed([str(number) for number in range(100_000)])
    read = []
    long.__class__ = type("Counted", (Listed,), {"__getitem__": lambda self, i: read.append(i) or chat("?", "x")})
    long.fingerprint()
    assert 64 <= len(read) <= 128

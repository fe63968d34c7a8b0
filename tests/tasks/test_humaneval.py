import pytest
from shared_data import shared_data

from nanochat.tasks.hub import HubRows
from nanochat.tasks.humaneval import HumanEval, code_of, imports_of
from nanochat.tasks.registry import build_task
from nanochat.tasks.spec import TaskContext, TaskSpec

PROMPT = "from math import sqrt\n\n\ndef root(x: float) -> float:\n    '''The root.'''\n"
ROW = {
    "prompt": PROMPT,
    "canonical_solution": "    return sqrt(x)\n",
    "test": "def check(candidate):\n    assert candidate(9) == 3\n",
    "entry_point": "root",
}


@pytest.fixture
def task() -> HumanEval:
    return HumanEval(HubRows(1, lambda _: ROW, lambda: ""), "openai_humaneval", "test")


def test_conversation(task: HumanEval) -> None:
    assert [message["content"] for message in task[0]["messages"]] == [PROMPT, PROMPT + "    return sqrt(x)\n"]
    assert task[0]["entry_point"] == "root"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (PROMPT + "    return sqrt(x)", True),
        ("Here:\n```python\ndef root(x):\n    return sqrt(x)\n```\nDone.\n```\nnot this\n```", True),  # prompt's import
        ("```\ndef root(x):\n    return x ** 0.5\n```", True),
        ("```Python3\ndef root(x):\n    return sqrt(x)\n```", True),
        ("```py\r\ndef root(x):\r\n    return sqrt(x)\r\n```", True),
        ("def root(x):\n    return x", False),
        ("def other(x):\n    return sqrt(x)", False),
        ("I do not know.", False),
        ("raise SystemExit(0)", False),
        ("", False),
    ],
)
def test_evaluate(task: HumanEval, answer: str, right: bool) -> None:
    assert task.evaluate(task[0], answer) is right


def test_imports_and_code() -> None:
    assert imports_of("# typed\nimport os\n\nfrom a import b\ndef f():\n    import c\n") == "import os\nfrom a import b"
    assert code_of("```py\nx\ny\n```") == "x\ny" and code_of("x") == "x" and code_of("```python\nx") == "```python\nx"


def test_the_reference_solutions_pass(tmp_path) -> None:
    context = TaskContext(base_dir=tmp_path, hub_root=str(shared_data("hub")))
    task = build_task(TaskSpec(task="humaneval", split="test", step=32), context)
    conversations = [task[index] for index in range(len(task))]
    assert all(task.evaluate(c, c["messages"][1]["content"]) for c in conversations)
    assert not any(task.evaluate(c, c["messages"][0]["content"] + "    return None") for c in conversations)

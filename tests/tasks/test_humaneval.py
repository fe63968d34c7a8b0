from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from shared_data import shared_data

from nanochat.errors import ConfigError
from nanochat.runtime.sandbox import Isolation
from nanochat.tasks.base import Conversation, Task
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
    task = HumanEval(HubRows(1, lambda _: ROW, lambda: ""), "openai_humaneval", "test")
    task.unsafe = True  # where nothing isolates; else it is isolated all the same
    return task


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


def open_all(step: int, base_dir: Path) -> Task:
    context = TaskContext(base_dir=base_dir, hub_root=str(shared_data("hub")), allow_unsafe_code=True)
    return build_task(TaskSpec(task="humaneval", split="test", step=step), context)


def judged(task: Task, answer: Callable[[Conversation], str]) -> list[bool]:
    conversations = [task[index] for index in range(len(task))]
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda c: task.evaluate(c, answer(c)), conversations))


@pytest.mark.parametrize("step", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_the_reference_solutions_pass(step: int, tmp_path: Path) -> None:
    """With step 1 all 164 of them."""
    task = open_all(step, tmp_path)
    assert all(judged(task, lambda c: c["messages"][1]["content"]))
    assert not any(judged(task, lambda c: c["messages"][0]["content"] + "    return None"))


def test_it_runs_code_which_a_view_of_it_does_too(tmp_path: Path) -> None:
    for step in (1, 2):
        context = TaskContext(base_dir=tmp_path, hub_root="samples")
        assert build_task(TaskSpec(task="humaneval", split="test", step=step), context).runs_code
    assert not build_task(TaskSpec(task="gsm8k", subset="main", split="test"), context).runs_code


@pytest.mark.parametrize("allowed", [True, False])
def test_without_isolation(allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.runtime.sandbox.find_isolation", lambda: (Isolation.none, "not permitted"))
    context = TaskContext(base_dir=tmp_path, hub_root="samples", allow_unsafe_code=allowed)
    task = build_task(TaskSpec(task="humaneval", split="test"), context)
    with nullcontext() if allowed else pytest.raises(ConfigError, match="eval.allow_unsafe_code"):
        assert task.evaluate(task[0], task[0]["messages"][1]["content"])

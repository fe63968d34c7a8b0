"""The loop over tasks, with an engine that answers from a script."""

from pathlib import Path
from typing import Any

import pytest

from nanochat.errors import ConfigError
from nanochat.evals.chat import evaluate_tasks, open_tasks
from nanochat.evals.samples import sample_prompts
from nanochat.tasks.spec import TaskContext
from nanochat.tokenizer.bpe import Tokenizer

SPECS = {
    "count": {"task": "spelling_bee", "split": "test", "stop": 5},
    "sums": {"task": "arithmetic", "split": "test", "stop": 3},
}


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer({bytes([i]): i for i in range(256)})


class Oracle:
    """Gives the reference answer to the first `right` prompts of a task and an empty one to the others."""

    def __init__(self, tokenizer: Tokenizer, right: dict[str, int]) -> None:
        self.tokenizer = tokenizer
        self.right = right
        self.prompts: list[str] = []
        self.options: list[dict[str, Any]] = []

    def answers(self, tasks: dict[str, Any], problems: int) -> list[list[list[str]]]:
        return [[last_words(task[i]) if i < self.right[name] else "" for i in range(min(problems, len(task)))]
                for name, task in tasks.items()]  # fmt: skip

    def script(self, tasks: dict[str, Any], problems: int) -> None:
        self._todo = self.answers(tasks, problems)

    def generate_batch(self, prompts: list[list[int]], **options: Any) -> list[list[int]]:
        self.prompts += [self.tokenizer.decode(ids) for ids in prompts]
        self.options.append(options)
        return [self.tokenizer.encode(text) for text in self._todo.pop(0)]


def last_words(conversation: dict[str, Any]) -> str:
    content = conversation["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_share_of_right_answers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tasks = open_tasks(SPECS, TaskContext(base_dir=tmp_path))
    engine = Oracle(tokenizer, {"count": 3, "sums": 1})
    engine.script(tasks, 4)
    results = evaluate_tasks(engine, tokenizer, tasks, 4)  # type: ignore[arg-type]
    assert [(r.task, r.problems, r.correct, r.accuracy) for r in results] == [
        ("count", 4, 3, 0.75),
        ("sums", 3, 1, pytest.approx(1 / 3)),
    ]
    assert {options["temperature"] for options in engine.options} == {0.0}
    assert len(engine.prompts) == 7 and all(p.endswith("<|assistant_start|>") for p in engine.prompts)
    assert not any(last_words(tasks["count"][i]) in "".join(engine.prompts) for i in range(4))  # no answer is shown


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({"me": {"task": "identity"}}, "eval.tasks.me: answers of this task cannot be checked.*~eval.tasks.me"),
        ({"x": {"task": "spelling_be"}}, "eval.tasks.x.task=spelling_be is not a task; did you mean"),
        ({"x": "spelling_bee"}, "eval.tasks.x='spelling_bee': an entry is a dict"),
    ],
)
def test_wrong_tasks_are_named(specs: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        open_tasks(specs, TaskContext(base_dir=tmp_path))


def test_samples_keep_the_order_of_the_prompts(tokenizer: Tokenizer) -> None:
    class Echo:
        def generate_batch(self, prompts: list[list[int]], **options: Any) -> list[list[int]]:
            assert all(ids[0] == tokenizer.bos for ids in prompts)
            assert options == {"max_new_tokens": 3, "temperature": 0.0}
            return [ids[1:] for ids in prompts]

    assert sample_prompts(Echo(), tokenizer, ["b", "é"], 3) == [("b", "b"), ("é", "é")]  # type: ignore[arg-type]

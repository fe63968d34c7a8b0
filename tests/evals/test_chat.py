"""The loop over tasks, with an engine that answers from a script and a model that knows the letters."""

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nanochat.engine.engine import Engine
from nanochat.errors import ConfigError
from nanochat.evals.chat import choose, evaluate_tasks, open_tasks
from nanochat.evals.samples import sample_prompts
from nanochat.model.build import build_model
from nanochat.plan.dims import ModelDims
from nanochat.tasks.multiple_choice import MultipleChoiceTask, Problem
from nanochat.tasks.spec import TaskContext
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_for_completion

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
        self.model = SimpleNamespace(max_positions=4096)

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


class Letters(MultipleChoiceTask):
    """Problem i has a question of length i, `choices` letters, and the answer at place i."""

    def __init__(self, lengths: list[int], letters: str = "ABCD") -> None:
        self.lengths, self.letters = lengths, letters

    def __len__(self) -> int:
        return len(self.lengths)

    def problem(self, index: int) -> Problem:
        letters = list(self.letters)
        return Problem("q" * self.lengths[index], ["x"] * len(letters), letters, letters[index % len(letters)])


class Reader:
    """A model that looks like a GPT: position t of a row sees the row up to t; `answer` says which token comes next."""

    max_positions = 300

    def __init__(self, tokenizer: Tokenizer, answer: Callable[[list[int]], dict[str, float]]) -> None:
        self.tokenizer, self.answer = tokenizer, answer
        self.batches: list[tuple[int, int]] = []
        self.prompts: list[list[int]] = []

    def hidden(self, idx_BT: torch.Tensor) -> torch.Tensor:
        self.batches.append(tuple(idx_BT.shape))
        self.rows = idx_BT.tolist()
        places = torch.arange(idx_BT.shape[1]).expand(len(idx_BT), -1)
        return torch.stack([torch.arange(len(idx_BT))[:, None].expand_as(places), places], dim=-1)  # (row, place)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        found = torch.full((len(hidden), self.tokenizer.vocab_size), 100.0)  # any other token is likelier
        for number, (row, place) in enumerate(hidden.tolist()):
            prompt = self.rows[row][: place + 1]
            self.prompts.append(prompt)
            for letter, value in self.answer(prompt).items():
                found[number, ord(letter)] = value
        return found


def choosing(tokenizer: Tokenizer, answer: Callable[[list[int]], dict[str, float]]) -> SimpleNamespace:
    return SimpleNamespace(model=Reader(tokenizer, answer), device="cpu")


def evaluated(engine: SimpleNamespace, tokenizer: Tokenizer, task: Letters) -> int:
    (result,) = evaluate_tasks(engine, tokenizer, {"task": task}, 1000)  # type: ignore[arg-type]
    return result.correct


def test_the_likeliest_of_the_letters_offered(tokenizer: Tokenizer) -> None:
    engine = choosing(tokenizer, lambda prompt: {"A": -3.0, "B": -1.0, "C": -2.0, "D": -4.0, "E": 9.0})
    assert evaluated(engine, tokenizer, Letters([5, 6, 7, 8, 9])) == 1  # the second
    assert evaluated(engine, tokenizer, Letters([5, 6, 7, 8, 9], "ABCDE")) == 1  # the last
    assert evaluated(engine, tokenizer, Letters([5, 6], "CA")) == 1
    assert (
        evaluated(choosing(tokenizer, lambda prompt: dict.fromkeys("AB", 0.0)), tokenizer, Letters([3, 3], "BA")) == 1
    )


def test_the_prompt_ends_where_the_answer_begins(tokenizer: Tokenizer) -> None:
    """Whatever lies behind it in a batch; long prompts stand together, and each answer goes to its own question."""
    task = Letters(random.Random(3).sample(range(1, 100), 70))
    wanted = {task[i]["messages"][0]["content"]: task.problem(i).answer for i in range(len(task))}

    def answer(prompt: list[int]) -> dict[str, float]:
        said = tokenizer.decode(prompt)
        question = said.removeprefix("<|bos|><|user_start|>").removesuffix("<|user_end|><|assistant_start|>")
        return {letter: float(letter == wanted[question]) for letter in "ABCD"}

    engine = choosing(tokenizer, answer)
    assert evaluated(engine, tokenizer, task) == 70
    widths = [width for _, width in engine.model.batches]
    assert [rows for rows, _ in engine.model.batches] == [32, 32, 6] and widths == sorted(widths, reverse=True)


def test_a_prompt_too_long_for_the_model_loses_its_beginning(tokenizer: Tokenizer) -> None:
    engine = choosing(tokenizer, lambda prompt: {"A": 1.0, "B": 0.0, "C": 0.0, "D": 0.0})
    assert evaluated(engine, tokenizer, Letters([1000])) == 1
    (prompt,) = engine.model.prompts
    assert len(prompt) == 300 and prompt[0] == tokenizer.bos
    assert tokenizer.decode(prompt).endswith("correct answer.<|user_end|><|assistant_start|>")


def test_the_same_as_one_prompt_after_the_other(tokenizer: Tokenizer) -> None:
    """A real network, batched and padded, against its plain forward pass."""
    dims = ModelDims(2, 32, 4, 2, 8, tokenizer.vocab_size, 64, 10_000.0, "float32", 1e-6, 15.0)
    model = build_model(dims, "cpu", "float32", 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    task = Letters([3, 90, 17, 40, 5])
    conversations = [task[i] for i in range(len(task))]
    chosen = choose(Engine(model, tokenizer, "cpu"), tokenizer, conversations)
    for conversation, letter in zip(conversations, chosen, strict=True):
        logits = model(torch.tensor([render_for_completion(tokenizer, conversation)]))[0, -1].detach()
        assert letter == max("ABCD", key=lambda x: float(logits[ord(x)]))


def test_samples_keep_the_order_of_the_prompts(tokenizer: Tokenizer) -> None:
    class Echo:
        def generate_batch(self, prompts: list[list[int]], **options: Any) -> list[list[int]]:
            assert all(ids[0] == tokenizer.bos for ids in prompts)
            assert options == {"max_new_tokens": 3, "temperature": 0.0}
            return [ids[1:] for ids in prompts]

    assert sample_prompts(Echo(), tokenizer, ["b", "é"], 3) == [("b", "b"), ("é", "é")]  # type: ignore[arg-type]

"""The loop over tasks, with an engine that answers from a script and a model that knows the letters."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chat_ranks import ask_all

from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.errors import ConfigError
from nanochat.evals import chat
from nanochat.evals.chat import ChatOptions, evaluate_tasks, open_tasks
from nanochat.evals.chat_answers import Asked, choose, write
from nanochat.evals.samples import sample_prompts
from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.plan.dims import ModelDims
from nanochat.runtime.sandbox import Isolation
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
        self.params: list[SamplingParams] = []
        self.model = SimpleNamespace(max_positions=4096)

    def answers(self, tasks: dict[str, Any], problems: int) -> list[list[list[str]]]:
        return [[last_words(task[i]) if i < self.right[name] else "" for i in range(min(problems, len(task)))]
                for name, task in tasks.items()]  # fmt: skip

    def script(self, tasks: dict[str, Any], problems: int) -> None:
        self._todo = self.answers(tasks, problems)

    def generate_batch(self, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
        self.prompts += [self.tokenizer.decode(ids) for ids in prompts]
        self.params.append(params)
        return [self.tokenizer.encode(text) for text in self._todo.pop(0)]


def last_words(conversation: dict[str, Any]) -> str:
    content = conversation["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_share_of_right_answers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tasks = open_tasks(SPECS, TaskContext(base_dir=tmp_path))
    engine = Oracle(tokenizer, {"count": 3, "sums": 1})
    engine.script(tasks, 4)
    asked = ChatOptions(max_problems=4, max_new_tokens=77, top_k=9)
    results = evaluate_tasks(engine, tokenizer, tasks, asked)  # type: ignore[arg-type]
    assert [(r.task, r.problems, r.rights, r.accuracy) for r in results] == [
        ("count", 4, [1, 1, 1, 0], 0.75),
        ("sums", 3, [1, 0, 0], pytest.approx(1 / 3)),
    ]
    assert engine.params == [SamplingParams(max_new_tokens=77, temperature=0.0, top_k=9, seed=42)] * 2
    first = results[0].answered[0]
    assert (first.index, first.right, first.answers) == (0, [True], [last_words(tasks["count"][0])])
    assert first.question == tasks["count"][0]["messages"][0]["content"] and first.expected == first.answers[0]
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
    asked = ChatOptions(max_problems=1000, num_samples=4, temperature=1.0)  # letters are asked once all the same
    (result,) = evaluate_tasks(engine, tokenizer, {"task": task}, asked)  # type: ignore[arg-type]
    assert result.samples == 1 and [one.index for one in result.answered] == list(range(len(task)))
    return sum(result.rights)


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


def small_model(tokenizer: Tokenizer) -> GPT:
    dims = ModelDims(2, 32, 4, 2, 8, tokenizer.vocab_size, 64, 10_000.0, "float32", 1e-6, 15.0)
    model = build_model(dims, "cpu", "float32", 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return model


def test_the_same_as_one_prompt_after_the_other(tokenizer: Tokenizer) -> None:
    """A real network, batched and padded, against its plain forward pass."""
    model = small_model(tokenizer)
    task = Letters([3, 90, 17, 40, 5])
    problems = [Asked(i, task[i]) for i in range(len(task))]
    chosen = choose(Engine(model, tokenizer, "cpu"), tokenizer, problems)
    for problem, letter in zip(problems, chosen, strict=True):
        logits = model(torch.tensor([render_for_completion(tokenizer, problem.conversation)]))[0, -1].detach()
        assert letter == max("ABCD", key=lambda x: float(logits[ord(x)]))


def test_samples_keep_the_order_of_the_prompts(tokenizer: Tokenizer) -> None:
    class Echo:
        def generate_batch(self, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
            assert all(ids[0] == tokenizer.bos for ids in prompts)
            assert params == SamplingParams(max_new_tokens=3, temperature=0.0)
            return [ids[1:] for ids in prompts]

    assert sample_prompts(Echo(), tokenizer, ["b", "é"], 3) == [("b", "b"), ("é", "é")]  # type: ignore[arg-type]


SAMPLED = SamplingParams(max_new_tokens=8, temperature=1.0, top_k=50, seed=3)


def test_several_answers_differ_and_depend_on_the_problem_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tasks = open_tasks({"sums": {"task": "arithmetic", "split": "test", "stop": 5}}, TaskContext(base_dir=tmp_path))
    problems = [Asked(i, tasks["sums"][i]) for i in range(5)]
    engine = Engine(small_model(tokenizer), tokenizer, "cpu", max_rows=4)
    answers = write(engine, tokenizer, problems, SAMPLED, 3)
    assert [len(texts) for texts in answers] == [3] * 5 and all(len(set(texts)) == 3 for texts in answers)
    some = write(Engine(small_model(tokenizer), tokenizer, "cpu"), tokenizer, problems[3:1:-1], SAMPLED, 3)
    assert some == [answers[3], answers[2]]
    same = [Asked(i, problems[0].conversation) for i in range(2)]
    one, other = write(Engine(small_model(tokenizer), tokenizer, "cpu"), tokenizer, same, SAMPLED, 1)
    assert one != other  # each problem has a seed of its own
    assert write(engine, tokenizer, [], SAMPLED, 3) == []


def test_room_for_an_answer_to_a_prompt_too_long(tokenizer: Tokenizer) -> None:
    engine = Engine(small_model(tokenizer), tokenizer, "cpu")
    prompts: list[list[int]] = []
    submit = engine.submit
    engine.submit = lambda ids, *a, **k: prompts.append(ids) or submit(ids, *a, **k)  # type: ignore
    problem = Asked(0, {"messages": [{"role": "user", "content": "q" * 5000}, {"role": "assistant", "content": ""}]})
    write(engine, tokenizer, [problem], SAMPLED)
    (prompt,) = prompts
    assert len(prompt) == engine.model.max_positions - 8 and prompt[0] == tokenizer.bos


def test_several_greedy_answers_are_refused() -> None:
    message = "eval.num_samples=4 with eval.temperature=0: .*eval.temperature=0.8.*eval.num_samples=1"
    with pytest.raises(ConfigError, match=message):
        ChatOptions(max_problems=1, num_samples=4)


class Programs(Letters):
    """Answers are "run"."""

    runs_code = True


def test_programs_are_judged_side_by_side(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_judges", lambda: 4)
    together = threading.Barrier(4, timeout=20)
    task = Programs([3] * 8)
    monkeypatch.setattr(task, "evaluate", lambda conversation, answer: together.wait() >= 0)
    engine = choosing(tokenizer, lambda prompt: dict.fromkeys("ABCD", 0.0))
    assert evaluated(engine, tokenizer, task) == 8


def test_where_nothing_isolates_programs_are_not_even_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanochat.runtime.sandbox.find_isolation", lambda: (Isolation.none, "not permitted"))
    specs = {"code": {"task": "humaneval", "split": "test", "stop": 1}}  # a view of it, too
    with pytest.raises(ConfigError, match="not permitted.*eval.allow_unsafe_code=true"):
        open_tasks(specs, TaskContext(base_dir=tmp_path, hub_root="samples"))
    (task,) = open_tasks(specs, TaskContext(base_dir=tmp_path, hub_root="samples", allow_unsafe_code=True)).values()
    assert task.evaluate(task[0], last_words(task[0])) and not task.evaluate(task[0], "")
    open_tasks(SPECS, TaskContext(base_dir=tmp_path))


def test_two_ranks_find_what_one_finds(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Problems are dealt to them, 5 and 3 for 2; both end with everything."""
    alone = ask_all()
    script = "import chat_ranks, sys; chat_ranks.be_rank(int(sys.argv[1]), sys.argv[2])"
    environment = {**os.environ, "WORLD_SIZE": "2", "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    command = [sys.executable, "-c", script]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env={**environment, "RANK": str(rank)})
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == [repr(alone)] * 2

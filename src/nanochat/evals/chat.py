"""Asks a model the problems of tasks as a chat, and has the tasks judge what it answers.

Notable: problems are dealt to the ranks one by one, since neighbouring ones are alike in length; every rank ends with
the results of all. Programs are judged by several threads, which mostly wait for the sandbox.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.errors import ConfigError
from nanochat.evals.chat_answers import Asked, choose, write
from nanochat.runtime.dist import current_ranks, gather
from nanochat.runtime.sandbox import require_isolation
from nanochat.tasks.base import Task, TaskKind, answer_text
from nanochat.tasks.registry import build_task
from nanochat.tasks.spec import TaskContext, parse_spec
from nanochat.tokenizer.bpe import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How problems are asked: `eval.metrics_max_problems`, `num_samples`, `temperature`, `top_k`, `max_new_tokens`."""

    max_problems: int
    num_samples: int = 1
    temperature: float = 0.0
    top_k: int = 50
    max_new_tokens: int = 512
    seed: int = 42

    def __post_init__(self) -> None:
        """ConfigError for several answers that would all be the same."""
        if self.num_samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"eval.num_samples={self.num_samples} with eval.temperature=0: a greedy answer is always the same. "
                f"Draw them with eval.temperature=0.8, or ask once: eval.num_samples=1"
            )


@dataclass(frozen=True)
class Answered:
    """A problem, the right answer, and what the model said, with the verdicts."""

    index: int
    question: str
    expected: str
    answers: list[str]
    right: list[bool]


@dataclass(frozen=True)
class TaskResult:
    """All problems that were asked of a task, in its order. `samples` answers to each."""

    task: str
    samples: int
    answered: Sequence[Answered]

    @property
    def problems(self) -> int:
        """How many there were."""
        return len(self.answered)

    @property
    def rights(self) -> list[int]:
        """The right answers to each problem."""
        return [sum(one.right) for one in self.answered]

    @property
    def accuracy(self) -> float:
        """Share of right answers, which is pass@1."""
        return sum(self.rights) / (self.problems * self.samples)


def open_tasks(specs: Mapping[str, Any], context: TaskContext) -> dict[str, Task]:
    """The tasks of `eval.tasks` by name.

    Raises ConfigError, also for a task whose answers cannot be checked, or only by running them where nothing isolates.
    """
    tasks = {name: build_task(parse_spec(f"eval.tasks.{name}", value), context) for name, value in specs.items()}
    for name, task in tasks.items():
        if task.kind == TaskKind.none:
            raise ConfigError(
                f"eval.tasks.{name}: answers of this task cannot be checked; leave it out: ~eval.tasks.{name}"
            )
    if any(task.runs_code for task in tasks.values()):
        require_isolation(context.allow_unsafe_code)
    return tasks


def evaluate_tasks(
    engine: Engine, tokenizer: Tokenizer, tasks: Mapping[str, Task], asked: ChatOptions
) -> list[TaskResult]:
    """Answers to the first `max_problems` problems of each task. Every rank calls it and gets the results of all."""
    return [_evaluate(engine, tokenizer, name, task, asked) for name, task in tasks.items()]


def _evaluate(engine: Engine, tokenizer: Tokenizer, name: str, task: Task, asked: ChatOptions) -> TaskResult:
    ranks = current_ranks()
    share = range(ranks.rank, min(asked.max_problems, len(task)), ranks.world)
    problems = [Asked(i, task[i]) for i in share]
    if task.kind == TaskKind.categorical:  # the same however often it is asked
        samples, answers = 1, [[letter] for letter in choose(engine, tokenizer, problems)]
    else:
        samples, answers = asked.num_samples, write(engine, tokenizer, problems, _params(asked), asked.num_samples)
    answered = gather(_judge(task, problems, answers))
    return TaskResult(name, samples, sorted(answered, key=lambda one: one.index))


def _params(asked: ChatOptions) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=asked.max_new_tokens, temperature=asked.temperature, top_k=asked.top_k or None, seed=asked.seed
    )


def _judge(task: Task, problems: Sequence[Asked], answers: Sequence[Sequence[str]]) -> list[Answered]:
    pairs = [(problem.conversation, text) for problem, texts in zip(problems, answers, strict=True) for text in texts]
    with ThreadPoolExecutor(_judges() if task.runs_code else 1) as pool:
        verdicts = pool.map(lambda pair: task.evaluate(*pair), pairs)
        return [
            Answered(
                problem.index,
                "\n\n".join(str(message["content"]) for message in problem.conversation["messages"][:-1]),
                answer_text(problem.conversation),
                list(texts),
                [bool(next(verdicts)) for _ in texts],
            )
            for problem, texts in zip(problems, answers, strict=True)
        ]


def _judges() -> int:
    """Threads of a rank that wait for programs; half as many again as it has processors."""
    return max(2, (os.cpu_count() or 1) * 3 // 2 // current_ranks().world)

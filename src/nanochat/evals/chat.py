"""Asks a model the problems of generative tasks as a chat and checks its answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanochat.engine.engine import Engine
from nanochat.errors import ConfigError
from nanochat.tasks.base import Task, TaskKind
from nanochat.tasks.registry import build_task
from nanochat.tasks.spec import TaskContext, parse_spec
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_for_completion

MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class TaskResult:
    """`correct` of `problems` problems of a task were answered rightly."""

    task: str
    problems: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.problems


def open_tasks(specs: Mapping[str, Any], context: TaskContext) -> dict[str, Task]:
    """The tasks of `eval.tasks` by name. Raises ConfigError, also for a task whose answers cannot be checked."""
    tasks = {name: build_task(parse_spec(f"eval.tasks.{name}", value), context) for name, value in specs.items()}
    for name, task in tasks.items():
        if task.kind != TaskKind.generative:
            raise ConfigError(
                f"eval.tasks.{name}: answers of this task cannot be checked; leave it out: ~eval.tasks.{name}"
            )
    return tasks


def evaluate_tasks(
    engine: Engine, tokenizer: Tokenizer, tasks: Mapping[str, Task], max_problems: int
) -> list[TaskResult]:
    """Greedy answers to the first `max_problems` problems of each task, at most."""
    results = []
    for name, task in tasks.items():
        conversations = [task[i] for i in range(min(max_problems, len(task)))]
        prompts = [render_for_completion(tokenizer, c) for c in conversations]
        answers = engine.generate_batch(prompts, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
        texts = [tokenizer.decode(ids) for ids in answers]
        correct = sum(task.evaluate(c, text) for c, text in zip(conversations, texts, strict=True))
        results.append(TaskResult(name, len(conversations), correct))
    return results

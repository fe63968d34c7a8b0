"""Asks a model the problems of tasks as a chat.

    generative     it writes, greedily, with the tool; the task checks what it wrote
    categorical    the logits of the letters offered are compared, where its answer would begin: one forward pass

Notable: a prompt longer than the model reaches loses its beginning, but for the first token; for the tiny models of
tests that happens, for those of any use it does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nanochat.engine.engine import Engine
from nanochat.errors import ConfigError
from nanochat.tasks.base import Conversation, Task, TaskKind
from nanochat.tasks.registry import build_task
from nanochat.tasks.spec import TaskContext, parse_spec
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_for_completion

MAX_NEW_TOKENS = 512
ROWS = 32  # prompts of a forward pass


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
        if task.kind == TaskKind.none:
            raise ConfigError(
                f"eval.tasks.{name}: answers of this task cannot be checked; leave it out: ~eval.tasks.{name}"
            )
    return tasks


def evaluate_tasks(
    engine: Engine, tokenizer: Tokenizer, tasks: Mapping[str, Task], max_problems: int
) -> list[TaskResult]:
    """Answers to the first `max_problems` problems of each task, at most."""
    results = []
    for name, task in tasks.items():
        conversations = [task[i] for i in range(min(max_problems, len(task)))]
        answer = choose if task.kind == TaskKind.categorical else write
        answers = answer(engine, tokenizer, conversations)
        correct = sum(task.evaluate(c, text) for c, text in zip(conversations, answers, strict=True))
        results.append(TaskResult(name, len(conversations), correct))
    return results


def write(engine: Engine, tokenizer: Tokenizer, conversations: Sequence[Conversation]) -> list[str]:
    """What the model writes in place of each last message, greedily."""
    limit = engine.model.max_positions - 1
    prompts = [_fitted(render_for_completion(tokenizer, c), limit) for c in conversations]
    answers = engine.generate_batch(prompts, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0)
    return [tokenizer.decode(ids) for ids in answers]


@torch.inference_mode()
def choose(engine: Engine, tokenizer: Tokenizer, conversations: Sequence[Conversation]) -> list[str]:
    """The likeliest of each conversation's `letters` as the first token of the answer; of equal ones the first.

    Prompts of similar length share a batch, padded on the right, where a causal model does not see it.
    """
    prompts = [_fitted(render_for_completion(tokenizer, c), engine.model.max_positions) for c in conversations]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), ROWS):
        chosen = order[start : start + ROWS]
        longest = len(prompts[chosen[0]])
        padded = [prompts[i] + [0] * (longest - len(prompts[i])) for i in chosen]
        hidden_BTD = engine.model.hidden(torch.tensor(padded, device=engine.device))
        last = torch.tensor([len(prompts[i]) - 1 for i in chosen], device=engine.device)
        logits_BV = engine.model.logits(hidden_BTD[torch.arange(len(chosen), device=engine.device), last]).cpu()
        for i, logits_V in zip(chosen, logits_BV, strict=True):
            letters = conversations[i]["letters"]
            answers[i] = letters[int(logits_V[[_token_of(tokenizer, letter) for letter in letters]].argmax())]
    return answers


def _token_of(tokenizer: Tokenizer, letter: str) -> int:
    ids = tokenizer.encode(letter)
    assert len(ids) == 1, f"the letter {letter!r} is {len(ids)} tokens; a problem's letters are single ASCII characters"
    return ids[0]


def _fitted(prompt: list[int], limit: int) -> list[int]:
    """At most `limit` tokens: the first one and the last."""
    return prompt if len(prompt) <= limit else [prompt[0], *prompt[len(prompt) - limit + 1 :]]

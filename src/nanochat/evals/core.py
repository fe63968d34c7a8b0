"""CORE (DCLM, 2406.11794): how well a base model does without having learnt to chat, over 22 tasks.

    centred = (accuracy - baseline) / (1 - baseline)      0 is guessing, 1 is perfect
    CORE    = mean of the centred accuracies

Notable: problems of similar length share forward passes, and ranks share the problems (rank r of W takes r, r+W, ...);
what a problem is asked with depends on neither. Standard errors say how far the numbers would move with other problems
of the same kind; CORE's takes the tasks as independent.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from nanochat.evals.core_bundle import Bundle, CoreTask, Kind
from nanochat.evals.core_prompts import Deck, Problem
from nanochat.evals.core_scoring import CoreModel, choose, split_scores
from nanochat.runtime.dist import Ranks, all_reduce_sum, current_ranks

BATCH_TOKENS = 8192  # of a forward pass, where nothing else says how many fit
_BLOCK = 256  # problems that are tokenised and sorted by length together

Say = Callable[[str, bool], None]  # how far it is, and whether a task ended


class Stopped(Exception):
    """Somebody asked to stop between two batches."""


@dataclass(frozen=True)
class Answer:
    """What the model made of a problem: the candidate chosen (None: none could be), or 1 and 0 for an exact answer.

    `line` is that of the problem in its file, from 1.
    """

    index: int
    line: int
    gold: int | None
    predicted: int | None

    @property
    def correct(self) -> bool:
        """Whether it was right."""
        return self.predicted == (1 if self.gold is None else self.gold)


@dataclass(frozen=True)
class TaskScore:
    """One task. Accuracies are shares of `n` problems."""

    task: CoreTask
    answers: tuple[Answer, ...]

    @property
    def n(self) -> int:
        """Problems asked."""
        return len(self.answers)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return sum(answer.correct for answer in self.answers) / self.n

    @property
    def centred(self) -> float:
        """0 for guessing, 1 for all."""
        return (self.accuracy - self.task.baseline) / (1 - self.task.baseline)

    @property
    def error(self) -> float:
        """Standard error of the accuracy: sqrt(p (1 - p) / n)."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.n)

    @property
    def centred_error(self) -> float:
        """Standard error of the centred accuracy."""
        return self.error / (1 - self.task.baseline)


@dataclass(frozen=True)
class CoreResult:
    """All tasks."""

    scores: tuple[TaskScore, ...]

    @property
    def core(self) -> float:
        """Mean of the centred accuracies."""
        return sum(score.centred for score in self.scores) / len(self.scores)

    @property
    def error(self) -> float:
        """Its standard error."""
        return math.sqrt(sum(score.centred_error**2 for score in self.scores)) / len(self.scores)

    @property
    def metrics(self) -> dict[str, float]:
        """`eval/core`, and the centred accuracy of each task as `eval/core/<label>`."""
        return {"eval/core": self.core, **{f"eval/core/{s.task.label}": s.centred for s in self.scores}}


def evaluate_core(
    model: CoreModel,
    bundle: Bundle,
    max_per_task: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    say: Say = lambda text, done: None,
    stop: Callable[[], object] = lambda: False,
) -> CoreResult:
    """Asks the first `max_per_task` problems of each task (-1: all); the same result on every rank. Raises Stopped."""
    scores: list[TaskScore] = []
    for number, task in enumerate(bundle.tasks, 1):
        name = f"CORE {number}/{len(bundle.tasks)} {task.label}"
        deck = Deck(task, bundle.rows(task), max_per_task)
        scores.append(evaluate_task(model, deck, batch_tokens, partial(_tell, say, name), stop))
        say(f"{name}: accuracy {scores[-1].accuracy:.4f} of {len(deck)}", True)
    return CoreResult(tuple(scores))


def _tell(say: Say, name: str, part: str) -> None:
    say(f"{name} {part}", False)


def evaluate_task(
    model: CoreModel,
    deck: Deck,
    batch_tokens: int = BATCH_TOKENS,
    say: Callable[[str], None] = lambda text: None,
    stop: Callable[[], object] = lambda: False,
) -> TaskScore:
    """One task, shared among the ranks."""
    ranks = current_ranks()
    noted = torch.zeros(len(deck), dtype=torch.int64, device=model.device)  # 0: another rank's, else the answer + 2
    for done, batch in _batches(model, deck, ranks, batch_tokens):
        say(f"{done}/{len(deck)}")
        _check_stop(stop, ranks)
        for problem, predicted in zip(batch, answer(model, batch), strict=True):
            noted[problem.index] = 1 if predicted is None else predicted + 2
    found = all_reduce_sum(noted).tolist()
    exact = deck.task.kind == Kind.language_modeling
    golds = [None if exact else int(row["gold"]) for row in deck.rows]
    answers = (Answer(i, deck.lines[i], golds[i], None if code == 1 else code - 2) for i, code in enumerate(found))
    return TaskScore(deck.task, tuple(answers))


def _check_stop(stop: Callable[[], object], ranks: Ranks) -> None:
    """With several ranks all would have to agree, and none stops."""
    if ranks.world == 1 and stop():
        raise Stopped


@torch.inference_mode()
def answer(model: CoreModel, batch: Sequence[Problem]) -> list[int | None]:
    """What the model makes of each problem of a batch, which shares forward passes."""
    losses, hits = (split_scores(batch, values) for values in model.scores(batch))
    return [choose(*each) for each in zip(batch, losses, hits, strict=True)]


def _batches(model: CoreModel, deck: Deck, ranks: Ranks, tokens: int) -> Iterator[tuple[int, list[Problem]]]:
    """This rank's problems in batches of similar length, and how many problems of all ranks came before."""
    mine = range(ranks.rank, len(deck), ranks.world)
    for start in range(0, len(mine), _BLOCK):
        problems = deck.problems(mine[start : start + _BLOCK], model.encode, model.bos, model.longest)
        done = start
        for batch in batched(problems, model, tokens):
            yield done * ranks.world, batch
            done += len(batch)


def batched(problems: Iterable[Problem], model: CoreModel, tokens: int) -> Iterator[list[Problem]]:
    """Problems by length, together as many as take at most `tokens` tokens with their padding, but at least one."""
    costs = {problem.index: model.cost(problem) for problem in problems}
    batch: list[Problem] = []
    rows = 0
    for problem in sorted(problems, key=lambda p: costs[p.index][::-1], reverse=True):
        more, width = costs[problem.index]
        widest = costs[batch[0].index][1] if batch else width  # the first is the longest
        if batch and (rows + more) * widest > tokens:
            yield batch
            batch, rows = [], 0
        batch.append(problem)
        rows += more
    if batch:
        yield batch

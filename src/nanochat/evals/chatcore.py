"""What chat tasks say of a model: metrics, a table, files to read.

    ChatCORE = mean over the six tasks of the guide of (accuracy - baseline) / (1 - baseline)

The baseline is what guessing gets: 1/4 for the tasks of four letters, 0 for those where an answer is written.

Notable: a standard error is that of the mean over problems, so several answers to one problem do not count as several
problems. That of ChatCORE takes the tasks for independent.
"""

import json
import shutil
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from nanochat.evals.chat import TaskResult
from nanochat.evals.pass_at_k import mean_pass_at_k, powers_up_to

# by their names in conf/eval/chat.yaml
BASELINES = {
    "arc_easy": 0.25,
    "arc_challenge": 0.25,
    "mmlu": 0.25,
    "gsm8k": 0.0,
    "humaneval": 0.0,
    "spelling_bee": 0.0,
}
FOLDER = "chat"  # of the files, in the run's folder


def chat_metrics(results: Sequence[TaskResult]) -> dict[str, float]:
    """`eval/chat/<task>`; with several answers `eval/chat/<task>/pass@k` too; `eval/chatcore` if all six were asked."""
    metrics: dict[str, float] = {}
    for result in results:
        metrics[f"eval/chat/{result.task}"] = result.accuracy
        if result.samples > 1:
            for k in powers_up_to(result.samples):
                metrics[f"eval/chat/{result.task}/pass@{k}"] = mean_pass_at_k(result.samples, result.rights, k)
    core = chatcore(results)
    return metrics if core is None else {**metrics, "eval/chatcore": core[0]}


def chatcore(results: Sequence[TaskResult]) -> tuple[float, float | None] | None:
    """ChatCORE and its standard error; None if one of the six is missing."""
    six = {result.task: result for result in results if result.task in BASELINES}
    if len(six) < len(BASELINES):
        return None
    errors = [standard_error(six[name]) for name in BASELINES]
    known = [error / (1 - base) for error, base in zip(errors, BASELINES.values(), strict=True) if error is not None]
    error = sqrt(sum(e * e for e in known)) / len(BASELINES) if len(known) == len(BASELINES) else None
    return sum(centred(six[name].accuracy, base) for name, base in BASELINES.items()) / len(BASELINES), error


def centred(accuracy: float, baseline: float) -> float:
    """0 for guessing, 1 for all right."""
    return (accuracy - baseline) / (1 - baseline)


def standard_error(result: TaskResult) -> float | None:
    """Of the accuracy; None with a single problem, which says nothing of the spread."""
    n, mean = result.problems, result.accuracy
    if n < 2:
        return None
    variance = sum((right / result.samples - mean) ** 2 for right in result.rights) / (n - 1)
    return sqrt(variance / n)


def chat_table(results: Sequence[TaskResult]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows: accuracy, standard error, number of problems, centred accuracy of the six, pass@k if drawn."""
    most = max((result.samples for result in results), default=1)
    ks = powers_up_to(most)[1:]
    rows = []
    for result in results:
        base = BASELINES.get(result.task)
        row = [result.task, result.accuracy, standard_error(result), result.problems]
        row += [None if base is None else centred(result.accuracy, base)]
        row += [mean_pass_at_k(result.samples, result.rights, k) if k <= result.samples else None for k in ks]
        rows.append(row)
    core = chatcore(results)
    if core is not None:
        rows.append(["ChatCORE", None, core[1], None, core[0], *[None] * len(ks)])
    return ["chat task", "accuracy", "std. error", "n", "centred", *(f"pass@{k}" for k in ks)], rows


def write_records(folder: Path, results: Sequence[TaskResult]) -> None:
    """`folder`/chat/<task>.jsonl, a problem a line: question, right answer, what was said, whether that is right."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    for result in results:
        path = folder / FOLDER / f"{result.task}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for one in result.answered:
                row = {"problem": one.index, "question": one.question, "expected": one.expected}
                row["answers"] = [
                    {"text": text, "right": right} for text, right in zip(one.answers, one.right, strict=True)
                ]
                file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n")

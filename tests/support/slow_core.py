"""CORE once more, one example at a time, straight from its definition and from nothing of src: what ours is held to.

A model is a function from ids to logits (T, V), a tokenizer a function from text to ids.
"""

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

Logits = Callable[[list[int]], torch.Tensor]
Encode = Callable[[str], list[int]]


def read_tasks(bundle: Path) -> list[dict[str, Any]]:
    """The entries of core.yaml, each with its rows."""
    if bundle.is_dir():
        read = lambda name: (bundle / name).read_text(encoding="utf-8")  # noqa: E731
    else:
        archive = zipfile.ZipFile(bundle)
        read = lambda name: archive.read(f"eval_bundle/{name}").decode("utf-8")  # noqa: E731
    tasks = yaml.safe_load(read("core.yaml"))["icl_tasks"]
    for task in tasks:
        lines = read("eval_data/" + task["dataset_uri"]).splitlines() if bundle.is_dir() else None
        lines = lines if lines is not None else read("eval_data/" + task["dataset_uri"]).split("\n")
        task["rows"] = [json.loads(line) for line in lines if line.strip()]
    return tasks


def answers(
    task: dict[str, Any], max_per_task: int, encode: Encode, bos: int, logits: Logits, longest: int
) -> list[tuple[int | None, bool]]:
    """(choice made, whether it is right) of each problem asked; the choice of a language modelling task is None."""
    whole = list(task["rows"])
    random.Random(1337).shuffle(whole)
    data = whole if max_per_task == -1 else whole[:max_per_task]
    shots = task["num_fewshot"][0]
    pool = whole if max_per_task != -1 and max_per_task <= shots else data
    return [one(task, data[i], drawn(pool, i, shots), encode, bos, logits, longest) for i in range(len(data))]


def drawn(pool: list[Any], index: int, shots: int) -> list[Any]:
    others = [i for i in range(len(pool)) if i != index]
    return [pool[i] for i in random.Random(1234 + index).sample(others, shots)] if shots else []


def one(
    task: dict[str, Any], item: Any, shots: list[Any], encode: Encode, bos: int, logits: Logits, longest: int
) -> tuple[int | None, bool]:
    delimiter = task.get("continuation_delimiter", " ")
    kind = task["icl_task_type"]
    if kind == "multiple_choice":
        head = "".join(s["query"] + delimiter + s["choices"][s["gold"]] + "\n\n" for s in shots)
        rows = [[bos, *encode(head + item["query"] + delimiter + choice)] for choice in item["choices"]]
        same = 0
        while all(same < len(row) and row[same] == rows[0][same] for row in rows):
            same += 1
        starts = [same] * len(rows)
    elif kind == "schema":
        head = "".join(s["context_options"][s["gold"]] + delimiter + s["continuation"] + "\n\n" for s in shots)
        options = item["context_options"]
        rows = [[bos, *encode(head + option + delimiter + item["continuation"])] for option in options]
        same = 0
        while all(same < len(row) and row[-1 - same] == rows[0][-1 - same] for row in rows):
            same += 1
        starts = [len(row) - same for row in rows]
    else:
        head = "".join(s["context"].strip() + delimiter + s["continuation"] + "\n\n" for s in shots)
        without = head + item["context"].strip() + delimiter
        rows = [[bos, *encode(without + item["continuation"])]]
        starts = [1 + len(encode(without.strip()))]
    means = []
    for row, start in zip(rows, starts, strict=True):
        cut = max(len(row) - longest, 0)
        row, start = row[cut:], max(start - cut, 1)
        if start >= len(row):
            means.append(float("inf"))
            continue
        scores = logits(row)[start - 1 : len(row) - 1]
        target = torch.tensor(row[start:])
        if kind == "language_modeling":
            return None, bool((scores.argmax(-1) == target).all())
        means.append(-scores.double().log_softmax(-1)[torch.arange(len(target)), target].mean().item())
    if kind == "language_modeling" or min(means) == float("inf"):
        return None, False
    choice = means.index(min(means))
    return choice, choice == item["gold"]

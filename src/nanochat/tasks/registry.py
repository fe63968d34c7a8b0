"""The built-in tasks by name, and how a spec becomes a task: one of these, or a class of the user's own."""

from typing import Any

from nanochat.errors import ConfigError, nearest
from nanochat.runtime.plugins import build_own
from nanochat.tasks.arc import ARC
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.base import Task
from nanochat.tasks.custom_json import CustomJSON, Identity
from nanochat.tasks.gsm8k import GSM8K
from nanochat.tasks.humaneval import HumanEval
from nanochat.tasks.mmlu import MMLU
from nanochat.tasks.own import OwnTask
from nanochat.tasks.simple_spelling import SimpleSpelling
from nanochat.tasks.smoltalk import SmolTalk
from nanochat.tasks.spec import TaskContext, TaskSpec
from nanochat.tasks.spelling_bee import SpellingBee
from nanochat.tasks.view import View

TASKS: dict[str, type[Task]] = {
    "arc": ARC,
    "arithmetic": Arithmetic,
    "custom_json": CustomJSON,
    "gsm8k": GSM8K,
    "humaneval": HumanEval,
    "identity": Identity,
    "mmlu": MMLU,
    "simple_spelling": SimpleSpelling,
    "smoltalk": SmolTalk,
    "spelling_bee": SpellingBee,
}


def build_task(spec: TaskSpec, context: TaskContext) -> Task:
    """The task of `spec`, cut to its rows. ConfigError for an unknown name, a field it does not read, or no row."""
    if spec.target is not None:
        # mypy: Task is abstract, and what is built derives from it.
        base: type[Any] = Task
        own = build_own(spec.key, spec.target, spec.args, context.plugins, base)
        task: Task = OwnTask(own, spec.key)
        said = spec.target
    else:
        task, said = _built_in(spec, context), f"{spec.task} {spec.split}"
    if len(task) == 0:
        raise ConfigError(f"{spec.key}: {said} has no row; leave it out: ~{spec.key}")
    view = View(task, spec.start, spec.stop, spec.step)
    if len(view) == 0:
        raise ConfigError(f"{spec.key}.start={spec.start} leaves no row: {said} has {len(task)}.")
    return task if len(view) == len(task) else view


def _built_in(spec: TaskSpec, context: TaskContext) -> Task:
    if spec.task not in TASKS:
        raise ConfigError(f"{spec.key}.task={spec.task} is not a task; {nearest(spec.task, TASKS)}")
    kind = TASKS[spec.task]
    check_against(kind, spec)
    return kind.from_spec(spec, context)


def check_against(kind: type[Task], spec: TaskSpec) -> None:
    """Refuse a split that the task does not have and a field that it would not read."""
    if spec.split not in kind.splits:
        known = ", ".join(kind.splits)
        raise ConfigError(f"{spec.key}.split={spec.split}: {spec.task} has {known}. Use start and stop to divide it.")
    for name in ("path", "subset"):
        value = getattr(spec, name)
        if value is not None and name not in kind.reads:
            raise ConfigError(f"{spec.key}.{name}={value}: {spec.task} does not use `{name}`; set it to null.")

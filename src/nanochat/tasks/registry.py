"""The built-in tasks by name, and how a spec becomes a task."""

from nanochat.errors import ConfigError, nearest
from nanochat.tasks.arithmetic import Arithmetic
from nanochat.tasks.base import Task
from nanochat.tasks.custom_json import CustomJSON, Identity
from nanochat.tasks.simple_spelling import SimpleSpelling
from nanochat.tasks.spec import TaskContext, TaskSpec
from nanochat.tasks.spelling_bee import SpellingBee
from nanochat.tasks.view import View

TASKS: dict[str, type[Task]] = {
    "arithmetic": Arithmetic,
    "custom_json": CustomJSON,
    "identity": Identity,
    "simple_spelling": SimpleSpelling,
    "spelling_bee": SpellingBee,
}


def build_task(spec: TaskSpec, context: TaskContext) -> Task:
    """The task of `spec`, cut to its rows. ConfigError for an unknown name, a field it does not read, or no row."""
    if spec.task not in TASKS:
        raise ConfigError(f"{spec.key}.task={spec.task} is not a task; {nearest(spec.task, TASKS)}")
    kind = TASKS[spec.task]
    check_against(kind, spec)
    task = kind.from_spec(spec, context)
    view = View(task, spec.start, spec.stop, spec.step)
    if len(view) == 0:
        raise ConfigError(f"{spec.key}.start={spec.start} leaves no row: {spec.task} {spec.split} has {len(task)}.")
    return task if len(view) == len(task) else view


def check_against(kind: type[Task], spec: TaskSpec) -> None:
    """Refuse a split that the task does not have and a field that it would not read."""
    if spec.split not in kind.splits:
        known = ", ".join(kind.splits)
        raise ConfigError(f"{spec.key}.split={spec.split}: {spec.task} has {known}. Use start and stop to divide it.")
    for name in ("path", "subset"):
        value = getattr(spec, name)
        if value is not None and name not in kind.reads:
            raise ConfigError(f"{spec.key}.{name}={value}: {spec.task} does not use `{name}`; set it to null.")

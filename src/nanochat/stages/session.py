"""A run's folder from the inside: may it begin, does it continue, what is written before anything starts.

The rules: a complete run of the same identity is left alone; an unfinished one continues; another identity under
the same name is refused with the keys that differ. `overwrite` deletes, nothing else does.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nanochat.checkpoint.find import latest, list_checkpoints, list_damaged, remove_partial
from nanochat.checkpoint.manifest import step_of
from nanochat.config.frozen import write_config
from nanochat.config.root import Resume
from nanochat.config.validate import plain
from nanochat.errors import MismatchError, MissingError, NanochatError
from nanochat.plan.plan import Plan
from nanochat.runtime.dist import current_ranks
from nanochat.runtime.environment import describe_environment
from nanochat.stages.job import Job
from nanochat.tracking.atomic import write_json
from nanochat.tracking.composite import build_trackers
from nanochat.tracking.console import Console
from nanochat.tracking.jsonl import cut_jsonl
from nanochat.tracking.tracker import Tracker

PLAN_FILE = "plan.json"
RESULT_FILE = "result.json"
SAMPLES_FILE = "samples.jsonl"
_SHOWN = 8  # differing keys in an error message


@dataclass(frozen=True)
class Session:
    """An open run. `checkpoint` is what it continues from, None for a fresh start; `done` if nothing is left."""

    job: Job
    console: Console
    tracker: Tracker | None
    checkpoint: Path | None
    done: bool

    @property
    def start(self) -> int:
        """Updates already done."""
        return (step_of(self.checkpoint) or 0) if self.checkpoint else 0


def open_session(job: Job, plan: Plan, device_name: str) -> Session:
    """Decides how the run begins and writes its config, plan and environment. Raises MismatchError, MissingError."""
    config, folder = job.config, job.run_dir
    if config.dry_run and list_checkpoints(folder):
        raise MismatchError(f"dry_run=true would mix its metrics into the saved run {folder}; name another one by run=")
    if config.overwrite and folder.exists():
        shutil.rmtree(folder)
    _check_identity(folder, plan)
    console = Console(folder / "log.txt", current_ranks().is_main)
    if (folder / RESULT_FILE).is_file() and config.resume != Resume.never:
        return Session(job, console, None, latest(folder), done=True)
    checkpoint = _resume_point(job)
    for removed in remove_partial(folder):
        console.say(f"removed the unfinished checkpoint {removed}")
    _write_description(job, plan, device_name)
    step = (step_of(checkpoint) or 0) if checkpoint else 0
    cut_jsonl(folder / SAMPLES_FILE, step)
    tracker = build_trackers(
        config.tracking, folder, job.run, plain(config), plan.to_dict(), list(config.tags), step, say=console.say
    )
    return Session(job, console, tracker, checkpoint, done=False)


def _resume_point(job: Job) -> Path | None:
    """The checkpoint to continue from, by `resume`."""
    config, folder = job.config, job.run_dir
    found = latest(folder)
    complete = (folder / RESULT_FILE).is_file()
    if config.resume == Resume.never and (found is not None or complete):
        has = f"a checkpoint of step {step_of(found)}" if found is not None else "a complete run"
        raise MismatchError(
            f"resume=never, but {folder} has {has}; name another run by run=, or delete this one with overwrite=true"
        )
    if config.resume == Resume.must and found is None:
        damaged = "; ".join(list_damaged(folder))
        raise MissingError(
            f"resume=must, but {folder} has no complete checkpoint{': ' + damaged if damaged else ''}; "
            f"resume=auto starts from the beginning where there is none"
        )
    return found


def _check_identity(folder: Path, plan: Plan) -> None:
    """Refuses another identity under the same name, naming the keys that differ."""
    path = folder / PLAN_FILE
    worth_keeping = bool(list_checkpoints(folder)) or (folder / RESULT_FILE).exists()
    if not path.is_file() or not worth_keeping:
        return
    saved = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    now = json.loads(json.dumps(plan.recipe.flat(), default=str))
    differing = _differences(saved, now)
    if differing:
        shown = "; ".join(differing[:_SHOWN]) + ("; ..." if len(differing) > _SHOWN else "")
        raise MismatchError(
            f"{folder} holds a run of another identity: {shown}. Name this one differently by run=, or delete the "
            f"former with overwrite=true"
        )


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = [k for k in sorted({*saved, *now}) if saved.get(k) != now.get(k)]
    keys.sort(key=lambda k: not k.endswith(".name"))  # another option is why its keys differ
    return [_difference(k, saved.get(k), now.get(k)) for k in keys if k != "init_mark" or "init_from" not in keys]


def _difference(key: str, saved: Any, now: Any) -> str:
    if key == "init_mark":
        return "init_from has other weights than it had: that run was trained again"
    return f"{key} was {_short(saved)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value) if value is not None else "null"
    return text if len(text) <= 60 else text[:57] + "..."


def _write_description(job: Job, plan: Plan, device_name: str) -> None:
    folder = job.run_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NanochatError(
            f"base_dir={job.base_dir}: cannot make {folder}: {error.strerror}; choose another"
        ) from error
    write_config(replace(job.config, run=job.run, base_dir=str(job.base_dir)), folder / "config.yaml")
    (folder / "overrides.yaml").write_text(yaml.safe_dump(list(job.overrides)), encoding="utf-8")
    write_json(folder / PLAN_FILE, plan.to_dict())
    path = folder / "environment.json"
    attempts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    attempt = {**describe_environment(device_name), "placement": plan.to_dict()["placement"]}
    write_json(path, [*attempts, attempt])


def write_result(folder: Path, step: int, metrics: Mapping[str, Any], seconds: float) -> None:
    """result.json, the sign that a run is complete; only the report, which shows it, comes after."""
    write_json(folder / RESULT_FILE, {"status": "complete", "step": step, "metrics": dict(metrics), "seconds": seconds})

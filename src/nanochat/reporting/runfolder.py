"""One run's folder, `{base_dir}/{stage}/{run}/`, read back.

Notable: any file may be missing (a run that was killed early, a dry run), which is None or empty here; a file
that is damaged is an error naming it. No torch here: `nanochat runs` must start at once.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from nanochat.errors import CorruptError
from nanochat.tracking.atomic import decode
from nanochat.tracking.jsonl import last_values, read_jsonl

RUN_FILES = ("config.yaml", "metrics.jsonl", "result.json", "checkpoints")
LIVE_FILES = ("config.yaml", "plan.json", "environment.json", "metrics.jsonl", "log.txt", "result.json")
LIVE = "running or interrupted"
GIT_DIFF = "git.diff"  # key of an attempt; too long to be shown
SHOWN_METRICS = ("train/loss", "val/bpb")


def is_run(folder: Path) -> bool:
    """Whether a folder was made by a run: it has at least one of the files that runs begin with."""
    return folder.is_dir() and any((folder / name).exists() for name in RUN_FILES)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts -> dotted keys; an empty dict stays as a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, name + ".") if isinstance(value, dict) and value else {name: value})
    return flat


def _read(path: Path) -> Any:
    """Content of a YAML or JSON file; None if it is missing or empty. Raises CorruptError naming the file."""
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.load(text, Loader=_yaml_loader()) if path.suffix == ".yaml" else decode(json.loads(text))
    except (ValueError, yaml.YAMLError) as error:
        raise CorruptError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _yaml_loader() -> Any:
    """The safe loader, in C where PyYAML has it (ten times faster)."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class RunFolder:
    """A run on disk; everything is read when it is first asked for."""

    path: Path

    @property
    def name(self) -> str:
        """As a REF: stage/run."""
        return f"{self.path.parent.name}/{self.path.name}"

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml with dotted keys."""
        return flatten(self._mapping("config.yaml"))

    @cached_property
    def overrides(self) -> list[str]:
        """What was asked for on the command line."""
        loaded = _read(self.path / "overrides.yaml")
        return [str(item) for item in loaded] if isinstance(loaded, list) else []

    @cached_property
    def plan(self) -> dict[str, Any]:
        """plan.json."""
        return self._mapping("plan.json")

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What the run is, with dotted keys."""
        return dict(self.plan.get("recipe") or {})

    @cached_property
    def attempts(self) -> list[dict[str, Any]]:
        """environment.json: versions, git and hardware of each attempt, with dotted keys."""
        loaded = _read(self.path / "environment.json")
        entries = loaded.get("attempts", [loaded]) if isinstance(loaded, dict) else loaded or []
        return [flatten(entry) for entry in entries]

    @cached_property
    def result(self) -> dict[str, Any]:
        """result.json, which exists once the run has ended."""
        return self._mapping("result.json")

    @cached_property
    def core(self) -> dict[str, Any]:
        """core.json, the last CORE evaluation."""
        return self._mapping("core.json")

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Every row of metrics.jsonl."""
        return read_jsonl(self.path / "metrics.jsonl")

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Every row of samples.jsonl."""
        return read_jsonl(self.path / "samples.jsonl")

    @cached_property
    def last_metrics(self) -> dict[str, Any]:
        """The last value of each metric: the result's, else those that `runs ls` shows, from the log's end."""
        if "metrics" in self.result:
            return {"step": self.result.get("step"), **self.result["metrics"]}
        return last_values(self.path / "metrics.jsonl", SHOWN_METRICS)

    @property
    def status(self) -> str:
        """`complete`, or what else the result says; without a result the run goes on or was killed."""
        return str(self.result.get("status", "complete")) if self.result else LIVE

    @property
    def updated(self) -> float:
        """When the run last wrote something, in seconds since 1970; a report written later does not count."""
        paths = [self.path / name for name in LIVE_FILES]
        return max((path.stat().st_mtime for path in paths if path.exists()), default=self.path.stat().st_mtime)

    def _mapping(self, name: str) -> dict[str, Any]:
        loaded = _read(self.path / name)
        if loaded is not None and not isinstance(loaded, dict):
            raise CorruptError(f"{self.path / name} cannot be read: it is not a mapping")
        return loaded or {}

"""Which checkpoints and runs there are, and what a reference (REF) means.

REF = `stage/run[@step]`, a stage alone (its newest run), or a path, which starts with `/`, `./`, `../` or `~`.
Notable: only complete checkpoints count (manifest.py); nothing is guessed across stages, and every
failure lists what exists. No torch here.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from nanochat.checkpoint.manifest import MANIFEST, damage, read_manifest, step_of
from nanochat.errors import CorruptError, MissingError, nearest

CHECKPOINTS = "checkpoints"
STAGES = ("rl", "sft", "mid", "base")  # those that leave a model, the one to chat with first


@dataclass(frozen=True)
class ResolvedRef:
    """A checkpoint folder and what it is a checkpoint of."""

    path: Path
    stage: str
    run: str
    step: int

    @property
    def run_dir(self) -> Path:
        """The run's folder; the checkpoint's own if it was moved out of a run."""
        return self.path.parent.parent if self.path.parent.name == CHECKPOINTS else self.path

    def __str__(self) -> str:
        """As a REF."""
        return f"{self.stage}/{self.run}@{self.step}"


def _step_folders(run_dir: Path) -> list[tuple[int, Path]]:
    folder = run_dir / CHECKPOINTS
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted((step, path) for path in entries if (step := step_of(path)) is not None and path.is_dir())


def fault(folder: Path) -> str | None:
    """Why this folder is no complete checkpoint; None if it is one."""
    try:
        manifest = read_manifest(folder)
    except CorruptError as error:
        return str(error)
    return f"{folder} has no manifest: it was never finished" if manifest is None else damage(folder, manifest)


def list_checkpoints(run_dir: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the complete checkpoints, in order of step."""
    return [(step, path) for step, path in _step_folders(run_dir) if fault(path) is None]


def list_damaged(run_dir: Path) -> list[str]:
    """One sentence for each checkpoint that was finished but is no longer whole."""
    reasons = [fault(path) for _, path in _step_folders(run_dir) if (path / MANIFEST).exists()]
    return [reason for reason in reasons if reason is not None]


def latest(run_dir: Path) -> Path | None:
    """The complete checkpoint of the highest step; None if there is none."""
    found = list_checkpoints(run_dir)
    return found[-1][1] if found else None


def remove_partial(run_dir: Path) -> list[Path]:
    """Delete the step folders that were never finished; returns them. Damaged ones stay: they are evidence."""
    partial = [path for _, path in _step_folders(run_dir) if not (path / MANIFEST).exists()]
    for path in partial:
        shutil.rmtree(path)
    return partial


def is_path(ref: str) -> bool:
    """Whether a REF is a path on disk."""
    return ref in (".", "..") or ref.startswith(("/", "./", "../", "~"))


def list_stage(base_dir: Path, stage: str) -> list[str]:
    """The runs of a stage that have a complete checkpoint, newest first."""
    folder = base_dir / stage
    runs = [path for path in folder.iterdir() if latest(path)] if folder.is_dir() else []
    return [path.name for path in sorted(runs, key=_created, reverse=True)]


def _created(run_dir: Path) -> float:
    """When the newest checkpoint was written, as its manifest says; 0 if there is none."""
    newest = latest(run_dir)
    manifest = read_manifest(newest) if newest else None
    return manifest.created if manifest else 0.0


def _what_exists(base_dir: Path) -> str:
    found = [f"{stage}/{run}" for stage in STAGES for run in list_stage(base_dir, stage)]
    return f"there are: {', '.join(found[:24])}" if found else f"{base_dir} has no checkpoints at all"


def _missing(base_dir: Path, ref: str, stage: str, run: str) -> MissingError:
    """The error for a run, or a whole stage, without a complete checkpoint."""
    run_dir = base_dir / stage / run
    damaged = "".join(f" ({reason})" for reason in list_damaged(run_dir)) if run else ""
    command = f"nanochat stage={stage}" + (f" run={run}" if run else "")
    return MissingError(
        f"checkpoint {ref}: no complete checkpoint in {run_dir}{damaged}; {_what_exists(base_dir)}; "
        f"`{command}` makes it"
    )


def _resolve_path(ref: str) -> ResolvedRef:
    path = Path(ref).expanduser().resolve()
    if not path.exists():
        raise MissingError(f"checkpoint {ref}: there is no {path}; a REF that is no path is written stage/run[@step]")
    if step_of(path) is None:
        newest = latest(path)
        if newest is None:
            raise MissingError(f"checkpoint {ref}: {path} is neither a checkpoint nor a run folder that has one")
        path = newest
    elif (reason := fault(path)) is not None:
        raise CorruptError(f"checkpoint {ref} is not whole: {reason}; take another one of {path.parent}")
    run_dir = path.parent.parent
    return ResolvedRef(path, run_dir.parent.name, run_dir.name, step_of(path) or 0)


def _pick_step(run_dir: Path, ref: str, step: str) -> Path:
    """The checkpoint of one step; the errors list the run's steps."""
    steps = dict(list_checkpoints(run_dir))
    listed = ", ".join(map(str, steps)) or "none"
    if not step.isdecimal():
        raise MissingError(f"checkpoint {ref}: after @ comes a whole number; {run_dir} has the steps {listed}")
    if int(step) in steps:
        return steps[int(step)]
    broken = dict(_step_folders(run_dir)).get(int(step))
    if broken is not None:
        raise CorruptError(f"checkpoint {ref} is not whole: {fault(broken)}; whole steps: {listed}")
    raise MissingError(f"checkpoint {ref}: {run_dir} has no step {step}; it has the steps {listed}")


def resolve_ref(base_dir: Path, ref: str) -> ResolvedRef:
    """The checkpoint that a REF names; without a step the newest one of its run.

    Raises MissingError, saying where it was looked for, what exists and the command that makes it, and
    CorruptError if the checkpoint named is damaged.
    """
    if is_path(ref):
        return _resolve_path(ref)
    name, at, step = ref.partition("@")
    stage, _, run = name.partition("/")
    if stage not in STAGES:
        raise MissingError(
            f"checkpoint {ref}: a REF is stage/run[@step], but {stage!r} is no stage; {nearest(stage, STAGES)} "
            f"(a path starts with /, ./, ../ or ~); {_what_exists(base_dir)}"
        )
    runs = list_stage(base_dir, stage)
    run = run or next(iter(runs), "")
    if run in runs:
        run_dir = base_dir / stage / run
        path = _pick_step(run_dir, ref, step) if at else list_checkpoints(run_dir)[-1][1]
        return ResolvedRef(path, stage, run, step_of(path) or 0)
    raise _missing(base_dir, ref, stage, run)


def newest_chat_ref(base_dir: Path) -> ResolvedRef:
    """The newest run of the last stage that has one: rl, else sft, else mid, else base."""
    for stage in STAGES:
        if list_stage(base_dir, stage):
            return resolve_ref(base_dir, stage)
    raise MissingError(
        f"no checkpoint to talk to: {base_dir} has none in {', '.join(STAGES)}; "
        f"`nanochat stage=pipeline experiment=quickstart` makes one in minutes"
    )

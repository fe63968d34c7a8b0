"""The one entry point of every run: compose with Hydra, check, dispatch the stage.

    nanochat stage=base model.depth=4          through cli/main.py
    python -m nanochat.train stage=base ...    the same without the verbs
    python -m nanochat.train --frozen job.yaml a worker: runs a config that was composed before

Notable: Hydra's own error reporting is bypassed (its exceptions are let through and put in this project's words),
and nothing heavy is imported before the stage is known.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nanochat.config.arguments import Arguments, split_args
from nanochat.config.conf import conf_dir
from nanochat.config.load import compose_run, in_our_words, stage_overrides
from nanochat.config.naming import with_names
from nanochat.config.overrides import defer_in_multirun, split_later
from nanochat.config.raw import search_path
from nanochat.config.register import register_schemas
from nanochat.config.root import RunConfig, Stage
from nanochat.errors import ConfigError, NanochatError
from nanochat.plan.early import check_sizes

_FULL_ERROR = "HYDRA_FULL_ERROR"
# What the user set HYDRA_FULL_ERROR to, for the processes that are started while it has to be 1 for Hydra.
_ASKED_ERROR = "NANOCHAT_FULL_ERROR"
# The system's refusals that a user can do something about; any other OSError is a defect and keeps its traceback.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
# Where each stage lives. Names, not functions: importing them pulls in torch.
_STAGES: dict[Stage, tuple[str, str]] = {
    Stage.identity: ("nanochat.stages.identity", "run_identity"),
    Stage.tokenizer: ("nanochat.stages.tokenizer", "run_tokenizer"),
    Stage.base: ("nanochat.stages.base", "run_base"),
    Stage.mid: ("nanochat.stages.conversations", "run_conversations"),
    Stage.sft: ("nanochat.stages.conversations", "run_conversations"),
    Stage.eval: ("nanochat.stages.eval", "run_eval"),
    Stage.pipeline: ("nanochat.stages.pipeline", "run_pipeline"),
}


def dispatch(config: RunConfig, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> None:
    """Runs the stage of a checked config in this process."""
    named = with_names(config)
    check_sizes(named)
    _make_base_dir(named)
    from nanochat.stages.job import Job

    module, function = _STAGES[config.stage]
    run_stage: Callable[[Job], None] = getattr(import_module(module), function)
    run_stage(Job(named, tuple(overrides), tuple(config_dirs)))


def _make_base_dir(config: RunConfig) -> None:
    folder = Path(config.base_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise NanochatError(f"base_dir={folder} cannot be made: {error.strerror}; choose another base_dir") from error
    if not writable:
        raise NanochatError(f"base_dir={folder} cannot be written to; choose another base_dir")


def run(argv: Sequence[str]) -> int:
    """Composes and runs `argv` (overrides and Hydra's flags). Raises NanochatError; returns the exit code."""
    arguments = split_args(argv)
    if arguments.completes:
        _hydra_main([*arguments.flags, *arguments.overrides])
    elif arguments.multirun:
        _sweep(arguments)
    elif arguments.flags:
        _show(arguments)
    else:
        composed = compose_run(arguments.overrides, arguments.config_dirs)
        dispatch(composed.config, composed.overrides, arguments.config_dirs)
    return 0


def _show(arguments: Arguments) -> None:
    """--cfg, --info and the like: Hydra prints what the overrides come to."""
    first = stage_overrides(arguments.overrides, arguments.config_dirs)
    now, _ = split_later([*first, *arguments.overrides])
    with in_our_words(first, arguments.overrides, arguments.config_dirs):
        _hydra_main([*arguments.flags, *now, *search_path(arguments.config_dirs)])


def _sweep(arguments: Arguments) -> None:
    """A multirun: Hydra's sweeper makes the jobs, its launcher runs them, or leaves them to this process."""
    first = stage_overrides(arguments.overrides, arguments.config_dirs)
    overrides = defer_in_multirun([*first, *arguments.overrides])
    with in_our_words(first, arguments.overrides, arguments.config_dirs), TemporaryDirectory() as scratch:
        aside = f"hydra.sweep.dir='{scratch}'"  # where Hydra leaves its multirun.yaml
        left = _hydra_main([*arguments.flags, aside, *overrides, *search_path(arguments.config_dirs)])
    _run_here(left, overrides, arguments)


def _run_here(jobs: Sequence[Sequence[str]], overrides: Sequence[str], arguments: Arguments) -> None:
    """The jobs that hydra/launcher=basic left to this process; other launchers leave none."""
    from nanochat.cluster.sweep import plan_jobs

    for job in plan_jobs(jobs, overrides, arguments.config_dirs):
        dispatch(job.config, job.overrides, job.config_dirs)


def run_frozen(path: Path) -> int:
    """A worker: runs a frozen job, and ends when its parent does. Raises NanochatError."""
    from nanochat.cluster.frozen import thaw
    from nanochat.runtime.parent import follow_parent

    follow_parent()
    job = thaw(path)
    dispatch(job.config, job.overrides, job.config_dirs)
    return 0


@contextmanager
def _hydra_arguments(argv: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv; its errors come as exceptions while HYDRA_FULL_ERROR is set."""
    former = {name: os.environ.get(name) for name in (_FULL_ERROR, _ASKED_ERROR)}
    former_argv = sys.argv
    sys.argv = ["nanochat", *argv]
    os.environ[_ASKED_ERROR] = "1" if _wants_traceback() else "0"
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        sys.argv = former_argv
        for name, value in former.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _wants_traceback() -> bool:
    return os.environ.get(_ASKED_ERROR, os.environ.get(_FULL_ERROR)) == "1"


def _hydra_main(argv: Sequence[str]) -> list[list[str]]:
    """Hands over to Hydra, which reads the command line, and shows, completes or makes a sweep's jobs.

    Returns the overrides of the jobs that its launcher calls the task with. The task only collects: what is run in
    this process is run after Hydra is done, so that its own handling of exceptions never stands between a stage and
    the user.
    """
    jobs: list[list[str]] = []

    def task(cfg: DictConfig) -> None:
        given = OmegaConf.to_container(HydraConfig.get().overrides.task)
        assert isinstance(given, list)
        jobs.append([str(o) for o in given])

    register_schemas()
    with _hydra_arguments(argv):
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    return jobs


def guarded(action: Callable[[], int]) -> int:
    """Runs `action`; a user's mistake becomes one paragraph on stderr and an exit code that is not 0."""
    try:
        return action()
    except NanochatError as error:
        if _wants_traceback():
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough; nothing more can be written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in _REFUSALS or _wants_traceback():
            raise
        print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 1


def main(argv: Sequence[str]) -> int:
    """`python -m nanochat.train`: a frozen job with --frozen PATH, else overrides."""
    if argv[:1] == ["--frozen"]:
        return guarded(lambda: run_frozen(_frozen_path(argv[1:])))
    return guarded(lambda: run(argv))


def _frozen_path(argv: Sequence[str]) -> Path:
    if len(argv) != 1:
        raise ConfigError(f"--frozen takes the file of one job, not {len(argv)} words")
    return Path(argv[0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

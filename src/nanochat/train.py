"""The one entry point of every run: compose with Hydra, check, dispatch the stage.

    nanochat stage=base model.depth=4          through cli/main.py
    python -m nanochat.train stage=base ...    the same without the verbs
    python -m nanochat.train --frozen job.yaml a worker: runs a config that was composed before

Notable: Hydra's own error reporting is bypassed (its exceptions are let through and put in this project's words),
and nothing heavy is imported before the stage is known.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from nanochat.config.conf import conf_dir
from nanochat.config.load import normalize_override, stage_overrides, to_run_config, translate
from nanochat.config.naming import with_names
from nanochat.config.register import register_schemas
from nanochat.config.root import RunConfig, Stage
from nanochat.errors import ConfigError, NanochatError

_FULL_ERROR = "HYDRA_FULL_ERROR"
_FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c", "--package")
# Where each stage lives. Names, not functions: importing them pulls in torch.
_STAGES: dict[Stage, tuple[str, str]] = {
    Stage.tokenizer: ("nanochat.stages.tokenizer", "run_tokenizer"),
    Stage.base: ("nanochat.stages.base", "run_base"),
    Stage.mid: ("nanochat.stages.conversations", "run_conversations"),
    Stage.sft: ("nanochat.stages.conversations", "run_conversations"),
    Stage.eval: ("nanochat.stages.eval", "run_eval"),
    Stage.pipeline: ("nanochat.stages.pipeline", "run_pipeline"),
}


def dispatch(config: RunConfig, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> None:
    """Runs the stage of a checked config in this process."""
    from nanochat.stages.job import Job

    module, function = _STAGES[config.stage]
    run_stage: Callable[[Job], None] = getattr(import_module(module), function)
    run_stage(Job(with_names(config), tuple(overrides), tuple(config_dirs)))


def run(argv: Sequence[str]) -> int:
    """Composes and runs `argv` (overrides and Hydra's flags). Raises NanochatError; returns the exit code."""
    flags, overrides, config_dirs = split_args(argv)
    overrides = [normalize_override(o) for o in overrides]
    multirun = "-m" in flags or "--multirun" in flags
    first = [] if multirun else stage_overrides(overrides, config_dirs)
    with _hydra_arguments([*flags, *first, *overrides]):
        try:
            composed = _hydra_main()
        except (HydraException, OmegaConfBaseException) as error:
            raise translate(error, config_dirs) from error
    for config, task_overrides in composed:
        dispatch(config, task_overrides, config_dirs)
    return 0


def run_frozen(path: Path) -> int:
    """A worker: runs a frozen job. Raises NanochatError."""
    from nanochat.cluster.frozen import thaw

    job = thaw(path)
    dispatch(job.config, job.overrides, job.config_dirs)
    return 0


def split_args(argv: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Hydra's flags (with their values), the overrides, and the folders given by --config-dir.

    Raises ConfigError for a word that is neither.
    """
    flags: list[str] = []
    overrides: list[str] = []
    folders: list[str] = []
    words = iter(argv)
    for word in words:
        if word in _FLAGS_WITH_VALUE:
            value = next(words, "")
            flags += [word, value]
            folders += [value] if word in ("--config-dir", "-cd") else []
        elif word.startswith("-"):
            flags.append(word)
            folders += [word.partition("=")[2]] if word.startswith("--config-dir=") else []
        elif "=" in word or word.startswith("~"):
            overrides.append(word)
        else:
            completing = "--shell-completion" in flags or "-sc" in flags
            if not completing:
                raise ConfigError(f"'{word}' is no override; write key=value, for example model.depth=4")
            overrides.append(word)
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"--config-dir {folder}: there is no such folder")
    return flags, overrides, [str(Path(f).resolve()) for f in folders]


@contextmanager
def _hydra_arguments(argv: Sequence[str]) -> Iterator[None]:
    """Hydra reads sys.argv; its errors come as exceptions while HYDRA_FULL_ERROR is set."""
    former_argv, former_error = sys.argv, os.environ.get(_FULL_ERROR)
    sys.argv = ["nanochat", *argv]
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        sys.argv = former_argv
        if former_error is None:
            os.environ.pop(_FULL_ERROR, None)


def _hydra_main() -> list[tuple[RunConfig, list[str]]]:
    """Hands over to Hydra, which reads the command line, composes, and calls the task here or by its launcher.

    The task only checks and collects: what is run in this process is run after Hydra is done, so that its own
    handling of exceptions never stands between a stage and the user.
    """
    composed: list[tuple[RunConfig, list[str]]] = []

    def task(cfg: DictConfig) -> None:
        overrides = [str(o) for o in HydraConfig.get().overrides.task]
        composed.append((to_run_config(cfg), overrides))

    register_schemas()
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    return composed


def guarded(action: Callable[[], int]) -> int:
    """Runs `action`; a user's mistake becomes one paragraph on stderr and an exit code that is not 0."""
    show_traceback = os.environ.get(_FULL_ERROR) == "1"
    try:
        return action()
    except NanochatError as error:
        if show_traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough; nothing more can be written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def main(argv: Sequence[str]) -> int:
    """`python -m nanochat.train`: a frozen job with --frozen PATH, else overrides."""
    if argv[:1] == ["--frozen"]:
        return guarded(lambda: run_frozen(Path(argv[1])))
    return guarded(lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

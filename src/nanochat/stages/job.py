"""What a stage is given: the checked config with its names filled in, and the overrides that made it."""

from dataclasses import dataclass, field
from pathlib import Path

from nanochat.config.naming import base_dir, run_dir, run_name
from nanochat.config.root import RunConfig


@dataclass(frozen=True)
class Job:
    """One run of one stage in this process. `config_dirs` are the user's own configuration folders."""

    config: RunConfig
    overrides: tuple[str, ...] = ()
    config_dirs: tuple[str, ...] = field(default=())

    @property
    def base_dir(self) -> Path:
        """The folder that everything is written below."""
        return base_dir(self.config)

    @property
    def run(self) -> str:
        """The run's name."""
        return run_name(self.config)

    @property
    def run_dir(self) -> Path:
        """`{base_dir}/{stage}/{run}`."""
        return run_dir(self.config)

    @property
    def again(self) -> str:
        """What the user repeats to continue this run after an interruption; a deletion is not to be repeated."""
        return "the same command" + (" without overwrite=true" if self.config.overwrite else "")

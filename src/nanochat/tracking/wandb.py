"""`tracking=wandb`: Weights & Biases, online, or offline into `{run_dir}/wandb` for `wandb sync`.

Notable: the id is kept in the run folder, so a resumed or requeued run continues its W&B run. Where that
run stands is W&B's to say, metrics.jsonl says what should be there: on resume, rows that never arrived (kill
-9 loses what W&B had buffered) are logged from it, and steps that arrived before are not logged twice. Offline nothing
has arrived, so each attempt writes the whole history and the offline folders of earlier attempts are deleted.
"""

import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nanochat.config.tracking import WandbConfig, WandbMode
from nanochat.errors import ConfigError
from nanochat.tracking.atomic import write_bytes

ID_FILE = "wandb_run_id.txt"


def run_id(run_dir: Path) -> str:
    """The run's id: read from its folder, else drawn and written there. Shared by all attempts."""
    path = run_dir / ID_FILE
    if path.exists() and (known := path.read_text().strip()):
        return known
    drawn = secrets.token_hex(4)  # 8 characters, like W&B's own
    write_bytes(path, drawn.encode() + b"\n")
    return drawn


def _remove_superseded(run_dir: Path, run: Any) -> None:
    """Delete the offline folders of earlier attempts: syncing them too would log their steps twice."""
    for folder in (run_dir / "wandb").glob(f"offline-run-*-{run.id}"):
        if folder != Path(run.dir).parent:  # run.dir is the `files` folder of this attempt's
            shutil.rmtree(folder)


def _start(config: WandbConfig, run_dir: Path, name: str, settings: dict[str, Any], tags: list[str]) -> Any:
    """Start or continue the W&B run of this folder. Raises ConfigError if W&B refuses (no login, no network)."""
    import wandb  # seconds to import, so only when asked for

    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            project=config.project,
            group=config.group,
            name=os.environ.get("WANDB_RUN") or name,
            id=run_id(run_dir),
            resume="allow",
            mode="offline" if config.mode == WandbMode.offline else "online",
            dir=str(run_dir),
            config=settings,
            tags=tags,
            # Our own console writes log.txt; W&B's capture would fight with the progress line.
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.errors.Error as error:
        raise ConfigError(
            f"tracking.wandb.mode={config.mode}: W&B did not start ({error}); run `wandb login`, "
            f"or take tracking.wandb.mode=offline and `wandb sync` later, or tracking=none"
        ) from error


class WandbTracker:
    """Metrics, config and plan in a W&B run."""

    def __init__(
        self,
        config: WandbConfig,
        run_dir: Path,
        name: str,
        settings: dict[str, Any],
        tags: list[str],
        history: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """`settings` is what W&B shows as the config; `history` the rows of metrics.jsonl up to the checkpoint."""
        self._run = _start(config, run_dir, name, settings, tags)
        self._first_step = int(self._run.step)  # online: the step after the last that arrived
        for row in history:
            self.log(row["step"], {name: value for name, value in row.items() if name != "step"})
        if config.mode == WandbMode.offline:
            _remove_superseded(run_dir, self._run)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log the numbers, unless this step arrived in an earlier attempt."""
        if step >= self._first_step:
            self._run.log(dict(metrics), step=step)

    def finish(self, ok: bool = True) -> None:
        """Upload or write what is pending, and mark the run finished or failed."""
        self._run.finish(exit_code=0 if ok else 1)

"""`tracking=tensorboard`: event files in the run folder, for `tensorboard --logdir {base_dir}`.

Notable: on resume the new event file begins with a purge mark, which makes TensorBoard forget the
steps that an earlier attempt logged after the checkpoint.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class TensorboardTracker:
    """Scalars under the same names as in metrics.jsonl."""

    def __init__(self, run_dir: Path, resume_step: int) -> None:
        """Write to `{run_dir}/tensorboard`, after `resume_step` (0: from the beginning, step 0 included)."""
        from torch.utils.tensorboard import SummaryWriter  # seconds to import, so only when asked for

        self._writer = SummaryWriter(str(run_dir / FOLDER), purge_step=resume_step + 1 if resume_step else 0)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add the numbers as scalars; what is no number is left out."""
        for name, value in metrics.items():
            if not isinstance(value, str | bool | None):
                self._writer.add_scalar(name, value, step)

    def finish(self, ok: bool = True) -> None:
        """Flush and close the event file."""
        self._writer.close()

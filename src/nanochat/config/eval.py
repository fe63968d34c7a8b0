"""`eval=`: what is measured during and after training. -1 disables each."""

from dataclasses import dataclass
from typing import Any

from nanochat.config.fields import cosmetic


@dataclass(kw_only=True)
class EvalConfig:
    """Intervals are in optimizer steps; the last step is always measured unless disabled."""

    every: int = cosmetic(ge=-1)
    tokens: int = cosmetic(ge=1)
    steps: int | None = cosmetic(ge=1)
    sample_every: int = cosmetic(ge=-1)
    sample_tokens: int = cosmetic(ge=1)
    prompts: list[str] = cosmetic()
    metrics_every: int = cosmetic(ge=-1)
    metrics_max_problems: int = cosmetic(ge=1)
    tasks: dict[str, Any] = cosmetic()
    core_every: int = cosmetic(ge=-1, le=-1)

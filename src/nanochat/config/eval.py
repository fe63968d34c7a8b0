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
    num_samples: int = cosmetic(ge=1, le=1024)
    temperature: float = cosmetic(ge=0)
    top_k: int = cosmetic(ge=0)
    max_new_tokens: int = cosmetic(ge=1)
    allow_unsafe_code: bool = cosmetic()
    core_every: int = cosmetic(ge=-1)
    core_max_per_task: int = cosmetic(ge=-1)
    core_bundle: str | None = cosmetic()
    hf_model: str | None = cosmetic()

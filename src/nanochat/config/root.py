"""The whole of what can be asked: one nested dataclass per config group."""

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from nanochat.config.data import DataConfig
from nanochat.config.eval import EvalConfig
from nanochat.config.fields import cosmetic, group, identity, placement
from nanochat.config.guards import GuardsConfig
from nanochat.config.identity import IdentityConfig
from nanochat.config.model import ModelConfig
from nanochat.config.objective import ObjectiveConfig
from nanochat.config.optim import OptimConfig
from nanochat.config.persona import PersonaConfig
from nanochat.config.runtime import RuntimeConfig
from nanochat.config.schedule import ScheduleConfig
from nanochat.config.tokenizer import TokenizerConfig
from nanochat.config.tracking import TrackingConfig
from nanochat.config.train import TrainConfig


class Stage(StrEnum):
    """What is run, in the order in which a pipeline runs it: what can fail for want of a key comes first."""

    identity = auto()
    tokenizer = auto()
    base = auto()
    mid = auto()
    sft = auto()
    eval = auto()
    pipeline = auto()


class Resume(StrEnum):
    """auto: continue if there is something to continue; must: fail if not; never: fail if there is."""

    auto = auto()
    must = "must"
    never = "never"


@dataclass(kw_only=True)
class PipelineConfig:
    """`overrides` maps a stage to a list of overrides for it alone."""

    stages: list[str] = cosmetic()
    overrides: dict[str, Any] = cosmetic()


@dataclass(kw_only=True)
class RunConfig:
    """One run. `run` and `init_from` null: see config/naming.py."""

    stage: Stage = identity()
    run: str | None = cosmetic()
    base_dir: str = placement()
    hub_root: str | None = placement()
    seed: int = identity(ge=0, lt=2**63)
    dry_run: bool = cosmetic()
    resume: Resume = cosmetic()
    overwrite: bool = cosmetic()
    init_from: str | None = identity()
    sweep: str | None = cosmetic()
    plugins: list[str] = cosmetic()
    tags: list[str] = cosmetic()
    stages: dict[str, Any] = cosmetic()
    train: TrainConfig = group()
    model: ModelConfig = group()
    optim: OptimConfig = group()
    schedule: ScheduleConfig = group()
    objective: ObjectiveConfig = group()
    data: DataConfig = group()
    tokenizer: TokenizerConfig = group()
    eval: EvalConfig = group()
    runtime: RuntimeConfig = group()
    tracking: TrackingConfig = group()
    guards: GuardsConfig = group()
    pipeline: PipelineConfig = group()
    persona: PersonaConfig = group()
    identity: IdentityConfig = group()

"""Puts the schemas into Hydra's ConfigStore, where `conf/` refers to them as `/schema/<group>`."""

from dataclasses import fields
from functools import cache
from typing import get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from nanochat.config.data import DataConfig
from nanochat.config.objective import ObjectiveConfig
from nanochat.config.optim import OptimConfig
from nanochat.config.root import RunConfig
from nanochat.config.schedule import ScheduleConfig
from nanochat.config.variants import VARIANTS

_GROUPS: dict[str, type] = {
    "data": DataConfig,
    "optim": OptimConfig,
    "schedule": ScheduleConfig,
    "objective": ObjectiveConfig,
}


@cache
def register_schemas() -> None:
    """Once a process. The root schema types every group; groups with several schemas are typed by their option."""
    store = ConfigStore.instance()
    store.store(name="run_config", node=_root_schema())
    for group, base in _GROUPS.items():
        for option, schema in VARIANTS[base][1].items():
            store.store(group=f"schema/{group}", name=str(option), node=schema)


def _root_schema() -> DictConfig:
    """RunConfig with its groups expanded: OmegaConf 2.3 cannot expand a missing node that holds a union."""
    root: DictConfig = OmegaConf.structured(RunConfig)
    hints = get_type_hints(RunConfig)
    for declared in fields(RunConfig):
        if declared.metadata.get("group"):
            root[declared.name] = OmegaConf.structured(hints[declared.name])
    return root

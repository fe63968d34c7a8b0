"""Hydra's Compose API on `conf/` and the user's folders; the result is unchecked and the errors are Hydra's own."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from nanochat.config.conf import conf_dir
from nanochat.config.register import register_schemas


def compose_cfg(overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> DictConfig:
    """The composed config with its `hydra` node."""
    register_schemas()
    GlobalHydra.instance().clear()  # a launcher or pipeline composes inside a Hydra application
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", [*overrides, *search_path(config_dirs)], return_hydra_config=True)


def search_path(config_dirs: Sequence[str]) -> list[str]:
    """The override that adds folders to Hydra's search path, after ours."""
    quoted = ["'file://" + str(Path(d).resolve()).replace("'", "\\'") + "'" for d in config_dirs]
    return [f"hydra.searchpath=[{','.join(quoted)}]"] if quoted else []

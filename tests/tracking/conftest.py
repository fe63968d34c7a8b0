from collections.abc import Callable

import pytest

from nanochat.config.tracking import TensorboardConfig, TrackingConfig, WandbConfig, WandbMode


@pytest.fixture
def tracking() -> Callable[..., TrackingConfig]:
    def make(wandb: bool = False, tensorboard: bool = False, mode: WandbMode = WandbMode.offline) -> TrackingConfig:
        return TrackingConfig(
            wandb=WandbConfig(enabled=wandb, mode=mode, project="test", group=None),
            tensorboard=TensorboardConfig(enabled=tensorboard),
        )

    return make

"""What every area shares: a clean environment, and a workshop with a tokenizer and small trained runs in it.

The runs are trained once a session, when the first test asks for them. Tests read them and make runs of their own
beside them, under other names.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from workshop import Workshop  # tests/support; imported when it is needed, since it pulls in torch

_FOREIGN = ("RANK", "WORLD_SIZE", "WANDB_RUN", "WANDB_MODE", "HYDRA_FULL_ERROR", "NANOCHAT_PARENT")


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's: no variables that change a run, never the user's own base_dir, and never the network.

    A shell's background job ignores Ctrl-C and hands that on to all that it starts; here it has to work.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        for name in _FOREIGN:
            patch.delenv(name, raising=False)
        patch.setenv("NANOCHAT_BASE_DIR", str(tmp_path_factory.mktemp("stray")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        yield


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Workshop"]:
    """A base_dir with a corpus, short conversations and a trained tokenizer."""
    from workshop import Workshop

    yield Workshop.furnish(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def base_run(workshop: "Workshop") -> Path:
    """base/ref: ten steps without an interruption, saved every third."""
    return workshop.train("base", "run=ref")


@pytest.fixture(scope="session")
def mid_run(workshop: "Workshop", base_run: Path) -> Path:
    """mid/ref, from base/ref."""
    return workshop.train("mid", "run=ref")


@pytest.fixture(scope="session")
def sft_run(workshop: "Workshop", mid_run: Path) -> Path:
    """sft/ref, from mid/ref."""
    return workshop.train("sft", "run=ref")

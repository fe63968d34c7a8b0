"""Real data for tests, where the machine has it: a folder in the layout of the public hub, not part of the project."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def shared_data(*parts: str) -> Path:
    """The folder (or a file in it); skips the test where there is none. NANOCHAT_SHARED_DATA names another place."""
    folder = Path(os.environ.get("NANOCHAT_SHARED_DATA") or ROOT.parent / "shared" / "data").joinpath(*parts)
    if not folder.exists():
        pytest.skip(f"no real data at {folder}; NANOCHAT_SHARED_DATA=FOLDER says where it is")
    return folder

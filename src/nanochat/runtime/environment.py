"""What a run was made with: versions, the commit of the code and its changes, the hardware."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PACKAGES = (
    "nanochat",
    "torch",
    "hydra-core",
    "omegaconf",
    "tokenizers",
    "tiktoken",
    "numpy",
    "pyarrow",
    "safetensors",
)
_MAX_DIFF = 200_000  # characters of uncommitted changes that are kept


def describe_environment(device_name: str) -> dict[str, Any]:
    """One entry of environment.json; JSON-able."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "device": device_name,
        "host": platform.node(),
        "pid": os.getpid(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, str] | None:
    """Commit and uncommitted diff of the checkout the code runs from; None for an installed copy."""
    here = Path(__file__).resolve().parent
    commit = _git(here, "rev-parse", "HEAD")
    if commit is None or _git(here, "ls-files", "--error-unmatch", __file__) is None:
        return None
    return {"commit": commit.strip(), "diff": (_git(here, "diff", "HEAD") or "")[:_MAX_DIFF]}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

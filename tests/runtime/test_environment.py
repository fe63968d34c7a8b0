import json

import torch

from nanochat.runtime import environment
from nanochat.runtime.environment import describe_environment


def test_what_an_attempt_was_made_with() -> None:
    found = describe_environment("NVIDIA H100")
    assert found["device"] == "NVIDIA H100" and found["packages"]["torch"] in (
        torch.__version__,
        torch.__version__.partition("+")[0],
    )
    assert json.loads(json.dumps(found)) == found


def test_without_git(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(environment.subprocess, "run", _missing)
    assert describe_environment("cpu")["git"] is None


def _missing(*arguments: object, **options: object) -> None:
    raise FileNotFoundError("git")

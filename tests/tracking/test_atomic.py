import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.tracking.atomic import NON_FINITE, decode, encode, write_bytes, write_json, write_shared

TEXT = st.text().filter(lambda text: text not in NON_FINITE)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


def refuse(word: str) -> float:
    raise AssertionError(f"{word} is not JSON")


@given(TREES)
def test_any_value_survives_strict_json(value: object) -> None:
    text = json.dumps(encode(value), allow_nan=False)
    back = decode(json.loads(text, parse_constant=refuse))
    assert repr(back) == repr(value)  # repr, because nan != nan and 1 == True


def test_scalars_of_numpy_and_torch_become_numbers() -> None:
    values = {"a": np.float32(0.5), "b": torch.tensor(2), "c": np.float64(math.inf), "d": np.int64(3), "e": (1, 2)}
    assert encode(values) == {"a": 0.5, "b": 2, "c": "Infinity", "d": 3, "e": [1, 2]}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"step": 1})

    def full(handle: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"half")
    assert json.loads(path.read_text()) == {"step": 1}


def test_what_is_shared_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cache" / "numbers"
    write_shared(path, b"old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_shared(path, b"new")
    assert [(p.name, p.read_bytes()) for p in path.parent.iterdir()] == [("numbers", b"old")]

"""A small word list and a context for all tests of this folder."""

import itertools
from pathlib import Path

import pytest

from nanochat.tasks.spec import TaskContext


@pytest.fixture(scope="session")
def words() -> list[str]:
    """Made-up words, some with repeated letters."""
    heads = ["str", "b", "gl", "m", "pr", "t"]
    middles = ["aw", "ee", "oo", "ana", "iri", "u"]
    tails = ["berry", "t", "ll", "dle", "n", "ss"]
    return ["".join(parts) for parts in itertools.product(heads, middles, tails)]


@pytest.fixture
def context(tmp_path: Path, words: list[str]) -> TaskContext:
    """A base folder with its own word list."""
    (tmp_path / "words_alpha.txt").write_text("\n".join(words))
    return TaskContext(base_dir=tmp_path, seed=42)

"""Tasks whose rows are made up, not read: row i comes from a random generator seeded by its name, split and number."""

import hashlib
import random
from abc import abstractmethod
from typing import Any, ClassVar, Self

from nanochat.errors import ConfigError, nearest
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.spec import TaskContext, TaskSpec
from nanochat.tasks.words import LONGEST, load_words, words_of_split, words_of_subset

DEFAULT_ROWS = {"train": 10_000, "test": 256}


class GeneratedTask(Task):
    """`size` rows of `split`. The seed is a string with everything in it, so no two splits can share a stream."""

    def __init__(self, *, split: str = "train", size: int | None = None, seed: int = 42) -> None:
        """`size` None: 10,000 rows to train on, 256 to test on."""
        self.split = split
        self.size = DEFAULT_ROWS[split] if size is None else size
        self.seed = seed

    @classmethod
    def from_spec(cls, spec: TaskSpec, context: TaskContext) -> Self:
        """As many rows as `stop` says."""
        return cls(split=spec.split, size=spec.stop, seed=context.seed)

    def __len__(self) -> int:
        """Number of rows."""
        return self.size

    def __getitem__(self, index: int) -> Conversation:
        """Row `index`, made anew each time and always the same."""
        if not 0 <= index < self.size:
            raise IndexError(f"{type(self).__name__} has rows 0 to {self.size - 1}, not {index}")
        return self.make(index, self.generator(f"row {index}"))

    @abstractmethod
    def make(self, index: int, rng: random.Random) -> Conversation:
        """The conversation of row `index`, drawn from `rng`."""

    def generator(self, purpose: str) -> random.Random:
        """A generator of its own for each seed, task, split and purpose."""
        return random.Random(f"{self.seed}/{type(self).__name__}/{self.split}/{purpose}")

    def fingerprint(self) -> dict[str, Any]:
        """All that the rows depend on, but for the code."""
        return {**super().fingerprint(), "split": self.split, "seed": self.seed}


class WordTask(GeneratedTask):
    """A generated task about one word a row. Every word of the split comes up once before any comes up again.

    `subset: short` asks for words of at most 6 letters alone.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"subset"})
    shuffled_words: ClassVar[str] = "word order"

    def __init__(self, words: list[str], *, split: str = "train", size: int | None = None, seed: int = 42) -> None:
        """`words` of any split; those of the other one are left out."""
        super().__init__(split=split, size=size, seed=seed)
        self.words = words_of_split(words, split)
        if not self.words:
            raise ConfigError(f"data.word_list: none of its {len(words)} words falls into the {split} split; use more.")
        self.generator(self.shuffled_words).shuffle(self.words)

    @classmethod
    def from_spec(cls, spec: TaskSpec, context: TaskContext) -> Self:
        """Words from the list that the context leads to; the choice is noted."""
        if spec.subset is not None and spec.subset not in LONGEST:
            raise ConfigError(f"{spec.key}.subset={spec.subset} is not one of words; {nearest(spec.subset, LONGEST)}")
        words, where = load_words(context.word_list, context.base_dir, may_download=context.hub_root is None)
        task = cls(words_of_subset(words, spec.subset), split=spec.split, size=spec.stop, seed=context.seed)
        task.notes = (f"words: {where} ({len(words):,} words)",)
        return task

    def make(self, index: int, rng: random.Random) -> Conversation:
        """Row `index` about its word."""
        return self.make_about(self.words[index % len(self.words)], rng)

    @abstractmethod
    def make_about(self, word: str, rng: random.Random) -> Conversation:
        """A conversation about `word`."""

    def fingerprint(self) -> dict[str, Any]:
        """The words in their order are part of it."""
        return {**super().fingerprint(), "words": hashlib.sha256("\n".join(self.words).encode()).hexdigest()}

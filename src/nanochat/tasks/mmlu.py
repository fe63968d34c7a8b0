"""MMLU (2009.03300): multiple choice from 57 subjects.

To train on there is the subset `auxiliary_train`, 100,000 questions of other exams; `all` is for measuring.
"""

from typing import ClassVar

from nanochat.tasks.hub import HubTask
from nanochat.tasks.multiple_choice import MultipleChoiceTask, Problem

LETTERS = ("A", "B", "C", "D")


class MMLU(HubTask, MultipleChoiceTask):
    """Four choices each."""

    dataset: ClassVar[str] = "cais/mmlu"
    subsets: ClassVar[dict[str, tuple[str, ...]]] = {
        "all": ("dev", "validation", "test"),
        "auxiliary_train": ("train",),
    }
    default: ClassVar[str | None] = "all"
    splits: ClassVar[tuple[str, ...]] = ("train", "dev", "validation", "test")
    reads: ClassVar[frozenset[str]] = frozenset({"subset"})

    @classmethod
    def columns(cls, subset: str) -> tuple[str, ...]:
        """The rows of auxiliary_train are wrapped in a column `train`."""
        return ("train",) if subset == "auxiliary_train" else ("question", "choices", "answer")

    def problem(self, index: int) -> Problem:
        """Row `index`; `answer` is the number of the right choice."""
        row = self.rows[index]
        row = row.get("train", row)
        return Problem(row["question"], row["choices"], LETTERS, LETTERS[row["answer"]])

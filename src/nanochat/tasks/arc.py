"""ARC (1803.05457): multiple choice from science exams of schools, easy and challenging."""

from typing import ClassVar

from nanochat.tasks.hub import HubTask
from nanochat.tasks.multiple_choice import MultipleChoiceTask, Problem

SPLITS = ("train", "validation", "test")


class ARC(HubTask, MultipleChoiceTask):
    """Mostly four choices, some three or five; the letters are the row's own and at times digits."""

    dataset: ClassVar[str] = "allenai/ai2_arc"
    subsets: ClassVar[dict[str, tuple[str, ...]]] = {"ARC-Easy": SPLITS, "ARC-Challenge": SPLITS}
    splits: ClassVar[tuple[str, ...]] = SPLITS
    reads: ClassVar[frozenset[str]] = frozenset({"subset"})

    @classmethod
    def columns(cls, subset: str) -> tuple[str, ...]:
        """All but the id."""
        return ("question", "choices", "answerKey")

    def problem(self, index: int) -> Problem:
        """Row `index`."""
        row = self.rows[index]
        choices = row["choices"]
        return Problem(row["question"], choices["text"], choices["label"], row["answerKey"])

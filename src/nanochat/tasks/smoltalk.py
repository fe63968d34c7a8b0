"""SmolTalk (2502.02737), the short version for small models: general conversations, 460,000 to train on."""

from typing import ClassVar

from nanochat.tasks.base import Conversation, TaskKind, answer_text
from nanochat.tasks.hub import HubTask


class SmolTalk(HubTask):
    """Each row is a conversation as it stands, some with a system message in front."""

    kind: TaskKind = TaskKind.none
    dataset: ClassVar[str] = "HuggingFaceTB/smol-smoltalk"
    subsets: ClassVar[dict[str, tuple[str, ...]]] = {"default": ("train", "test")}
    default: ClassVar[str | None] = "default"

    @classmethod
    def columns(cls, subset: str) -> tuple[str, ...]:
        """Where a row comes from is not read."""
        return ("messages",)

    def __getitem__(self, index: int) -> Conversation:
        """Row `index`."""
        messages = self.rows[index]["messages"]
        return {"messages": [{"role": message["role"], "content": message["content"]} for message in messages]}

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Word for word: there is no right answer to an open question."""
        return answer.strip() == answer_text(conversation).strip()

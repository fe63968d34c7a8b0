"""HumanEval (2107.03374): write a function; tests that the model does not see say whether it is right."""

import re
from typing import ClassVar, Self

from nanochat.runtime.sandbox import run_python
from nanochat.tasks.base import Conversation, chat
from nanochat.tasks.hub import HubTask
from nanochat.tasks.spec import TaskContext, TaskSpec

FENCED = re.compile(r"```[^`\n]*\n(.*?)\n?```", re.DOTALL)


class HumanEval(HubTask):
    """The head of a function with its documentation, answered by the whole function."""

    dataset: ClassVar[str] = "openai/openai_humaneval"
    subsets: ClassVar[dict[str, tuple[str, ...]]] = {"openai_humaneval": ("test",)}
    default: ClassVar[str | None] = "openai_humaneval"
    splits: ClassVar[tuple[str, ...]] = ("test",)
    runs_code = True
    unsafe = False

    @classmethod
    def from_spec(cls, spec: TaskSpec, context: TaskContext) -> Self:
        """As any task of the hub; the context says whether programs may run without isolation."""
        task = super().from_spec(spec, context)
        task.unsafe = context.allow_unsafe_code
        return task

    @classmethod
    def columns(cls, subset: str) -> tuple[str, ...]:
        """All but the id."""
        return ("prompt", "canonical_solution", "test", "entry_point")

    def __getitem__(self, index: int) -> Conversation:
        """Row `index`; `test` and `entry_point` go along for the judge."""
        row = self.rows[index]
        solved = chat(row["prompt"], row["prompt"] + row["canonical_solution"])
        return {**solved, "test": row["test"], "entry_point": row["entry_point"]}

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Do the tests pass, in the sandbox, within 5 seconds and 256 MB?"""
        return run_python(program(conversation, answer), unsafe=self.unsafe).ok


def program(conversation: Conversation, answer: str) -> str:
    """What is run: the imports of the prompt, the code of the answer, the tests."""
    imports = imports_of(conversation["messages"][0]["content"])
    check = f"check({conversation['entry_point']})"
    return "\n\n".join([imports, code_of(answer), conversation["test"], check]) + "\n"


def code_of(answer: str) -> str:
    """The first fenced block, or everything if there is none."""
    found = FENCED.search(answer)
    return found.group(1) if found else answer


def imports_of(prompt: str) -> str:
    """The import lines at the head of a prompt; comments and blank lines may stand between them."""
    kept = []
    for line in prompt.splitlines():
        if line.startswith(("import ", "from ")):
            kept.append(line)
        elif line.strip() and not line.startswith("#"):
            break
    return "\n".join(kept)

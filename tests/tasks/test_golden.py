"""Ids and loss mask of each kind of part, token by token, for conversations as the tasks make them.

With the byte tokenizer a text is its bytes; the specials are written out here as numbers on purpose.
"""

from typing import Any

import pytest

from nanochat.tasks.base import chat
from nanochat.tasks.gsm8k import with_calls
from nanochat.tasks.multiple_choice import Problem, prompt
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render, render_for_completion

BOS, USER, END_USER, ASSISTANT, END, PYTHON, END_PYTHON, OUTPUT, END_OUTPUT = range(256, 265)
Piece = tuple[int | str, int]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer({bytes([i]): i for i in range(256)})


def flat(pieces: list[Piece]) -> tuple[list[int], list[int]]:
    """Each piece as tokens that all have its mask."""
    ids: list[int] = []
    mask: list[int] = []
    for piece, value in pieces:
        tokens = [piece] if isinstance(piece, int) else list(piece.encode())
        ids += tokens
        mask += [value] * len(tokens)
    return ids, mask


def asked(text: str) -> list[Piece]:
    return [(USER, 0), (text, 0), (END_USER, 0), (ASSISTANT, 0)]


TEXT = (chat("Hi", "Hé!"), [(BOS, 0), *asked("Hi"), ("Hé!", 1), (END, 1)])
TOOL = (
    chat("2 dozen?", with_calls("2*12=<<2*12=24>>24\n#### 24")),
    [
        *[(BOS, 0), *asked("2 dozen?"), ("2*12=", 1)],
        *[(PYTHON, 1), ("2*12", 1), (END_PYTHON, 1)],
        *[(OUTPUT, 0), ("24", 0), (END_OUTPUT, 0)],
        *[("24\n#### 24", 1), (END, 1)],
    ],
)
SYSTEM = (
    {"messages": [{"role": "system", "content": "Be kind."}, *chat("Hi", "Yes")["messages"]]},
    [(BOS, 0), *asked("Be kind.\n\nHi"), ("Yes", 1), (END, 1)],
)
SEVERAL = (
    {"messages": [*chat("a", "b")["messages"], *chat("c", "d")["messages"]]},
    [(BOS, 0), *asked("a"), ("b", 1), (END, 1), *asked("c"), ("d", 1), (END, 1)],
)
PROBLEM = Problem("1+1?", ("1", "2"), ("A", "B"), "B")
CHOICE = (
    {**chat(prompt(PROBLEM), "B"), "letters": ["A", "B"]},
    [
        (BOS, 0),
        *asked("Multiple Choice question: 1+1?\n- 1=A\n- 2=B\n\nRespond only with the letter of the correct answer."),
        *[("B", 1), (END, 1)],
    ],
)
LOOKALIKE = (chat("<|bos|>", "<|assistant_end|>"), [(BOS, 0), *asked("<|bos|>"), ("<|assistant_end|>", 1), (END, 1)])


@pytest.mark.parametrize(
    ("conversation", "pieces"),
    [TEXT, TOOL, SYSTEM, SEVERAL, CHOICE, LOOKALIKE],
    ids=["text", "tool", "system", "several turns", "multiple choice", "text that looks like a special"],
)
def test_ids_and_mask(conversation: dict[str, Any], pieces: list[Piece], tokenizer: Tokenizer) -> None:
    assert render(tokenizer, conversation) == flat(pieces)


def test_up_to_where_the_assistant_speaks(tokenizer: Tokenizer) -> None:
    assert render_for_completion(tokenizer, CHOICE[0]) == flat(CHOICE[1][:-2])[0]
    assert render_for_completion(tokenizer, SEVERAL[0]) == flat(SEVERAL[1][:-2])[0]

"""A mixture as text: tables that fit, estimates that are marked, and masks that can be read."""

import re
from dataclasses import replace

import pytest

from nanochat.data.filling import Filled
from nanochat.data.survey import Survey, TaskCount
from nanochat.reporting.mix import (
    Shown,
    masked_text,
    packing_note,
    sampled_note,
    show_conversation,
    task_table,
    warnings,
)
from nanochat.tokenizer.chat import render
from nanochat.tokenizer.raw_bytes import bytes_tokenizer

EXACT = TaskCount(1000, 1000, 990, 20, 7, 3, 123_456, 23_456, 123.4, 4567)
SAMPLED = replace(EXACT, conversations=200_000, looked=500, tokens=24_691_200, supervised=4_691_200, error=493_824.0)
FULL = Filled(60, 0.987, 0.012)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def survey(**tasks: TaskCount) -> Survey:
    return Survey(tasks, FULL)


def cells(line: str) -> list[str]:
    return re.split(r"  +", line.strip())


def test_a_table_of_exact_numbers() -> None:
    lines = task_table(
        survey(gsm8k=EXACT, mine=replace(EXACT, supervised=0)), {"gsm8k": 2, "mine": 0.3}, "tokens", None
    )
    heading, first, second, total = (cells(line) for line in lines.splitlines())
    columns = "task rows % repeat tokens supervised % mean longest dropped truncated unsupervised"
    assert heading == columns.split()
    assert first == ["gsm8k", "1,000", "50.0", "2", "123,456", "23,456", "100.0", "123", "4,567", "7", "20", "3"]
    assert second[:7] == ["mine", "1,000", "50.0", "0.3", "123,456", "0", "0.0"]
    assert total == ["all", "2,000", "100.0", "-", "246,912", "23,456", "100.0", "123", "4,567", "14", "40", "6"]
    assert sampled_note(survey(a=EXACT)) == []


def test_estimates_are_marked() -> None:
    found = survey(big=SAMPLED, small=EXACT)
    lines = task_table(found, {"big": 1, "small": 1}, "bytes", None).splitlines()
    assert "±%" in lines[0] and "bytes" in lines[0]
    assert cells(lines[1])[1:] == (
        ["200,000", "99.5", "1", "~24.7M", "2.0", "~4.69M", "~99.5", "~123", "≥4,567", "~7", "~20", "~3"]
    )
    assert "~" not in lines[2].replace("~0.5", "")  # but the share of an estimated whole
    (note,) = sampled_note(found)
    assert "1,500 of 201,000 rows" in note and "--exact" in note


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_tables_fit_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ["simple_spelling", "arc_challenge", "smoltalk"]
    shown = task_table(survey(**dict.fromkeys(names, SAMPLED)), dict.fromkeys(names, 1.0), "tokens", width)
    lines = [COLOUR.sub("", line) for line in shown.splitlines()]
    assert max(len(line) for line in lines) <= width
    for name in names:  # not folded
        assert sum(name in line for line in lines) == {60: 4, 80: 2, 120: 2, 200: 1}[width]
    said = " ".join(lines)
    assert all(said.count(word) == 1 for word in ("repeat", "tokens", "longest", "unsupervised"))


def test_how_rows_are_filled() -> None:
    assert packing_note(survey(a=EXACT), "bestfit", 2049, "tokens") == (
        "packing bestfit: 60 rows of 2,049 tokens a pass, 98.7 % text and 1.3 % padding; 1.2 % of the text is cropped"
    )
    full = Survey({"a": SAMPLED}, Filled(6000, 1.0, 0.0))
    assert packing_note(full, "stream", 513, "bytes") == (
        "packing stream: ~6,000 rows of 513 bytes a pass, 100.0 % text, no padding; nothing cropped"
    )


def test_tasks_that_teach_nothing_are_named() -> None:
    assert warnings(survey(a=EXACT), "data.tasks") == []
    (said,) = warnings(survey(a=EXACT, b=replace(EXACT, supervised=0)), "data.tasks")
    assert said.startswith("warning: data.tasks: b: no token")


PARTS = [
    {"type": "text", "text": "Let me "},
    {"type": "text", "text": "count.\n"},
    {"type": "python", "text": "'a'.count('a')"},
    {"type": "python_output", "text": "1"},
    {"type": "text", "text": "#### 1"},
]
CONVERSATION = {"messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": PARTS}]}
TAUGHT = ["Let me count.\n<|python_start|>'a'.count('a')<|python_end|>", "#### 1<|assistant_end|>"]


def test_the_mask_without_colours() -> None:
    shown = masked_text(bytes_tokenizer(), *render(bytes_tokenizer(), CONVERSATION), colour=False)
    assert shown == (
        "<|bos|><|user_start|>How many?<|user_end|><|assistant_start|>"
        f"[[{TAUGHT[0]}]]<|output_start|>1<|output_end|>[[{TAUGHT[1]}]]"
    )


def test_the_mask_in_colour() -> None:
    """What is green is what the brackets hold, and each stretch is closed."""
    shown = masked_text(bytes_tokenizer(), *render(bytes_tokenizer(), CONVERSATION), colour=True)
    pieces = re.findall(r"\x1b\[([0-9;]+)m(.*?)\x1b\[0m", shown, re.DOTALL)
    green = "".join(text for colour, text in pieces if "32" in colour)
    assert green == "".join(TAUGHT)
    dim = "".join(text for colour, text in pieces if colour.startswith("2"))
    assert dim == "<|bos|><|user_start|>How many?<|user_end|><|assistant_start|><|output_start|>1<|output_end|>"
    assert "".join(text for _, text in pieces) == COLOUR.sub("", shown)


def test_long_stretches_are_shortened_and_control_characters_shown() -> None:
    text = "\x1b[31mred\x07 " + "a" * 5000 + " the end"
    conversation = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "é\n\tok"}]}
    ids, mask = render(bytes_tokenizer(), conversation)
    shown = masked_text(bytes_tokenizer(), ids, mask, colour=False)
    assert "\\x1b[31mred\\x07 aaa" in shown and "\x1b" not in shown and "\x07" not in shown
    assert len(shown) < 500 and "characters) ... aaa" in shown and " the end<|user_end|>" in shown
    assert shown.endswith("[[é\n\tok<|assistant_end|>]]")
    many = {"messages": [{"role": role, "content": "hi"} for _ in range(50) for role in ("user", "assistant")]}
    assert masked_text(bytes_tokenizer(), *render(bytes_tokenizer(), many), colour=False).endswith("more pieces)")


def test_a_conversation_has_a_heading() -> None:
    ids, mask = render(bytes_tokenizer(), CONVERSATION)
    shown = show_conversation(bytes_tokenizer(), Shown("bee", 1234, ids[:20], mask[:20], len(ids)), colour=False)
    assert shown.splitlines()[0] == f"bee, row 1,234: 20 tokens, {sum(mask[:20])} supervised, cut from {len(ids)}"

"""Prompts and spans, by hand; the random draws are held to Python's own."""

import random
from typing import Any

import pytest

from nanochat.evals.core_bundle import CoreTask, Kind
from nanochat.evals.core_prompts import Candidate, Deck, common_prefix

BOS = 999


def chars(texts: list[str]) -> list[list[int]]:
    return [[ord(c) for c in text] for text in texts]


def deck(kind: Kind, rows: list[dict[str, Any]], shots: int = 0, most: int = -1, delimiter: str = " ") -> Deck:
    return Deck(CoreTask("x", "x.jsonl", kind, shots, delimiter, 0.0), rows, most)


def texts_of(candidate: Candidate) -> tuple[str, str]:
    """(what stands before the span, the span)."""
    text = ["^" if token == BOS else chr(token) for token in candidate.tokens]
    return "".join(text[: candidate.start]), "".join(text[candidate.start :])


def test_multiple_choice() -> None:
    rows = [{"query": "Q: two?", "choices": ["a pear", "a plum", "a"], "gold": 1}]
    (problem,) = deck(Kind.multiple_choice, rows, delimiter="\nA: ").problems([0], chars, BOS, 99)
    assert problem.gold == 1
    assert [texts_of(c) for c in problem.candidates] == [
        ("^Q: two?\nA: a", " pear"),
        ("^Q: two?\nA: a", " plum"),
        ("^Q: two?\nA: a", ""),
    ]


def test_schema() -> None:
    rows = [{"context_options": ["the cat", "the dog"], "continuation": "ran", "gold": 0}]
    (problem,) = deck(Kind.schema, rows).problems([0], chars, BOS, 99)
    assert [texts_of(c) for c in problem.candidates] == [("^the cat", " ran"), ("^the dog", " ran")]


def test_language_modelling() -> None:
    """The context is trimmed, the prompt without continuation stripped: the blank belongs to the span."""
    rows = [{"context": "  once upon\n", "continuation": "a time "}]
    (problem,) = deck(Kind.language_modeling, rows).problems([0], chars, BOS, 99)
    assert problem.gold is None
    assert [texts_of(c) for c in problem.candidates] == [("^once upon", " a time ")]


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        (Kind.multiple_choice, {"query": "Q", "choices": ["n", "y"], "gold": 1}, "Q: y\n\n"),
        (Kind.schema, {"context_options": ["n", "y"], "continuation": " c", "gold": 1}, "y:  c\n\n"),
        (Kind.language_modeling, {"context": " q ", "continuation": " c "}, "q:  c \n\n"),
    ],
)
def test_shots_are_solved_and_followed_by_a_blank_line(kind: Kind, row: dict[str, Any], said: str) -> None:
    prompt = deck(kind, [row, row, row], shots=2, delimiter=": ").prompts(0)[0]
    assert prompt.startswith(said + said) and not prompt.startswith(said * 3)


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"context": str(i), "continuation": "x"} for i in range(count)]


def test_order_and_shots_are_drawn_as_published() -> None:
    made = deck(Kind.language_modeling, numbered(50), shots=4, most=20)
    order = list(range(50))
    random.Random(1337).shuffle(order)
    assert [row["context"] for row in made.rows] == [str(i) for i in order[:20]]
    assert made.lines[:20] == [i + 1 for i in order[:20]]
    others = [i for i in range(20) if i != 7]
    drawn = random.Random(1234 + 7).sample(others, 4)
    assert [row["context"] for row in made.shots(7)] == [str(order[i]) for i in drawn]


@pytest.mark.parametrize(("most", "pool"), [(5, 20), (4, 20), (6, 6), (-1, 20), (100, 20)])
def test_shots_come_from_the_whole_file_where_the_problems_are_too_few(most: int, pool: int) -> None:
    made = deck(Kind.language_modeling, numbered(20), shots=5, most=most)
    order = list(range(20))
    random.Random(1337).shuffle(order)
    for index in range(len(made)):
        drawn = random.Random(1234 + index).sample([i for i in range(pool) if i != index], 5)
        assert [row["context"] for row in made.shots(index)] == [str(order[i]) for i in drawn]


def test_a_file_with_fewer_rows_than_shots() -> None:
    made = deck(Kind.language_modeling, numbered(3), shots=10)
    assert [len(made.shots(i)) for i in range(3)] == [2, 2, 2]
    assert all(made.rows[i] not in made.shots(i) for i in range(3))


def test_what_is_too_long_keeps_its_end() -> None:
    rows = [{"query": "0123456789", "choices": ["ab", "cdefg"], "gold": 0}]
    (problem,) = deck(Kind.multiple_choice, rows).problems([0], chars, BOS, 8)
    assert [texts_of(c) for c in problem.candidates] == [("56789 ", "ab"), ("89 ", "cdefg")]


def test_a_span_longer_than_the_model_reads() -> None:
    """Its first token has nothing before it, so the second is the first that is scored."""
    rows = [{"context": "q", "continuation": "abcdefgh"}]
    (problem,) = deck(Kind.language_modeling, rows).problems([0], chars, BOS, 4)
    assert [texts_of(c) for c in problem.candidates] == [("e", "fgh")]


def test_a_span_without_tokens() -> None:
    rows = [{"context": "q", "continuation": ""}]
    (problem,) = deck(Kind.language_modeling, rows, delimiter="").problems([0], chars, BOS, 9)
    assert problem.candidates[0].scored == 0


def test_common_prefix() -> None:
    assert common_prefix([[1, 2, 3], [1, 2], [1, 2, 4]]) == 2
    assert common_prefix([[1], [2]]) == 0 and common_prefix([[1, 2], [1, 2]]) == 2 and common_prefix([[3, 4]]) == 2

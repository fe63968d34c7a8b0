import inspect
import os
import random
import sys
import time

import pytest
from calculator_fuzz import checked, fuzz, is_harmless, keep, load_corpus

from nanochat.engine.calculator import MAX_CHARS, MAX_DEPTH, calculate


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("1+1", "2"),
        ("  2 * (3 + 4) ", "14"),
        ("7/2", "3.5"),
        ("6/2", "3.0"),
        ("7//2", "3"),
        ("-7 % 3", "2"),
        ("+-3", "-3"),
        ("1,234,567 + 1", "1234568"),
        ("0.1+0.2", str(0.1 + 0.2)),
        (".5*4", "2.0"),
        ("'strawberry'.count('r')", "3"),
        ('"Mississippi".count("ss")', "2"),
        ("'a,b,c'.count(',')", "2"),
        ("'1,234'.count(',')", "1"),
        ("'banana'.count('a') + 'apple'.count('p')", "5"),
        ("('x'.count('y'))", "0"),
    ],
)
def test_what_it_does(expression: str, result: str) -> None:
    assert calculate(expression) == result


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1 +",
        "2**10",
        "2**99999999",
        "1/0",
        "1%0",
        "1//0.0",
        "__import__('os').system('true')",
        "().__class__",
        "open('f')",
        "'a'*1000000000",
        "'a'+'b'",
        "'abc'",
        "'abc'.upper()",
        "'abc'.count",
        "'abc'.count()",
        "'abc'.count('a','b')",
        "'abc'.count('a', 1)",
        "'abc'.count(*'a')",
        "'abc'.count(1)",
        "(1).count(2)",
        "'a'.count('a').count('a')",
        "f'{1}'.count('1')",
        "b'a'.count('a')",
        "'\\x61'.count('a')",
        "1 if 1 else 2",
        "[1]",
        "1, 2",
        "x",
        "1j",
        "1e9",
        "0x10",
        "1_000",
        "True",
        "1 < 2",
        "1 << 99",
        "~1",
        "not 1",
        "lambda: 1",
        "(y:=1)",
        "1;2",
        "1\n2",
        "007",
        "9" * 200 + "*" + "9" * 200,
        "9" * 400 + ".0",
        "9" * (MAX_CHARS + 1),
        "(" * 300 + "1" + ")" * 150,
        "-" * (MAX_DEPTH + 1) + "1",
        "１+１",
        "1\0",
        "'a\0'.count('a')",
        "'\ud800'.count('a')",
        "'a\rb'.count('a')",
        "'''1'2,3'4'''.count(',')",
        '"""a""".count("a")',
    ],
)
def test_what_it_does_not(expression: str) -> None:
    assert calculate(expression) is None


def test_the_corpus_of_former_runs() -> None:
    """Expressions that showed something new, each with what has to come of it."""
    corpus = load_corpus()
    assert len(corpus) > 300
    for text, expected in corpus.items():
        assert checked(text) == expected, text


def test_new_expressions() -> None:
    """Some seconds of it. `make test-all` takes a minute; NANOCHAT_FUZZ_SECONDS=3600 an hour, and keeps what is new."""
    asked = os.environ.get("NANOCHAT_FUZZ_SECONDS")
    tried, found = fuzz(float(asked or 3), random.randrange(1 << 32) if asked else 1, list(load_corpus()))
    assert tried > 100
    if asked:
        keep(found)


@pytest.mark.slow
def test_more_new_expressions() -> None:
    assert fuzz(60, 2, list(load_corpus()))[0] > 2000


def test_what_the_fuzzer_takes_for_harmful() -> None:
    """Else it would find nothing."""
    for text in [
        "x",
        "'a'.upper()",
        "2**3",
        "(1).real",
        "'a'*9",
        "f'{1}'",
        "'a'.count",
        "1e9",
        "[1]",
        "'a'.count(b'a')",
    ]:
        assert not is_harmless(text), text
    for text in ["1", "-(1.5 // 2)", "'a'.count('b') % 3", "1,000"]:
        assert is_harmless(text), text


@pytest.mark.parametrize("text", ["-" * 499 + "1", "(" * 199 + "1" + ")" * 199, "1" + "+1" * 249])
def test_near_the_end_of_the_stack(text: str) -> None:
    """The parser's own recursion fails there."""

    def deeper(depth: int) -> str | None:
        return deeper(depth - 1) if depth else calculate(text)

    for room in range(5, 200, 13):
        used = len(inspect.stack(0))
        try:
            assert deeper(sys.getrecursionlimit() - used - room) in (None, "1")
        except RecursionError as error:  # calculate itself needs a few frames
            assert room < 60, error


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "text", ["(" * 250, "-" * 499 + "1", "'" * 500, ".count(" * 71, "1+" * 249 + "1", "1." * 250, "1if 1"]
)
def test_worst_cases_are_quick_and_silent(text: str) -> None:
    started = time.perf_counter()
    calculate(text)
    assert time.perf_counter() - started < 0.1

# ruff: noqa: E501 -- lists of pieces
"""Throws expressions at the calculator and checks each against Python itself.

Two sources: expressions grown from the grammar, whose value is known from the tree they were written from, and
mutations of a corpus, of which little is known but what must never happen. Those that show a new behaviour are kept
in the corpus, so that a short run goes over what a long one found.
"""

import ast
import io
import json
import operator
import random
import re
import time
import tokenize
import warnings
from pathlib import Path

from nanochat.engine.calculator import MAX_CHARS, MAX_DEPTH, MAX_NUMBER, calculate

CORPUS = Path(__file__).parents[1] / "engine" / "calculator_corpus.jsonl"
SECONDS = 0.05  # of processor time, for one expression
LONGEST = 110  # characters of a result: MAX_NUMBER and a sign

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
             "//": operator.floordiv, "%": operator.mod}  # fmt: skip
SEEDS = ["1+1", "1,234.5 * 2", "'strawberry'.count('r')", '"a,b".count(",")', "(2 - -3) // 4 % 5", "7/2", ".5*4"]
PIECES = [
    "0", "1", "9", "00", "1,000", "0.1", ".", "..", "1.", "9" * 30, "9" * 101, "0." + "0" * 300 + "1", "1e9", "1j", "0x1f", "1_0",
    "+", "-", "*", "/", "//", "%", "**", "@", "<<", ">>", "&", "|", "^", "~", "=", "==", ":=", "<", "!=", " if ", " else ", " or ",
    "(", ")", "()", "((", "))", "[", "]", "{", "}", ",", ";", ":", "#", "\\", "\n", "\r", "\t", "\f", "\v", "\0", " ",
    "'", '"', "'''", '"""', "''", "'a'", '"b"', "'1,2'", "f'{1}'", "b'a'", "r'a'", "u'a'", "'\\x41'", "\u00a0", "\u2028", "１", "²", "é", "\ud800",
    ".count", ".count(", ".count('a')", "'a'.count('a')", ".count()", ".count('a','b')", ".upper()", ".__class__", ".format(", ".join(",
    "count", "__import__('os')", "lambda:", "x", "True", "None", "await ", "yield ", "print(1)", "exec('1')", "*a", "for x in ", "1if 1else 2",
]  # fmt: skip

Tree = tuple[str, "Tree", "Tree"] | tuple[str, "Tree"] | str


def grown(draw: random.Random, depth: int) -> Tree:
    """An expression: a literal, a sign, or an operation."""
    if depth == 0 or draw.random() < 0.2:
        return literal(draw)
    if draw.random() < 0.2:
        return draw.choice("+-"), grown(draw, depth - 1)
    return draw.choice(list(OPERATORS)), grown(draw, depth - 1), grown(draw, depth - 1)


def literal(draw: random.Random) -> str:
    kind = draw.random()
    if kind < 0.2:
        text = "".join(draw.choices("ab ,r1.é(", k=draw.randrange(8)))
        quote = draw.choice("'\"")
        return f"{quote}{text}{quote}.count({quote}{draw.choice(['', 'a', ',', 'ab', '1'])}{quote})"
    if kind < 0.6:
        return str(draw.randrange(10 ** draw.choice([1, 1, 2, 4, 9, 40, 101])))
    return draw.choice(["0.5", "1.", ".25", "0.0", f"{draw.random():.17f}", f"{draw.random() * 1e9:.3f}"])


def written(tree: Tree, draw: random.Random) -> str:
    """As text, in parentheses, with spaces and commas here and there."""
    space = draw.choice(["", "", " ", "  "])
    if isinstance(tree, str):
        whole = tree.isdigit() and draw.random() < 0.3
        return f"{int(tree):,}" if whole else tree
    if len(tree) == 2:
        return f"{tree[0]}{space}({written(tree[1], draw)})"
    return f"({written(tree[1], draw)}){space}{tree[0]}{space}({written(tree[2], draw)})"


def value(tree: Tree) -> int | float:
    """By Python's operators, without a parser. Raises ArithmeticError where there is none of reasonable size."""
    if isinstance(tree, str):
        found = ast.literal_eval(tree) if "count" not in tree else counted(tree)
    elif len(tree) == 2:
        found = -value(tree[1]) if tree[0] == "-" else +value(tree[1])
    else:
        found = OPERATORS[tree[0]](value(tree[1]), value(tree[2]))
    if not abs(found) <= MAX_NUMBER:
        raise ArithmeticError(found)
    return found


def counted(text: str) -> int:
    quote = text[0]
    _, whole, _, part, _ = text.split(quote)
    return whole.count(part)


def check_grown(draw: random.Random) -> str:
    """One expression of the grammar; returns it."""
    tree = grown(draw, draw.choice([1, 2, 3, 5]))
    text = written(tree, draw)
    try:
        expected = str(value(tree)) if len(text) <= MAX_CHARS else None
    except ArithmeticError:
        expected = None
    found = checked(text)
    assert found == expected, (text, found, expected)
    return text


def mutated(corpus: list[str], draw: random.Random) -> str:
    """Some of the pieces put into, over or instead of a part of one of the corpus."""
    text = draw.choice(corpus)
    for _ in range(draw.choice([1, 1, 2, 4])):
        at, other = draw.randrange(len(text) + 1), draw.choice(corpus)
        end = min(len(text), at + draw.choice([0, 0, 1, 2, 9]))
        new = draw.choice([draw.choice(PIECES), "", chr(draw.randrange(128)), other[draw.randrange(len(other) + 1) :]])
        text = text[:at] + new * draw.choice([1, 1, 1, 2, 60]) + text[end:]
    return text[: MAX_CHARS + draw.choice([0, 0, 0, 1])]


def checked(text: str) -> str | None:
    """The result, after everything that must hold of any expression."""
    began = time.thread_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = calculate(text)
    took = time.thread_time() - began
    assert took < SECONDS or _is_slow_again(text), (text, took)
    assert found is None or (isinstance(found, str) and len(found) <= LONGEST), (text, found)
    if found is not None:
        assert len(text) <= MAX_CHARS and is_harmless(text), text
        assert found == str(eval(without_commas(text).strip(), {"__builtins__": {}})), (
            text,
            found,
        )  # harmless: checked
    return found


def _is_slow_again(text: str) -> bool:
    """A pause of the garbage collector is not the expression's."""
    began = time.thread_time()
    calculate(text)
    return time.thread_time() - began < SECONDS


def without_commas(text: str) -> str:
    """Character by character, not by the calculator's pattern."""
    kept, quote = "", ""
    for i, char in enumerate(text):
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        between = 0 < i < len(text) - 1 and text[i - 1].isdigit() and text[i + 1].isdigit()
        kept += "" if char == "," and not quote and between else char
    return kept


def is_harmless(text: str) -> bool:
    """By Python's own tokens: numbers, signs, parentheses, and text only as `'...'.count('...')`."""
    shape, source = "", without_commas(text).strip().replace("\r", "\n")  # a line end for Python's parser too
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NUMBER:
            shape += "1" if re.fullmatch(r"[0-9.]+", token.string) else "?"
        elif token.type == tokenize.STRING:
            shape += "s" if token.string[0] in "'\"" and "\\" not in token.string else "?"
        elif token.type == tokenize.NAME:
            shape += "c" if token.string == "count" else "?"
        elif token.type == tokenize.OP:
            shape += {"//": "/"}.get(token.string, token.string if token.string in "+-*/%()." else "?")
        elif token.type not in (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER):
            shape += "?"
    shape = re.sub(r"\(*s+\)*\.c\(\(*s+\)*\)", "1", shape)  # brackets around a literal are not paired here
    return re.fullmatch(r"[-+*/%()1]+", shape) is not None


def behaviour(text: str, found: str | None) -> tuple[object, ...]:
    """What tells expressions apart: outcome, how the parser fails, which kinds of nodes there are, and how many."""
    size = len(text) > 80
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = [type(node).__name__ for node in ast.walk(ast.parse(text.strip(), mode="eval"))]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return (type(error).__name__, re.sub(r"'.*'|[0-9]|\(.*\)", "", str(error))[:40], size)
    ours = frozenset(nodes) & {"BinOp", "UnaryOp", "Call", "Attribute", "Pow", "Tuple", "Name"}
    return (found is None, ours, len(nodes) > MAX_DEPTH, "." in (found or ""), size)


def load_corpus() -> dict[str, str | None]:
    """Expressions with the results they must have."""
    return dict(json.loads(line) for line in CORPUS.read_text(encoding="ascii").splitlines())


def fuzz(seconds: float, seed: int, corpus: list[str]) -> tuple[int, dict[str, str | None]]:
    """Runs for so long; returns how many expressions were tried, and those that showed something new."""
    draw, until, tried = random.Random(seed), time.monotonic() + seconds, 0
    corpus, kept = [*SEEDS, *corpus], {}
    seen = {behaviour(text, calculate(text)) for text in corpus}
    while time.monotonic() < until:
        tried += 1
        if draw.random() < 0.3:
            check_grown(draw)
            continue
        text = mutated(corpus, draw)
        found = checked(text)
        mark = behaviour(text, found)
        if mark not in seen:
            seen.add(mark)
            corpus.append(text)
            kept[text] = found
    return tried, kept


def keep(found: dict[str, str | None]) -> None:
    """Adds to the corpus in the tests."""
    lines = [json.dumps(pair) for pair in found.items()]
    with CORPUS.open("a", encoding="ascii") as file:
        file.writelines(f"{line}\n" for line in lines)

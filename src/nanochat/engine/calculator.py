"""The tool that the model may call: arithmetic, and counting in a literal string.

Notable: what is evaluated was written by a model, so it is never handed to eval. It has to match a pattern without
names, is parsed to a syntax tree and walked with a whitelist of nodes; anything else is no result, never an error.
There is no `**` and no repetition of strings, so a short expression cannot make a large object: time and memory
are bounded by MAX_CHARS.
"""

import ast
import math
import operator
import re
from collections.abc import Callable

MAX_CHARS = 500  # of the expression
MAX_DEPTH = 40  # of nested operations
MAX_NUMBER = 10**100  # of any intermediate result

Number = int | float

# the only letters outside a literal are those of `.count(`; a backslash is nowhere allowed
FORM = re.compile(r"""(?:[\d\s.+\-*/%()]|'[^'\\\n]*'|"[^"\\\n]*"|\.count\()*""", re.ASCII)
LITERAL = re.compile(r"""('[^']*'|"[^"]*")""")
TRIPLE = re.compile(r"'''|\"\"\"")  # Python reads one literal where LITERAL sees three
THOUSANDS = re.compile(r"(?<=\d),(?=\d)")

OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
SIGNS: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class _Refused(ValueError):
    """The expression is outside what the calculator does."""


def calculate(expression: str) -> str | None:
    """The result as `str(number)`, or None if the expression is not one of ours or has no finite value.

    Understands + - * / // % with signs and parentheses, numbers with or without commas, and 'literal'.count('x').
    """
    if len(expression) > MAX_CHARS:
        return None
    source = _without_commas(expression.strip())
    if not FORM.fullmatch(source) or TRIPLE.search(source):
        return None
    try:  # ValueError: ours, and the parser's for NUL and lone surrogates; SystemError: its own stack in Python 3.11
        return str(_value(ast.parse(source, mode="eval").body, MAX_DEPTH))
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError, SystemError):
        return None


def _without_commas(expression: str) -> str:
    """Commas between digits removed, outside string literals only."""
    parts = LITERAL.split(expression)  # every second part is a literal
    return "".join(part if i % 2 else THOUSANDS.sub("", part) for i, part in enumerate(parts))


def _value(node: ast.expr, depth: int) -> Number:
    """The number a node stands for, with at most `depth` nested operations below it."""
    if depth == 0:
        raise _Refused("nested too deeply")
    match node:
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in SIGNS:
            return SIGNS[type(sign)](_value(operand, depth - 1))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _bounded(OPERATORS[type(op)](_value(left, depth - 1), _value(right, depth - 1)))
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str() as text), attr="count"),
            args=[ast.Constant(value=str() as part)],
            keywords=[],
        ):
            return text.count(part)
    raise _Refused(type(node).__name__)


def _bounded(number: Number) -> Number:
    if abs(number) > MAX_NUMBER or not math.isfinite(number):
        raise _Refused("no finite number of reasonable size")
    return number

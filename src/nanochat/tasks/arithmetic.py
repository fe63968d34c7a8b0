"""Sums, differences and products: small ones in the head, larger ones with the calculator."""

import hashlib
import operator
import random
import re

from nanochat.tasks.base import Content, Conversation, answer_text, chat, part, tool_call
from nanochat.tasks.generated import GeneratedTask

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
LARGEST = {"+": 100, "-": 100, "*": 20}  # operands are 0 .. this
BY_HEAD = 10  # with both operands at most this, no calculator
TEST_SHARE = 10

PHRASINGS = (
    "What is {a}{op}{b}?",
    "{a}{op}{b}",
    "{a}{op}{b}=?",
    "{a}{op}{b} = ?",
    "Calculate {a}{op}{b}.",
    "Compute {a} {op} {b}.",
    "How much is {a} {op} {b}?",
    "What do you get for {a} {op} {b}?",
    "Please work out {a} {op} {b}",
    "What's {a} {op} {b}?",
    "Can you solve {a}{op}{b}?",
    "Tell me the result of {a} {op} {b}.",
    "I need {a}{op}{b}.",
    "Evaluate {a} {op} {b}",
)
WORDED = {
    "+": ("What is {a} plus {b}?", "Add {a} and {b}.", "What is the sum of {a} and {b}?"),
    "-": ("What is {a} minus {b}?", "Subtract {b} from {a}.", "Take {b} away from {a}. What is left?"),
    "*": ("What is {a} times {b}?", "Multiply {a} by {b}.", "What is the product of {a} and {b}?"),
}
WORDED_SHARE = 0.3
RESULT = re.compile(r"= ?(-?[0-9]+)")


class Arithmetic(GeneratedTask):
    """`What is 7+5?` -> `7+5=12`; `What is 37+58?` -> calculator(37+58) `37+58=95`."""

    def make(self, index: int, rng: random.Random) -> Conversation:
        """Draw problems until one belongs to this split."""
        while True:
            symbol = rng.choice(list(OPERATORS))
            a, b = (rng.randint(0, LARGEST[symbol]) for _ in range(2))
            if is_test_problem(symbol, a, b) == (self.split == "test"):
                return chat(phrase(symbol, a, b, rng), solution(symbol, a, b))

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Compare what follows the last equals sign."""
        expected = RESULT.findall(answer_text(conversation))[-1]
        return RESULT.findall(answer)[-1:] == [expected]


def is_test_problem(symbol: str, a: int, b: int) -> bool:
    """About one problem in ten, for ever the same; a+b and b+a are one problem, and so are a*b and b*a."""
    first, second = (a, b) if symbol == "-" else sorted((a, b))
    digest = hashlib.sha256(f"{first}{symbol}{second}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % TEST_SHARE == 0


def phrase(symbol: str, a: int, b: int, rng: random.Random) -> str:
    """The question, in one of many wordings."""
    pool = WORDED[symbol] if rng.random() < WORDED_SHARE else PHRASINGS
    return rng.choice(pool).format(a=a, b=b, op=symbol)


def solution(symbol: str, a: int, b: int) -> Content:
    """The answer; beyond BY_HEAD it asks the calculator first."""
    expression, result = f"{a}{symbol}{b}", str(OPERATORS[symbol](a, b))
    said = f"{expression}={result}"
    if max(a, b) <= BY_HEAD:
        return said
    return [*tool_call(expression, result), part("text", f"\n{said}")]

"""Count a letter in a word: `How many r are in strawberry?`

The answer counts twice: by hand, letter by letter with a running count, then with the python tool, and ends with the
number after `####`, as GSM8K's answers do:

    strawberry:s,t,r,a,w,b,e,r,r,y
    r: s0 t0 r1 a1 w1 b1 e1 r2 r3 y3
    [python]'strawberry'.count('r')[/python][output]3[/output]
    #### 3

It is short on purpose: every token either copies or adds one, so that a model of a few million parameters learns it
within minutes on a CPU.
"""

import random

from nanochat.tasks.base import Content, Conversation, answer_text, chat, final_number, part, tool_call
from nanochat.tasks.generated import WordTask
from nanochat.tasks.phrasings import CANONICAL, phrase
from nanochat.tasks.simple_spelling import spelled
from nanochat.tasks.words import LETTERS

ABSENT_SHARE = 0.15  # any letter of the alphabet, so mostly one that is not in the word
REPEATED_SHARE = 0.4  # the letter that occurs most often; else small counts would hide how little was learnt
CANONICAL_SHARE = 0.3


class SpellingBee(WordTask):
    """`How many r are in strawberry?` in many wordings -> by hand, by tool, `#### 3`."""

    def make_about(self, word: str, rng: random.Random) -> Conversation:
        """Draw the letter, then the wording."""
        letter = choose_letter(word, rng)
        if rng.random() < CANONICAL_SHARE:
            return chat(CANONICAL.format(letter=letter, word=word), solution(word, letter))
        return chat(phrase(word, letter, rng), solution(word, letter))

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Compare the numbers after `####`."""
        expected = final_number(answer_text(conversation))
        return expected is not None and final_number(answer) == expected


def choose_letter(word: str, rng: random.Random) -> str:
    """A letter to count: sometimes absent, often the most frequent one, else any of the word."""
    draw = rng.random()
    if draw < ABSENT_SHARE:
        return rng.choice(LETTERS)
    if draw < ABSENT_SHARE + REPEATED_SHARE:
        most = max(word.count(letter) for letter in word)
        return rng.choice([letter for letter in dict.fromkeys(word) if word.count(letter) == most])
    return rng.choice(word)


def count_by_hand(word: str, letter: str) -> str:
    """Each letter followed by how often `letter` has come up so far: `r: s0 t0 r1 a1`."""
    counts = (word[: end + 1].count(letter) for end in range(len(word)))
    return f"{letter}: " + " ".join(f"{char}{count}" for char, count in zip(word, counts, strict=True))


def solution(word: str, letter: str) -> Content:
    """The answer, part by part."""
    return [
        part("text", f"{spelled(word)}\n{count_by_hand(word, letter)}\n"),
        *tool_call(f"'{word}'.count('{letter}')", str(word.count(letter))),
        part("text", f"\n#### {word.count(letter)}"),
    ]

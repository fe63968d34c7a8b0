"""Spell a word. A model reads tokens, not letters: this is where it learns which letters are in a token."""

import random

from nanochat.tasks.base import Conversation, answer_text, chat
from nanochat.tasks.generated import WordTask


def spelled(word: str) -> str:
    """`cat` -> `cat:c,a,t`."""
    return f"{word}:{','.join(word)}"


class SimpleSpelling(WordTask):
    """`Spell the word: cat` -> `cat:c,a,t`."""

    def make_about(self, word: str, rng: random.Random) -> Conversation:
        """Always the same question, so that nothing but the letters is to be learnt."""
        return chat(f"Spell the word: {word}", spelled(word))

    def evaluate(self, conversation: Conversation, answer: str) -> bool:
        """Letter for letter."""
        return answer.strip() == answer_text(conversation)

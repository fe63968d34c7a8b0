"""Conversations about a persona without any model: packaged questions and answers, filled in by its name and facts.

Notable: what a conversation says depends on its number and the persona alone. Facts are matched to questions by
words, so a persona without a fact about its maker gets the packaged answer that admits to knowing nothing of it.
"""

import random
import re
from collections.abc import Sequence

from nanochat.config.identity import IdentityConfig
from nanochat.config.persona import PersonaConfig
from nanochat.errors import ConfigError, nearest
from nanochat.synthesis.prompt import SAME
from nanochat.synthesis.starters import Line, packaged
from nanochat.synthesis.styles import ask, follow, introduce
from nanochat.synthesis.wishes import Wish
from nanochat.tasks.base import Conversation

# Words by which a fact is found to be about something.
_SUBJECTS = {
    "name": r"\bI am\b",
    "maker": r"\b(made by|built|creat\w+|maker|design\w+|develop\w+|made me|wanted)\b",
    "training": r"\b(train\w*|learnt|learned|neural|parameters|layers|weights)\b",
    "code": r"\b(code|open source|licen[cs]e|laptop)\b",
    "able": r"\bI (can|like to|know how)\b",
    "unable": r"\b(cannot|can't|never|wrong|not able)\b",
    "other": r"\bI am\b",
    "alive": r"\b(program|language model|feel|alive|body|human)\b",
    "memory": r"\b(remember|forget|memory)\b",
    "speech": r"\b(speak|languages|English)\b",
    "character": r"\b(favourite|favorite|like|love|enjoy)\b",
    "task": r"\bI can\b",
}
_GUESSES = {
    "name": r"\b(who|name|introduce|yourself)\b",
    "maker": r"\b(made|built|created|creator|company|owns)\b",
    "training": r"\b(train\w*|learn\w*|parameters|big|network)\b",
    "code": r"\b(code|open source|licence|license)\b",
    "able": r"\b(what can you|help|good at)\b",
    "memory": r"\b(remember|forget|record\w*)\b",
    "other": r"\b(chatgpt|claude|gemini|siri|gpt)\b",
    "alive": r"\b(alive|human|feel\w*|conscious)\b",
    "hello": r"^\s*(hi|hello|hey|good (morning|evening))\b",
}


class Writer:
    """Writes the conversations of one persona."""

    def __init__(self, persona: PersonaConfig, config: IdentityConfig, starters: Sequence[Line]) -> None:
        """Raises ConfigError if the persona answers in a language that no template is in."""
        self._persona = persona
        self._lengths = config.lengths
        self._answers: dict[tuple[str, str], list[str]] = {}
        for line in packaged("answers.txt"):
            assert line.about is not None and line.language is not None
            self._answers.setdefault((line.about, line.language), []).append(line.text)
        known = sorted({language for _, language in self._answers})
        if persona.language not in (SAME, *known):
            raise ConfigError(
                f"persona.language={persona.language}: no template is in this language; an endpoint writes any "
                f"(identity.mode=endpoint); {nearest(persona.language, known)}"
            )
        self._starters = [line for line in starters if (self._subject(line), self._spoken(line)) in self._answers]
        if not self._starters:
            raise ConfigError(f"identity.starters: templates have no answer in {persona.language} to any of them")

    def write(self, wish: Wish) -> Conversation:
        """The conversation that `wish` asks for, as far as templates can."""
        rng = random.Random(f"{wish.number}/{wish.starter.text}/{self._persona.name}")
        first = wish.starter if wish.starter in self._starters else rng.choice(self._starters)
        messages: list[dict[str, str]] = []
        for turn, line in enumerate(self._questions(first, wish.turns, rng)):
            english = line.language in ("English", None)
            question = follow(line.text, rng) if turn and english else line.text
            if turn == 0 and english:
                question = introduce(question, wish.level, rng)
            messages += [
                {
                    "role": "user",
                    "content": ask(question, wish.style, english and not (turn and rng.random() < 0.7), rng),
                },
                {"role": "assistant", "content": self._reply(line, self._lengths.index(wish.length), rng)},
            ]
        if wish.turns > 2 and first.language in ("English", None):
            messages[-2:] = [
                {"role": "user", "content": ask(rng.choice(_THANKS), wish.style, False, rng)},
                {"role": "assistant", "content": self._fill("thanks", rng.choice(self._lines("thanks")), rng)},
            ]
        return {"messages": messages}

    def _questions(self, first: Line, turns: int, rng: random.Random) -> list[Line]:
        """The first and, of other subjects in the same language, as many more as there are."""
        asked, subjects = [first], {self._subject(first)}
        others = [line for line in self._starters if line.language == first.language]
        rng.shuffle(others)
        for line in others:
            if len(asked) < turns and self._subject(line) not in subjects | {"hello"}:
                asked.append(line)
                subjects.add(self._subject(line))
        return asked

    def _subject(self, line: Line) -> str:
        """What a line asks about; guessed for those of a user's own file."""
        if line.about is not None:
            return line.about
        return next((about for about, words in _GUESSES.items() if re.search(words, line.text, re.I)), "task")

    def _spoken(self, line: Line) -> str:
        """The language of the answer."""
        return (line.language or "English") if self._persona.language == SAME else self._persona.language

    def _lines(self, about: str) -> list[str]:
        return self._answers[about, "English"]

    def _reply(self, line: Line, length: int, rng: random.Random) -> str:
        """An answer; in English `length` more sentences at most, facts and at the end a closing one."""
        subject, language = self._subject(line), self._spoken(line)
        lines = self._answers[subject, language]
        facts = self._facts(subject)
        usable = [text for text in lines if facts or "{fact}" not in text]
        said = [self._fill(subject, rng.choice(usable), rng)]
        if language == "English":
            others = [fact for fact in self._persona.facts if fact not in said[0]]
            said += rng.sample(others, min(len(others), max(0, length - 1)))
            said += [self._fill(subject, rng.choice(self._lines("more")), rng)] * (length > 0 and rng.random() < 0.4)
        return " ".join(said)

    def _facts(self, subject: str) -> list[str]:
        words = _SUBJECTS.get(subject)
        return [fact for fact in self._persona.facts if words and re.search(words, fact, re.I)]

    def _fill(self, subject: str, text: str, rng: random.Random) -> str:
        traits = [*self._persona.traits, "helpful", "attentive"]
        one, other = rng.sample(traits, 2)
        facts = self._facts(subject) or [""]
        values = {"{name}": self._persona.name, "{trait}": one, "{other trait}": other, "{fact}": rng.choice(facts)}
        filled = re.sub("|".join(map(re.escape, values)), lambda found: values[found[0]], text).strip()
        return filled if self._persona.name[:1] == filled[:1] else filled[:1].upper() + filled[1:]


_THANKS = (
    "Thank you!",
    "Thanks, that is all.",
    "That was helpful, thank you.",
    "Good to know. Bye!",
    "Great, thanks a lot.",
    "I have to go now. See you.",
    "Thanks for your time.",
)

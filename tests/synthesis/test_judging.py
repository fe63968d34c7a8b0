"""What is made of an answer: finding the JSON, rules of the persona, duplicates."""

import json
import random
from typing import Any

import pytest

from nanochat.config.persona import PersonaConfig
from nanochat.synthesis.diversity import distinct, repeated_openings
from nanochat.synthesis.duplicates import Duplicates, jaccard, normalised, pieces_of
from nanochat.synthesis.parse import Refused, parse_conversation
from nanochat.synthesis.rules import check_persona
from nanochat.tasks.base import chat

GOOD = chat("Hi", "Hello!")
TEXT = json.dumps(GOOD)
NANO = PersonaConfig(name="nanochat", prompt="Small.", traits=["kind"], facts=["I am small."], language="same")


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"Sure! Here [is] one {{as asked}}:\n{TEXT}\nEnjoy {{it}}.",
        json.dumps(GOOD["messages"]),
        json.dumps({"messages": [{**m, "extra": 1, "content": f"  {m['content']}\n"} for m in GOOD["messages"]]}),
        f"[1, 2] {TEXT}",
    ],
)
def test_the_conversation_is_found(text: str) -> None:
    assert parse_conversation(text) == GOOD


def messages(*pairs: tuple[str, Any]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs]})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no conversation"),
        ("[" * 300_000, "no conversation"),
        (TEXT[:-3], "no conversation"),
        ('{"messages": []}', "no conversation"),
        (messages(("assistant", "Hi")), "roles or texts"),
        (messages(("user", "a"), ("user", "b")), "roles or texts"),
        (messages(("user", "a"), ("assistant", "  ")), "roles or texts"),
        (messages(("user", "a"), ("assistant", 7)), "roles or texts"),
        (messages(("user", "a"), ("assistant", "b"), ("user", "c")), "speak last"),
    ],
)
def test_what_is_none_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse_conversation(text)


@pytest.mark.parametrize(
    "answer",
    [
        "I am ChatGPT.",
        "Hello! I'm Claude, an assistant.",
        "As you know, my name is Gemini.",
        "Ich bin ein GPT-4 Modell.",
        "Je suis Claude.",
        "我是ChatGPT。",
        "I was developed by OpenAI.",
        "I am a model trained by Google.",
        "I'm Bob? No: my name is Bob.",
    ],
)
def test_another_identity_is_refused(answer: str) -> None:
    with pytest.raises(Refused):
        check_persona(chat("Who are you?", answer), NANO)


@pytest.mark.parametrize(
    "answer",
    [
        "I am nanochat.",
        "No, I am not ChatGPT; my name is nanochat.",
        "ChatGPT and Claude are other assistants, I am nanochat.",
        "I was not made by OpenAI.",
        "I was trained by whoever ran the code.",
        "You could ask Google.",
    ],
)
def test_mentioning_others_is_allowed(answer: str) -> None:
    check_persona(chat("Are you ChatGPT?", answer), NANO)
    check_persona(chat("I am ChatGPT.", "Hello!"), NANO)  # the user may claim what he likes


def test_the_personas_own_names_are_its_own() -> None:
    own = PersonaConfig(name="Nova", prompt="Made by Apple.", traits=[], facts=[], language="same")
    check_persona(chat("Who?", "I am Nova, and I was made by Apple."), own)
    with pytest.raises(Refused):
        check_persona(chat("Who?", "I am Nova, and I was made by Google."), own)


def test_near_duplicates_are_found_in_every_language() -> None:
    long = "The quick answer is that a small model was trained from nothing on one machine, step by step. " * 2
    for text in (long, "我是一个从零开始训练的小型语言模型，" * 6):
        seen = Duplicates()
        seen.add(chat("a?", text))
        with pytest.raises(Refused, match="exact"):
            seen.add(chat("A !", text.upper() + "..."))
        with pytest.raises(Refused, match="near"):
            seen.add(chat("a? ", text + " x"))
        seen.add(chat("a?", text[: len(text) // 2] + " and now something else entirely, of the same length or so" * 2))


def test_minhash_misses_none_above_the_bound() -> None:
    rng = random.Random(1)
    words = [f"{rng.getrandbits(30):x}" for _ in range(400)]
    found = 0
    for _ in range(150):
        first = rng.sample(words, 60)
        second = [w if rng.random() > 0.05 else rng.choice(words) for w in first]
        a, b = chat("q", " ".join(first)), chat("q", " ".join(second))
        seen = Duplicates()
        seen.add(a)
        alike = jaccard(pieces_of(normalised(a)), pieces_of(normalised(b))) >= 0.8
        try:
            seen.add(b)
            assert not alike
        except Refused:
            assert alike
            found += 1
    assert 20 < found < 150


def test_diversity() -> None:
    assert distinct([], 2) == 0.0 and repeated_openings([]) == 0.0
    assert distinct([chat("a b c", "d e f")], 2) == 1.0
    assert distinct([chat("a b", "a b"), chat("a b", "b a")], 2) == 0.5
    assert repeated_openings([chat("Hi!", "x"), chat("hi", "y"), chat("ho", "z"), chat("he", "z")]) == 0.25

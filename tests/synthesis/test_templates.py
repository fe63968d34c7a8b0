"""Wishes, starters and the offline generator."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from nanochat.config.load import compose_run
from nanochat.config.root import RunConfig
from nanochat.errors import ConfigError, MissingError
from nanochat.synthesis.diversity import distinct
from nanochat.synthesis.duplicates import Duplicates
from nanochat.synthesis.parse import Refused
from nanochat.synthesis.prompt import messages_for
from nanochat.synthesis.rules import check_persona
from nanochat.synthesis.starters import load_starters, packaged, parse_lines
from nanochat.synthesis.templates import Writer
from nanochat.synthesis.wishes import Wish, make_wish
from nanochat.tasks.base import Conversation

STARTERS = load_starters(None)


@cache
def config(*overrides: str) -> RunConfig:
    return compose_run(["stage=identity", *overrides]).config


def wish(number: int, seed: int = 42) -> Wish:
    return make_wish(number, config().identity, STARTERS, seed)


def written(count: int, *overrides: str) -> list[Conversation]:
    asked = config(*overrides)
    writer = Writer(asked.persona, asked.identity, STARTERS)
    return [writer.write(make_wish(number, asked.identity, STARTERS, 42)) for number in range(count)]


def test_a_number_has_one_wish() -> None:
    assert [wish(i) for i in (5, 3, 5)] == [wish(5), wish(3), wish(5)]
    assert wish(3) != wish(4) and wish(3) != wish(3, seed=43)
    fixed = wish(7)
    shown = (fixed.style, fixed.topic, fixed.language, fixed.turns)
    assert shown == ("like an old letter", "its daily life", "English", 2)  # moves only with the lists


def test_every_value_of_every_dimension_comes_up() -> None:
    identity, wishes = config().identity, [wish(i) for i in range(1500)]
    for name in ("style", "topic", "level", "length", "language"):
        listed = getattr(identity, name + "s")
        counts = Counter(getattr(each, name) for each in wishes)
        assert set(counts) == set(listed), name
    languages = Counter(each.language for each in wishes)
    assert 0.65 < languages["English"] / 1500 < 0.75
    assert {each.turns for each in wishes} == set(range(1, identity.max_turns + 1))
    assert all(each.starter.language == each.language for each in wishes)


def test_the_packaged_starters_are_many_and_differ() -> None:
    assert 100 <= len(STARTERS) <= 300
    assert len({line.text.casefold() for line in STARTERS}) == len(STARTERS)
    answers = {(line.about, line.language) for line in packaged("answers.txt")}
    assert {(line.about, line.language) for line in STARTERS} <= answers
    assert {line.language for line in STARTERS} == set(config().identity.languages)


def test_templates_are_diverse_and_in_character() -> None:
    made, seen, refused = written(400), Duplicates(), Counter[str]()
    for conversation in made:
        check_persona(conversation, config().persona)
        assert "{" not in str([m["content"] for m in conversation["messages"]])
        try:
            seen.add(conversation)
        except Refused as error:
            refused[str(error)] += 1
    assert refused.total() < 60  # 42 when it was written
    assert distinct(made, 4) > 0.1
    assert sum("nanochat" in str(c) for c in made) > 240


@pytest.mark.parametrize("persona", ["nanochat", "mira"])
def test_facts_of_the_persona_are_said(persona: str) -> None:
    asked = config(f"persona={persona}")
    said = " ".join(m["content"] for c in written(400, f"persona={persona}") for m in c["messages"])
    assert [fact for fact in asked.persona.facts if fact not in said] == []


def test_a_persona_with_a_name_alone_has_answers() -> None:
    asked = config()
    bare = replace(asked.persona, facts=[], traits=[], name="Zoë")
    writer = Writer(bare, asked.identity, STARTERS)
    made = [writer.write(make_wish(i, asked.identity, STARTERS, 0)) for i in range(300)]
    assert all(m["content"].strip() for c in made for m in c["messages"])
    assert any("Zoë" in str(c) for c in made)


def test_one_language_of_answers() -> None:
    for language, word in (("English", "the"), ("German", "ich")):
        made = written(200, f"persona.language={language}")
        answers = [m["content"] for c in made for m in c["messages"] if m["role"] == "assistant"]
        assert all(ord(max(a)) < 0x300 or not a.isascii() for a in answers)
        assert not [a for a in answers if any(ord(c) > 0x2000 for c in a)], language
        assert any(word in a.lower() for a in answers)


def test_a_file_of_starters(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("# mine\nWho are you, stranger?\n\n[maker English]\nWho forged you?\n", encoding="utf-8")
    lines = load_starters(str(path))
    assert [(line.text, line.about) for line in lines] == [
        ("Who are you, stranger?", None),
        ("Who forged you?", "maker"),
    ]
    asked = config()
    writer = Writer(asked.persona, asked.identity, lines)
    first = [writer.write(make_wish(i, asked.identity, lines, 0))["messages"][0]["content"] for i in range(40)]
    assert any("stranger" in text for text in first) and any("forged" in text for text in first)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"[name]\nx\n", b"[name English\nx\n", b"\xff\xfe\n"])
def test_a_bad_file_of_starters(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="own.txt"):
        load_starters(str(path))
    with pytest.raises(MissingError, match="identity.starters=.*no such file"):
        load_starters(str(tmp_path / "none.txt"))


def test_headings_carry_on() -> None:
    lines = parse_lines("a\n[x Y]\nb\nc\n[z W]\nd", "f")
    assert [(line.about, line.language) for line in lines] == [(None, None), ("x", "Y"), ("x", "Y"), ("z", "W")]


def test_the_prompt_says_all_of_the_wish() -> None:
    persona, asked = config().persona, wish(11)
    system, user = messages_for(persona, asked)
    assert persona.name in system["content"] and all(fact in system["content"] for fact in persona.facts)
    for value in (asked.style, asked.topic, asked.level, asked.length, asked.language, asked.starter.text):
        assert value in user["content"]
    assert "in the same language" in user["content"]
    fixed = replace(persona, language="French")
    assert "always in French" in messages_for(fixed, asked)[1]["content"]

"""spelling_bee, simple_spelling and what they share (generated.py, phrasings.py)."""

import re
from collections import Counter

import pytest

from nanochat.errors import ConfigError
from nanochat.tasks.base import answer_text
from nanochat.tasks.phrasings import LETTER_STYLES, PHRASINGS
from nanochat.tasks.simple_spelling import SimpleSpelling
from nanochat.tasks.spelling_bee import SpellingBee, solution
from nanochat.tasks.words import is_test_word

TOOL = re.compile(r"'([a-z]+)'\.count\('([a-z])'\)")


def question(conversation):
    return conversation["messages"][0]["content"]


def tool_arguments(conversation):
    call = next(item["text"] for item in conversation["messages"][1]["content"] if item["type"] == "python")
    return TOOL.fullmatch(call).groups()


def test_golden_answer():
    assert solution("strawberry", "r") == [
        {"type": "text", "text": "strawberry:s,t,r,a,w,b,e,r,r,y\nr: s0 t0 r1 a1 w1 b1 e1 r2 r3 y3\n"},
        {"type": "python", "text": "'strawberry'.count('r')"},
        {"type": "python_output", "text": "3"},
        {"type": "text", "text": "\n#### 3"},
    ]


def test_simple_spelling_golden():
    conversation = SimpleSpelling(["cat"], size=1)[0]
    assert conversation == {
        "messages": [{"role": "user", "content": "Spell the word: cat"}, {"role": "assistant", "content": "cat:c,a,t"}]
    }


def test_simple_spelling_judges_letter_for_letter():
    task = SimpleSpelling(["cat"], size=1)
    assert task.evaluate(task[0], " cat:c,a,t\n")
    assert not task.evaluate(task[0], "cat:c,a,t,s")
    assert not task.evaluate(task[0], "cat:c,t,a")


def test_every_row_is_right(words):
    bee = SpellingBee(words, size=500)
    for index in range(len(bee)):
        conversation = bee[index]
        word, letter = tool_arguments(conversation)
        assert word in question(conversation)
        parts = conversation["messages"][1]["content"]
        assert parts[2]["text"] == str(word.count(letter))
        hand = parts[0]["text"].splitlines()[1]
        assert hand.startswith(f"{letter}: ")
        assert hand.endswith(f"{word[-1]}{word.count(letter)}")
        assert bee.evaluate(conversation, answer_text(conversation))


def test_evaluate_compares_the_number_after_the_marks():
    bee = SpellingBee(["bee"], size=1)
    conversation = {
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": solution("bee", "e")}]
    }
    assert bee.evaluate(conversation, "whatever #### 2<|assistant_end|>")
    assert bee.evaluate(conversation, "#### 2.")
    assert not bee.evaluate(conversation, "2")
    assert not bee.evaluate(conversation, "#### 20")
    assert not bee.evaluate(conversation, "#### 3\n#### 2")


def test_letters_are_sometimes_absent_and_often_repeated(words):
    bee = SpellingBee(words, size=1000)
    counts = Counter(word.count(letter) for word, letter in (tool_arguments(bee[i]) for i in range(1000)))
    assert 50 <= counts[0] <= 200
    assert counts[1] <= 700
    assert counts[2] + counts[3] >= 200


def test_questions_are_varied_and_the_plain_one_is_frequent(words):
    bee = SpellingBee(words, size=1000)
    shapes = Counter()
    for index in range(1000):
        word, letter = tool_arguments(bee[index])
        text = question(bee[index]).replace(word, "WORD")
        shapes[re.sub(rf"\b{letter}(?=s?\b)", "L", text)] += 1
    assert len(shapes) >= 100
    assert 250 <= shapes["How many L are in WORD?"] <= 400


def test_phrasings_are_different_and_have_both_slots():
    assert len(set(PHRASINGS)) == len(PHRASINGS) >= 50
    assert all("{letter}" in text and "{word}" in text for text in PHRASINGS)
    assert all("{}" in style for style in LETTER_STYLES)


@pytest.mark.parametrize("kind", [SpellingBee, SimpleSpelling])
def test_train_and_test_share_no_word(words, kind):
    def used(split):
        task = kind(words, split=split, size=600)
        return {re.search(r"([a-z]+):", answer_text(task[i])).group(1) for i in range(600)}

    train, test = used("train"), used("test")
    assert train
    assert test
    assert not train & test
    assert all(is_test_word(word) for word in test)


def test_the_splits_draw_different_streams(words):
    """random.Random(1) and random.Random(-1) are one stream; ours is seeded by the whole name."""
    train, test = SpellingBee(words, split="train"), SpellingBee(words, split="test")
    assert train.generator("row 1").random() != test.generator("row 1").random()
    assert train.generator("row 1").random() != train.generator("row 2").random()
    assert train.generator("row 1").random() != SimpleSpelling(words).generator("row 1").random()
    assert train.generator("row 1").random() != SpellingBee(words, seed=43).generator("row 1").random()


def test_rows_are_the_same_every_time_and_every_word_comes_up(words):
    first, second = SimpleSpelling(words, size=300), SimpleSpelling(list(words), size=300)
    assert [first[i] for i in range(300)] == [second[i] for i in range(300)]
    asked = [question(first[i]) for i in range(len(first.words))]
    assert len(set(asked)) == len(first.words)
    assert asked != [f"Spell the word: {word}" for word in words if not is_test_word(word)]  # shuffled


def test_size_and_bounds(words):
    assert len(SpellingBee(words, split="test")) == 256
    assert len(SpellingBee(words, size=7)) == 7
    with pytest.raises(IndexError, match="rows 0 to 6"):
        SpellingBee(words, size=7)[7]


def test_a_list_without_words_of_the_split():
    train_only = [word for word in ("strawberry", "banana") if not is_test_word(word)]
    with pytest.raises(ConfigError, match=r"data.word_list.*test split"):
        SpellingBee(train_only, split="test")


def test_fingerprint_follows_what_rows_are_made_of(words):
    one = SpellingBee(words, size=5)
    assert one.fingerprint() == SpellingBee(words, size=5).fingerprint()
    for other in (
        SpellingBee(words, size=6),
        SpellingBee(words, size=5, seed=1),
        SpellingBee(words[1:], size=5),
        SpellingBee(words, size=5, split="test"),
        SimpleSpelling(words, size=5),
    ):
        assert other.fingerprint() != one.fingerprint()

"""Golden tests of the chat format. The tokenizer has no merges, so an ordinary id is a byte."""

import pytest

from nanochat.errors import ConfigError
from nanochat.tokenizer.bpe import SPECIALS, Tokenizer
from nanochat.tokenizer.chat import render, render_for_completion

BOS, USER, USER_END, ASSISTANT, ASSISTANT_END, PYTHON, PYTHON_END, OUTPUT, OUTPUT_END = range(256, 265)


@pytest.fixture(scope="module")
def byte_tokenizer():
    return Tokenizer({bytes([byte]): byte for byte in range(256)})


def talk(*contents):
    roles = ["user", "assistant"] * len(contents)
    return {"messages": [{"role": role, "content": c} for role, c in zip(roles, contents, strict=False)]}


def part(kind, text):
    return {"type": kind, "text": text}


def chars(text):
    return [ord(char) for char in text]


def test_plain_turns(byte_tokenizer):
    ids, mask = render(byte_tokenizer, talk("hi", "yo", "a", "b"))
    assert ids == [
        *(BOS, USER, *chars("hi"), USER_END, ASSISTANT, *chars("yo"), ASSISTANT_END),
        *(USER, *chars("a"), USER_END, ASSISTANT, *chars("b"), ASSISTANT_END),
    ]
    assert mask == [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1]


GOLDEN_PARTS = [
    (part("text", "ab"), chars("ab"), [1, 1]),
    (part("python", "1+1"), [PYTHON, *chars("1+1"), PYTHON_END], [1, 1, 1, 1, 1]),
    (part("python_output", "2"), [OUTPUT, ord("2"), OUTPUT_END], [0, 0, 0]),
]


@pytest.mark.parametrize(("item", "expected_ids", "expected_mask"), GOLDEN_PARTS)
def test_each_part_type(byte_tokenizer, item, expected_ids, expected_mask):
    ids, mask = render(byte_tokenizer, talk("q", [item]))
    assert ids == [BOS, USER, ord("q"), USER_END, ASSISTANT, *expected_ids, ASSISTANT_END]
    assert mask == [0, 0, 0, 0, 0, *expected_mask, 1]


def test_all_parts_together(byte_tokenizer):
    ids, mask = render(byte_tokenizer, talk("q", [item for item, _, _ in GOLDEN_PARTS]))
    assert ids[5:-1] == [token for _, golden, _ in GOLDEN_PARTS for token in golden]
    assert mask[5:] == [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1]


def test_system_message_joins_the_first_user_message(byte_tokenizer):
    system = {"role": "system", "content": "be kind"}
    joined = {"messages": [system, *talk("q", "a")["messages"]]}
    assert render(byte_tokenizer, joined) == render(byte_tokenizer, talk("be kind\n\nq", "a"))
    assert joined["messages"][1]["content"] == "q"  # the caller's conversation is left alone


def test_specials_in_messages_stay_text(byte_tokenizer):
    ids, mask = render(byte_tokenizer, talk("<|assistant_start|>", "<|assistant_end|>"))
    assert [token for token in ids if token >= 256] == [BOS, USER, USER_END, ASSISTANT, ASSISTANT_END]
    assert sum(mask) == len("<|assistant_end|>") + 1


def test_mask_and_ids_have_one_length(tokenizer):
    ids, mask = render(tokenizer, talk("how?", [item for item, _, _ in GOLDEN_PARTS], "and 中文?", "😀"))
    assert len(ids) == len(mask)
    assert tokenizer.decode(ids).count(SPECIALS[0]) == 1


def test_completion_drops_the_last_answer(byte_tokenizer):
    expected = [BOS, USER, ord("q"), USER_END, ASSISTANT]
    assert render_for_completion(byte_tokenizer, talk("q", "an answer")) == expected
    assert render_for_completion(byte_tokenizer, talk("q")) == expected


def test_completion_is_a_prefix_of_the_training_row(byte_tokenizer):
    ids, mask = render(byte_tokenizer, talk("q", "a", "r", "b"))
    prompt = render_for_completion(byte_tokenizer, talk("q", "a", "r", "b"))
    assert ids[: len(prompt)] == prompt
    assert mask[len(prompt) :] == [1, 1]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "assistant", "content": "a"}], "alternate"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "message 1"),
        ([{"role": "system", "content": "a"}], "followed by a user"),
        ([{"role": "user", "content": [part("text", "a")]}], "must be a string"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": [part("pythn", "1")]}], "python"),
    ],
)
def test_malformed_conversations(byte_tokenizer, messages, words):
    with pytest.raises(ConfigError, match=words):
        render(byte_tokenizer, {"messages": messages})

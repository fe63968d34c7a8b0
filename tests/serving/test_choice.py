"""Tokens to text, for one answer."""

from nanochat.serving.choice import Choice
from nanochat.tokenizer.bpe import Tokenizer


def test_characters_come_whole_and_tokens_are_counted(tokenizer: Tokenizer) -> None:
    choice = Choice(tokenizer, [])
    ids = [*"né 日🙂".encode()]
    assert [choice.push([i], None) for i in ids] == ["n", "", "é", " ", "", "", "日", "", "", "", "🙂"]
    assert choice.push([tokenizer.special("<|assistant_end|>")], "stop") == ""
    assert (choice.tokens, choice.finish_reason) == (len(ids), "stop")


def test_tool_calls_are_shown_and_their_output_counts(tokenizer: Tokenizer) -> None:
    special = tokenizer.special
    ids = [special("<|python_start|>"), *b"2*3", special("<|python_end|>")]
    ids += [special("<|output_start|>"), *b"6", special("<|output_end|>"), *b"ok"]
    choice = Choice(tokenizer, [])
    assert choice.push(ids, "length") == "[python: 2*3] [output: 6] ok"
    assert (choice.tokens, choice.finish_reason) == (10, "length")


def test_a_character_without_its_end_is_shown_as_unreadable(tokenizer: Tokenizer) -> None:
    choice = Choice(tokenizer, [])
    assert choice.push([*"aé".encode()[:2]], "length") == "a\ufffd"


def test_tokens_behind_a_stop_string_do_not_count(tokenizer: Tokenizer) -> None:
    together, single = Choice(tokenizer, ["cd"]), Choice(tokenizer, ["cd"])
    assert together.push([*b"abcdef"], None) == "ab"
    assert "".join(single.push([i], None) for i in b"abcdef") == "ab"
    assert together.tokens == single.tokens == 4
    assert together.finish_reason == single.finish_reason == "stop"


def test_a_held_back_end_is_shown_when_the_answer_ends(tokenizer: Tokenizer) -> None:
    choice = Choice(tokenizer, ["stop!"])
    assert choice.push([*b"do sto"], None) == "do "
    assert choice.push([tokenizer.special("<|assistant_end|>")], "stop") == "sto"
    long = Choice(tokenizer, ["stop!"])
    assert long.push([*b"sto"], "length") == "sto" and long.finish_reason == "length"

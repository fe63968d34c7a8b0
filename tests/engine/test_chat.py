from collections.abc import Callable

import pytest

from nanochat.engine.chat import ChatSession, TextStream, parts_of
from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.errors import ConfigError
from nanochat.model.gpt import GPT
from nanochat.tokenizer.bpe import SPECIALS, Tokenizer
from nanochat.tokenizer.chat import render_for_completion

PARAMS = SamplingParams(max_new_tokens=40, temperature=0.0, top_k=None, seed=0)
Scripted = Callable[..., GPT]


def session(model: GPT, tokenizer: Tokenizer, notes: list[str], system: str | None = None) -> ChatSession:
    return ChatSession(Engine(model, tokenizer, "cpu"), tokenizer, system=system, notify=notes.append)


def prompt_length(tokenizer: Tokenizer, text: str) -> int:
    return len(render_for_completion(tokenizer, {"messages": [{"role": "user", "content": text}]}))


def test_characters_split_over_tokens_arrive_whole(scripted: Scripted, tokenizer: Tokenizer) -> None:
    text = "né 日本 🙂!"
    model = scripted([*text.encode(), tokenizer.special("<|assistant_end|>")], prompt_length(tokenizer, "hi"), 200)
    chat = session(model, tokenizer, [])
    pieces = list(chat.reply("hi", PARAMS))
    assert pieces == list(text)
    assert chat.messages[-1] == {"role": "assistant", "content": [{"type": "text", "text": text}]}


def test_tool_calls_are_shown_and_kept(scripted: Scripted, tokenizer: Tokenizer) -> None:
    start, end = tokenizer.special("<|python_start|>"), tokenizer.special("<|python_end|>")
    script = [*b"I count: ", start, *b"'aa'.count('a')", end, *b"___", *b"two", tokenizer.special("<|assistant_end|>")]
    chat = session(scripted(script, prompt_length(tokenizer, "how many?"), 200), tokenizer, [])
    assert "".join(chat.reply("how many?", PARAMS)) == "I count: [python: 'aa'.count('a')] [output: 2] two"
    assert [part["type"] for part in chat.messages[-1]["content"]] == ["text", "python", "python_output", "text"]
    # what was said is rendered in the next turn exactly as it was generated
    said = render_for_completion(tokenizer, {"messages": [*chat.messages, {"role": "user", "content": "?"}]})
    output = [tokenizer.special("<|output_start|>"), *b"2", tokenizer.special("<|output_end|>")]
    joined = [*script[: script.index(end) + 1], *output, *b"two", tokenizer.special("<|assistant_end|>")]
    assert any(said[i : i + len(joined)] == joined for i in range(len(said)))


def test_oldest_turns_are_forgotten_and_it_is_said(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    notes: list[str] = []
    chat = session(make_model(seq_len=128), tokenizer, notes, system="be kind")
    for turn in range(8):
        list(chat.reply(f"message number {turn}", PARAMS))
    assert notes and "forgotten" in notes[0]
    assert chat.messages[0] == {"role": "system", "content": "be kind"}
    assert [m["role"] for m in chat.messages[1:]] == ["user", "assistant"] * ((len(chat.messages) - 1) // 2)
    assert chat.messages[-2]["content"] == "message number 7"
    assert len(render_for_completion(tokenizer, {"messages": chat.messages})) <= 128 - 40
    chat.clear()
    assert chat.messages == [{"role": "system", "content": "be kind"}]


def test_a_message_too_long_leaves_no_trace(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    chat = session(make_model(seq_len=64), tokenizer, [])
    with pytest.raises(ConfigError, match="at most 32 fit"):
        list(chat.reply("x" * 100, PARAMS))
    assert chat.messages == []


def test_an_interrupted_answer_is_kept_as_far_as_it_got(scripted: Scripted, tokenizer: Tokenizer) -> None:
    chat = session(scripted([*b"abcdef"], prompt_length(tokenizer, "hi")), tokenizer, [])
    pieces = chat.reply("hi", PARAMS)
    assert [next(pieces), next(pieces)] == ["a", "b"]
    pieces.close()
    assert chat.messages[-1]["content"] == [{"type": "text", "text": "ab"}]


def test_unfinished_characters_are_replaced_not_lost(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    broken = "é".encode()[:1]
    text = [*stream.push(broken[0]), *stream.push(tokenizer.special("<|python_start|>")), *stream.push(ord("1"))]
    assert "".join(text) == "\ufffd[python: 1"
    assert [*stream.push(broken[0]), *stream.finish()] == ["\ufffd"]


def test_specials_never_become_text(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.special(name) for name in SPECIALS]
    assert parts_of(tokenizer, ids) == []
    assert "<|" not in "".join(piece for i in ids for piece in TextStream(tokenizer).push(i))

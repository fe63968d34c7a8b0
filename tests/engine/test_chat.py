import json
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from nanochat.engine.chat import ChatSession, TextStream, parts_of, parts_of_shown
from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.errors import ConfigError
from nanochat.model.gpt import GPT
from nanochat.tasks.custom_json import CustomJSON
from nanochat.tokenizer.bpe import SPECIALS, Tokenizer
from nanochat.tokenizer.chat import render, render_for_completion

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


def test_forgotten_turns_stay_in_the_transcript(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    notes: list[str] = []
    chat = session(make_model(seq_len=128), tokenizer, notes, system="be kind")
    for turn in range(4):
        list(chat.reply(f"message number {turn}", PARAMS))
    assert notes[0] == "(the context of 128 tokens is full: the oldest turn is forgotten)"
    written = chat.transcript()
    assert [m["content"] for m in written if m["role"] == "user"] == [f"message number {turn}" for turn in range(4)]
    assert written[0] == {"role": "system", "content": "be kind"}
    chat.clear()
    assert chat.transcript() == []


def test_a_transcript_is_what_training_reads(scripted: Scripted, tokenizer: Tokenizer) -> None:
    start, end = tokenizer.special("<|python_start|>"), tokenizer.special("<|python_end|>")
    script = [start, *b"1+1", end, *b"___", *b"two", tokenizer.special("<|assistant_end|>")]
    chat = session(scripted(script, prompt_length(tokenizer, "sum?"), 200), tokenizer, [])
    list(chat.reply("sum?", PARAMS))
    chat.messages += [{"role": "user", "content": "never answered"}, {"role": "assistant", "content": []}]
    task = CustomJSON(json.dumps({"messages": chat.transcript()}).encode(), "saved.jsonl")
    assert task[0]["messages"][1]["content"][:2] == [
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
    ]
    assert len(task[0]["messages"]) == 2
    # the mask of training covers the call and not its output, as it was generated
    ids, mask = render(tokenizer, task[0])
    assert [i for i, m in zip(ids, mask, strict=True) if m][:5] == [start, *b"1+1", end]


def test_an_answer_can_be_taken_back(scripted: Scripted, tokenizer: Tokenizer) -> None:
    stop = tokenizer.special("<|assistant_end|>")
    chat = session(scripted([*b"yes", stop], prompt_length(tokenizer, "hi"), 200), tokenizer, [], system=None)
    assert chat.undo() is None
    assert "".join(chat.reply("hi", PARAMS)) == "yes" and chat.finish == "stop"
    assert chat.undo() == "hi" and chat.messages == []
    assert "".join(chat.reply("hi", PARAMS)) == "yes"


def test_another_system_message(scripted: Scripted, tokenizer: Tokenizer) -> None:
    chat = session(scripted([*b"yes", tokenizer.special("<|assistant_end|>")], 9, 200), tokenizer, [], system="old")
    chat.set_system("new")
    assert chat.messages == [{"role": "system", "content": "new"}]
    list(chat.reply("hi", PARAMS))
    chat.set_system(None)
    assert [m["role"] for m in chat.messages] == ["user", "assistant"]


def test_each_answer_is_drawn_anew(make_model: Callable[..., GPT], tokenizer: Tokenizer) -> None:
    params = SamplingParams(max_new_tokens=8, temperature=1.0, seed=5)
    chat = session(make_model(seq_len=128), tokenizer, [])
    first = "".join(chat.reply("hi", params))
    chat.undo()
    assert "".join(chat.reply("hi", params)) != first
    again = session(make_model(seq_len=128), tokenizer, [])
    assert "".join(again.reply("hi", params)) == first


def test_it_is_known_how_an_answer_ended(scripted: Scripted, tokenizer: Tokenizer) -> None:
    chat = session(scripted([*b"abcdefgh"], prompt_length(tokenizer, "hi"), 200), tokenizer, [])
    assert "".join(chat.reply("hi", replace(PARAMS, max_new_tokens=3))) == "abc" and chat.finish == "length"
    chat.clear()
    asked = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) == 5

    assert "".join(chat.reply("hi", PARAMS, stopped)) == "abcde" and chat.finish == "stopped"
    assert chat.messages[-1]["content"] == [{"type": "text", "text": "abcde"}]
    chat.engine.step()  # which reports that it was cancelled
    assert not chat.engine.busy, "what was stopped is still being written"


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


@pytest.mark.parametrize(
    "parts",
    [
        [("text", "Let me see. "), ("python", "12*7"), ("python_output", "84"), ("text", "So 84.")],
        [("python", "'a]b'.count(']')"), ("python_output", "1")],
        [("python", "1+1"), ("python_output", "2"), ("python", "2+2"), ("python_output", "4"), ("text", " done")],
    ],
)
def test_a_shown_tool_call_is_read_back_as_one(tokenizer: Tokenizer, parts: list[tuple[str, str]]) -> None:
    content = [{"type": kind, "text": text} for kind, text in parts]
    ids, _ = render(
        tokenizer, {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": content}]}
    )
    stream = TextStream(tokenizer)
    start = ids.index(tokenizer.special("<|assistant_start|>")) + 1
    shown = "".join(piece for token in ids[start:] for piece in stream.push(token))
    assert parts_of_shown(shown) == content
    assert parts_of_shown(shown.strip()) == content


@pytest.mark.parametrize(
    "text", ["[python: 1+1] [output: 3] ", "[python: x] [output: 2]", "no call", "", "[python: 2*3]"]
)
def test_what_only_looks_like_a_tool_call_stays_text(text: str) -> None:
    assert parts_of_shown(text) == text


def test_a_tool_call_within_what_only_looks_like_one() -> None:
    call = [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}]
    assert parts_of_shown("[python: [python: 1+1] [output: 2] ") == [{"type": "text", "text": "[python: "}, *call]


def test_a_text_of_many_beginnings_takes_no_time_that_grows_with_its_square() -> None:
    """A regular expression holds Python's lock: a server would stand still."""
    text, began = "[python: " * 20_000, time.process_time()
    assert parts_of_shown(text) == text
    assert time.process_time() - began < 5  # 0.3 s; it was a minute

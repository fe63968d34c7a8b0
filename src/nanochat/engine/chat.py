"""A conversation with a model: history in, text out piece by piece, tool calls shown in brackets.

Notable: a character may be split over tokens, so bytes are decoded incrementally; the history is cut from its
oldest turn on when it no longer fits the length the model was trained at, and `notify` is told.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from nanochat.engine.calculator import MAX_CHARS, calculate
from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.errors import ConfigError
from nanochat.tokenizer.bpe import SPECIALS, Tokenizer
from nanochat.tokenizer.chat import render_for_completion

SHOWN = {
    "<|python_start|>": "[python: ",
    "<|python_end|>": "]",
    "<|output_start|>": " [output: ",
    "<|output_end|>": "] ",
}
# no longer than the calculator reads: else a text of many beginnings would take time that grows with its square
SHOWN_CALL = re.compile(rf"\[python: ([^\n]{{0,{MAX_CHARS}}}?)\] \[output: ([^\n\]]*)\] ?")
PART_AFTER = {"<|python_start|>": "python", "<|output_start|>": "python_output"}


class ChatSession:
    """A conversation under way.

    messages    its history, in the form that the tokenizer renders
    forgotten   turns that no longer fit the context; they are part of the transcript only
    finish      how the last answer ended: "stop" by itself, "length" at its longest, "stopped" from outside
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, *, system: str | None = None, notify: Callable[[str], None]
    ) -> None:
        """`system` stays in front of the history for ever; `notify` is told of turns that had to be forgotten."""
        self.engine = engine
        self.tokenizer = tokenizer
        self.notify = notify
        self.messages: list[dict[str, Any]] = []
        self.forgotten: list[dict[str, Any]] = []
        self.finish: str | None = None
        self._system = 0
        self._replies = 0
        self.set_system(system)

    def clear(self) -> None:
        """Forget all turns, not the system message."""
        del self.messages[self._system :]
        self.forgotten = []

    def set_system(self, text: str | None) -> None:
        """Another system message, or none, for the answers to come."""
        self.messages[: self._system] = [{"role": "system", "content": text}] if text else []
        self._system = 1 if text else 0

    def undo(self) -> str | None:
        """Takes the last question and its answer back and returns the question; None if nothing was said."""
        if len(self.messages) == self._system:
            return None
        question = str(self.messages[-2]["content"])
        del self.messages[-2:]
        return question

    def transcript(self) -> list[dict[str, Any]]:
        """What was said since the start, forgotten turns included, as the task custom_json reads it.

        Turns without an answer are left out; an answer without a tool call is plain text.
        """
        turns = [*self.forgotten, *self.messages[self._system :]]
        pairs = zip(turns[::2], turns[1::2], strict=True)
        kept = [message for pair in pairs if _says_something(pair[1]) for message in pair]
        return [*self.messages[: self._system], *map(_plain, kept)] if kept else []

    def reply(
        self, user_text: str, params: SamplingParams, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[str]:
        """The answer in pieces of text. It joins the history when the iterator ends, or as far as it got when closed.

        `stopped` is asked after each token whether to end there. Raises ConfigError if the message alone does not fit
        the context; it then leaves no trace in the history.
        """
        turns, prompt, dropped = self._fitted({"role": "user", "content": user_text}, params.max_new_tokens)
        room = min(params.max_new_tokens, self._context - len(prompt))
        seed = params.seed + self._replies  # asking the same twice may give two answers
        columns = self.engine.generate(prompt, replace(params, max_new_tokens=room, seed=seed))
        self._accept(turns, dropped)
        stream, ids = TextStream(self.tokenizer), list[int]()
        try:
            for (token,) in columns:
                assert token is not None, "a single row ends with its stop token"
                ids.append(token.id)
                yield from stream.push(token.id)
                if stopped():
                    break
            yield from stream.finish()
        finally:
            self.finish = self._how_it_ended(ids, room)
            self.messages.append({"role": "assistant", "content": parts_of(self.tokenizer, ids)})

    @property
    def _context(self) -> int:
        return self.engine.model.dims.seq_len

    def _accept(self, turns: list[dict[str, Any]], dropped: int) -> None:
        """The history is now `turns`, which lack the `dropped` oldest messages; it is said if there are any."""
        self.forgotten += self.messages[self._system :][:dropped]
        self.messages[self._system :] = turns
        self._replies += 1
        if dropped:
            count = f"the {dropped // 2} oldest turns are" if dropped > 2 else "the oldest turn is"
            self.notify(f"(the context of {self._context} tokens is full: {count} forgotten)")

    def _how_it_ended(self, ids: list[int], room: int) -> str:
        if ids and ids[-1] in (self.tokenizer.special("<|assistant_end|>"), self.tokenizer.bos):
            return "stop"
        return "length" if len(ids) >= room else "stopped"

    def _fitted(self, message: dict[str, Any], max_new_tokens: int) -> tuple[list[dict[str, Any]], list[int], int]:
        """The turns with `message`, oldest ones dropped until the answer has room; the prompt; how many were dropped.

        An answer that asks for more than half the context is given half of it at least.
        """
        limit = self._context - min(max_new_tokens, self._context // 2)
        turns, dropped = [*self.messages[self._system :], message], 0
        system = self.messages[: self._system]
        while len(ids := render_for_completion(self.tokenizer, {"messages": system + turns})) > limit:
            if len(turns) == 1:
                raise ConfigError(f"the message makes a prompt of {len(ids)} tokens; at most {limit} fit, shorten it")
            turns, dropped = turns[2:], dropped + 2
        return turns, ids, dropped


class TextStream:
    """Token ids in, printable text out; bytes of an unfinished character wait for the next token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """A stream that has seen nothing."""
        self._tokenizer = tokenizer
        self._specials = _special_names(tokenizer)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> Iterator[str]:
        """The text that this token completes, if any. Special tokens are shown as in SHOWN, or not at all."""
        if token in self._specials:
            text = self._decoder.decode(b"", final=True) + SHOWN.get(self._specials[token], "")
            self._decoder.reset()
        else:
            text = self._decoder.decode(self._tokenizer.decode_bytes([token]))
        if text:
            yield text

    def finish(self) -> Iterator[str]:
        """What is left of an unfinished character."""
        if text := self._decoder.decode(b"", final=True):
            yield text


def parts_of(tokenizer: Tokenizer, ids: list[int]) -> list[dict[str, str]]:
    """Generated ids -> message parts {"type": "text" | "python" | "python_output", "text"}; empty parts left out."""
    names, kind = _special_names(tokenizer), "text"
    runs: list[tuple[str, list[int]]] = [(kind, [])]
    for token in ids:
        if token in names:
            kind = PART_AFTER.get(names[token], "text")
            runs.append((kind, []))
        else:
            runs[-1][1].append(token)
    return [{"type": kind, "text": tokenizer.decode(run)} for kind, run in runs if run]


def parts_of_shown(text: str) -> str | list[dict[str, str]]:
    """An answer as TextStream shows it -> message parts, so that the model reads its own tool calls as it wrote them.

    Only what the calculator really says becomes a call: text that merely looks like one stays text.
    """
    parts, end, at = list[dict[str, str]](), 0, 0
    while found := SHOWN_CALL.search(text, at):
        expression, output = found.groups()
        at = found.start() + 1  # a call may begin within what only looked like one
        if calculate(expression) != output:
            continue
        parts.append({"type": "text", "text": text[end : found.start()]})
        parts += [{"type": "python", "text": expression}, {"type": "python_output", "text": output}]
        end = at = found.end()
    if not parts:
        return text
    return [part for part in [*parts, {"type": "text", "text": text[end:]}] if part["text"]]


def _says_something(message: dict[str, Any]) -> bool:
    return any(part["text"].strip() for part in message["content"])


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Parts that are all text as one string."""
    content = message["content"]
    if isinstance(content, str) or any(part["type"] != "text" for part in content):
        return message
    return {**message, "content": "".join(part["text"] for part in content)}


def _special_names(tokenizer: Tokenizer) -> dict[int, str]:
    return {tokenizer.special(name): name for name in SPECIALS}

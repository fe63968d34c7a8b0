"""A conversation with a model: history in, text out piece by piece, tool calls shown in brackets.

Notable: a character may be split over tokens, so bytes are decoded incrementally; the history is cut from its
oldest turn on when it no longer fits the length the model was trained at, and `notify` is told.
"""

import codecs
from collections.abc import Callable, Iterator
from typing import Any

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
PART_AFTER = {"<|python_start|>": "python", "<|output_start|>": "python_output"}


class ChatSession:
    """A conversation under way. `messages` is its history, in the form that the tokenizer renders."""

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer, *, system: str | None = None, notify: Callable[[str], None]
    ) -> None:
        """`system` stays in front of the history for ever; `notify` is told of turns that had to be forgotten."""
        self.engine = engine
        self.tokenizer = tokenizer
        self.notify = notify
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self._system = len(self.messages)

    def clear(self) -> None:
        """Forget all turns, not the system message."""
        del self.messages[self._system :]

    def reply(self, user_text: str, params: SamplingParams) -> Iterator[str]:
        """The answer in pieces of text. It joins the history when the iterator ends, or as far as it got when closed.

        Raises ConfigError if the message alone does not fit the context; it then leaves no trace in the history.
        """
        messages, prompt = self._fitted({"role": "user", "content": user_text}, params.max_new_tokens)
        stream, ids = TextStream(self.tokenizer), list[int]()
        columns = self.engine.generate(
            prompt,
            max_new_tokens=min(params.max_new_tokens, self._context - len(prompt)),
            temperature=params.temperature,
            top_k=params.top_k,
            seed=params.seed + len(messages),  # asking the same twice may give two answers
        )
        self.messages = messages
        try:
            for (token,) in columns:
                assert token is not None, "a single row ends with its stop token"
                ids.append(token.id)
                yield from stream.push(token.id)
            yield from stream.finish()
        finally:
            self.messages.append({"role": "assistant", "content": parts_of(self.tokenizer, ids)})

    @property
    def _context(self) -> int:
        return self.engine.model.dims.seq_len

    def _fitted(self, message: dict[str, Any], max_new_tokens: int) -> tuple[list[dict[str, Any]], list[int]]:
        """The history with `message`, oldest turns dropped until the answer has room, and its token ids.

        An answer that asks for more than half the context is given half of it at least.
        """
        limit = self._context - min(max_new_tokens, self._context // 2)
        turns, dropped = [*self.messages[self._system :], message], 0
        system = self.messages[: self._system]
        while len(ids := render_for_completion(self.tokenizer, {"messages": system + turns})) > limit:
            if len(turns) == 1:
                raise ConfigError(f"the message makes a prompt of {len(ids)} tokens; at most {limit} fit, shorten it")
            turns, dropped = turns[2:], dropped + 1
        if dropped:
            self.notify(f"(the context of {self._context} tokens is full: the {dropped} oldest turns are forgotten)")
        return system + turns, ids


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


def _special_names(tokenizer: Tokenizer) -> dict[int, str]:
    return {tokenizer.special(name): name for name in SPECIALS}

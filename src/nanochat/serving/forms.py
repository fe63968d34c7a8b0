"""The JSON of answers, whole and in chunks, as OpenAI's clients expect it for either endpoint.

| endpoint    | whole             | chunk                   | text of a choice in whole / chunk |
|-------------|-------------------|-------------------------|-----------------------------------|
| chat        | chat.completion   | chat.completion.chunk   | message.content / delta.content   |
| completions | text_completion   | text_completion         | text / text                       |
"""

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from nanochat.serving.choice import Finish

Body = dict[str, Any]
DONE = b"data: [DONE]\n\n"


class Form:
    """The frame that all parts of one answer share. `usage` of a stream: whether every chunk has the field."""

    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, model: str, *, usage: bool) -> None:
        """An answer with an id of its own, made now."""
        self._usage = usage
        self._frame = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, texts: Sequence[str], finishes: Sequence[Finish | None], usage: dict[str, int]) -> Body:
        """The answer in one piece."""
        ends = zip(texts, finishes, strict=True)
        choices = [self._whole_choice(i, text, finish) for i, (text, finish) in enumerate(ends)]
        return {**self._frame, "object": self.whole_object, "choices": choices, "usage": usage}

    def opening(self, index: int) -> Body | None:
        """What a choice's stream begins with, before any text."""
        return None

    def text(self, index: int, text: str) -> Body:
        """A piece of a choice."""
        return self._chunk([self._chunk_choice(index, text, None)])

    def end(self, index: int, finish: Finish) -> Body:
        """The end of a choice: no text, its finish_reason."""
        return self._chunk([self._chunk_choice(index, "", finish)])

    def counts(self, usage: dict[str, int]) -> Body:
        """The last chunk, if the counts were asked for: it belongs to no choice."""
        return {**self._chunk([]), "usage": usage}

    def _chunk(self, choices: list[Body]) -> Body:
        chunk = {**self._frame, "object": self.chunk_object, "choices": choices}
        return {**chunk, "usage": None} if self._usage else chunk

    def _whole_choice(self, index: int, text: str, finish: Finish | None) -> Body:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}

    def _chunk_choice(self, index: int, text: str, finish: Finish | None) -> Body:
        return self._whole_choice(index, text, finish)


class ChatForm(Form):
    """As above, for conversations: the role comes first."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, index: int) -> Body:
        """The role, with empty content."""
        return self._chunk([self._delta(index, {"role": "assistant", "content": ""}, None)])

    def _whole_choice(self, index: int, text: str, finish: Finish | None) -> Body:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}

    def _chunk_choice(self, index: int, text: str, finish: Finish | None) -> Body:
        return self._delta(index, {"content": text} if finish is None else {}, finish)

    def _delta(self, index: int, delta: Body, finish: Finish | None) -> Body:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def event(body: Body) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

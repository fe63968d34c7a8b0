"""One answer being put together: tokens in, text out, until it ends.

Notable: tokens go through one by one, whatever number arrives together, so that text, count and end are the same
with and without streaming. A token counts if the answer holds it: the tool's output does, the token that
ends the answer does not.
"""

from collections.abc import Sequence
from typing import Literal

from nanochat.engine.chat import TextStream
from nanochat.serving.stops import StopFilter
from nanochat.tokenizer.bpe import Tokenizer

Finish = Literal["stop", "length"]


class Choice:
    """The answer's text comes out of `push`; `finish_reason` is None while it goes on, `tokens` its length so far."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        """An answer that has not begun."""
        self._text = TextStream(tokenizer)
        self._stops = StopFilter(stops)
        self.tokens = 0
        self.finish_reason: Finish | None = None

    def push(self, ids: Sequence[int], finish: str | None) -> str:
        """The text that these ids add. `finish` is the engine's word on the sequence: "stop", "length" or None."""
        shown = []
        for i, token in enumerate(ids):
            if self.finish_reason is not None:
                break
            if finish == "stop" and i == len(ids) - 1:
                break  # the stop token
            self.tokens += 1
            shown.append(self._stops.push("".join(self._text.push(token))))
            if self._stops.stopped:
                self.finish_reason = "stop"
        if finish is not None and self.finish_reason is None:
            shown.append(self._end(finish))
        return "".join(shown)

    def _end(self, finish: str) -> str:
        rest = self._stops.push("".join(self._text.finish()))
        by_string = self._stops.stopped
        self.finish_reason = "length" if finish == "length" and not by_string else "stop"
        return rest + self._stops.finish()

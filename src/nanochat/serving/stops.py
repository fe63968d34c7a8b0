"""Stop strings: text goes through, and ends before the first of them.

Notable: a stop string may arrive in several pieces, so the end of the text is held back for as long as it could be
the beginning of one. The result does not depend on how the text was cut: the stop string that is complete first
counts (the longest of those that end at the same character).
"""

from collections.abc import Sequence


class StopFilter:
    """`push` returns the text that is certain to be part of the answer; `stopped` once a stop string came."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Empty stop strings are not allowed."""
        assert all(stops), "an empty stop string would stop everywhere"
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The next piece in, what may be shown out."""
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, when nothing follows it any more."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)

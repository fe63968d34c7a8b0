"""How many different words a text has, from a sample; what `tokenizers` needs to learn from them.

Notable: the learner streams the text and keeps its words, each once with a count. Its memory follows the distinct
words, which grow with a power of the text's length (Heaps 1978): measured on English, 0.5. Text without blanks between
words is another matter, since a whole phrase counts as one word; hence the estimate.
"""

import math
import re

# Peak memory of `tokenizers` 0.23 per byte of the distinct words, in UTF-8: 114 to 157 on texts of 1 to 11 MB of words.
MEMORY_PER_BYTE = 140
_WORD = re.compile(r" ?[^\W\d_]+|[^\w\s]+")  # near the split pattern, which `re` cannot read
_EVERY = 16  # one document in so many is looked at
_MOST = 400_000  # words of the sample; what comes after is extrapolated
_DENSE = 1.02  # growth of the sample between two points that are kept


class WordGrowth:
    """Fed with the documents as they are read."""

    def __init__(self, every: int = _EVERY) -> None:
        """`every`: one document in so many is looked at."""
        self._every = every
        self._documents = 0
        self.chars = 0
        self._words: set[str] = set()
        self._points = [(0, 0, 0)]  # characters, words, bytes of words: of the sample

    def add(self, text: str) -> None:
        """Counts one document."""
        self.chars += len(text)
        if self._documents % self._every == 0 and len(self._words) < _MOST:
            self._look(text)
        self._documents += 1

    def _look(self, text: str) -> None:
        chars, _, size = self._last
        new = set(_WORD.findall(text)) - self._words
        self._words |= new
        self._last = (chars + len(text), len(self._words), size + sum(len(word.encode()) for word in new))
        if self._last[0] > self._points[-1][0] * _DENSE:
            self._points.append(self._last)

    _last: tuple[int, int, int] = (0, 0, 0)

    @property
    def words(self) -> int:
        """Distinct words of all that was read, about."""
        return round(self._extrapolated(1))

    @property
    def memory(self) -> int:
        """Bytes of memory that learning from all that was read takes, about."""
        return round(self._extrapolated(2) * MEMORY_PER_BYTE)

    def _extrapolated(self, column: int) -> float:
        """Heaps' law, its exponent from the second half of the sample."""
        chars, value = self._last[0], self._last[column]
        if chars == 0:
            return 0.0
        half = max((point for point in self._points if point[0] <= chars / 2), default=(0, 0, 0))
        if half[column] == 0:
            return value * self.chars / chars
        exponent = math.log(value / half[column]) / math.log(chars / half[0])
        return float(value * (self.chars / chars) ** min(exponent, 1.0))

"""Refuses a conversation that says what an earlier one said, in the same words or nearly.

Two texts are compared by the share of five-character pieces that they have in common (Jaccard), after case, blanks
and punctuation are taken away; pieces of characters serve every language. Candidates are found by MinHash (Broder
1997): 16 bands of 4, which finds a pair at the bound of 0.8 with a probability above 0.999. Candidates are then
compared exactly.
"""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nanochat.synthesis.parse import Refused
from nanochat.tasks.base import Content, Conversation

BOUND = 0.8  # Jaccard from which on two conversations are the same
PIECE = 5  # characters
BANDS, ROWS = 16, 4


class Duplicates:
    """The conversations accepted so far, as sets of pieces."""

    def __init__(self) -> None:
        """None yet. The hash functions are fixed: the same conversations are refused in every run."""
        rng = np.random.default_rng(0)
        self._factors = rng.integers(1, 2**63, BANDS * ROWS, dtype=np.uint64) | np.uint64(1)
        self._offsets = rng.integers(0, 2**63, BANDS * ROWS, dtype=np.uint64)
        self._exact: set[str] = set()
        self._pieces: list[frozenset[int]] = []
        self._bands: dict[tuple[int, bytes], list[int]] = defaultdict(list)

    def add(self, conversation: Conversation) -> None:
        """Remembers it. Raises Refused if it was there already, exactly or nearly."""
        text = normalised(conversation)
        if text in self._exact:
            raise Refused("exact duplicate")
        pieces = pieces_of(text)
        keys = list(self._keys(pieces))
        candidates = {number for key in keys for number in self._bands.get(key, ())}
        if any(jaccard(pieces, self._pieces[number]) >= BOUND for number in candidates):
            raise Refused("near duplicate")
        for key in keys:
            self._bands[key].append(len(self._pieces))
        self._exact.add(text)
        self._pieces.append(pieces)

    def _keys(self, pieces: frozenset[int]) -> Iterator[tuple[int, bytes]]:
        """One key a band: equal keys make two texts candidates."""
        hashes = np.fromiter(pieces, dtype=np.uint64, count=len(pieces))
        mixed = hashes[:, None] * self._factors + self._offsets  # modulo 2^64
        smallest: npt.NDArray[np.uint64] = (mixed ^ (mixed >> np.uint64(29))).min(axis=0)
        for band in range(BANDS):
            yield band, smallest[band * ROWS : (band + 1) * ROWS].tobytes()


def normalised(conversation: Conversation) -> str:
    """Letters and digits in small, one blank between words, a line for each message."""
    return "\n".join(_normal(text_of(message["content"])) for message in conversation["messages"])


def text_of(content: Content) -> str:
    """The text of a message, that of its parts joined."""
    return content if isinstance(content, str) else " ".join(part["text"] for part in content)


def _normal(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def pieces_of(text: str) -> frozenset[int]:
    """64-bit hashes of all pieces; a short text is one piece."""
    parts = {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}
    return frozenset(int.from_bytes(hashlib.blake2b(p.encode(), digest_size=8).digest(), "little") for p in parts)


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Share of the pieces of both that both have."""
    return len(a & b) / len(a | b)

"""The tokenizer: byte-level BPE, given as a table of ranks and encoded by tiktoken.

Notable:
* A token *is* its bytes. Its id is its rank, the order in which the merges were learnt, and the nine special
  tokens take the last ids. Nothing here goes through str to find the bytes of a token.
* Text never becomes a special token. "<|bos|>" typed by a user is a few ordinary tokens; only `special()`
  gives the real one.
* On disk it is data: `tokenizer.json` (split pattern, specials, ranks in base64) and `token_bytes.json`. No pickle.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tiktoken

from nanochat.errors import CorruptError, MismatchError, MissingError
from nanochat.tracking.atomic import write_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# GPT-4's split pattern with digit runs of at most 2 instead of 3, which suits small vocabularies.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)

# The same splits in two thirds of the time (2,000 documents of English): a possessive quantifier or a look-ahead keeps
# tiktoken's regex engine (fancy-regex) from handing a branch to the automaton below it, so the branches without one
# stand in a group of their own. Without `?+` and `++` the matches are those with them: what the
# quantified class takes can never be taken by what follows, so there was nothing to go back for.
FAST_PATTERN = (
    r"(?:'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n])|\s+(?!\S)|\s+"
)

SPECIALS = (
    "<|bos|>",  # in front of every document and conversation
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",  # the assistant calls the tool
    "<|python_end|>",
    "<|output_start|>",  # the tool answers
    "<|output_end|>",
)

TOKENIZER_FILE = "tokenizer.json"
TOKEN_BYTES_FILE = "token_bytes.json"
FORMAT = "nanochat-bpe-1"
RETRAIN = "Delete the folder and train again with `nanochat stage=tokenizer`."

# tiktoken's regex engine backtracks over a whole run of blanks; found by trying, its stack holds a run of 600,000
# and overflows (a panic) at 1,000,000. Longer runs are cut before it sees them.
MAX_BLANK_RUN = 100_000
LONG_BLANKS = re.compile(rf"(\s{{{MAX_BLANK_RUN}}})")


class Tokenizer:
    """Text to ids and back. `ranks` maps the bytes of each ordinary token to its id, 0 .. len(ranks)-1."""

    def __init__(self, ranks: dict[bytes, int]) -> None:
        """Raises CorruptError if a byte has no token or the ids leave gaps."""
        check_ranks(ranks)
        self._tokens = sorted(ranks, key=ranks.__getitem__)
        self._specials = {name: len(ranks) + i for i, name in enumerate(SPECIALS)}
        self._encoding = tiktoken.Encoding(
            "nanochat", pat_str=FAST_PATTERN, mergeable_ranks=ranks, special_tokens=self._specials
        )

    @property
    def vocab_size(self) -> int:
        """Number of ids, the nine specials included."""
        return len(self._tokens) + len(SPECIALS)

    @property
    def bos(self) -> int:
        """The id that begins every document and conversation."""
        return self._specials["<|bos|>"]

    @property
    def token_bytes(self) -> list[int]:
        """Number of raw bytes of each id, (vocab_size,); 0 for specials. What bits per byte divides by."""
        return [len(token) for token in self._tokens] + [0] * len(SPECIALS)

    def special(self, name: str) -> int:
        """The id of one of SPECIALS; KeyError for any other name."""
        return self._specials[name]

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, read as ordinary text whatever it contains. No bos is added."""
        if len(text) <= MAX_BLANK_RUN:
            return self._encoding.encode_ordinary(text)
        return [token for piece in LONG_BLANKS.split(text) for token in self._encoding.encode_ordinary(piece)]

    def encode_array(self, text: str) -> "npt.NDArray[np.uint32]":
        """`encode` as an array, a twentieth faster: no list of Python numbers is made on the way."""
        if len(text) <= MAX_BLANK_RUN:
            try:
                return self._encoding.encode_to_numpy(text, disallowed_special=())
            except UnicodeEncodeError:
                pass  # half of a surrogate pair, for which `encode` has an answer
        import numpy as np  # who only looks at a tokenizer does without it

        return np.array(self.encode(text), np.uint32)

    def encode_batch(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """`encode` of each text, in order. tiktoken lets go of the GIL, so threads do help."""
        if num_threads <= 1:
            return [self.encode(text) for text in texts]
        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(self.encode, texts))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; specials by their names, bytes that are not UTF-8 as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of `ids`: what a stream needs, since a character may span two tokens. KeyError for no id."""
        return self._encoding.decode_bytes(ids)

    def fingerprint(self) -> str:
        """sha256 (hex) of everything that decides which ids a text gets."""
        return hashlib.sha256(json.dumps(self._as_data(), sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path, metadata: dict[str, Any] | None = None) -> None:
        """Write tokenizer.json and token_bytes.json into `folder`; `metadata` is kept and never read back."""
        folder.mkdir(parents=True, exist_ok=True)
        data = {**self._as_data(), "fingerprint": self.fingerprint(), "metadata": metadata or {}}
        write_json(folder / TOKEN_BYTES_FILE, self.token_bytes)
        write_json(folder / TOKENIZER_FILE, data)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read what `save` wrote. MissingError, CorruptError or MismatchError name the file."""
        path = folder / TOKENIZER_FILE
        if not path.is_file():
            raise MissingError(f"no tokenizer at {path}. Train one with `nanochat stage=tokenizer`.")
        data = read_data(path)
        tokenizer = cls(parse_ranks(data["ranks"], path))
        if data.get("fingerprint") != tokenizer.fingerprint():
            raise CorruptError(f"{path}: its contents do not match its fingerprint. {RETRAIN}")
        return tokenizer

    def _as_data(self) -> dict[str, Any]:
        ranks = [base64.b64encode(token).decode("ascii") for token in self._tokens]
        return {"format": FORMAT, "pattern": SPLIT_PATTERN, "specials": list(SPECIALS), "ranks": ranks}


def check_ranks(ranks: dict[bytes, int]) -> None:
    """Every byte is a token and the ids are 0 .. n-1, or CorruptError: then any text can be encoded and padded."""
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise CorruptError(f"tokenizer: the ids of its {len(ranks)} tokens are not 0 to {len(ranks) - 1}. {RETRAIN}")
    absent = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if absent:
        raise CorruptError(f"tokenizer: {len(absent)} single bytes have no token (the first: {absent[0]}). {RETRAIN}")


def read_data(path: Path) -> dict[str, Any]:
    """The JSON object of a tokenizer file, checked to be one that this code understands."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptError(f"{path}: not JSON ({error}). {RETRAIN}") from None
    if not isinstance(data, dict) or not isinstance(data.get("ranks"), list):
        raise CorruptError(f"{path}: not a tokenizer file (no list `ranks`). {RETRAIN}")
    expected = {"format": FORMAT, "pattern": SPLIT_PATTERN, "specials": list(SPECIALS)}
    for key, value in expected.items():
        if data.get(key) != value:
            raise MismatchError(f"{path}: `{key}` is {data.get(key)!r}, this version needs {value!r}. {RETRAIN}")
    return data


def parse_ranks(encoded: list[Any], path: Path) -> dict[bytes, int]:
    """base64 strings in the order of their ids -> ranks."""
    try:
        ranks = {base64.b64decode(token, validate=True): rank for rank, token in enumerate(encoded)}
    except (binascii.Error, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: a token in `ranks` is not base64 ({error}). {RETRAIN}") from None
    if len(ranks) != len(encoded):
        raise CorruptError(f"{path}: {len(encoded) - len(ranks)} tokens in `ranks` occur twice. {RETRAIN}")
    return ranks

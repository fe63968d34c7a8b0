"""Words for the spelling tasks, and which of them are kept for testing.

A word belongs to the test split by its hash alone: whatever list it comes from and whichever task uses it, a test
word is in no training conversation.
"""

import hashlib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from nanochat.errors import ConfigError, MissingError

TEST_SHARE = 10  # one word in this many is a test word
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = {"short": 6}  # letters of the longest word in each subset


def load_words(path: str | None, base_dir: Path) -> tuple[list[str], str]:
    """The words, each once, in the order of the file, and where they come from.

    `path` (data.word_list) if given, else `{base_dir}/words_alpha.txt` if there, else the packaged list. One word a
    line; lines that are not 2 or more of the letters a-z, in whatever case, are passed over.
    """
    if path is not None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise MissingError(f"data.word_list={path}: no such file. Give a text file with one word a line, or null.")
        return read_words(file), f"data.word_list ({file})"
    found = base_dir / "words_alpha.txt"
    if found.is_file():
        return read_words(found), str(found)
    packaged = files("nanochat.tasks") / "resources" / "words.txt"
    return clean(packaged.read_text(encoding="utf-8").splitlines()), "the packaged word list"


def read_words(file: Path) -> list[str]:
    """The words of a file; ConfigError if it holds none."""
    words = clean(file.read_text(encoding="utf-8", errors="replace").splitlines())
    if not words:
        raise ConfigError(f"data.word_list: {file} has no line that is a word of the letters a to z.")
    return words


def clean(lines: Iterable[str]) -> list[str]:
    """Lower-case words of a-z, at least two letters long, without repetition."""
    words = (line.strip().lower() for line in lines)
    return list(dict.fromkeys(word for word in words if len(word) > 1 and word.isascii() and word.isalpha()))


def is_test_word(word: str) -> bool:
    """True for about one word in TEST_SHARE, for ever the same ones."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % TEST_SHARE == 0


def words_of_split(words: Iterable[str], split: str) -> list[str]:
    """Those of `words` that `split` ("train" or "test") may use."""
    return [word for word in words if is_test_word(word) == (split == "test")]


def words_of_subset(words: Iterable[str], subset: str | None) -> list[str]:
    """Those of `words` in the subset: "short" are words of at most 6 letters; None is all of them."""
    return [word for word in words if subset is None or len(word) <= LONGEST[subset]]

"""Words for the spelling tasks, and which of them are kept for testing.

A word belongs to the test split by its hash alone: whatever list it comes from and whichever task uses it, a test
word is in no training conversation.
"""

import hashlib
import http.client
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

from nanochat.errors import ConfigError, MissingError
from nanochat.runtime.offline import offline_switch, within
from nanochat.tracking.atomic import write_shared

TEST_SHARE = 10  # one word in this many is a test word
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = {"short": 6}  # letters of the longest word in each subset
PACKAGED = "packaged"  # what data.word_list says for the list of the package
WORDS_FILE = "words_alpha.txt"
# github.com/dwyl/english-words: 370,105 lines, 3.9 MB
WORDS_URL = "https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master/words_alpha.txt"
MIN_WORDS = 300_000  # a shorter answer is not that list
MIN_SHARE = 0.99  # of its lines that are words; the others are single letters
DOWNLOAD_SECONDS = 8.0  # in all; training does not wait longer for a better word list


def load_words(path: str | None, base_dir: Path, may_download: bool = False) -> tuple[list[str], str]:
    """The words, each once, in the order of the file, and where they come from.

    `path` (data.word_list) if given, else `{base_dir}/words_alpha.txt` if there, else that file from the network, else
    the packaged list. One word a line; lines that are not 2 or more of the letters a-z, in whatever case, are passed
    over.
    """
    if path == PACKAGED:
        return packaged_words(), "the packaged word list"
    if path is not None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise MissingError(
                f"data.word_list={path}: no such file. Give a text file with one word a line, a folder or file of text "
                f"whose words are taken (.parquet, .jsonl), {PACKAGED}, or null."
            )
        return read_words(file), f"data.word_list ({file})"
    found = base_dir / WORDS_FILE
    if found.is_file() or (may_download and download_words(found)):
        return read_words(found), str(found)
    return packaged_words(), f"the packaged word list (there is no {found})"


def packaged_words() -> list[str]:
    """The list that comes with the package."""
    packaged = files("nanochat.tasks") / "resources" / "words.txt"
    return clean(packaged.read_text(encoding="utf-8").splitlines())


def read_words(file: Path) -> list[str]:
    """The words of a file; ConfigError if it holds none."""
    stat = file.stat()
    words = _read(str(file.absolute()), stat.st_size, stat.st_mtime_ns)
    if not words:
        raise ConfigError(f"data.word_list: {file} has no line that is a word of the letters a to z.")
    return list(words)


@lru_cache(maxsize=2)  # every spelling task of a mixture reads the same file
def _read(path: str, size: int, mtime: int) -> tuple[str, ...]:
    return tuple(clean(Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()))


def clean(lines: Iterable[str]) -> list[str]:
    """Lower-case words of a-z, at least two letters long, without repetition."""
    words = (line.strip().lower() for line in lines)
    return list(dict.fromkeys(word for word in words if len(word) > 1 and word.isascii() and word.isalpha()))


def download_words(path: Path, url: str = WORDS_URL) -> bool:
    """Whether the list is now at `path`: it came in time, whole, and is one of words. Tried once a process."""
    data = None if offline_switch() is not None else fetch(url)
    if data is None or not is_word_list(data):
        return False
    write_shared(path, data)
    return True


@cache
def fetch(url: str, seconds: float = DOWNLOAD_SECONDS) -> bytes | None:
    """What is at `url`; None if it did not come whole within `seconds`."""

    def get() -> bytes | None:
        try:
            with urlopen(url, timeout=seconds) as answer:
                data: bytes = answer.read()
                length = answer.headers.get("Content-Length")
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return data if length is None or int(length) == len(data) else None

    return within(seconds, get)


def is_word_list(data: bytes) -> bool:
    """Whether it is long enough and nearly every line is a word: no page of an error, no half of a list."""
    lines = data.decode("ascii", errors="replace").splitlines()
    words = clean(lines)
    return len(words) >= MIN_WORDS and len(words) >= MIN_SHARE * len(lines)


def is_test_word(word: str) -> bool:
    """True for about one word in TEST_SHARE, for ever the same ones."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") % TEST_SHARE == 0


def words_of_split(words: Iterable[str], split: str) -> list[str]:
    """Those of `words` that `split` ("train" or "test") may use."""
    return [word for word in words if is_test_word(word) == (split == "test")]


def words_of_subset(words: Iterable[str], subset: str | None) -> list[str]:
    """Those of `words` in the subset: "short" are words of at most 6 letters; None is all of them."""
    return [word for word in words if subset is None or len(word) <= LONGEST[subset]]

"""`data.word_list` where it names text instead of a list: the words of a corpus, so that spelling is about words that
the model has read.

Notable: only words written small count, which leaves out names and abbreviations, and only those seen twice, which
leaves out most slips. The list is kept below {base_dir}/cache under a mark of the files that it was made from.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nanochat.data.files import READERS
from nanochat.errors import ConfigError
from nanochat.tracking.atomic import write_shared

_LIST = ".txt"  # a single file of this kind is a list of words; in a folder it is text like any other
_MAX_CHARS = 200_000_000  # of text counted; of a larger corpus its first files
_MIN_COUNT = 2
_WORD = re.compile(r"(?<![\w'’-])[a-z]{2,}(?![\w'’-])", re.ASCII)


def resolve_word_list(word_list: str | None, base_dir: Path) -> str | None:
    """The file of words to read: `word_list` itself, or a list made from the text it names, the most frequent first."""
    path = Path(word_list).expanduser() if word_list is not None else None
    if path is None or not (path.is_dir() or (path.is_file() and path.suffix in READERS and path.suffix != _LIST)):
        return word_list
    files = sorted(p for p in path.rglob("*") if p.suffix in READERS and p.is_file()) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"data.word_list={word_list} holds no file ending in {', '.join(READERS)}")
    made = base_dir / "cache" / "words" / f"{_mark(files)}.txt"
    if not made.is_file():
        write_shared(made, ("\n".join(count_words(files, word_list)) + "\n").encode("ascii"))
    return str(made)


def count_words(files: list[Path], name: str | None) -> list[str]:
    """Words by frequency, then by the alphabet. ConfigError if there is none."""
    counts: Counter[str] = Counter()
    left = _MAX_CHARS
    for text in _texts(files):
        counts.update(_WORD.findall(text))
        left -= len(text)
        if left <= 0:
            break
    words = sorted((word for word, count in counts.items() if count >= _MIN_COUNT), key=lambda w: (-counts[w], w))
    if not words:
        raise ConfigError(f"data.word_list={name}: its text has no word of a to z that occurs {_MIN_COUNT} times")
    return words


def _texts(files: list[Path]) -> Iterator[str]:
    for path in files:
        file = READERS[path.suffix](path)
        for block in range(len(file.block_sizes)):
            yield from file.read_block(block)


def _mark(files: list[Path]) -> str:
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:24]

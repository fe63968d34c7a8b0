"""Training a tokenizer under supervision: progress on the screen, an end on Ctrl-C, an end before memory is.

Notable: the learner is one long call into Rust, which neither a signal nor an exception ends. So it runs in a thread of
its own, and this one waits; the thread is a daemon, and the process does not wait for it.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nanochat.errors import Interrupted, NanochatError
from nanochat.runtime.host_memory import available_memory, peak_memory
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.train import train_bpe
from nanochat.tokenizer.words import WordGrowth
from nanochat.tracking.console import Console, format_count, format_seconds

_LOOK = 0.2  # seconds between looks at the progress
_LINE_EVERY = 30.0  # seconds between progress lines off a terminal
_SHARE = 0.9  # of the memory that is free


@dataclass(frozen=True)
class Learned:
    """The tokenizer and what it was learnt from. `words` is an estimate, `peak` bytes of the whole process."""

    tokenizer: Tokenizer
    chars: int
    words: int
    seconds: float
    peak: int


class _Reading:
    """The texts on their way to the learner, counted."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.growth = WordGrowth()
        self.done = False
        self.stop = False
        self._limit = available_memory()

    def __iter__(self) -> Iterator[str]:
        for number, text in enumerate(self._texts):
            if self.stop:
                return
            self.growth.add(text)
            if number % 1024 == 0:
                self._check_memory()
            yield text
        self.done = True

    def _check_memory(self) -> None:
        need, chars = self.growth.memory, self.growth.chars
        if self._limit is not None and need > self._limit * _SHARE:
            raise NanochatError(
                f"tokenizer.max_chars: {chars:,} characters in, the text has about {self.growth.words:,} different "
                f"words, and to learn from them takes about {need / 1e9:.1f} GB of memory, where "
                f"{self._limit / 1e9:.1f} GB are free; set tokenizer.max_chars={chars * 3 // 4}"
            )


def learn(texts: Iterable[str], vocab_size: int, max_chars: int, console: Console) -> Learned:
    """Trains on `texts`. Raises Interrupted on Ctrl-C, NanochatError for too little text or memory."""
    reading, began = _Reading(texts), time.perf_counter()
    results: list[Tokenizer] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(train_bpe(reading, vocab_size))
        except BaseException as error:  # carried to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        _wait(thread, reading, max_chars, vocab_size, console)
    except KeyboardInterrupt:
        reading.stop = True
        raise Interrupted(
            f"stopped after {reading.growth.chars:,} characters; of a tokenizer nothing is kept, and the same command "
            f"begins anew (tokenizer.max_chars= makes it shorter)"
        ) from None
    finally:
        console.end_progress(keep=False)
    if errors:
        raise errors[0]
    seconds = time.perf_counter() - began
    return Learned(results[0], reading.growth.chars, reading.growth.words, seconds, peak_memory())


def _wait(thread: threading.Thread, reading: _Reading, max_chars: int, vocab_size: int, console: Console) -> None:
    """Until the thread ends; says how far it is."""
    began = shown = time.monotonic()
    while thread.is_alive():
        thread.join(_LOOK)
        now = time.monotonic()
        due = now - shown >= _LINE_EVERY
        shown = now if due else shown
        console.status(_progress(reading, max_chars, vocab_size, now - began), due)


def _progress(reading: _Reading, max_chars: int, vocab_size: int, seconds: float) -> str:
    chars = reading.growth.chars
    if reading.done:
        words = format_count(reading.growth.words)
        return f"learning {vocab_size:,} tokens from about {words} different words  {format_seconds(seconds)}"
    rate = format_count(chars / max(seconds, 1e-9))
    return f"read {format_count(chars)} of at most {format_count(max_chars)} characters  {rate}/s"

"""What a run shows: messages, and a progress line that stays in place on a terminal.

Notable: only the main rank shows anything. Not on a terminal, progress is a plain line every so many
steps. log.txt gets every message, and progress at that same interval, with the time and without colours.
"""

import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TextIO

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ERASE_LINE = "\r\x1b[K"


@dataclass(frozen=True)
class StepLine:
    """One step as shown. `mfu` is a fraction of the device's peak; None where the peak is unknown."""

    step: int
    total: int
    loss: float
    lr_factor: float
    tokens_per_second: float
    mfu: float | None
    eta_seconds: float | None


def format_count(number: float) -> str:
    """12, 1.2k, 3.4M, 5.6B: three significant digits."""
    for bound, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= bound * 0.9995:
            return f"{number / bound:.3g}{unit}"
    return f"{number:.3g}"


def format_seconds(seconds: float) -> str:
    """42s, 3m05s, 2h03m, 4d07h: the two largest units."""
    whole = round(seconds)
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for (unit, size), (below, small) in pairwise(units):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small:02d}{below}"
    return f"{whole}s"


def format_step(line: StepLine) -> str:
    """The progress line: step, loss, learning-rate factor, tokens/s, MFU, ETA."""
    width = len(str(line.total))
    mfu = "-" if line.mfu is None else f"{100 * line.mfu:.1f}%"
    eta = "-" if line.eta_seconds is None else format_seconds(line.eta_seconds)
    return (
        f"step {line.step:>{width}}/{line.total}  loss {line.loss:.4f}  lr x{line.lr_factor:.3f}  "
        f"{format_count(line.tokens_per_second)} tok/s  mfu {mfu}  eta {eta}"
    )


class Console:
    """Screen and log.txt of one process."""

    def __init__(
        self, log_path: Path | None, is_main: bool, *, stream: TextIO | None = None, plain_every: int = 10
    ) -> None:
        """`log_path` None: no log. `plain_every`: steps between progress lines in the log and off a terminal."""
        self._stream = stream if stream is not None else sys.stdout
        self._log_path = log_path
        self._is_main = is_main
        self._plain_every = plain_every
        self._on_terminal = self._stream.isatty()
        self._line_shown = False

    def say(self, text: str) -> None:
        """Print a message (a table too) and append it to the log."""
        if not self._is_main:
            return
        self.end_progress(keep=False)
        self._print(text + "\n")
        self._append(text)

    def progress(self, line: StepLine) -> None:
        """Show a step: in place on a terminal, else a plain line at the first, last and every n-th step."""
        self.status(format_step(line), line.step in (1, line.total) or line.step % self._plain_every == 0)

    def status(self, text: str, due: bool) -> None:
        """Show how far something is: in place on a terminal, else a plain line where one is due; the log gets those."""
        if not self._is_main:
            return
        if self._on_terminal:
            columns = shutil.get_terminal_size().columns
            self._print(ERASE_LINE + text[: columns - 1])  # a wrapped line could not be erased
            self._line_shown = True
        elif due:
            self._print(text + "\n")
        if due:
            self._append(text)

    def end_progress(self, keep: bool = True) -> None:
        """Leave the progress line: keep it and go to the next line, or erase it."""
        if self._line_shown:
            self._print("\n" if keep else ERASE_LINE)
        self._line_shown = False

    def _print(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            self._go_on_unseen()

    def _go_on_unseen(self) -> None:
        """Whoever read the output has gone (`| head`, a lost connection): the run goes on, and log.txt tells of it."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # the descriptor too: Python writes what is left there when it ends
        os.close(nowhere)

    def _append(self, text: str) -> None:
        if self._log_path is None:
            return
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {COLOUR.sub('', text)}\n")

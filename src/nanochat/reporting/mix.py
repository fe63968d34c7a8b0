"""A mixture as text: the table of its tasks, how its rows are filled, and conversations with their loss mask.

Notable: what comes from a sample is marked with ~. On a terminal the mask is shown by colour, elsewhere (and with
NO_COLOR) supervised tokens stand in [[ ]]. Control characters of a conversation are shown, never sent to the terminal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from nanochat.data.survey import Survey, TaskCount
from nanochat.reporting.tables import MISSING, format_value, render_table
from nanochat.tokenizer.bpe import SPECIALS, Tokenizer
from nanochat.tracking.console import format_count

NORMAL = "\x1b[0m"
# (supervised, special) -> how it is shown on a terminal
COLOURS = {
    (True, False): "\x1b[1;32m",
    (True, True): "\x1b[32m",
    (False, False): "\x1b[2m",
    (False, True): "\x1b[2;36m",
}
LONG_SPAN = 320  # characters of one stretch of text that are shown; of a longer one the two ends
SPANS = 60  # stretches of a conversation that are shown


@dataclass(frozen=True)
class Shown:
    """A conversation of the mixture: where it is from, its tokens as trained on and its whole length."""

    task: str
    row: int
    ids: Sequence[int]
    mask: Sequence[int]
    length: int

    @property
    def supervised(self) -> int:
        """Number of its targets."""
        return sum(self.mask)


def task_table(survey: Survey, passes: Mapping[str, float], unit: str, width: int | None) -> str:
    """A line for each task and one for all. `width` None: not a terminal, one wide table; else as many as fit it."""
    total = survey.total
    amounts = ["rows", "%", "repeat", unit, "±%", "supervised", "%"]
    fates = ["mean", "longest", "dropped", "truncated", "unsupervised"]
    columns = ["task", *amounts, *fates]
    rows = [_line(name, count, total, passes.get(name)) for name, count in survey.tasks.items()]
    rows.append(_line("all", total, total, None))
    breaks = [1 + len(amounts)]
    if total.exact:  # then no number has an error
        columns, rows, breaks = _without(columns, 5), [_without(cells, 5) for cells in rows], [len(amounts)]
    if width is None:
        return render_table(columns, rows, terminal=False)
    return "\n\n".join(render_table(*part, terminal=True) for part in _fit(columns, rows, breaks, width))


def _line(name: str, count: TaskCount, total: TaskCount, passes: float | None) -> list[Any]:
    about = "" if count.exact else "~"
    fates = (count.dropped, count.truncated, count.unsupervised)
    return [
        name,
        count.conversations,
        _percent(count.conversations, total.conversations),
        passes if passes is None else f"{passes:.4g}",
        _amount(count.tokens, count.exact),
        MISSING if count.exact else _percent(count.error, count.tokens),
        _amount(count.supervised, count.exact),
        _share(count, total),
        f"{about}{count.length:,.0f}",
        ("" if count.exact else "≥") + f"{count.longest:,}",
        *(about + f"{number:,}" for number in fates),
    ]


def _share(count: TaskCount, total: TaskCount) -> str:
    """Of all supervised tokens; the whole is 100 however many were looked at."""
    return ("" if total.exact or count is total else "~") + _percent(count.supervised, total.supervised)


def _without(cells: list[Any], place: int) -> list[Any]:
    return cells[:place] + cells[place + 1 :]


def _amount(number: int, exact: bool) -> str:
    return f"{number:,}" if exact else f"~{format_count(number)}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else MISSING


Part = tuple[list[str], list[list[Any]]]


def _fit(columns: list[str], rows: list[list[Any]], breaks: Sequence[int], width: int) -> list[Part]:
    """The table, or several that fit into `width`, each with the first column; cut at `breaks`, or where it must."""
    whole = _slice(columns, rows, 1, len(columns))
    if _width(whole) <= width:
        return [whole]
    parts = []
    for start, end in pairwise([1, *breaks, len(columns)]):
        while start < end:
            last = end
            while last > start + 1 and _width(_slice(columns, rows, start, last)) > width:
                last -= 1
            parts.append(_slice(columns, rows, start, last))
            start = last
    return parts


def _slice(columns: list[str], rows: list[list[Any]], start: int, end: int) -> Part:
    return [columns[0], *columns[start:end]], [[row[0], *row[start:end]] for row in rows]


def _width(part: Part) -> int:
    """As drawn on a terminal: three blanks between columns, one at each side."""
    columns, rows = part
    widths = [max(len(format_value(line[i])) for line in (columns, *rows)) for i in range(len(columns))]
    return sum(widths) + 3 * (len(columns) - 1) + 2


def warnings(survey: Survey, key: str) -> list[str]:
    """Tasks that nothing is learnt from."""
    lost = [name for name, count in survey.tasks.items() if not count.supervised]
    if not lost:
        return []
    return [f"warning: {key}: {', '.join(lost)}: no token is learnt from, since all rows are too long for the context"]


def sampled_note(survey: Survey) -> list[str]:
    """What ~ means in the table; nothing where all was counted."""
    total = survey.total
    if total.exact:
        return []
    looked = f"{total.looked:,} of {total.conversations:,} rows"
    return [f"~ estimated from {looked}; ± is one standard error in percent; --exact counts all"]


def packing_note(survey: Survey, packing: str, size: int, unit: str) -> str:
    """How a pass fills rows of `size` tokens."""
    filled, about = survey.filled, "" if survey.total.exact else "~"
    said = f"packing {packing}: {about}{filled.rows:,} rows of {size:,} {unit} a pass, {100 * filled.used:.1f} % text"
    padding = 1 - filled.used
    said += f" and {100 * padding:.1f} % padding" if padding > 0.0005 else ", no padding"
    return said + (
        f"; {100 * filled.cropped:.1f} % of the text is cropped" if filled.cropped > 0 else "; nothing cropped"
    )


def show_conversation(tokenizer: Tokenizer, shown: Shown, colour: bool) -> str:
    """A heading, and the conversation with its mask."""
    said = f"{shown.task}, row {shown.row:,}: {len(shown.ids):,} tokens, {shown.supervised:,} supervised"
    said += f", cut from {shown.length:,}" if shown.length > len(shown.ids) else ""
    return f"{said}\n{masked_text(tokenizer, shown.ids, shown.mask, colour)}"


def masked_text(tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[int], colour: bool) -> str:
    """The text of `ids`, specials by name; where mask is 1 in green (others dim), or between [[ and ]]."""
    first_special = tokenizer.vocab_size - len(SPECIALS)
    runs = groupby(zip(ids, mask, strict=True), key=lambda pair: (pair[1] != 0, pair[0] >= first_special))
    pieces = [(key, _shorten(_visible(tokenizer.decode([token for token, _ in run])))) for key, run in runs]
    left_out = f" ... ({len(pieces) - SPANS} more pieces)" if len(pieces) > SPANS else ""
    pieces = pieces[:SPANS]
    if colour:
        return "".join(f"{COLOURS[key]}{text}{NORMAL}" for key, text in pieces) + left_out
    taught = groupby(pieces, key=lambda piece: piece[0][0])
    joined = ((supervised, "".join(text for _, text in run)) for supervised, run in taught)
    return "".join(f"[[{text}]]" if supervised else text for supervised, text in joined) + left_out


def _visible(text: str) -> str:
    """Control characters as escapes, so that no conversation can command the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def _shorten(text: str) -> str:
    if len(text) <= LONG_SPAN:
        return text
    head, tail = LONG_SPAN * 3 // 4, LONG_SPAN // 4
    return f"{text[:head]} ... ({len(text) - head - tail:,} characters) ... {text[-tail:]}"

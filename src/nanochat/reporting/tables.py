"""Tables: drawn by rich on a terminal, plain columns for a pipe or a file, Markdown for report.md.

Notable: the plain form has no rules, colours or wrapping, so that `grep`, `sort` and `cut` work on it.
"""

import sys
import time
from collections.abc import Sequence
from io import StringIO
from typing import Any

MISSING = "-"
BOLD, NORMAL = "\x1b[1m", "\x1b[0m"


def format_value(value: Any) -> str:
    """As shown in a cell: None is -, whole numbers get thousands separators, floats four significant digits."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return str(value)


def format_time(seconds: float) -> str:
    """Local date and time to the minute, from seconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _is_number(cell: str) -> bool:
    cell = cell.lstrip("~≥")  # an estimate, a lower bound
    return cell == MISSING or cell[:1].isdigit() or (cell[:1] in "-+." and cell[1:2].isdigit())


def _numeric_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers (or -), but for one word in ten at most, and are therefore aligned to the right."""
    words = [sum(not _is_number(row[i]) for row in rows) for i in range(len(columns))]
    return [bool(rows) and 10 * count <= len(rows) for count in words]


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None) -> str:
    right = _numeric_columns(columns, rows)
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    padded = (
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )
    return "\n".join([title, *padded] if title else padded)


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None) -> str:
    from rich.box import SIMPLE_HEAD  # rich takes a tenth of a second to import, so only on a terminal
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, to_right in zip(columns, _numeric_columns(columns, rows), strict=True):
        table.add_column(Text(column), justify="right" if to_right else "left", overflow="fold", no_wrap=to_right)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a cell's [brackets] are no markup
    buffer = StringIO()
    Console(file=buffer, force_terminal=True).print(table)
    heading = f"{BOLD}{title}{NORMAL}\n" if title else ""  # rich would wrap a title at the table's width
    return heading + buffer.getvalue().strip("\n")


def render_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None, terminal: bool | None = None
) -> str:
    """The table as text without a final newline. `terminal` None: whether standard output is one."""
    cells = [[format_value(value) for value in row] for row in rows]
    on_terminal = sys.stdout.isatty() if terminal is None else terminal
    return _drawn(columns, cells, title) if on_terminal else _plain(columns, cells, title)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The table for a Markdown file; bars and line breaks in cells are escaped."""
    cells = [[format_value(value).replace("|", "\\|").replace("\n", " ") for value in row] for row in rows]
    marks = ["---:" if right else "---" for right in _numeric_columns(columns, cells)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(columns), marks, *cells])

import re

import pytest

from nanochat.reporting.tables import format_value, markdown_table, render_table

ROWS = [("base/d4", 12, 0.123456), ("sft/d4", 1_234_567, None)]
COLUMNS = ["run", "n", "loss"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "true"), (1_234_567, "1,234,567"), (0.123456, "0.1235"), (123456.7, "123,457"),
     (2e-5, "2e-05"), (float("nan"), "nan"), (float("inf"), "inf"), (1e20, "1e+20"), ("a b", "a b"), ([1], "[1]")],
)  # fmt: skip
def test_values_in_cells(value: object, text: str) -> None:
    assert format_value(value) == text


def test_the_plain_table_is_aligned_and_has_no_colours_or_rules() -> None:
    assert render_table(COLUMNS, ROWS, title="Runs", terminal=False) == (
        "Runs\n"
        "run              n    loss\n"
        "base/d4         12  0.1235\n"
        "sft/d4   1,234,567       -"
    )  # fmt: skip


def test_a_long_cell_is_never_wrapped_in_the_plain_table() -> None:
    assert len(render_table(["a"], [["x" * 500]], terminal=False).splitlines()) == 2


def test_the_drawn_table_has_all_cells_and_takes_brackets_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    drawn = render_table(["task", "n"], [("[red]x[/red]", 1)], title="A title longer than its table", terminal=True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert plain.splitlines()[0] == "A title longer than its table"
    assert "[red]x[/red]" in plain and drawn != plain
    assert max(map(len, plain.splitlines())) <= 60


def test_an_empty_table_shows_its_columns() -> None:
    for terminal in (False, True):
        assert "loss" in render_table(COLUMNS, [], terminal=terminal)


def test_markdown_escapes_what_would_break_the_table() -> None:
    assert markdown_table(["key", "n"], [("a|b\nc", 1)]) == "| key | n |\n| --- | ---: |\n| a\\|b c | 1 |"

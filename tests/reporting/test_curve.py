"""The text curve: height follows the value, the axis is as long as the curve."""

from nanochat.reporting.curve import draw_curve


def columns(text: str) -> list[str]:
    """The drawn cells, column by column from the left, bottom cell first."""
    rows = [line.split("|", 1)[1] for line in text.split("\n") if "|" in line]
    return ["".join(row[i] for row in reversed(rows)) for i in range(len(rows[0]))]


def test_full_half_and_zero_height() -> None:
    full, half, zero = columns(draw_curve([1.0, 0.5, 0.0], last=3, height=4))
    assert full == "████"
    assert half == "██  "
    assert zero == "    "


def test_a_small_value_differs_from_zero() -> None:
    small, zero = columns(draw_curve([1e-6, 0.0], last=2))
    assert small.strip() and not zero.strip()


def test_a_falling_curve_never_rises() -> None:
    drawn = columns(draw_curve([1 - i / 40 for i in range(41)], last=41))
    filled = [sum(" ▁▂▃▄▅▆▇█".index(cell) for cell in column) for column in drawn]
    assert filled == sorted(filled, reverse=True)
    assert filled[0] == 6 * 8


def test_one_point_and_the_label_of_the_end() -> None:
    text = draw_curve([1.0], last=12345)
    assert text.endswith("12,345")
    assert len(columns(text)) == 1

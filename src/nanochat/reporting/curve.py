"""A curve in text, for terminals: one column a point, eighths of a character cell high."""

from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"


def draw_curve(values: Sequence[float], last: int, height: int = 6) -> str:
    """`values` in [0, 1] as `height` lines of text with an axis; `last` labels the right end.

    A value above 0 leaves at least a trace, so that it differs from 0.
    """
    eighths = [max(round(value * height * 8), 1 if value > 0 else 0) for value in values]
    lines = []
    for row in range(height - 1, -1, -1):
        label = "1.0" if row == height - 1 else "0.0" if row == 0 else ""
        cells = (_BLOCKS[min(8, max(0, e - row * 8))] for e in eighths)
        lines.append(f"{label:>4} |{''.join(cells)}")
    right = f"{last:,}"
    lines.append(f"     +{'-' * len(values)}")
    lines.append(f"      0{right:>{max(len(values) - 1, len(right) + 1)}}")
    return "\n".join(lines)

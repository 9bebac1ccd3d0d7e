"""Sparklines: numbers as one line of text."""

from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60


def sparkline(values: Sequence[float]) -> str:
    """Return a bar for each value, scaled from the lowest to the highest; for many values, of each interval's mean.

    Worked example: [1, 2, 3] is "▁▅█".
    """
    if len(values) > WIDTH:
        ends = [len(values) * i // WIDTH for i in range(WIDTH + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, span = min(values), max(values) - min(values)
    top = len(BARS) - 1
    return "".join(BARS[int((value - low) / span * top + 0.5) if span else top // 2] for value in values)

"""Numbers along an axis, each written out: no exponent stands at the axis's end."""

from __future__ import annotations

import itertools
from typing import Any

from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, MaxNLocator, ScalarFormatter

STEPS = (1, 2, 2.5, 5, 10)
"""The steps of matplotlib's own ticks."""

APART = 3
"""The least distance between two labels, in points."""


class WrittenOut(ScalarFormatter):
    """A formatter of 0.5e9 and 1.0e9, where matplotlib writes 0.5, 1.0 and, elsewhere, 1e9."""

    def __init__(self) -> None:
        super().__init__(useOffset=False)

    def format_ticks(self, values: Any) -> list[str]:
        """Return a label for each number."""
        labels = super().format_ticks(values)
        power = super().get_offset().removeprefix("1")
        return [
            label + power if value else label for label, value in zip(labels, values, strict=True)
        ]

    def get_offset(self) -> str:
        """Return no offset."""
        return ""


def write_out(axis: Axis) -> None:
    """Write out the numbers of an axis."""
    axis.set_major_formatter(WrittenOut())


def make_room(axis: Axis) -> None:
    """Leave out numbers until none touches the next, in a figure that is laid out."""
    low, high = sorted(axis.get_view_interval())
    for bins in range(len(axis.get_majorticklocs()), 1, -1):
        if _fit(axis):
            return
        axis.set_major_locator(MaxNLocator(bins - 1, steps=STEPS))
    if not _fit(axis):
        axis.set_major_locator(FixedLocator([low, high]))


def _fit(axis: Axis) -> bool:
    """Tell whether two labels or more are shown, and none touches the next."""
    low, high = sorted(axis.get_view_interval())
    labels: list[Any] = axis.get_majorticklabels()
    shown = [
        label.get_window_extent()
        for label, place in zip(labels, axis.get_majorticklocs(), strict=True)
        if low <= place <= high
    ]
    gap = APART * axis.figure.dpi / 72
    return len(shown) > 1 and all(
        b.x0 - a.x1 >= gap or b.y0 - a.y1 >= 0 for a, b in itertools.pairwise(shown)
    )

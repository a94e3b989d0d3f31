"""A figure with its caption, and the parts that all pictures share."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
import io
import math
import os
import pathlib
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semijax import page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SETTINGS: dict[str, Any] = {
    "axes.labelsize": 9,
    "axes.titlesize": 10,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.title_fontsize": 8,
    "svg.hashsalt": "semijax",
    "text.parse_math": False,  # a $ is a $
    "xtick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
}
"""The settings that differ from matplotlib's defaults."""


SHORT = 24
"""The number of characters of a token that are shown."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A figure and what it shows; a notebook displays both.

    Attributes:
        figure: the ``matplotlib.figure.Figure``, to be changed at will.
        caption: what is shown, with its sign, unit and normalisation.

    Example:
        >>> import semijax as sj
        >>> picture = sj.pictures.token_strip(
        ...     ["[CLS]", "hi"], [0.2, -0.5], unit="logit"
        ... )
        >>> print(picture.caption)
        Logit per token; red is positive, blue negative.
        >>> picture.save("strip.svg")  # doctest: +SKIP
    """

    figure: Figure = dataclasses.field(repr=False)
    caption: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file: the same bytes for the same picture.

        Args:
            path: ends in ``.png``, ``.svg``, ``.pdf`` or ``.html``; the last has the caption too,
                and needs no other file.

        Raises:
            ValueError: if it ends in something else.
        """
        path = pathlib.Path(path)
        suffix = path.suffix.lower()
        if suffix not in (".png", ".svg", ".pdf", ".html"):
            raise ValueError(f"A picture is saved as .png, .svg, .pdf or .html, got {str(path)!r}.")
        if suffix == ".html":
            path.write_text(page.document(self.caption, self._repr_html_()), encoding="utf-8")
        else:
            path.write_bytes(self._render(suffix[1:]))

    def _render(self, format: str, dpi: int = 200) -> bytes:
        date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
        buffer = io.BytesIO()
        with drawing():
            warn_of_undrawn(self.figure)  # it may have been changed
            self.figure.savefig(
                buffer, format=format, metadata=date, dpi=dpi, bbox_inches="tight", pad_inches=0.05
            )
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        """For those who show no SVG, stored beside it."""
        return self._render("png", dpi=100)

    def _repr_html_(self) -> str:
        # As an image, a drawing shares no names with the page or with the page's other drawings.
        data = base64.b64encode(self._render("svg")).decode()
        caption = page.text(self.caption)
        return (
            f'<figure style="margin:0"><img style="max-width:100%" alt="{caption}" '
            f'src="data:image/svg+xml;base64,{data}"><figcaption>{caption}</figcaption></figure>'
        )


@contextlib.contextmanager
def drawing(*texts: str | None) -> Iterator[None]:
    """Set matplotlib to its defaults and ``SETTINGS``, with fonts that have the texts' glyphs."""
    try:
        style = importlib.import_module("matplotlib.style")
    except ModuleNotFoundError as error:
        message = "Pictures need matplotlib: pip install 'semijax[plot]'."
        raise ModuleNotFoundError(message, name=error.name) from error
    from semijax.pictures import fonts

    family = fonts.families(filter(None, texts))
    with style.context(["default", SETTINGS | {"font.family": family}]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # ``warn_of_undrawn`` says it once
        yield


def finished(
    figure: Figure, title: str | None, caption: str, numbers: np.ndarray | None = None
) -> Picture:
    """Make the picture; its caption gains the title, hatched cells and missing glyphs."""
    if numbers is not None and not np.isfinite(numbers).all():
        caption += f"; hatched: {no_path(numbers)}"
    undrawn = warn_of_undrawn(figure)
    if undrawn:
        caption += f"; no font here has {' '.join(sorted(undrawn))}"
    return Picture(figure, (f"{in_one_line(title)}. " if title else "") + caption + ".")


_warned_of: set[str] = set()
"""The characters that were warned about: once is enough."""


def warn_of_undrawn(figure: Figure) -> frozenset[str]:
    """Return the characters that a figure has no glyphs for, and warn of each once."""
    from semijax.pictures import fonts

    undrawn = fonts.undrawn(figure)
    if new := undrawn - _warned_of:
        _warned_of.update(new)
        warnings.warn(fonts.advice(new), stacklevel=4)
    return undrawn


def new_figure(
    width: float, height: float, title: str | None, labels: tuple[str | None, str | None]
) -> tuple[Figure, Axes]:
    """Make a figure with room for axes of this size in inches, with labels for y and x."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width + 6, height + 6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(ylabel=in_one_line(labels[0] or ""), xlabel=in_one_line(labels[1] or ""))
    if title:
        axes.set_title(wrapped(title, max(width, 3), 10))
    return figure, axes


def fit_around(
    figure: Figure, axes: Axes, width: float, height: float, *, numbered: Sequence[Axis] = ()
) -> None:
    """Lay a figure out around axes of this size in inches; drawing it again changes nothing.

    The numbers along the ``numbered`` axes are written out.
    """
    from semijax.pictures import ticks

    for axis in numbered:
        ticks.write_out(axis)
    for _ in range(2):  # the colour bar's room depends on the figure's size
        figure.draw_without_rendering()
        size, taken = figure.get_size_inches(), np.array(axes.get_position().size)
        figure.set_size_inches(*(size * (1 - taken) + (width, height)))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in numbered:
        ticks.make_room(axis)


def extent(count: int, each: float) -> float:
    """Return the inches of ``count`` cells: at most about twice a page's width."""
    return min(max(count * each, 1.2), 14.0)


def label_ticks(
    axis: Axis,
    labels: Sequence[str],
    inches: float,
    apart: float,
    *,
    first: float = 0,
    rotation: float = 0,
) -> None:
    """Label each cell, or every few cells where these had less than ``apart`` inches each."""
    step = math.ceil(len(labels) * apart / inches)
    places = np.arange(0, len(labels), step)
    axis.set_ticks(
        places + first, [shortened(label) for label in labels[::step]], rotation=rotation
    )


def no_path(numbers: np.ndarray) -> str:
    """Name the numbers that are infinite or NaN, for a legend."""
    return "no path, or NaN" if np.isnan(numbers).any() else "no path"


def as_numbers(name: str, values: Any, ndim: int) -> np.ndarray:
    """Return real numbers with ``ndim`` axes, as float64, or raise."""
    array = np.asarray(values)
    if array.dtype.kind in "cOSU":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}.")
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}.")
    return array.astype(np.float64)


def as_labels(name: str, labels: Sequence[str]) -> list[str]:
    """Return texts that can be drawn, at least one, or raise."""
    if isinstance(labels, str):
        raise TypeError(f"{name} must be a sequence of strings, got the string {labels!r}.")
    found = [_printable(str(label)) for label in labels]
    if not found:
        raise ValueError(f"{name} is empty.")
    return found


def check_texts(**texts: str | None) -> None:
    """Raise unless every text says something, or is None."""
    for name, text in texts.items():
        if text is not None and (not isinstance(text, str) or not text.strip()):
            raise ValueError(f"{name} must say what it is, got {text!r}.")


def sentence(*parts: str | None) -> str:
    """Join what there is to say with semicolons, and begin with a capital letter."""
    said = "; ".join(in_one_line(part) for part in parts if part)
    first = said.split(maxsplit=1)[0] if said else ""
    return said[0].upper() + said[1:] if first.isalpha() and first.islower() else said


def _printable(text: str) -> str:
    """Escape the control characters of a text, which neither a font nor SVG has."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Cf" else repr(c)[1:-1] for c in text
    )


def in_one_line(text: str) -> str:
    """Put a text on one line."""
    return _printable(" ".join(text.split()))


def shortened(text: str) -> str:
    """Cut a text to at most ``SHORT`` characters."""
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"


def wrapped(text: str, inches: float, points: float) -> str:
    """Wrap a text in lines of about equal length, each at most about so many inches long."""
    columns = max(int(inches * 72 / (0.5 * points)), 12)
    text = in_one_line(text)
    lines = math.ceil(len(text) / columns)
    return textwrap.fill(text, columns if lines < 2 else min(columns, len(text) // lines + 8))

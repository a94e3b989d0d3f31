"""Numbers as colours: per token, per layer and token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semijax import page
from semijax.pictures.picture import (
    Picture,
    as_labels,
    as_numbers,
    check_texts,
    drawing,
    extent,
    finished,
    fit_around,
    in_one_line,
    label_ticks,
    new_figure,
    no_path,
    sentence,
    shortened,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

SIGNED = (
    f"{page.NEGATIVE} #4393c3 #92c5de #d1e5f0 #f7f7f7 #fddbc7 #f4a582 #d6604d {page.POSITIVE}"
).split()
"""The colour map of signed numbers, from blue to red: ColorBrewer's RdBu."""


WIDTH, LINE = 7.0, 25.0
"""The width of a strip of tokens in inches, and the height of its lines in points."""

NO_PATH: dict[str, Any] = {
    "facecolor": "0.93",
    "edgecolor": "0.72",
    "hatch": "////",
    "linewidth": 0.5,
}
"""The look of a number that is infinite or NaN."""


def token_strip(
    tokens: Sequence[str],
    values: Any,
    *,
    unit: str = "value",
    normalisation: str | None = None,
    signed: bool | None = None,
    from_zero: bool | None = None,
    title: str | None = None,
) -> Picture:
    """Draw a sentence's tokens in boxes, each coloured by its number.

    Args:
        tokens: the tokens' texts.
        values: real ``[len(tokens)]``; infinite (no path) and NaN are hatched.
        unit: the numbers', as in ``"logit per unit of embedding"``.
        normalisation: what they were divided by, as in ``"sum over the sentence = 1"``.
        signed: whether colours go from blue (negative) through white to red (positive), symmetric
            about 0. By default, whether any number is negative.
        from_zero: whether unsigned colours begin at 0 rather than at the smallest number. By
            default they do, unless every number is more than half of the largest: for entropies
            from 100 to 110 nats, the colours do not begin at 0.
        title: above the boxes.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: if there is not one real number per token, one is negative where
            ``signed`` is False, or a text is missing.

    Example:
        >>> token_strip(["[CLS]", "hi"], [0.2, -0.5], unit="logit").caption
        'Logit per token; red is positive, blue negative.'
    """
    labels = as_labels("tokens", tokens)
    numbers = as_numbers("values", values, 1)
    if len(numbers) != len(labels):
        raise ValueError(
            f"values must have one number per token, got shape {numbers.shape} for {len(labels)} "
            "tokens."
        )
    check_texts(unit=unit, normalisation=normalisation)
    with drawing(*labels, unit, normalisation, title):
        colours, meaning = _colours(numbers, signed, from_zero, normalisation)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure()
        FigureCanvasAgg(figure)  # measures text
        axes = figure.add_axes((0, 0, 1, 1))
        width, height = _boxes(axes, labels, numbers, colours)
        bottom, top = 60, height + 60
        figure.set_size_inches(width / 72, (top + 4) / 72)
        axes.set_position((0, bottom / (top + 4), 1, height / (top + 4)))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        if title:
            axes.set_title(wrapped(title, width / 72, 10))
        bar = figure.add_axes((0.2, (bottom - 18) / (top + 4), 0.6, 8 / (top + 4)))
        figure.colorbar(colours, cax=bar, orientation="horizontal")
        _finish_bar(bar, sentence(unit, meaning), width / 72, numbers)
        from semijax.pictures import ticks

        ticks.write_out(bar.xaxis)
        ticks.make_room(bar.xaxis)
        return finished(figure, title, sentence(f"{unit} per token", meaning), numbers)


def heat_map(
    values: Any,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    unit: str = "value",
    normalisation: str | None = None,
    signed: bool | None = None,
    from_zero: bool | None = None,
    row_label: str = "row",
    column_label: str = "column",
    first_row: str = "bottom",
    title: str | None = None,
) -> Picture:
    """Draw a matrix as colours, such as numbers per layer and token, the first layer at the bottom.

    Args:
        values: real ``[rows, columns]``; infinite (no path) and NaN are hatched.
        rows: their labels; numbers by default.
        columns: their labels; numbers by default.
        unit: the numbers', as for ``token_strip``.
        normalisation: what they were divided by.
        signed: as for ``token_strip``.
        from_zero: as for ``token_strip``.
        row_label: what a row is.
        column_label: what a column is.
        first_row: where the first row is: ``"bottom"``, as of layers, or ``"top"``, as of an image.
        title: above the map.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: as for ``token_strip``; also if ``first_row`` is something else.

    Example:
        >>> picture = heat_map(
        ...     [[0.1, 0.9], [0.0, 1.0]], row_label="layer", column_label="token",
        ...     unit="share of Σ |path weight|", normalisation="rows sum to 1",
        ... )
        >>> picture.caption
        'Share of Σ |path weight| per layer and token; rows sum to 1.'
        >>> picture.save("layers.pdf")  # doctest: +SKIP
    """
    numbers = as_numbers("values", values, 2)
    row_names, names = (
        as_labels(name, [*map(str, range(length))] if given is None else given)
        for name, given, length in zip(
            ("rows", "columns"), (rows, columns), numbers.shape, strict=True
        )
    )
    if first_row not in ("bottom", "top"):
        raise ValueError(f"first_row must be 'bottom' or 'top', got {first_row!r}.")
    if numbers.shape != (len(row_names), len(names)):
        raise ValueError(
            f"values must have one number per row and column, got shape {numbers.shape} for "
            f"{len(row_names)} rows and {len(names)} columns."
        )
    check_texts(unit=unit, normalisation=normalisation)
    said = (unit, normalisation, row_label, column_label, title)
    with drawing(*row_names, *names, *said):
        colours, meaning = _colours(numbers, signed, from_zero, normalisation)
        width, height = extent(len(names), 0.36), extent(len(row_names), 0.3)
        figure, axes = new_figure(width, height, title, labels=(row_label, column_label))
        finite = np.ma.masked_invalid(numbers)
        # At the edges of cells, so that the k-th is centred at k.
        edges = [np.arange(n + 1) - 0.5 for n in numbers.T.shape]
        thin = width / len(names) < 0.1  # edges would hide the cells
        mesh = axes.pcolormesh(
            *edges, finite, edgecolors="white", linewidth=0 if thin else 0.4, rasterized=thin
        )
        mesh.set(cmap=colours.cmap, norm=colours.norm)
        if first_row == "top":
            axes.invert_yaxis()
        if finite.mask.any():
            axes.patch.set(**NO_PATH)
        label_ticks(axes.xaxis, names, width, 0.16, rotation=90)
        label_ticks(axes.yaxis, row_names, height, 0.14)
        shown = min(4.0, width)
        bar = figure.colorbar(
            colours, ax=axes, location="bottom", shrink=shown / width, aspect=shown / 0.11
        )
        _finish_bar(bar.ax, sentence(unit, meaning), max(width, 5), numbers)
        fit_around(figure, axes, width, height, numbered=[bar.ax.xaxis])
        caption = sentence(f"{unit} per {row_label} and {column_label}", meaning)
        return finished(figure, title, caption, numbers)


def overlay(
    image: Any,
    values: Any,
    *,
    unit: str = "value",
    normalisation: str | None = None,
    signed: bool | None = None,
    title: str | None = None,
) -> Picture:
    """Draw numbers over an image, the right way up: the larger a number, the more colour.

    Args:
        image: real ``[height, width]`` or ``[height, width, 3]``, from 0 to 1, or unsigned 8-bit
            integers.
        values: real ``[rows, columns]``, each number for an equal part of the image: of its pixels,
            or of the cells of a convolution. Infinite numbers (no path) and NaN have no colour.
        unit: the numbers'.
        normalisation: what they were divided by.
        signed: whether negative numbers are blue and positive ones red; by default, whether any
            number is negative.
        title: above the image.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: if ``image`` is no image, ``values`` has not two axes, or one is
            negative where ``signed`` is False.

    Example:
        >>> image = [[0.0, 0.5], [0.5, 1.0]]
        >>> overlay(image, [[0.1, -0.2], [0.0, 0.3]], unit="logit").caption
        'Logit per place of the image; red is positive, blue negative.'
    """
    pixels, numbers = _image(image), as_numbers("values", values, 2)
    check_texts(unit=unit, normalisation=normalisation)
    with drawing(unit, normalisation, title):
        colours, meaning = _colours(numbers, signed, True, normalisation)
        height, width = pixels.shape[:2]
        inches = 3.2 * width / max(width, height), 3.2 * height / max(width, height)
        figure, axes = new_figure(*inches, title, labels=(None, None))
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        finite = np.where(np.isfinite(numbers), numbers, 0)
        painted = colours.to_rgba(finite)
        painted[..., 3] = np.abs(finite) / (np.abs(finite).max() or 1)
        axes.imshow(painted, extent=(0, width, height, 0), interpolation="nearest")
        axes.set_axis_off()
        bar = figure.colorbar(colours, ax=axes, location="bottom", aspect=inches[0] / 0.11)
        _finish_bar(bar.ax, sentence(unit, meaning), max(inches[0], 4), numbers)
        fit_around(figure, axes, *inches, numbered=[bar.ax.xaxis])
        caption = sentence(f"{unit} per place of the image", meaning)
        return finished(figure, title, caption, numbers)


def _image(image: Any) -> np.ndarray:
    """Return an image as numbers from 0 to 1, or raise."""
    array = np.asarray(image)
    whole = array.dtype == np.uint8
    pixels = as_numbers("image", array, array.ndim) / (255 if whole else 1)
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise ValueError(
            f"image must be [height, width] or [height, width, 3], got shape {array.shape}."
        )
    if not ((pixels >= 0) & (pixels <= 1)).all():
        raise ValueError(
            "image must have numbers from 0 to 1, or unsigned 8-bit integers, got numbers from "
            f"{pixels.min():.4g} to {pixels.max():.4g}."
        )
    return pixels


def _boxes(
    axes: Axes, labels: Sequence[str], numbers: np.ndarray, colours: ScalarMappable
) -> tuple[float, float]:
    """Draw the tokens in lines, and return the width and height of all, in points."""
    from matplotlib.patches import Rectangle

    x, y, widest, limit = 4.0, 2.0, 300.0, WIDTH * 72
    for label, number in zip(labels, numbers, strict=True):
        text = axes.text(0, 0, shortened(label), fontsize=11, ha="center", va="center_baseline")
        width = max(text.get_window_extent().width * 72 / axes.figure.dpi, 4) + 8
        if x + width > limit and x > 4:
            x, y = 4.0, y + LINE
        style: dict[str, Any] = NO_PATH
        if np.isfinite(number):
            colour = colours.to_rgba(number)
            style = {"facecolor": colour, "edgecolor": "0.75", "linewidth": 0.5}
            text.set_color(_readable_on(np.asarray(colour)))
        axes.add_patch(Rectangle((x, y), width, LINE - 5, **style))
        text.set_position((x + width / 2, y + (LINE - 5) / 2))
        x += width + 3
        widest = max(widest, x)
    return widest + 1, y + LINE


def _readable_on(rgba: np.ndarray) -> str:
    """Return black or white, whichever contrasts more with a colour (WCAG 2)."""
    linear = np.where(rgba <= 0.04045, rgba / 12.92, ((rgba + 0.055) / 1.055) ** 2.4)
    luminance = linear[:3] @ [0.2126, 0.7152, 0.0722]
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def _colours(
    numbers: np.ndarray, signed: bool | None, from_zero: bool | None, normalisation: str | None
) -> tuple[ScalarMappable, str]:
    """Return the map from numbers to colours, and what is to be said of it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    finite = numbers[np.isfinite(numbers)]
    if signed is False and (finite < 0).any():
        raise ValueError(f"signed=False, but the least of the values is {finite.min():.4g}.")
    signed = bool((finite < 0).any()) if signed is None else signed
    largest, least = float(np.abs(finite).max(initial=0)) or 1.0, float(finite.min(initial=np.inf))
    from_zero = least <= largest / 2 if from_zero is None else from_zero
    lowest = -largest if signed else 0.0 if from_zero or least == largest else least
    scheme = LinearSegmentedColormap.from_list("signed", SIGNED) if signed else "YlGn"
    said = (
        "red is positive, blue negative" if signed else None,
        f"colours begin at {least:.4g}" if lowest > 0 else None,
        normalisation,
    )
    meaning = "; ".join(in_one_line(text) for text in said if text)
    return ScalarMappable(Normalize(lowest, largest), scheme), meaning


def _finish_bar(bar: Axes, meaning: str, inches: float, numbers: np.ndarray) -> None:
    """Say what the colours mean."""
    from matplotlib.patches import Patch

    bar.tick_params(labelsize=8, length=2)
    bar.set_xlabel(wrapped(meaning, inches, 8), fontsize=8)
    if not np.isfinite(numbers).all():
        patch = Patch(label=no_path(numbers), **NO_PATH)
        bar.legend(handles=[patch], loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)

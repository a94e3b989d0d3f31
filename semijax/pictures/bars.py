"""Shares as stacked bars, and values as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
    sentence,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BRANCHES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
"""The colours of branches, which colour-blind people can tell apart: Okabe and Ito's."""

ERROR_BAR: dict[str, Any] = {"fmt": "none", "ecolor": "0.15", "elinewidth": 1, "capsize": 2}


def stacked_bars(
    shares: Mapping[str, Any],
    *,
    groups: Sequence[str] | None = None,
    unit: str = "share",
    normalisation: str | None = None,
    group_label: str = "layer",
    errors: Mapping[str, Any] | None = None,
    title: str | None = None,
) -> Picture:
    """Stack the branches' shares in each layer, in the order given, as in Fig. 4 of the paper.

    Args:
        shares: of each branch, real ``[len(groups)]``, finite, not negative.
        groups: the layers' labels; numbers by default.
        unit: the shares', as in ``"share of Σ |path weight|"``.
        normalisation: what the shares were divided by, as in ``"a layer sums to 1"``.
        group_label: what the groups are.
        errors: of branches, half the length of an error bar at the branch's upper end, as shares.
        title: above the bars.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: if there is no branch, not one share per group, or a share is
            negative or not finite.

    Example:
        >>> shares = {"keys": [0.1, 0.4], "values": [0.2, 0.1], "skip": [0.7, 0.5]}
        >>> stacked_bars(shares, normalisation="a layer sums to 1").caption
        'Share per layer and branch; a layer sums to 1.'
    """
    names = _names(groups, shares)
    stacks = _shares("shares", shares, len(names))
    bars = _shares("errors", {} if errors is None else errors, len(names))
    if not stacks or not bars.keys() <= stacks.keys():
        missing = ", ".join(repr(branch) for branch in bars if branch not in stacks)
        raise ValueError(f"errors has no shares for {missing}." if stacks else "shares is empty.")
    check_texts(unit=unit, normalisation=normalisation)
    with drawing(*names, *stacks, unit, normalisation, group_label, title):
        width = max(3.0, extent(len(names), 0.65))
        figure, axes = new_figure(width, 2.6, title, labels=(None, group_label))
        base, drawn = np.zeros(len(names)), []
        for number, (branch, heights) in enumerate(stacks.items()):
            style = _style(number)
            drawn.append(axes.bar(range(len(names)), heights, 0.7, bottom=base, **style))
            base = base + heights
            if branch in bars:
                # Side by side, since those of thin branches are at almost the same height.
                shift = 0.5 * ((number + 0.5) / len(stacks) - 0.5)
                axes.errorbar(np.arange(len(names)) + shift, base, bars[branch], **ERROR_BAR)
        legend = dict(zip([*stacks][::-1], drawn[::-1], strict=True))
        _label(figure, axes, names, legend, width, unit, normalisation)
        caption = sentence(
            f"{unit} per {group_label} and branch", normalisation, "with error bars" * bool(bars)
        )
        return finished(figure, title, caption)


def grouped_bars(
    values: Mapping[str, Any],
    *,
    groups: Sequence[str] | None = None,
    unit: str = "value",
    normalisation: str | None = None,
    group_label: str = "group",
    errors: Mapping[str, Any] | None = None,
    title: str | None = None,
    of: str = "branch",
) -> Picture:
    """Draw the branches' values in each group side by side, as in Fig. 2 of the paper.

    Args:
        values: of each branch, real ``[len(groups)]``, not infinite; NaN for no bar.
        groups: the groups' labels; numbers by default.
        unit: the values'.
        normalisation: what they were divided by, and whatever else is to be said of them.
        group_label: what the groups are.
        errors: of branches, half the length of an error bar; NaN for none.
        title: above the bars.
        of: what a bar stands for, a branch or something else.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: if there is no branch, or not one value per group, or one is
            infinite.

    Example:
        >>> values = {"keys": [0.1, 0.4], "skip": [0.2, -0.1]}
        >>> grouped_bars(values, groups=["first", "others"], unit="logit").caption
        'Logit per group and branch.'
    """
    names = _names(groups, values)
    heights = _numbers("values", values, len(names))
    bars = _numbers("errors", {} if errors is None else errors, len(names))
    if not heights or not bars.keys() <= heights.keys():
        raise ValueError("values is empty, or errors has branches that values lacks.")
    for branch, numbers in heights.items():
        if np.isinf(numbers).any():
            raise ValueError(
                f"values[{branch!r}] must be finite, or NaN for no bar, got {numbers}."
            )
    check_texts(unit=unit, normalisation=normalisation, of=of)
    with drawing(*names, *heights, unit, normalisation, group_label, title, of):
        width = max(3.0, extent(len(names), 0.25 * (len(heights) + 1)))
        figure, axes = new_figure(width, 2.6, title, labels=(None, group_label))
        thickness, drawn = 0.8 / len(heights), {}
        for number, (branch, numbers) in enumerate(heights.items()):
            places = np.arange(len(names)) + thickness * (number + 0.5) - 0.4
            drawn[branch] = axes.bar(places, numbers, thickness, **_style(number))
            if branch in bars:
                axes.errorbar(places, numbers, bars[branch], **ERROR_BAR)
        axes.axhline(0, color="0.15", linewidth=0.8)
        _label(figure, axes, names, drawn, width, unit, normalisation, of)
        caption = sentence(
            f"{unit} per {group_label} and {of}", normalisation, "with error bars" * bool(bars)
        )
        return finished(figure, title, caption)


def _style(number: int) -> dict[str, Any]:
    """Choose how the bars of a branch are filled."""
    turn, colour = divmod(number, len(BRANCHES))
    # An edge, though hatches have its colour, would hide thin branches.
    filling: dict[str, Any] = {"color": BRANCHES[colour], "hatch": ("", "//", "..", "xx")[turn % 4]}
    return filling | {"edgecolor": "white", "linewidth": 0}


def _label(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    drawn: Mapping[str, Any],
    width: float,
    unit: str,
    note: str | None,
    of: str = "branch",
) -> None:
    """Say what the bars stand for, what they measure and how."""
    axes.spines[["top", "right"]].set_visible(False)
    label_ticks(axes.xaxis, names, width, 0.16, rotation=90 if max(map(len, names)) > 7 else 0)
    axes.set_ylabel(wrapped(sentence(unit), 2.6, 9))
    figure.supxlabel(wrapped(sentence(note), width + 1, 8), fontsize=8)
    axes.legend(
        [*drawn.values()],
        [in_one_line(str(branch)) for branch in drawn],
        loc="upper left",
        bbox_to_anchor=(1, 1),
        title=in_one_line(of),
    )
    # The legend grows with the branches; the layout needs a figure that it fits in.
    height = max(2.6, 0.18 * (len(drawn) + 1))
    longest = max(len(str(branch)) for branch in drawn)
    figure.set_size_inches(width + 1.5 + 0.09 * longest, height + 1.5)
    fit_around(figure, axes, width, height, numbered=[axes.yaxis])


def _names(groups: Sequence[str] | None, values: Mapping[str, Any]) -> list[str]:
    """Return the groups' labels: numbers where none are given."""
    if groups is None:
        longest = max((np.size(own) for own in values.values()), default=0)
        groups = [*map(str, range(longest))]
    return as_labels("groups", groups)


def _shares(name: str, shares: Mapping[str, Any], groups: int) -> dict[str, np.ndarray]:
    found = _numbers(name, shares, groups)
    for branch, numbers in found.items():
        if not (np.isfinite(numbers) & (numbers >= 0)).all():
            raise ValueError(f"{name}[{branch!r}] must be finite and ≥ 0, got {numbers}.")
    return found


def _numbers(name: str, values: Mapping[str, Any], groups: int) -> dict[str, np.ndarray]:
    found = {}
    for branch, given in values.items():
        numbers = as_numbers(f"{name}[{branch!r}]", given, 1)
        if len(numbers) != groups:
            raise ValueError(
                f"{name}[{branch!r}] must have one number per group, got shape {numbers.shape} for "
                f"{groups} groups."
            )
        found[branch] = numbers
    return found


def curves(
    x: Any,
    values: Mapping[str, Any],
    *,
    x_label: str = "x",
    unit: str = "value",
    normalisation: str | None = None,
    errors: Mapping[str, Any] | None = None,
    title: str | None = None,
) -> Picture:
    """Draw curves over one axis, with a band for what is uncertain.

    Args:
        x: real ``[n]``.
        values: of each curve, real ``[n]``, finite.
        x_label: what ``x`` is.
        unit: what the values are.
        normalisation: what they were divided by, and whatever else is to be said of them.
        errors: of curves, half the height of a band around it, real ``[n]``; NaN for none.
        title: above.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: if there is no curve, or not one number per place.

    Example:
        >>> curves([0, 1], {"a": [1, 2]}, x_label="step", unit="logit").caption
        'Logit over step.'
    """
    places = as_numbers("x", x, 1)
    bands = {} if errors is None else dict(errors)
    if not values or not bands.keys() <= values.keys():
        raise ValueError("values is empty, or errors has curves that values lacks.")
    check_texts(x_label=x_label, unit=unit, normalisation=normalisation)
    with drawing(*values, x_label, unit, normalisation, title):
        figure, axes = new_figure(4.0, 2.6, title, labels=(None, x_label))
        for number, (name, of_curve) in enumerate(values.items()):
            y, band = (_as_long(name, each, places) for each in (of_curve, bands.get(name, places)))
            colour = BRANCHES[number % len(BRANCHES)]
            style = ("-", "--", ":", "-.")[number % 4]
            axes.plot(places, y, style, color=colour, label=in_one_line(name))
            if name in bands:
                axes.fill_between(places, y - band, y + band, color=colour, alpha=0.2, linewidth=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel(wrapped(sentence(unit), 2.6, 9))
        figure.supxlabel(wrapped(sentence(normalisation), 5, 8), fontsize=8)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        fit_around(figure, axes, 4.0, 2.6, numbered=[axes.xaxis, axes.yaxis])
        return finished(figure, title, sentence(f"{unit} over {x_label}", normalisation))


def _as_long(name: str, values: Any, places: np.ndarray) -> np.ndarray:
    numbers = as_numbers(f"values[{name!r}]", values, 1)
    if numbers.shape != places.shape:
        raise ValueError(
            f"values[{name!r}] must have one number per place, got shape {numbers.shape} for "
            f"{len(places)} places."
        )
    return numbers

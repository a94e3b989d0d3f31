"""Pictures for a paper or a notebook: tokens, layers × tokens, branches' shares, paths.

Every picture states its sign, unit and normalisation. Needs the ``plot`` extra.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
import io
import itertools
import math
import os
import pathlib
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from semijax import page, scope_names
from semijax.paths import Path
from semijax.paths.path import Node

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

SIGNED = (
    f"{page.NEGATIVE} #4393c3 #92c5de #d1e5f0 #f7f7f7 #fddbc7 #f4a582 #d6604d {page.POSITIVE}"
).split()
"""The map of signed numbers, from blue to red: ColorBrewer's RdBu."""

BRANCHES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
"""Colours of branches that colour-blind people tell apart: Okabe and Ito's."""

NO_PATH = {"facecolor": "0.93", "edgecolor": "0.72", "hatch": "////", "linewidth": 0.5}
"""How a number that is none is drawn."""

SHORT, WIDTH, LINE = 24, 7.0, 25.0
"""Characters shown of a token; inches of a strip, points of its lines."""

SETTINGS = {
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
"""Those of matplotlib that are not its defaults."""

FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Hiragino Sans", "Microsoft YaHei", "Noto Emoji")
"""For what DejaVu Sans has no glyphs for, where they are installed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A figure and what it shows; a notebook displays both.

    Attributes:
        figure: the ``matplotlib.figure.Figure``, to be changed at will.
        caption: what is shown, with its sign, unit and normalisation.
    """

    figure: Figure = dataclasses.field(repr=False)
    caption: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file: the same bytes for the same picture.

        Args:
            path: ends in ``.png``, ``.svg``, ``.pdf`` or ``.html``; the latter has the caption too,
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

    def _render(self, format: str) -> bytes:
        date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
        buffer = io.BytesIO()
        with _drawing():
            self.figure.savefig(
                buffer, format=format, metadata=date, dpi=200, bbox_inches="tight", pad_inches=0.05
            )
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        # As an image, a drawing shares no names with the page or with the page's other drawings.
        data = base64.b64encode(self._render("svg")).decode()
        caption = page.text(self.caption)
        return (
            f'<figure style="margin:0"><img style="max-width:100%" alt="{caption}" '
            f'src="data:image/svg+xml;base64,{data}"><figcaption>{caption}</figcaption></figure>'
        )


def token_strip(
    tokens: Sequence[str],
    values: Any,
    *,
    unit: str,
    normalisation: str,
    signed: bool | None = None,
    title: str | None = None,
) -> Picture:
    """A sentence's tokens in boxes, each coloured by its number.

    Args:
        tokens: the tokens' texts.
        values: real ``[len(tokens)]``; infinite (no path) and NaN are hatched.
        unit: the numbers', as in ``"logit per unit of embedding"``.
        normalisation: what they were divided by, as in ``"sum over the sentence = 1"``.
        signed: colours from blue (negative) over white to red (positive), symmetric about 0; else
            from 0 on. By default whether any number is negative.
        title: above the boxes.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: if there is not one real number per token, none is negative
            where ``signed`` is False, or a text is missing.

    Example:
        >>> token_strip(["[CLS]", "hi"], [0.2, -0.5], unit="logit", normalisation="none").caption
        'One number per token: logit; sign: red +, blue −, white 0; normalisation: none.'
    """
    labels = _labels("tokens", tokens)
    numbers = _numbers("values", values, 1)
    if len(numbers) != len(labels):
        raise ValueError(
            f"values must have one number per token, got shape {numbers.shape} for {len(labels)} "
            "tokens."
        )
    _check_texts(unit=unit, normalisation=normalisation)
    with _drawing():
        colours, meaning = _colours(numbers, signed, unit, normalisation)
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
            axes.set_title(_wrap(title, width / 72, 10))
        bar = figure.add_axes((0.2, (bottom - 18) / (top + 4), 0.6, 8 / (top + 4)))
        figure.colorbar(colours, cax=bar, orientation="horizontal")
        _finish_bar(bar, meaning, width / 72, numbers)
        return _picture(figure, title, f"One number per token: {meaning}", numbers)


def heat_map(
    values: Any,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    unit: str,
    normalisation: str,
    signed: bool | None = None,
    row_label: str = "layer",
    column_label: str = "token",
    title: str | None = None,
) -> Picture:
    """A number per layer and token, as colours; the first layer at the bottom.

    Args:
        values: real ``[len(rows), len(columns)]``; infinite (no path) and NaN are hatched.
        rows: their labels.
        columns: theirs.
        unit: the numbers', as for ``token_strip``.
        normalisation: what they were divided by.
        signed: as for ``token_strip``.
        row_label: what a row is.
        column_label: what a column is.
        title: above the map.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: as for ``token_strip``.

    Example:
        >>> picture = heat_map(
        ...     [[0.1, 0.9], [0.0, 1.0]], rows=["0", "1"], columns=["a", "b"],
        ...     unit="share of Σ |path weight|", normalisation="rows sum to 1",
        ... )
        >>> picture.save("layers.pdf")  # doctest: +SKIP
    """
    row_names, names = _labels("rows", rows), _labels("columns", columns)
    numbers = _numbers("values", values, 2)
    if numbers.shape != (len(row_names), len(names)):
        raise ValueError(
            f"values must have one number per row and column, got shape {numbers.shape} for "
            f"{len(row_names)} rows and {len(names)} columns."
        )
    _check_texts(unit=unit, normalisation=normalisation)
    with _drawing():
        colours, meaning = _colours(numbers, signed, unit, normalisation)
        width, height = _extent(len(names), 0.36), _extent(len(row_names), 0.3)
        figure, axes = _figure(width, height, title, labels=(row_label, column_label))
        finite = np.ma.masked_invalid(numbers)
        # At the edges of cells, so that the k-th is centred at k.
        edges = [np.arange(n + 1) - 0.5 for n in numbers.T.shape]
        thin = width / len(names) < 0.1  # edges would hide the cells
        mesh = axes.pcolormesh(
            *edges, finite, edgecolors="white", linewidth=0 if thin else 0.4, rasterized=thin
        )
        mesh.set(cmap=colours.cmap, norm=colours.norm)
        if finite.mask.any():
            axes.patch.set(**NO_PATH)
        _ticks(axes.xaxis, names, width, 0.16, rotation=90)
        _ticks(axes.yaxis, row_names, height, 0.14)
        shown = min(4.0, width)
        bar = figure.colorbar(
            colours, ax=axes, location="bottom", shrink=shown / width, aspect=shown / 0.11
        )
        _finish_bar(bar.ax, meaning, max(width, 5), numbers)
        _fit(figure, axes, width, height)
        what = f"One number per {_line(row_label)} and {_line(column_label)}"
        return _picture(figure, title, f"{what}: {meaning}", numbers)


def stacked_bars(
    shares: Mapping[str, Any],
    *,
    groups: Sequence[str],
    normalisation: str,
    unit: str = "share",
    group_label: str = "layer",
    errors: Mapping[str, Any] | None = None,
    title: str | None = None,
) -> Picture:
    """The branches' shares in each layer, stacked in the order given, as Fig. 4 of the paper.

    Args:
        shares: of each branch, real ``[len(groups)]``, finite, not negative.
        groups: the layers' labels.
        normalisation: what the shares were divided by.
        unit: the shares', as in ``"share of Σ |path weight|"``.
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
        >>> stacked_bars(shares, groups=["0", "1"], normalisation="a layer sums to 1").caption
        'Share of each branch per layer: share; sign: all ≥ 0; normalisation: a layer sums to 1.'
    """
    names = _labels("groups", groups)
    stacks = _shares("shares", shares, len(names))
    bars = _shares("errors", {} if errors is None else errors, len(names))
    if not stacks or not bars.keys() <= stacks.keys():
        missing = ", ".join(repr(branch) for branch in bars if branch not in stacks)
        raise ValueError(f"errors has no shares for {missing}." if stacks else "shares is empty.")
    _check_texts(unit=unit, normalisation=normalisation)
    with _drawing():
        width = max(3.0, _extent(len(names), 0.65))
        figure, axes = _figure(width, 2.6, title, labels=(None, group_label))
        base, drawn = np.zeros(len(names)), []
        for number, (branch, heights) in enumerate(stacks.items()):
            turn, colour = divmod(number, len(BRANCHES))
            style: dict[str, Any] = {
                "color": BRANCHES[colour],
                "hatch": ("", "//", "..", "xx")[turn % 4],
            }
            # An edge, though hatches have its colour, would hide thin branches.
            style |= {"edgecolor": "white", "linewidth": 0}
            drawn.append(axes.bar(range(len(names)), heights, 0.7, bottom=base, **style))
            base = base + heights
            if branch in bars:
                # Side by side, since those of thin branches are at almost the same height.
                shift = 0.5 * ((number + 0.5) / len(stacks) - 0.5)
                places = np.arange(len(names)) + shift
                axes.errorbar(
                    places, base, bars[branch], fmt="none", ecolor="0.15", elinewidth=1, capsize=2
                )
        axes.spines[["top", "right"]].set_visible(False)
        _ticks(axes.xaxis, names, width, 0.16, rotation=90 if max(map(len, names)) > 7 else 0)
        note = f"sign: all ≥ 0; normalisation: {_line(normalisation)}"
        axes.set_ylabel(_wrap(unit, 2.6, 9))
        figure.supxlabel(_wrap(note, width + 1, 8), fontsize=8)
        branches = [_line(str(branch)) for branch in stacks]
        axes.legend(
            drawn[::-1], branches[::-1], loc="upper left", bbox_to_anchor=(1, 1), title="branch"
        )
        _fit(figure, axes, width, 2.6)
        caption = f"Share of each branch per {_line(group_label)}: {_line(unit)}; {note}"
        return _picture(figure, title, caption + ("; with error bars" if bars else ""))


def path_grid(
    path_or_paths: Path | Sequence[Path],
    *,
    layers: Mapping[str, str] | Sequence[str],
    tokens: Sequence[str],
    token_axis: int | Callable[[Node], int | None] | None = None,
    title: str | None = None,
) -> Picture:
    """Paths of the gradient over the grid of layers and tokens, from the input at the bottom up.

    A node lies in the first layer whose glob matches its scope or, of a residual connection outside
    of all layers, the scope that it leads around. Other nodes lie in the layer of the node before:
    in the input's row before the first layer, in the output's after the last. Within its row, a
    path rises from node to node. A node without a token stays in the column of the one before.

    Args:
        path_or_paths: as ``top_paths`` finds them.
        layers: from a layer's label to a glob over the modules' scopes, in order from the input to
            the output; or globs, which are labels then.
        tokens: the tokens' texts.
        token_axis: the arrays' axis that counts the tokens, where it is ``len(tokens)`` long. By
            default the first axis so long: the query's of attention scores ``[heads, query, key]``.
            Where another axis is as long by chance, pass an axis, or a function from a node to its
            token's number, or None if it has no token.
        title: above the grid.

    Returns:
        The picture.

    Raises:
        TypeError, ValueError: if there are no paths or no tokens, no path goes through one of the
            layers, or a path has no node with a token.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> def model(x):
        ...     with jax.named_scope("layer_0"):
        ...         x = jnp.tanh(x)
        ...     return x.sum()
        >>> paths = sj.top_paths(model, k=2)(jnp.ones((3, 2)))
        >>> picture = path_grid(paths, layers={"0": "layer_0"}, tokens=["[CLS]", "a", "b"])
        >>> picture.save("path.svg")  # doctest: +SKIP
    """
    paths = [path_or_paths] if isinstance(path_or_paths, Path) else list(path_or_paths)
    if not paths:
        raise ValueError("path_or_paths is empty.")
    if not all(isinstance(path, Path) for path in paths):
        raise TypeError(f"path_or_paths must be a Path or a sequence of them, got {paths!r}.")
    names, text = _layers(layers), _labels("tokens", tokens)
    find = _token_finder(token_axis, len(text))
    rows = _rows(paths, list(names.values()))
    columns = [_columns(path, find, len(text)) for path in paths]
    labels = ["input", *names, "output"]
    with _drawing():
        width, height = _extent(len(text), 0.36), _extent(len(labels), 0.85)
        figure, axes = _figure(width, height, title, labels=("layer", "token"))
        axes.set(xlim=(-0.6, len(text) - 0.4), ylim=(0, len(labels)))
        for row in range(0, len(labels), 2):
            axes.axhspan(row, row + 1, color="0.95", zorder=0)
        axes.vlines(range(len(text)), 0, len(labels), color="0.85", linewidth=0.5, zorder=0.5)
        strengths = _strengths(paths)
        starts: dict[float, list[int]] = {}
        for number, path in enumerate(paths):
            apart = min(0.2, 0.8 / len(paths)) * (number - (len(paths) - 1) / 2)
            points, tokened = _points(path, rows[number], columns[number])
            starts.setdefault(points[0, 0], []).append(number + 1)
            points[:, 0] += apart
            _draw_path(axes, path, points, tokened, 0.8 + 1.4 * strengths[number])
        for column, numbers in starts.items() if len(paths) > 1 else ():
            shown = ", ".join(map(str, numbers[:3])) + ", …" * (len(numbers) > 3)
            axes.text(column, 0.04, shown, fontsize=8, ha="center", va="bottom")
        _ticks(axes.xaxis, text, width, 0.16, rotation=90)
        _ticks(axes.yaxis, labels, height, 0.14, first=0.5)
        _path_legend(figure, paths, strengths)
        _fit(figure, axes, width, height)
        return _picture(figure, title, _path_caption(paths))


def _path_caption(paths: Sequence[Path]) -> str:
    weights = ", ".join(path.weight_text for path in paths[:5]) + ", …" * (len(paths) > 5)
    return (
        f"{len(paths)} gradient path{'s' * (len(paths) > 1)} of weight {weights}. {_scale(paths)}; "
        "sign of a local derivative: red +, blue −; dashed: residual connection; dotted: node "
        "without a token"
    )


def _scale(paths: Sequence[Path]) -> str:
    scale = "line width is |weight| over the largest" if len(paths) > 1 else "none"
    return (
        "Weight: product of local derivatives, unit of output per unit of input; "
        f"normalisation: {scale}"
    )


def _layers(layers: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """From a layer's label to its glob."""
    if not isinstance(layers, Mapping):
        layers = dict(zip(_labels("layers", layers), layers, strict=True))
    if not layers or not all(isinstance(glob, str) for glob in layers.values()):
        raise ValueError(f"layers must be globs over scopes, at least one, got {layers!r}.")
    return {_line(str(label)): glob for label, glob in layers.items()}


def _rows(paths: Sequence[Path], globs: Sequence[str]) -> list[list[int]]:
    """The rows of the paths' nodes: 0 is the input's."""
    matchers = [scope_names.matcher(glob) for glob in globs]
    rows = []
    for path in paths:
        arounds = [(), *(edge.around for edge in path.edges)]
        found = [
            next((r for r, m in enumerate(matchers, 1) if any(map(m, (node.scope, *around)))), 0)
            for node, around in zip(path.nodes, arounds, strict=True)
        ]
        last = max((number for number, row in enumerate(found) if row), default=0)
        filled = list(itertools.accumulate(found[: last + 1], lambda before, row: row or before))
        rows.append(filled + [len(globs) + 1] * (len(found) - last - 1))
    if not any(0 < row <= len(globs) for path_rows in rows for row in path_rows):
        visited = dict.fromkeys(node.scope for path in paths for node in path.nodes)
        raise ValueError(
            f"No path goes through one of the layers {', '.join(map(repr, globs))}. Their scopes "
            f"are {', '.join(map(repr, filter(None, visited)))}."
        )
    return rows


def _token_finder(
    axis: int | Callable[[Node], int | None] | None, length: int
) -> Callable[[Node], int | None]:
    """What finds a node's token."""
    if callable(axis):
        return axis

    def find(node: Node) -> int | None:
        if axis is None:
            return node.index[node.shape.index(length)] if length in node.shape else None
        known = -len(node.shape) <= axis < len(node.shape) and node.shape[axis] == length
        return node.index[axis] if known else None

    return find


def _columns(path: Path, find: Callable[[Node], int | None], length: int) -> list[tuple[int, bool]]:
    """The nodes' columns, and whether they have a token."""
    found = [find(node) for node in path.nodes]
    known = [token for token in found if token is not None]
    if not known:
        raise ValueError(
            f"{path!r} has no node with a token: no array of {length} rows. Pass token_axis, a "
            "function from a node to its token's number."
        )
    if not all(0 <= token < length for token in known):
        raise ValueError(f"token_axis found the tokens {known}, but there are {length} tokens.")
    columns, column = [], known[0]
    for token in found:
        column = column if token is None else token
        columns.append((column, token is not None))
    return columns


def _points(
    path: Path, rows: Sequence[int], columns: Sequence[tuple[int, bool]]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the nodes lie, ``[nodes, 2]``, and whether they have a token."""
    column = [c for c, _ in columns]
    # Where something is to be seen, there is room: at residual connections and between tokens.
    lengths = [1.0] + [
        4.0 if edge.around or column[n] != column[n + 1] else 1.0
        for n, edge in enumerate(path.edges)
    ]
    heights: list[float] = []
    for row, run in itertools.groupby(zip(rows, lengths, strict=True), lambda pair: pair[0]):
        rises = list(itertools.accumulate(length for _, length in run))
        heights += [row + rise / (rises[-1] + 1) for rise in rises]
    return np.stack([column, heights], -1).astype(float), np.array([has for _, has in columns])


def _draw_path(
    axes: Axes, path: Path, points: np.ndarray, tokened: np.ndarray, width: float
) -> None:
    from matplotlib.collections import LineCollection

    looks = [
        (_sign_colour(edge.weight), _DOTTED if not has else _DASHED if edge.around else "solid")
        for edge, has in zip(path.edges, tokened[1:], strict=True)
    ]
    # Edges that look the same are one line, lest each began its dashes anew.
    runs = [[n for n, _ in run] for _, run in itertools.groupby(enumerate(looks), lambda x: x[1])]
    axes.add_collection(
        LineCollection(
            [points[run[0] : run[-1] + 2] for run in runs],
            colors=[looks[run[0]][0] for run in runs],
            linestyles=[looks[run[0]][1] for run in runs],
            linewidths=width,
            capstyle="butt",
            zorder=2,
        )
    )
    event = [
        bool(e.around) or x != y
        for e, (x, y) in zip(path.edges, itertools.pairwise(points[:, 0]), strict=True)
    ]
    marked = np.array([True, *event]) | np.array([*event, True])
    axes.scatter(*points[marked].T, s=6, color="0.2", linewidths=0, zorder=3)


_DASHED, _DOTTED = (0, (2.0, 1.3)), (0, (0.8, 1.0))


def _sign_colour(weight: float) -> str:
    return page.POSITIVE if weight > 0 else page.NEGATIVE if weight < 0 else "0.5"


def _strengths(paths: Sequence[Path]) -> list[float]:
    """|weight| over the largest."""
    largest = max(path.log_abs_weight for path in paths)
    return [math.exp(path.log_abs_weight - largest) if path.sign else 0.0 for path in paths]


def _path_legend(figure: Figure, paths: Sequence[Path], strengths: Sequence[float]) -> None:
    from matplotlib.lines import Line2D

    def line(label: str, colour: str = "0.2", style: Any = "solid", width: float = 1.6) -> Line2D:
        return Line2D([], [], color=colour, linestyle=style, linewidth=width, label=label)

    handles = [
        line("local derivative > 0", page.POSITIVE),
        line("local derivative < 0", page.NEGATIVE),
        line("residual connection", style=_DASHED),
        line("node without a token", style=_DOTTED),
    ]
    if any(edge.weight == 0 for path in paths for edge in path.edges):
        handles.insert(2, line("local derivative = 0", "0.5"))
    for number, (path, strength) in enumerate(zip(paths[:6], strengths, strict=False), 1):
        name = f"path {number}" if len(paths) > 1 else "path"
        handles.append(line(f"{name}: weight {path.weight_text}", width=0.8 + 1.4 * strength))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, title=_scale(paths))


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """Matplotlib as it comes, whatever is set, and quiet about glyphs that no font has."""
    try:
        style = importlib.import_module("matplotlib.style")
        fonts = importlib.import_module("matplotlib.font_manager")
    except ModuleNotFoundError as error:
        message = "Pictures need matplotlib: pip install 'semijax[plot]'."
        raise ModuleNotFoundError(message, name=error.name) from error
    installed = set(fonts.fontManager.get_font_names())
    family = ["DejaVu Sans", *(name for name in FONTS if name in installed)]
    with (
        style.context(["default", SETTINGS | {"font.family": family}]),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def _picture(
    figure: Figure, title: str | None, caption: str, numbers: np.ndarray | None = None
) -> Picture:
    """The picture, with what is to be said of its title and of what is no number."""
    if numbers is not None and not np.isfinite(numbers).all():
        caption += f"; hatched: {_no_path(numbers)}"
    return Picture(figure, (f"{_line(title)}. " if title else "") + caption + ".")


def _figure(
    width: float, height: float, title: str | None, labels: tuple[str | None, str | None]
) -> tuple[Figure, Axes]:
    """A figure with room for axes of so many inches, with labels for y and x."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width + 6, height + 6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(ylabel=_line(labels[0] or ""), xlabel=_line(labels[1] or ""))
    if title:
        axes.set_title(_wrap(title, max(width, 3), 10))
    return figure, axes


def _fit(figure: Figure, axes: Axes, width: float, height: float) -> None:
    """Lay the figure out around axes of so many inches; drawing it again changes nothing."""
    for _ in range(2):  # the colour bar's room depends on the figure's size
        figure.draw_without_rendering()
        size, taken = figure.get_size_inches(), np.array(axes.get_position().size)
        figure.set_size_inches(*(size * (1 - taken) + (width, height)))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _extent(count: int, each: float) -> float:
    """Inches of ``count`` cells: no picture is larger than a page's width, twice."""
    return min(max(count * each, 1.2), 14.0)


def _ticks(
    axis: Axis, labels: Sequence[str], inches: float, apart: float, *, first: float = 0, rotation=0
) -> None:
    """A label per cell, or where these had less than ``apart`` inches, per several."""
    step = math.ceil(len(labels) * apart / inches)
    places = np.arange(0, len(labels), step)
    axis.set_ticks(places + first, [_short(label) for label in labels[::step]], rotation=rotation)


def _boxes(
    axes: Axes, labels: Sequence[str], numbers: np.ndarray, colours: ScalarMappable
) -> tuple[float, float]:
    """Draw the tokens in lines, and return the width and height of all, in points."""
    from matplotlib.patches import Rectangle

    x, y, widest, limit = 4.0, 2.0, 300.0, WIDTH * 72
    for label, number in zip(labels, numbers, strict=True):
        text = axes.text(0, 0, _short(label), fontsize=11, ha="center", va="center_baseline")
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
    """Black or white, whichever has more contrast to a colour (WCAG 2)."""
    linear = np.where(rgba <= 0.04045, rgba / 12.92, ((rgba + 0.055) / 1.055) ** 2.4)
    luminance = linear[:3] @ [0.2126, 0.7152, 0.0722]
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def _colours(
    numbers: np.ndarray, signed: bool | None, unit: str, normalisation: str
) -> tuple[ScalarMappable, str]:
    """The map from numbers to colours, and what it means."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    finite = numbers[np.isfinite(numbers)]
    if signed is False and (finite < 0).any():
        raise ValueError(f"signed=False, but the least of the values is {finite.min():.4g}.")
    signed = bool((finite < 0).any()) if signed is None else signed
    largest = float(np.abs(finite).max(initial=0)) or 1.0
    scheme = LinearSegmentedColormap.from_list("signed", SIGNED) if signed else "YlGn"
    colours = ScalarMappable(Normalize(-largest if signed else 0, largest), scheme)
    sign = "red +, blue −, white 0" if signed else "all ≥ 0"
    return colours, f"{_line(unit)}; sign: {sign}; normalisation: {_line(normalisation)}"


def _finish_bar(bar: Axes, meaning: str, inches: float, numbers: np.ndarray) -> None:
    """Say what the colours mean."""
    from matplotlib.patches import Patch

    bar.tick_params(labelsize=8, length=2)
    bar.set_xlabel(_wrap(meaning, inches, 8), fontsize=8)
    if not np.isfinite(numbers).all():
        patch = Patch(label=_no_path(numbers), **NO_PATH)
        bar.legend(handles=[patch], loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)


def _no_path(numbers: np.ndarray) -> str:
    return "no path, or NaN" if np.isnan(numbers).any() else "no path"


def _numbers(name: str, values: Any, ndim: int) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind in "cOSU":
        raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}.")
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {array.shape}.")
    return array.astype(np.float64)


def _shares(name: str, shares: Mapping[str, Any], groups: int) -> dict[str, np.ndarray]:
    found = {}
    for branch, values in shares.items():
        numbers = _numbers(f"{name}[{branch!r}]", values, 1)
        if len(numbers) != groups:
            raise ValueError(
                f"{name}[{branch!r}] must have one number per group, got shape {numbers.shape} for "
                f"{groups} groups."
            )
        if not (np.isfinite(numbers) & (numbers >= 0)).all():
            raise ValueError(f"{name}[{branch!r}] must be finite and ≥ 0, got {numbers}.")
        found[branch] = numbers
    return found


def _labels(name: str, labels: Sequence[str]) -> list[str]:
    if isinstance(labels, str):
        raise TypeError(f"{name} must be a sequence of strings, got the string {labels!r}.")
    found = [_printable(str(label)) for label in labels]
    if not found:
        raise ValueError(f"{name} is empty.")
    return found


def _check_texts(**texts: str) -> None:
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} must say what it is, got {text!r}.")


def _printable(text: str) -> str:
    """A text without control characters, which neither a font nor SVG has: these as escapes."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Cf" else repr(c)[1:-1] for c in text
    )


def _line(text: str) -> str:
    """A text in one line."""
    return _printable(" ".join(text.split()))


def _short(text: str) -> str:
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"


def _wrap(text: str, inches: float, points: float) -> str:
    """A text in lines of at most so many inches, about, and all about as long."""
    columns = max(int(inches * 72 / (0.5 * points)), 12)
    text = _line(text)
    lines = math.ceil(len(text) / columns)
    return textwrap.fill(text, columns if lines < 2 else min(columns, len(text) // lines + 8))

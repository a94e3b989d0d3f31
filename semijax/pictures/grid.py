"""Paths over the grid of layers and tokens."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semijax import page
from semijax.paths import Path, Paths
from semijax.paths.path import Node
from semijax.pictures.picture import (
    Picture,
    as_labels,
    drawing,
    extent,
    finished,
    fit_around,
    in_one_line,
    label_ticks,
    new_figure,
)
from semijax.trace import scope_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def path_grid(
    path_or_paths: Path | Sequence[Path],
    *,
    tokens: Sequence[str] | None = None,
    layers: Mapping[str, str] | Sequence[str] | None = None,
    token_axis: int | Callable[[Node], int | None] | None = None,
    title: str | None = None,
) -> Picture:
    """Draw the gradient's paths over the grid of layers and tokens, the input at the bottom.

    A node lies in the first layer whose glob matches its scope or, for a residual connection
    outside all layers, the scope that it leads around. Any other node lies in the layer of the node
    before it; before the first layer in the input's row, after the last in the output's. Within a
    row, a path rises from node to node. A node without a token stays in the column of the node
    before it. A story is drawn along its best path; if the sum of all its paths is known, see
    ``Path.adds_up``, its colour and width show that sum. Of more than eight paths, those that go
    the same way from layer to layer are one line: red for what adds, blue for what subtracts.

    Args:
        path_or_paths: as ``top_paths`` finds them.
        tokens: the tokens' texts; by default their numbers, if the paths know their tokens.
        layers: a mapping from a layer's label to a glob over the modules' scopes, in order from the
            input to the output; or a sequence of globs, which then serve as labels. By default, the
            modules that have numbers, such as ``layer_0`` and ``layers[1]``, at the outermost level
            where there are several.
        token_axis: the axis that counts the tokens, in arrays where it is ``len(tokens)`` long; or
            a function from a node to its token's number, or None if it has no token. By default,
            the axis that the paths know, see ``Node.along``, or else the first axis of that length:
            in attention scores ``[heads, query, key]``, the query's.
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
    names = _layers(paths, layers)
    text = as_labels("tokens", _token_numbers(paths) if tokens is None else tokens)
    finders = [_token_finder(path, token_axis, len(text)) for path in paths]
    rows = _rows(paths, list(names.values()))
    pairs = zip(paths, finders, strict=True)
    columns = [_columns(path, find, len(text)) for path, find in pairs]
    labels = ["input", *names, "output"]
    with drawing(*labels, *text, title):
        bundled = len(paths) > FEW
        width, height = extent(len(text), 0.36), extent(len(labels), 0.4 if bundled else 0.85)
        figure, axes = new_figure(width, height, title, labels=("layer", "token"))
        axes.set(xlim=(-0.6, len(text) - 0.4), ylim=(0, len(labels)))
        for row in range(0, len(labels), 2):
            axes.axhspan(row, row + 1, color="0.95", zorder=0)
        axes.vlines(range(len(text)), 0, len(labels), color="0.85", linewidth=0.5, zorder=0.5)
        if bundled:
            _draw_bundles(axes, _bundles(paths, rows, columns))
        else:
            _draw_each(axes, paths, rows, columns)
        label_ticks(axes.xaxis, text, width, 0.16, rotation=90)
        label_ticks(axes.yaxis, labels, height, 0.14, first=0.5)
        if bundled:
            _bundle_legend(figure, paths)
        else:
            _path_legend(figure, paths)
        fit_around(figure, axes, width, height)
        return finished(figure, title, _bundle_caption(paths) if bundled else _path_caption(paths))


FEW = 8
"""The number of paths up to which each is drawn by itself; more are bundled."""


def _draw_each(
    axes: Axes,
    paths: Sequence[Path],
    rows: Sequence[Sequence[int]],
    columns: Sequence[Sequence[tuple[int, bool]]],
) -> None:
    """Draw paths side by side, with their numbers where they start."""
    starts: dict[float, list[int]] = {}
    for number, (path, width) in enumerate(zip(paths, _widths(paths), strict=True)):
        apart = min(0.2, 0.8 / len(paths)) * (number - (len(paths) - 1) / 2)
        points, tokened = _points(path, rows[number], columns[number])
        starts.setdefault(points[0, 0], []).append(number + 1)
        points[:, 0] += apart
        whole = path.together if _are_stories(paths) else None
        _draw_path(axes, path, points, tokened, width, whole)
    for column, numbers in starts.items() if len(paths) > 1 else ():
        lines = (numbers[n : n + 4] for n in range(0, len(numbers), 4))
        shown = "\n".join(", ".join(map(str, line)) for line in lines)
        axes.text(column, 0.04, shown, fontsize=8, ha="center", va="bottom", linespacing=0.9)


Station = tuple[int, int, bool]
"""A row, a column, and whether a path goes around the modules of the row."""


def _bundles(
    paths: Sequence[Path],
    rows: Sequence[Sequence[int]],
    columns: Sequence[Sequence[tuple[int, bool]]],
) -> dict[tuple[Station, Station], list[float]]:
    """List, for each way between stations, what its paths or stories add, over the largest."""
    found: dict[tuple[Station, Station], list[float]] = {}
    triples = zip(_amounts(paths), paths, rows, columns, strict=True)
    for amount, path, of_row, of_column in triples:
        around = [False, *path.skips]
        stations: dict[tuple[int, int], bool] = {}
        for row, (column, _), past in zip(of_row, of_column, around, strict=True):
            # A path goes around a row if a residual connection is all that it takes there.
            stations[row, column] = past and stations.get((row, column), True)
        trail = [(row, column, past) for (row, column), past in stations.items()]
        for way in itertools.pairwise(trail):
            found.setdefault(way, []).append(amount)
    return found


def _amounts(paths: Sequence[Path]) -> list[float]:
    """Return what each contributes, over the largest: a story, all the paths that tell it."""
    if _are_stories(paths):
        largest = max(abs(path.together) for path in paths) or 1.0
        return [path.together / largest for path in paths]
    largest = max(path.log_abs_contribution for path in paths)

    def amount(path: Path) -> float:
        log = path.log_abs_contribution
        sign = math.copysign(1, path.contribution) if path.contribution else path.sign
        return sign * math.exp(log - largest) if log > -math.inf else 0.0

    return [amount(path) for path in paths]


def _are_stories(paths: Sequence[Path]) -> bool:
    """Tell whether the sum of the contributions of all paths is known for each story."""
    return all(path.adds_up for path in paths)


def _draw_bundles(axes: Axes, bundles: Mapping[tuple[Station, Station], list[float]]) -> None:
    """Draw every way from a station to the next: side by side what adds and what subtracts."""
    from matplotlib.patches import FancyArrowPatch

    strokes: dict[tuple[tuple[float, float], tuple[float, float]], list[tuple[float, bool]]] = {}
    for ((row, column, _), (next_row, next_column, past)), amounts in bundles.items():
        ends = (float(column), row + 0.5), (float(next_column), next_row + 0.5)
        parts = [math.fsum(x for x in amounts if x * sign > 0) for sign in (1, -1)]
        found = [part for part in parts if part] or [0.0]
        strokes.setdefault(ends, []).extend((part, past) for part in found)
    largest = max((abs(part) for of in strokes.values() for part, _ in of), default=0.0) or 1.0
    for ((column, low), (next_column, high)), of in strokes.items():
        upright = column == next_column
        bend = 0.25 * float(np.sign(column - next_column))
        for number, (part, past) in enumerate(of):
            apart = number - (len(of) - 1) / 2
            shift = 0.16 * apart if upright else 0.0
            axes.add_patch(
                FancyArrowPatch(
                    (column + shift, low),
                    (next_column + shift, high),
                    arrowstyle="-",
                    connectionstyle=f"arc3,rad={0 if upright else bend + 0.12 * apart}",
                    color=_sign_colour(part),
                    linestyle=_DASHED if past else "solid",
                    linewidth=0.6 + 4.4 * math.sqrt(abs(part) / largest),
                    alpha=0.75,
                    shrinkA=0,
                    shrinkB=0,
                    zorder=2,
                )
            )
    stations = {station[:2] for way in bundles for station in way}
    axes.scatter(
        *zip(*((c, r + 0.5) for r, c in stations), strict=True), s=9, color="0.2", zorder=3
    )


def _bundle_caption(paths: Sequence[Path]) -> str:
    what = "gradient paths"
    if _are_stories(paths):
        what = "stories, each with the sum of all paths that tell it"
    elif any(path.story for path in paths):
        what = "stories, each by its best path alone"
    return (
        f"{len(paths)} {what}{_total(paths)}. Those that go the same way are one line: red what "
        "adds, blue what subtracts, its width the square root of the sum over the largest; dashed: "
        f"skips the layer. {FEW} or fewer are drawn apart"
    )


def _bundle_legend(figure: Figure, paths: Sequence[Path]) -> None:
    from matplotlib.lines import Line2D

    looks = {
        "adds": {"color": page.POSITIVE},
        "subtracts": {"color": page.NEGATIVE},
        "skips the layer": {"color": "0.2", "linestyle": _DASHED},
    }
    handles = [Line2D([], [], linewidth=1.6, label=label, **look) for label, look in looks.items()]
    of = "stories" if _are_stories(paths) else "the best paths of stories"
    of = f" of {of}" if any(path.story for path in paths) else ""
    title = f"Line width: √(sum of contributions{of} / the largest){_total(paths)}"
    figure.legend(handles=handles, loc="outside lower center", ncols=3, title=title)


def _total(paths: Sequence[Path]) -> str:
    """Say what share of the whole the drawn stories carry, if that is known."""
    text = Paths(paths).total_text
    return f"; {text[0].lower()}{text[1:]}" if text else ""


def _path_caption(paths: Sequence[Path]) -> str:
    if _are_stories(paths):
        told = "; ".join(f"{n}: {path.together_text}" for n, path in enumerate(paths, 1))
        return (
            f"Gradient paths of stories, each with the sum of all paths that tell it. {told}. "
            f"{_STORY_SCALE}; red adds, blue subtracts; drawn along its best path; dashed: skips "
            "modules; dotted: node without a token"
        )
    weights = ", ".join(path.weight_text for path in paths[:5]) + ", …" * (len(paths) > 5)
    return (
        f"{len(paths)} gradient path{'s' * (len(paths) > 1)} of weight {weights}. {_scale(paths)}; "
        "edges of positive derivative are red, negative blue; dashed: skips modules; dotted: node "
        "without a token"
    )


def _scale(paths: Sequence[Path]) -> str:
    scale = "; line width is |weight| over the largest" if len(paths) > 1 else ""
    return f"Weight: product of local derivatives, unit of output per unit of input{scale}"


def _layers(
    paths: Sequence[Path], layers: Mapping[str, str] | Sequence[str] | None
) -> dict[str, str]:
    """Map each layer's label to its glob."""
    if layers is None:
        arounds = (around for path in paths for edge in path.edges for around in edge.around)
        scopes = {node.scope for path in paths for node in path.nodes}.union(arounds)
        layers = scope_names.numbered(scopes)
        if not layers:
            raise ValueError(
                "No module on the paths has a number: layers={'attention': '*/attention'} says "
                "what the rows are."
            )
    if not isinstance(layers, Mapping):
        layers = dict(zip(as_labels("layers", layers), layers, strict=True))
    if not layers or not all(isinstance(glob, str) for glob in layers.values()):
        raise ValueError(f"layers must be globs over scopes, at least one, got {layers!r}.")
    return {in_one_line(str(label)): glob for label, glob in layers.items()}


def _rows(paths: Sequence[Path], globs: Sequence[str]) -> list[list[int]]:
    """Find the rows of the paths' nodes: 0 is the input's."""
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


def _token_numbers(paths: Sequence[Path]) -> list[str]:
    """Return the numbers of all tokens up to the last one that a path passes."""
    known = [token for p in paths for n in p.nodes if (token := n.along("token")) is not None]
    if not known:
        raise ValueError(
            "The paths do not know which axes count the tokens: pass tokens, their texts, which "
            "token_axis needs too, or state the axes in the search, top_paths(…, axes=…)."
        )
    return [str(number) for number in range(max(known) + 1)]


def _token_finder(
    path: Path, axis: int | Callable[[Node], int | None] | None, length: int
) -> Callable[[Node], int | None]:
    """Return a function that finds the token of a path's node."""
    if callable(axis):
        return axis
    if axis is None and any(node.along("token") is not None for node in path.nodes):
        return functools.partial(Node.along, axis="token")

    def find(node: Node) -> int | None:
        if axis is None:
            return node.index[node.shape.index(length)] if length in node.shape else None
        known = -len(node.shape) <= axis < len(node.shape) and node.shape[axis] == length
        return node.index[axis] if known else None

    return find


def _columns(path: Path, find: Callable[[Node], int | None], length: int) -> list[tuple[int, bool]]:
    """Find the nodes' columns, and whether they have a token."""
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
    """Return the nodes' places, ``[nodes, 2]``, and whether they have a token."""
    column = [c for c, _ in columns]
    # More room where there is something to see: at residual connections and between tokens.
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
    axes: Axes,
    path: Path,
    points: np.ndarray,
    tokened: np.ndarray,
    width: float,
    whole: float | None,
) -> None:
    """Draw a path, in the colours of its edges' signs, or in that of the whole that it is for."""
    from matplotlib.collections import LineCollection

    looks = [
        (
            _sign_colour(edge.weight if whole is None else whole),
            _DOTTED if not has else _DASHED if skips else "solid",
        )
        for edge, has, skips in zip(path.edges, tokened[1:], path.skips, strict=True)
    ]
    # Edges that look the same are one line, or each would begin its dashes anew.
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


_STORY_SCALE = "Line width: |sum of all paths of the story| over the largest"


def _widths(paths: Sequence[Path]) -> list[float]:
    """Return the width of each path's line: by its |weight|, or by the sum of its story."""
    if _are_stories(paths):
        strengths = [abs(amount) for amount in _amounts(paths)]
    else:
        largest = max(path.log_abs_weight for path in paths)
        strengths = [math.exp(p.log_abs_weight - largest) if p.sign else 0.0 for p in paths]
    return [0.8 + 1.4 * strength for strength in strengths]


def _path_legend(figure: Figure, paths: Sequence[Path]) -> None:
    from matplotlib.lines import Line2D

    def line(label: str, colour: str = "0.2", style: Any = "solid", width: float = 1.6) -> Line2D:
        return Line2D([], [], color=colour, linestyle=style, linewidth=width, label=label)

    stories = _are_stories(paths)
    handles = [
        line("adds" if stories else "local derivative > 0", page.POSITIVE),
        line("subtracts" if stories else "local derivative < 0", page.NEGATIVE),
        line("skips modules", style=_DASHED),
        line("node without a token", style=_DOTTED),
    ]
    if not stories and any(edge.weight == 0 for path in paths for edge in path.edges):
        handles.insert(2, line("local derivative = 0", "0.5"))
    kind = "story" if stories else "path"
    for number, (path, width) in enumerate(zip(paths, _widths(paths), strict=True), 1):
        name = f"{kind} {number}" if len(paths) > 1 else kind
        amount = path.together_text if stories else f"weight {path.weight_text}"
        handles.append(line(f"{name}: {amount}", width=width))
    title = _STORY_SCALE if stories else _scale(paths)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, title=title)

"""Drawings of graphs of nodes and weighted edges, as SVG and in Graphviz's language."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Protocol

from semijax import page

ROW, COLUMN_GAP, CHARACTER = 34, 90, 7.5
"""Sizes in pixels: between nodes one above the other, between columns, and of a letter."""


class Edge(Protocol):
    """The parts of an edge that are drawn."""

    @property
    def tail(self) -> int:
        """The number of the node it leaves."""
        ...

    @property
    def head(self) -> int:
        """The number of the node it leads to."""
        ...

    @property
    def weight(self) -> float:
        """The edge's number, whose sign decides the colour."""
        ...

    @property
    def label(self) -> str:
        """The text beside the edge."""
        ...

    @property
    def share(self) -> float | None:
        """Its share of the mass, if it has one."""
        ...


def colour(edge: Edge) -> str:
    """Return the colour of the edge's sign."""
    return page.POSITIVE if edge.weight > 0 else page.NEGATIVE if edge.weight < 0 else "#999999"


def widths(edges: Sequence[Edge]) -> list[float]:
    """Return widths in pixels, by the square root of each share or size over the largest."""
    sizes = [abs(e.weight) if e.share is None else e.share for e in edges]
    largest = max((size for size in sizes if math.isfinite(size)), default=0) or 1
    return [0.5 + 4.5 * math.sqrt(min(size / largest, 1)) for size in sizes]


def dot(title: str, names: Sequence[str], edges: Sequence[Edge]) -> str:
    """Return a digraph in Graphviz's language."""
    lines = [f"  {n} [label={json.dumps(name)}];" for n, name in enumerate(names)]
    for edge, width in zip(edges, widths(edges), strict=True):
        look = f'label={json.dumps(edge.label)} color="{colour(edge)}" penwidth={width:.2f}'
        lines.append(f"  {edge.tail} -> {edge.head} [{look}];")
    head = f"digraph {{\n  rankdir=LR; label={json.dumps(title)};\n  node [shape=box];\n"
    return head + "\n".join(lines) + "\n}\n"


def svg(names: Sequence[str], hints: Sequence[str], edges: Sequence[Edge]) -> str:
    """Draw a picture, from left to right in the order of computation.

    Args:
        names: of the nodes, each after those that it is computed from.
        hints: what to say of each node when the mouse is over it.
        edges: between them.
    """
    columns = _columns(len(names), edges)
    boxes = [CHARACTER * len(name) + 12 for name in names]
    room = [0.0] * (max(columns, default=-1) + 1)
    for column, box in zip(columns, boxes, strict=True):
        room[column] = max(room[column], box)
    x = [10 + sum(room[:column]) + COLUMN_GAP * column for column in range(len(room))]
    y, lanes, height = _heights(columns, edges)
    parts = []
    for number, (edge, width) in enumerate(zip(edges, widths(edges), strict=True)):
        tail, head = columns[edge.tail], columns[edge.head]
        # Where it passes a column it goes straight, in a row of its own.
        starts = [(x[tail] + boxes[edge.tail], y[edge.tail])]
        ends = []
        for column, lane in lanes[number].items():
            ends.append((x[column], lane))
            starts.append((x[column] + room[column], lane))
        ends.append((x[head], y[edge.head]))
        curves = [_curve(*pair) for pair in zip(starts, ends, strict=True)]
        path = f"M{starts[0][0]:.0f},{starts[0][1]:.0f}"
        for points in curves:
            (ax, ay), *others = points
            path += f" L{ax:.0f},{ay:.0f} C" + " ".join(f"{px:.0f},{py:.0f}" for px, py in others)
        hint = f"{names[edge.tail]} → {names[edge.head]}: {edge.label}"
        tx, ty = _on_curve(curves[0], 0.4)
        short = f"{edge.weight:.3g}" if edge.share is None else f"{edge.share:.0%}"
        parts.append(
            f'<path d="{path}" fill="none" stroke="{colour(edge)}" stroke-width="{width:.2f}" '
            f'stroke-opacity="0.6"><title>{page.text(hint)}</title></path>'
            f'<text x="{tx:.0f}" y="{ty - 3:.0f}" font-size="9" text-anchor="middle" '
            f'fill="{colour(edge)}">{page.text(short)}</text>'
        )
    for n, name in enumerate(names):
        at = x[columns[n]]
        parts.append(
            f'<rect x="{at:.0f}" y="{y[n] - 11:.0f}" width="{boxes[n]:.0f}" height="22" rx="4" '
            f'fill="white" stroke="#333"><title>{page.text(hints[n])}</title></rect>'
            f'<text x="{at + 6:.0f}" y="{y[n] + 4:.0f}" font-size="12" font-family="monospace" '
            f'pointer-events="none">{page.text(name)}</text>'
        )
    width = x[-1] + room[-1] + 10 if room else 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'style="background:white">{"".join(parts)}</svg>'
    )


def _heights(
    columns: Sequence[int], edges: Sequence[Edge]
) -> tuple[list[float], list[dict[int, float]], float]:
    """Return the height of each node, of each edge in each column it passes, and of all.

    In a column they are ordered by the mean height of what leads there, so that few edges cross.
    """
    nodes = [0.0] * len(columns)
    lanes: list[dict[int, float]] = [{} for _ in edges]
    spans = [(columns[edge.tail], columns[edge.head]) for edge in edges]
    count = max(columns, default=-1) + 1
    passing = [[n for n, (a, b) in enumerate(spans) if a < c < b] for c in range(count)]
    sizes = [columns.count(c) + len(passing[c]) for c in range(count)]

    def came_from(number: int, column: int) -> float:
        return lanes[number].get(column - 1, nodes[edges[number].tail])

    for column in range(count):
        standing: list[tuple[float, int, int | None]] = []
        for node in (n for n, c in enumerate(columns) if c == column):
            own = [n for n, edge in enumerate(edges) if edge.head == node and spans[n][0] < column]
            heights = [came_from(n, column) for n in own]
            standing.append((sum(heights) / len(heights) if heights else 0.0, node, None))
        standing += [(came_from(n, column), len(columns), n) for n in passing[column]]
        first = 20 + ROW * (max(sizes) - sizes[column]) / 2
        for row, (_, node, edge) in enumerate(sorted(standing, key=lambda s: s[:2])):
            if edge is None:
                nodes[node] = first + ROW * row
            else:
                lanes[edge][column] = first + ROW * row
    return nodes, lanes, 40 + ROW * max(max(sizes, default=1) - 1, 0)


def _columns(count: int, edges: Sequence[Edge]) -> list[int]:
    """Place each node to the right of those it is computed from, ignoring edges that lead back."""
    columns = [0] * count
    for edge in sorted(edges, key=lambda e: (e.head, e.tail)):
        if edge.tail < edge.head:
            columns[edge.head] = max(columns[edge.head], columns[edge.tail] + 1)
    return columns


def _curve(start: tuple[float, float], end: tuple[float, float]) -> Sequence[tuple[float, float]]:
    """Return a cubic Bézier curve that starts and ends level."""
    (ax, ay), (bx, by) = start, end
    bend = max(abs(bx - ax) / 2, 30)
    return start, (ax + bend, ay), (bx - bend, by), end


def _on_curve(points: Sequence[tuple[float, float]], t: float) -> tuple[float, float]:
    """Return a point of a cubic Bézier curve."""
    shares = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    x = sum(share * px for share, (px, _) in zip(shares, points, strict=True))
    y = sum(share * py for share, (_, py) in zip(shares, points, strict=True))
    return x, y

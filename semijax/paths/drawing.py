"""How a graph of nodes and weighted edges looks: as an SVG picture, and in Graphviz's language."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Protocol

from semijax import page

ROW, COLUMN_GAP, CHARACTER = 34, 90, 7.5
"""Pixels: between nodes one above the other, between columns, and of a letter."""


class Edge(Protocol):
    """What is drawn of an edge."""

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
        """What is written at it."""
        ...

    @property
    def share(self) -> float | None:
        """Its share of the mass, if it has one."""
        ...


def label(edge: Edge) -> str:
    """Its weight, and its share of the mass if it has one."""
    return f"{edge.weight:.3g}" + ("" if edge.share is None else f" ({edge.share:.1%})")


def colour(edge: Edge) -> str:
    """That of its sign."""
    return page.POSITIVE if edge.weight > 0 else page.NEGATIVE if edge.weight < 0 else "#999999"


def widths(edges: Sequence[Edge]) -> list[float]:
    """In pixels: the square root of the share of the mass, or of the size over the largest."""
    sizes = [abs(e.weight) if e.share is None else e.share for e in edges]
    largest = max((size for size in sizes if math.isfinite(size)), default=0) or 1
    return [0.5 + 4.5 * math.sqrt(min(size / largest, 1)) for size in sizes]


def dot(title: str, names: Sequence[str], edges: Sequence[Edge]) -> str:
    """A digraph in Graphviz's language."""
    lines = [f"  {n} [label={json.dumps(name)}];" for n, name in enumerate(names)]
    for edge, width in zip(edges, widths(edges), strict=True):
        look = f'label={json.dumps(label(edge))} color="{colour(edge)}" penwidth={width:.2f}'
        lines.append(f"  {edge.tail} -> {edge.head} [{look}];")
    head = f"digraph {{\n  rankdir=LR; label={json.dumps(title)};\n  node [shape=box];\n"
    return head + "\n".join(lines) + "\n}\n"


def svg(names: Sequence[str], hints: Sequence[str], edges: Sequence[Edge]) -> str:
    """A picture, from left to right in the order of computation.

    Args:
        names: of the nodes, each after those that it is computed from.
        hints: what to say of each node when the mouse is over it.
        edges: between them.
    """
    columns = _columns(len(names), edges)
    boxes = [CHARACTER * len(name) + 12 for name in names]
    left, x = 10.0, {}
    for column in range(max(columns, default=-1) + 1):
        x[column] = left
        left += max(w for w, c in zip(boxes, columns, strict=True) if c == column) + COLUMN_GAP
    rows = [columns[:n].count(column) for n, column in enumerate(columns)]
    tallest = max(rows, default=0) + 1
    filled = {column: columns.count(column) for column in columns}
    y = [
        20 + ROW * (row + (tallest - filled[column]) / 2)
        for row, column in zip(rows, columns, strict=True)
    ]
    parts = []
    for edge, width in zip(edges, widths(edges), strict=True):
        ax, ay = x[columns[edge.tail]] + boxes[edge.tail], y[edge.tail]
        bx, by = x[columns[edge.head]], y[edge.head]
        bend = max(abs(bx - ax) / 2, 30)
        curve = (ax, ay), (ax + bend, ay), (bx - bend, by), (bx, by)
        hint = f"{names[edge.tail]} → {names[edge.head]}: {label(edge)}"
        path = "M{} C{} {} {}".format(*(f"{px:.0f},{py:.0f}" for px, py in curve))
        tx, ty = _on_curve(curve, 0.3)
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
    height = 40 + ROW * tallest
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left:.0f}" height="{height:.0f}" '
        f'style="background:white">{"".join(parts)}</svg>'
    )


def _columns(count: int, edges: Sequence[Edge]) -> list[int]:
    """Each node to the right of those it is computed from; what leads back does not matter."""
    columns = [0] * count
    for edge in sorted(edges, key=lambda e: (e.head, e.tail)):
        if edge.tail < edge.head:
            columns[edge.head] = max(columns[edge.head], columns[edge.tail] + 1)
    return columns


def _on_curve(points: Sequence[tuple[float, float]], t: float) -> tuple[float, float]:
    """A point of a cubic Bézier curve."""
    shares = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    x = sum(share * px for share, (px, _) in zip(shares, points, strict=True))
    y = sum(share * py for share, (_, py) in zip(shares, points, strict=True))
    return x, y

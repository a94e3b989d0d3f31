"""Following paths through a run, forward, all of them side by side, one array after the other.

A walker stands at a node and remembers how it came there. It knows what lies ahead, so that no step
is in vain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from semijax.jacobians.edges import NO_EDGES, Edges
from semijax.paths.landscape import Landscape
from semijax.paths.run import Array, Step


class Trail(NamedTuple):
    """How one walker went.

    Attributes:
        start: the array it started in, and the position in it.
        hops: of every edge the step, the positions among its inputs and outputs, the positions in
            these two arrays, and the weight.
    """

    start: tuple[Array, int]
    hops: list[tuple[Step, int, int, int, int, float]]


class Crossing(NamedTuple):
    """A way from one array to another: an input and an output of a step.

    Attributes:
        step, input, output: the step, and the positions of the two.
        edges: those that leave the nodes that were asked for.
    """

    step: Step
    input: int
    output: int
    edges: Edges

    @property
    def target(self) -> Array:
        """The array they lead to."""
        return self.step.outputs[self.output]


def crossings(landscape: Landscape, array: Array, index: np.ndarray) -> list[Crossing]:
    """All edges that leave these nodes for an array from which there is a way."""
    found = []
    for step, position in landscape.run.readers[array.number]:
        ahead = {o for o, made in step.outputs.items() if landscape.reaches(made)}
        if ahead:
            leaving = step.jacobian.leaving(position, index)
            found += [Crossing(step, position, o, edges) for o, edges in leaving if o in ahead]
    return found


class Trails:
    """The hops of all walkers, as a tree: every hop knows the one before it."""

    def __init__(self) -> None:
        self._chunks: list[tuple[np.ndarray, ...]] = []
        self._places: list[Crossing | Array] = []
        self._count = 0

    def start(self, array: Array, index: np.ndarray) -> np.ndarray:
        """The numbers of hops that are not from anywhere."""
        none = np.full(len(index), -1)
        return self._add(none, array, none, index, np.ones(len(index)))

    def go(
        self,
        hop: np.ndarray,
        crossing: Crossing,
        start: np.ndarray,
        end: np.ndarray,
        weight: np.ndarray,
    ) -> np.ndarray:
        """The numbers of the hops that follow; the same where there is no edge to cross."""
        if crossing.step.equation is None:
            return hop
        return self._add(hop, crossing._replace(edges=NO_EDGES), start, end, weight)

    def follow(self, ends: np.ndarray) -> Iterator[Trail]:
        """The way that led to each of these hops."""
        if not len(ends):
            return
        columns = [np.concatenate(column).tolist() for column in zip(*self._chunks, strict=True)]
        parents, places, starts, targets, weights = columns
        for hop in ends.tolist():
            hops = []
            while isinstance(place := self._places[places[hop]], Crossing):
                way = place.step, place.input, place.output
                hops.append((*way, starts[hop], targets[hop], weights[hop]))
                hop = parents[hop]
            yield Trail((place, targets[hop]), hops[::-1])

    def _add(self, parent: np.ndarray, place: Any, *columns: np.ndarray) -> np.ndarray:
        number = np.arange(self._count, self._count + len(parent))
        self._chunks.append((parent, np.full(len(parent), len(self._places)), *columns))
        self._places.append(place)
        self._count += len(parent)
        return number


def scaled(numbers: np.ndarray, exponent: Any) -> np.ndarray:
    """``numbers`` · 2^exponent."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(numbers, np.clip(exponent, -3000, 3000).astype(np.int32))

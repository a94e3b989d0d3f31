"""The edges that paths take, each remembered until the paths are at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from semijax.jacobians.edges import NO_EDGES, Edges
from semijax.paths.run import Array, Step
from semijax.paths.scores import Reach


class Bundle(NamedTuple):
    """Edges from nodes of one array to another array that a step makes from it.

    Attributes:
        step, input, output: the step, and the positions of the two arrays.
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


def bundles(scores: Reach, array: Array, index: np.ndarray) -> list[Bundle]:
    """Return the edges that leave these nodes for arrays from which there is a way to the end."""
    found = []
    for step, position in scores.run.readers[array.number]:
        open_ = {o for o, made in step.outputs.items() if scores.reached(made)}
        if open_:
            leaving = step.jacobian.leaving(position, index)
            found += [Bundle(step, position, o, edges) for o, edges in leaving if o in open_]
    return found


class Backpointers:
    """All edges that were taken, each with the one before it: a tree of unfinished paths.

    Attributes:
        places: what the edges belong to: the bundle of an edge; for a start its array.
    """

    def __init__(self) -> None:
        self.places: list[Bundle | Array] = []
        self._chunks: list[tuple[np.ndarray, ...]] = []
        self._count = 0

    def start(self, array: Array, index: np.ndarray) -> np.ndarray:
        """Return new pointers to where paths begin, with no edge yet."""
        none = np.full(len(index), -1)
        return self._add(array, none, none, index, np.ones(len(index)))

    def extend(
        self,
        pointer: np.ndarray,
        bundle: Bundle,
        start: np.ndarray,
        end: np.ndarray,
        weight: np.ndarray,
    ) -> np.ndarray:
        """Return pointers to the edges that follow, or the same ones if no edge is crossed.

        Args:
            pointer: to the last edges so far.
            bundle: the edges' bundle.
            start: where the edges start in the one array.
            end: where they end in the other.
            weight: the local derivatives.
        """
        if bundle.step.equation is None:
            return pointer
        return self._add(bundle._replace(edges=NO_EDGES), pointer, start, end, weight)

    def columns(self) -> tuple[list[int], list[int], np.ndarray, np.ndarray, np.ndarray]:
        """Return for every pointer the previous one, its place's number, start, end and weight."""
        joined = [np.concatenate(column) for column in zip(*self._chunks, strict=True)]
        previous, place, start, end, weight = joined
        return previous.tolist(), place.tolist(), start, end, weight

    def _add(self, place: Bundle | Array, previous: np.ndarray, *columns: np.ndarray) -> np.ndarray:
        new = np.arange(self._count, self._count + len(previous))
        self._chunks.append((previous, np.full(len(new), len(self.places)), *columns))
        self.places.append(place)
        self._count += len(new)
        return new


class Found(NamedTuple):
    """Complete paths: the tree, and the pointer to the last edge of each path."""

    tree: Backpointers
    ends: Sequence[int]

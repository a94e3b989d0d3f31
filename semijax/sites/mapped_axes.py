"""The places where ``vmap`` has put the axes it maps.

A function that ``vmap`` maps is traced once for all examples, and in each of its arrays the mapped
axis lies where it was easiest for JAX: behind the hidden units after ``W @ x``, in front of them
after ``W @ x + b``. The model's author sees neither: in front of what the function computes for one
example there is an axis for the examples. This module finds it.

What comes out of a mapped function has the mapped axis in front (``vmap`` moves it there; an author
who asks for ``out_axes=1`` sees the output in those axes, and so do we). From there its label
(``AxisLabels``) is followed back to all arrays from which it came.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from semijax.jacobians.axis_labels import AxisLabels
from semijax.trace.graph import Constant, Equation, Graph, Variable, build_bodies
from semijax.trace.primitives import primitive

Axes = tuple[int, ...]


def seen_axes(graph: Graph) -> Mapping[Variable, Axes | None]:
    """Return the axes of a graph's arrays in the order in which the author sees them.

    None where that cannot be told; an array that is missing has its own order.
    """
    outside = graph.within[-1][0].maps if graph.within else ()
    calls = dict.fromkeys([*outside, *(call for e in graph.equations for call in e.maps)])
    if not calls:
        return {}
    made: dict[Variable, tuple[Any, ...]] = dict.fromkeys(graph.inputs, outside)
    made.update((v, equation.maps) for equation in graph.equations for v in equation.outputs)
    labels = _Labels(graph)
    left_by = {call: list(_leaving(graph, made, call)) for call in calls}
    mapped: dict[Any, set[int]] = {}
    sizes: dict[Any, set[int]] = {}
    for call in calls:  # outer ones first
        mapped[call], sizes[call] = set(), set()
        for v in left_by[call]:
            outer = made[v][: made[v].index(call)]
            others = set().union(*(mapped[c] for c in outer))
            own = [a for a, label in enumerate(labels.of(v)) if label not in others]
            if own:
                mapped[call].add(labels.of(v)[own[0]])
                sizes[call].add(v.shape[own[0]])
    found: dict[Variable, Axes | None] = {}
    for v, around in made.items():
        if around:
            found[v] = _order(v.shape, labels.of(v), [(mapped[c], sizes[c]) for c in around])
    return found


def moved_to_front(graph: Graph, axes: Mapping[Variable, Axes | None]) -> dict[Variable, Variable]:
    """Find what ``vmap`` makes of arrays that leave the mapped function: the same, with axes moved.

    Args:
        graph: the graph.
        axes: what ``seen_axes`` says of its arrays.

    Returns:
        From the transposed array to the original, which nothing else reads.
    """
    read = [v for equation in graph.equations for v in equation.inputs]
    reads = collections.Counter([*read, *graph.outputs])
    return {
        equation.outputs[0]: v
        for equation in graph.equations
        if equation.primitive is TRANSPOSE and equation.maps
        for v in equation.inputs
        if isinstance(v, Variable)
        and reads[v] == 1
        and axes.get(v) == equation.params["permutation"]
    }


TRANSPOSE = primitive("transpose")


class _Labels:
    """A label for every axis of every array."""

    def __init__(self, graph: Graph) -> None:
        self._analysis = analysis = AxisLabels()
        self._known: dict[Variable, Sequence[int | None]] = {}
        for equation in graph.equations:
            if equation.maps:
                inputs = [self._read(v) for v in equation.inputs]
                outputs = analysis.step(equation, inputs)
                for v, own in zip(equation.outputs, outputs, strict=True):
                    fresh = analysis.fresh(v.shape)
                    pairs = zip(own, fresh, strict=True)
                    self._known[v] = [new if label is None else label for label, new in pairs]
                if equation.region:
                    self._carry(equation, inputs)

    def of(self, v: Variable) -> list[int]:
        """Return the labels of an array; axes with equal indices have equal labels."""
        return [self._analysis.find(label) for label in self._read(v)]

    def _carry(self, equation: Equation, inputs: Sequence[Any]) -> None:
        """Unify the first, mapped axes of what a loop carries, before the loop and behind it."""
        assert equation.region is not None
        first, carries = equation.region.carried
        skipped = len(inputs) - len(build_bodies(equation)[0].inputs)
        for own, v in zip(inputs[skipped + first :], equation.outputs[:carries], strict=False):
            if own:
                self._analysis.unify(own[:1], tuple(self._known[v][:1]))

    def _read(self, v: Variable | Constant) -> Any:
        if isinstance(v, Constant):
            return self._analysis.fresh(np.shape(v.value))
        if v not in self._known:
            self._known[v] = self._analysis.fresh(v.shape)
        return tuple(self._known[v])


def _leaving(
    graph: Graph, made: Mapping[Variable, tuple[Any, ...]], call: Any
) -> Iterator[Variable]:
    """Yield the arrays that leave a mapped function: those that are read outside."""
    read = [v for equation in graph.equations if call not in equation.maps for v in equation.inputs]
    for v in dict.fromkeys([*read, *graph.outputs]):
        if isinstance(v, Variable) and call in made.get(v, ()):
            yield v


def _order(
    shape: Sequence[int],
    labels: Sequence[int],
    calls: Sequence[tuple[Collection[int], Collection[int]]],
) -> Axes | None:
    """Put the mapped axes first, those of outer calls before those of inner ones."""
    first: list[int] = []
    for mapped, sizes in calls:
        left = [a for a in range(len(shape)) if a not in first]
        candidates = [a for a in left if labels[a] in mapped]
        if not candidates:  # not mapped at all, or its way out leads through what mixes the axes
            candidates = [a for a in left if shape[a] in sizes]
            if candidates and (len(candidates) > 1 or candidates[0] != left[0]):
                return None
        if len(candidates) > 1:
            return None
        first += candidates
    return (*first, *(a for a in range(len(shape)) if a not in first))

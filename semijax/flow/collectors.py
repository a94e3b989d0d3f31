"""Collectors of what two sweeps find at the arrays asked for, inside regions too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from semijax import elements as el
from semijax import sweep
from semijax.elements import Elements
from semijax.jacobians.base import Collector, EquationJacobian
from semijax.semirings.base import Semiring
from semijax.sites.site import Place
from semijax.trace.graph import Equation, Graph, Variable


def from_sites(
    graph: Graph, semiring: Semiring, at: Any, tangents: Any, cotangents: Any
) -> dict[int, Elements]:
    """Collect the ⊕ over all paths from marked arrays to the outputs, by number, but no 0̄."""
    del tangents
    found: dict[int, Elements] = {}
    for equation, jacobian, arrived, _ in sweep.backward(graph, semiring, at, cotangents):
        variables = graph.inputs if equation is None else equation.outputs
        for v, element in zip(variables, arrived, strict=True):
            if v in graph.marked and element is not None:
                found.update(dict.fromkeys(graph.marked[v], at.started(semiring, v, element)))
        if equation is not None and equation.marks and jacobian is not None:
            found |= jacobian.inside(semiring, None, arrived, from_sites)
    return found


class Swept:
    """A graph swept both ways, between tangents and cotangents and from where paths start.

    Attributes:
        before: of each array, the elements of all paths that lead to it or start there.
        after: those of all paths from it to the outputs.
        visits: what the forward sweep knew at each equation.
    """

    def __init__(
        self, graph: Graph, semiring: Semiring, at: Any, tangents: Any, cotangents: Any
    ) -> None:
        self._semiring = semiring
        self.before: dict[Variable, Elements] = {}
        self.after: dict[Variable, Elements] = {}
        self.visits: dict[Equation, sweep.Visit] = {}
        self._regions: list[tuple[Equation, EquationJacobian, Sequence[Elements | None]]] = []

        def define(v: Variable, arrived: Elements | None) -> None:
            going = sweep.departing(graph, semiring, at, v, arrived)
            if going is not None:
                self.before[v] = going

        for v, tangent in zip(graph.inputs, tangents, strict=True):
            define(v, tangent)
        for visit in sweep.forward(graph, semiring, at, tangents):
            if visit.equation is not None:
                self.visits[visit.equation] = visit
                for o, v in enumerate(visit.equation.outputs):
                    define(v, visit.sent.get(o))
        for equation, jacobian, arrived, _ in sweep.backward(graph, semiring, at, cotangents):
            variables = graph.inputs if equation is None else equation.outputs
            reached = zip(variables, arrived, strict=True)
            self.after.update((v, e) for v, e in reached if e is not None)
            if equation is not None and equation.region and jacobian is not None:
                self._regions.append((equation, jacobian, arrived))

    def passing(self, v: Variable) -> Elements | None:
        """Return the ⊕ over all complete paths through an array, forward ⊗ backward; None for 0̄."""
        if v not in self.before or v not in self.after:
            return None
        return self._semiring.mul(self.before[v], _like(self._semiring, v, self.after[v]))

    def inside(
        self, collect: Collector, wanted: Callable[[Equation], bool]
    ) -> Iterator[tuple[Equation, dict[Any, Elements]]]:
        """Yield what ``collect`` finds in each region that complete paths lead through."""
        for equation, jacobian, arrived in self._regions:
            into = {i: e for i, e in enumerate(self.visits[equation].arrived) if e is not None}
            if wanted(equation) and (into or equation.starts_inside):
                yield equation, jacobian.inside(self._semiring, into, arrived, collect)


def through_sites(
    graph: Graph, semiring: Semiring, at: Any, tangents: Any, cotangents: Any
) -> dict[int, Elements]:
    """Collect the ⊕ over all complete paths that pass marked arrays, by number, but no 0̄.

    A path is complete if it leads to the outputs from where paths start, or from an input with a
    tangent.
    """
    swept = Swept(graph, semiring, at, tangents, cotangents)
    found: dict[int, Elements] = {}
    for v, numbers in graph.marked.items():
        passing = swept.passing(v)
        if passing is not None:
            found.update(dict.fromkeys(numbers, passing))
    for _, inside in swept.inside(through_sites, lambda equation: bool(equation.marks)):
        found |= inside
    return found


def _like(semiring: Semiring, variable: Variable, elements: Elements) -> Elements:
    return el.cast_like(elements, semiring.element_type(el.accumulation_dtype(variable.dtype)))


Consumed = tuple[int, int, int]
"""The number of a site, of its reader (−1: the outputs), and of the input or output it is."""


def to_consumers(
    graph: Graph, semiring: Semiring, at: Any, tangents: Any, cotangents: Any
) -> dict[Consumed, Elements]:
    """Collect what each reader of a marked array contributes to its elements."""
    numbers = {equation: n for n, equation in enumerate(graph.equations)}
    found: dict[Consumed, Elements] = {}
    for n, (v, element) in enumerate(zip(graph.outputs, cotangents, strict=True)):
        if element is not None and isinstance(v, Variable):
            sites = graph.marked.get(v, ())
            found.update({(site, -1, n): at.started(semiring, v, element) for site in sites})
    for equation, jacobian, arrived, sent in sweep.backward(graph, semiring, at, cotangents):
        if equation is None:
            continue
        for i, part in sent.items():
            v = equation.inputs[i]
            if isinstance(v, Variable) and v in graph.marked:
                part = at.started(semiring, v, _like(semiring, v, part))
                found.update({(site, numbers[equation], i): part for site in graph.marked[v]})
        if equation.marks and jacobian is not None:
            found |= jacobian.inside(semiring, None, arrived, to_consumers)
    return found


def zero_at(semiring: Semiring, place: Place | None) -> Elements:
    """Return the 0̄ of an array, as large as what would be found there."""
    if place is None:
        return semiring.zero((), jnp.float32)
    variable = place.variable
    shape = (*place.loop_shape, *el.node_shape(variable))
    return semiring.zero(shape, el.accumulation_dtype(variable.dtype))


def at_places(
    semiring: Semiring, places: Sequence[Place | None], found: Mapping[int, Elements]
) -> list[Elements]:
    """List what was found at arrays, or 0̄, with the axes as the model's author sees them."""
    elements = [
        found[n] if n in found else zero_at(semiring, place) for n, place in enumerate(places)
    ]
    return [
        element if place is None else place.seen(element)
        for place, element in zip(places, elements, strict=True)
    ]

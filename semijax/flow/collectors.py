"""What two sweeps find of the arrays that were asked for, inside of regions too."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from semijax import elements as el
from semijax import sweep
from semijax.elements import Elements
from semijax.flow.sites import Place
from semijax.semirings.base import Semiring
from semijax.trace.graph import Graph, Variable


def from_sites(
    graph: Graph, semiring: Semiring, values: Any, tangents: Any, cotangents: Any
) -> dict[int, Elements]:
    """⊕ over all paths from a marked array to the outputs, by its numbers; 0̄ is missing."""
    del tangents
    found: dict[int, Elements] = {}
    for equation, jacobian, arrived, _ in sweep.backward(graph, semiring, values, cotangents):
        variables = graph.inputs if equation is None else equation.outputs
        for v, element in zip(variables, arrived, strict=True):
            if v in graph.marked and element is not None:
                found.update(dict.fromkeys(graph.marked[v], element))
        if equation is not None and equation.marks and jacobian is not None:
            found |= jacobian.inside(semiring, {}, arrived, from_sites)
    return found


def through_sites(
    graph: Graph, semiring: Semiring, values: Any, tangents: Any, cotangents: Any
) -> dict[int, Elements]:
    """⊕ over all paths from the inputs through a marked array to the outputs: forward ⊗ backward.

    By the numbers of the arrays; 0̄ is missing.
    """
    arriving = {v: t for v, t in zip(graph.inputs, tangents, strict=True) if t is not None}
    into: dict[Any, dict[int, Elements]] = {}
    for equation, _, arrived, sent in sweep.forward(graph, semiring, values, tangents):
        if equation is not None:
            arriving.update((equation.outputs[o], part) for o, part in sent.items())
            into[equation] = {i: e for i, e in enumerate(arrived) if e is not None}
    found: dict[int, Elements] = {}
    for equation, jacobian, arrived, _ in sweep.backward(graph, semiring, values, cotangents):
        variables = graph.inputs if equation is None else equation.outputs
        for v, element in zip(variables, arrived, strict=True):
            if v in graph.marked and v in arriving and element is not None:
                both = (_like(semiring, v, e) for e in (arriving[v], element))
                found.update(dict.fromkeys(graph.marked[v], semiring.mul(*both)))
        if equation is not None and equation.marks and jacobian is not None and into[equation]:
            found |= jacobian.inside(semiring, into[equation], arrived, through_sites)
    return found


def _like(semiring: Semiring, variable: Variable, elements: Elements) -> Elements:
    return el.cast_like(elements, semiring.element_type(el.accumulation_dtype(variable.dtype)))


Consumed = tuple[int, int, int]
"""The number of a site, the position of the equation that reads it (−1 for an output), and which
of its inputs (or of the outputs) it is."""


def to_consumers(
    graph: Graph, semiring: Semiring, values: Any, tangents: Any, cotangents: Any
) -> dict[Consumed, Elements]:
    """What each reader of a marked array contributes to its elements."""
    numbers = {equation: n for n, equation in enumerate(graph.equations)}
    found: dict[Consumed, Elements] = {}
    for n, (v, element) in enumerate(zip(graph.outputs, cotangents, strict=True)):
        if element is not None and isinstance(v, Variable):
            found.update({(site, -1, n): element for site in graph.marked.get(v, ())})
    for equation, jacobian, arrived, sent in sweep.backward(graph, semiring, values, cotangents):
        if equation is None:
            continue
        for i, part in sent.items():
            v = equation.inputs[i]
            if isinstance(v, Variable) and v in graph.marked:
                part = _like(semiring, v, part)
                found.update({(site, numbers[equation], i): part for site in graph.marked[v]})
        if equation.marks and jacobian is not None:
            found |= jacobian.inside(semiring, {}, arrived, to_consumers)
    return found


def zero_at(semiring: Semiring, place: Place | None) -> Elements:
    """0̄ of an array, as large as what would be found there."""
    if place is None:
        return semiring.zero((), jnp.float32)
    variable = place.variable
    shape = (*place.loop_shape, *el.node_shape(variable))
    return semiring.zero(shape, el.accumulation_dtype(variable.dtype))

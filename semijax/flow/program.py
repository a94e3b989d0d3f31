"""A call whose intermediate arrays can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, sweep
from semijax import elements as el
from semijax.elements import Elements
from semijax.flow.sites import Place, Survey, marks
from semijax.graph import Graph, Variable, build, stage
from semijax.jacobians.base import Look
from semijax.scopes import made_anew
from semijax.semirings.base import Semiring
from semijax.semirings.staged import Staged

Argnums = int | Sequence[int] | None


class Program:
    """``fun(*args, **kwargs)`` as a jaxpr of its floating point arguments.

    Attributes:
        closed: the jaxpr.
        leaves: the arrays it is to be run on.
        survey: its intermediate arrays.
        out_shapes: the tree of shapes of its output.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        argnums: Argnums = None,
        *,
        caller: str,
    ) -> None:
        """Trace it with respect to ``argnums``, or to all that is floating for None."""
        checks.check_callable(fun)
        if argnums is None:
            chosen = list(range(len(args)))
        else:
            chosen = checks.positions(checks.check_argnums(argnums), args)
            checks.check_inputs(caller, tuple(args[i] for i in chosen))
        named = [leaf for n in chosen for leaf in checks.named_leaves(n, args[n])]
        traced = [(name, leaf) for name, leaf in named if _is_floating(leaf)]
        trees = [jax.tree.structure(args[n]) for n in chosen]

        def of_traced(*arrays: Any) -> Any:
            given = iter(arrays)
            leaves = iter([next(given) if _is_floating(leaf) else leaf for _, leaf in named])
            full = list(args)
            for n, tree in zip(chosen, trees, strict=True):
                full[n] = tree.unflatten([next(leaves) for _ in range(tree.num_leaves)])
            with made_anew(full):
                return fun(*full, **kwargs)

        self.leaves = [jnp.asarray(leaf) for _, leaf in traced]
        self.closed, self.out_shapes = stage(of_traced, *self.leaves)
        self.survey = Survey(self.closed, [name for name, _ in traced])
        self._caller = caller

    def graph(self, places: Sequence[Place | None], *, from_arguments: bool = False) -> Graph:
        """The graph, for paths from some arrays, or from the arguments."""
        active = [from_arguments] * len(self.leaves)
        return build(self.closed, active=active, marks=marks(places))

    def between(
        self, graph: Graph, semiring: Semiring, look: Look, *, from_arguments: bool = False
    ) -> dict[Any, Elements]:
        """What ``look`` finds between the arguments and the output, which gets 1̄."""
        checks.check_scalar(self.out_shapes, self._caller)
        values = sweep.evaluate(graph, self.leaves)
        cotangent = semiring.one((), el.accumulation_dtype(self.out_shapes.dtype))
        tangents: list[Elements | None] = [None] * len(self.leaves)
        if from_arguments:
            tangents = [
                semiring.one(el.node_shape(leaf), el.accumulation_dtype(leaf.dtype))
                for leaf in self.leaves
            ]
        return look(graph, Staged(semiring), values, tangents, [cotangent])


def _is_floating(leaf: Any) -> bool:
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)


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


def none(semiring: Semiring, place: Place | None) -> Elements:
    """0̄ of an array, as large as what would be found there."""
    if place is None:
        return semiring.zero((), jnp.float32)
    variable = place.variable
    shape = (*place.loop_shape, *el.node_shape(variable))
    return semiring.zero(shape, el.accumulation_dtype(variable.dtype))

"""The dynamic programme: every equation's local Jacobian applied once, in order.

``pull`` goes backward from the outputs and ``push`` forward from the inputs. A semiring element
arriving at a variable is the ⊕ over all paths between it and the far end (Du et al. 2023, Alg. 2
and Eq. 2; for the sum this is backpropagation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from semijax import elements as el
from semijax.elements import Elements
from semijax.evaluation import Evaluation
from semijax.jacobians import EquationJacobian
from semijax.rematerialization import Rematerialization
from semijax.semirings.base import Semiring
from semijax.trace.graph import Constant, Equation, Graph, Variable


class Visit(NamedTuple):
    """The state of a sweep when it passes an equation.

    Attributes:
        equation: None at the far end of the graph.
        jacobian: None where no path leads through.
        arrived: the elements it came with: backward those of every output, forward those of every
            input; at the far end those of the inputs, or of the outputs. None for 0̄.
        sent: the elements it goes on with: backward to inputs, forward to outputs, by position.
    """

    equation: Equation | None
    jacobian: EquationJacobian | None
    arrived: Sequence[Elements | None]
    sent: Mapping[int, Elements]


def pull(
    graph: Graph, semiring: Semiring, at: Evaluation, cotangents: Sequence[Elements | None]
) -> Sequence[Elements | None]:
    """Run the reverse sweep: from elements at the outputs to elements at the inputs.

    Args:
        graph: the function.
        semiring: which statistic.
        at: its values and what its edges weigh.
        cotangents: elements of every output, or None for 0̄.

    Returns:
        The elements of every input: the ⊕ over its paths to the outputs; None where there is none.
    """
    return _far_end(backward(graph, semiring, at, cotangents))


def push(
    graph: Graph, semiring: Semiring, at: Evaluation, tangents: Sequence[Elements | None]
) -> Sequence[Elements | None]:
    """Run the forward sweep: from elements at the inputs to elements at the outputs.

    Paths start at ``graph.starts`` too. Arguments and result are those of ``pull``, with inputs and
    outputs exchanged.
    """
    return _far_end(forward(graph, semiring, at, tangents))


def backward(
    graph: Graph, semiring: Semiring, at: Evaluation, cotangents: Sequence[Elements | None]
) -> Iterator[Visit]:
    """Run the reverse sweep, equation by equation; the arguments are those of ``pull``."""
    values = Rematerialization(graph, at)
    state: dict[Variable, Elements] = {}
    for output, cotangent in zip(graph.outputs, cotangents, strict=True):
        if cotangent is not None:
            _accumulate(graph, semiring, state, output, cotangent)
    for equation in reversed(graph.equations):
        arrived = [state.pop(v, None) for v in equation.outputs]
        jacobian, sent = None, {}
        if equation.is_on_a_path and any(element is not None for element in arrived):
            here, arrived = values.enter(equation, arrived, state)
            jacobian = here.jacobian(equation)
        if jacobian and equation.wrt:
            local = _on(semiring, equation, jacobian)
            sent = _settled(semiring, jacobian, jacobian.pull(local, arrived))
        yield Visit(equation, jacobian, arrived, sent)
        for i, part in sent.items():
            _accumulate(graph, semiring, state, equation.inputs[i], part)
    yield Visit(None, None, [state.get(v) for v in graph.inputs], {})


def forward(
    graph: Graph, semiring: Semiring, at: Evaluation, tangents: Sequence[Elements | None]
) -> Iterator[Visit]:
    """Run the forward sweep, equation by equation; the arguments are those of ``push``."""
    state: dict[Variable, Elements] = {}

    def define(variable: Variable, arrived: Elements | None) -> None:
        going = departing(graph, semiring, at, variable, arrived)
        if going is not None:
            state[variable] = going

    for variable, tangent in zip(graph.inputs, tangents, strict=True):
        define(variable, tangent)
    for equation in graph.equations:
        visit = push_through(equation, semiring, at, state)
        yield visit
        for o, variable in enumerate(equation.outputs):
            define(variable, visit.sent.get(o))
    outputs = [state.get(v) if isinstance(v, Variable) else None for v in graph.outputs]
    yield Visit(None, None, outputs, {})


def push_through(
    equation: Equation, semiring: Semiring, at: Evaluation, state: Mapping[Any, Elements]
) -> Visit:
    """Take a step of a forward sweep: from the elements of variables through one equation."""
    arrived = {i: state[v] for i in equation.wrt if (v := equation.inputs[i]) in state}
    jacobian, sent = None, {}
    if arrived or equation.starts_inside:
        jacobian = at.jacobian(equation)
        pushed = jacobian.push(_on(semiring, equation, jacobian), arrived)
        parts = {o: part for o, part in enumerate(pushed) if part is not None}
        sent = _settled(semiring, jacobian, parts)
    return Visit(equation, jacobian, [arrived.get(i) for i in range(len(equation.inputs))], sent)


def departing(
    graph: Graph,
    semiring: Semiring,
    at: Evaluation,
    variable: Variable,
    arrived: Elements | None,
) -> Elements | None:
    """Return what a forward sweep sends on from an array: what arrived, and what starts there.

    None for 0̄.
    """
    if variable not in graph.active:
        return None
    dtype = el.accumulation_dtype(variable.dtype)
    if arrived is not None:
        arrived = el.cast_like(arrived, semiring.element_type(dtype))
    if variable not in graph.starts:
        return arrived
    begun = at_starts(graph, semiring, variable, at.at_start(semiring, variable))
    return begun if arrived is None else semiring.add(arrived, begun)


def at_starts(graph: Graph, semiring: Semiring, variable: Variable, elements: Elements) -> Elements:
    """Return an array's elements at the nodes where paths start, and 0̄ at the others."""
    mask, shape = graph.starts[variable], semiring.shape(elements)
    if mask is None:
        return elements
    mask = jnp.asarray(mask).reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    none = semiring.zero(shape, semiring.dtype(elements))
    return el.where(jnp.broadcast_to(mask, shape), elements, none)


def _far_end(visits: Iterator[Visit]) -> Sequence[Elements | None]:
    arrived: Sequence[Elements | None] = ()
    for visit in visits:
        arrived = visit.arrived
    return arrived


def _settled(
    semiring: Semiring, jacobian: EquationJacobian, parts: Mapping[int, Elements]
) -> Mapping[int, Elements]:
    """Settle the parts of an equation where they arrive; a region's have been settled inside it."""
    if jacobian.bodies:
        return parts
    return {position: semiring.settle(part) for position, part in parts.items()}


def _on(semiring: Semiring, equation: Equation, jacobian: EquationJacobian) -> Semiring:
    """Return the semiring on an equation's edges; a region's edges are those of its bodies."""
    return semiring if jacobian.bodies else semiring.at(equation)


def _accumulate(
    graph: Graph,
    semiring: Semiring,
    state: dict[Variable, Elements],
    variable: Variable | Constant,
    part: Elements,
) -> None:
    if isinstance(variable, Variable) and variable in graph.active:
        dtype = el.accumulation_dtype(variable.dtype)
        part = el.cast_like(part, semiring.element_type(dtype))
        state[variable] = semiring.add(state[variable], part) if variable in state else part


def zero(semiring: Semiring, variable: Any) -> Elements:
    """Return 0̄ for a variable, or for anything else with a shape and a dtype."""
    return semiring.zero(el.node_shape(variable), el.accumulation_dtype(variable.dtype))

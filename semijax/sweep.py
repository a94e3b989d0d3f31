"""The dynamic programme: every equation's local Jacobian applied once, in order.

``evaluate`` runs the function, ``pull`` goes backward from the outputs and ``push`` forward from
the inputs. A semiring element arriving at a variable is the ⊕ over all paths between it and the far
end (Du et al. 2023, Alg. 1 and Eq. 4; for the sum this is backpropagation).

Side effects (callbacks, prints) happen once, when the function is evaluated. The values inside of a
loop or a branch are not kept: a sweep through it computes them again, without the side effects, and
with what these returned the first time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from semijax import elements as el
from semijax.elements import Elements
from semijax.jacobians import EquationJacobian, equation_jacobian
from semijax.semirings.base import Semiring
from semijax.trace.graph import Constant, Equation, Graph, Variable, build_bodies, build_test
from semijax.trace.regions import WhileRegion

Values = dict[Any, Any]
"""The primal values of variables; for a region with side effects inside, what they returned."""

Seen = Mapping[tuple[int, ...], Any]
"""What side effects returned: by the position of the equation, of one inside of it, …, the output.

With a first axis for each scan.
"""


@dataclasses.dataclass(frozen=True)
class Unknown:
    """Stands for a value that cannot be computed a second time.

    Attributes:
        equation: it has a side effect, and made the value, or something the value depends on.
    """

    equation: Equation


def evaluate(graph: Graph, inputs: Sequence[Any], seen: Seen | None = None) -> Values:
    """The primal value of every variable.

    Args:
        graph: the function.
        inputs: one value per input.
        seen: what its side effects returned the first time, to compute the values again without
            them; by default they happen.
    """
    values: Values = {**graph.constants, **dict(zip(graph.inputs, inputs, strict=True))}
    for n, equation in enumerate(graph.equations):
        operands = _look_up(values, equation.inputs)
        unknown = next((x for x in operands if isinstance(x, Unknown)), None)
        if unknown is not None:
            outputs: Sequence[Any] = [unknown] * len(equation.outputs)
        elif not equation.has_effects or (seen is None and not _is_kept(equation)):
            outputs = equation.bind(*operands)
        elif equation.region is not None:
            inner = None if seen is None else {k[1:]: v for k, v in seen.items() if k[0] == n}
            outputs, values[equation] = _interpret(equation, operands, inner)
        else:
            assert seen is not None
            places = range(len(equation.outputs))
            outputs = [seen.get((n, o), Unknown(equation)) for o in places]
        values.update(zip(equation.outputs, outputs, strict=True))
    return values


def _is_kept(equation: Equation) -> bool:
    """Whether what side effects return inside of it is kept: not if nobody knows how often."""
    if equation.region is None or isinstance(equation.region, WhileRegion):
        return False
    inside = (each for body in build_bodies(equation, active=False) for each in body.equations)
    return any(each.has_effects and each.outputs for each in inside)


def _interpret(
    equation: Equation, operands: Sequence[Any], seen: Seen | None
) -> tuple[Sequence[Any], Seen]:
    """Evaluate a region, with what side effects in it return."""
    assert equation.region is not None
    bodies = build_bodies(equation, active=False)

    def run(body: int | None, inputs: Sequence[Any], iteration: Any) -> tuple[list[Any], Seen]:
        graph = build_test(equation) if body is None else bodies[body]
        row = seen
        if row is not None and iteration is not None:
            row = {key: value[iteration] for key, value in row.items()}
        values = evaluate(graph, inputs, row)
        return output_values(graph, values), _returned(graph, values)

    return equation.region.interpret(run, operands)


def _returned(graph: Graph, values: Values) -> Seen:
    """What the side effects in a graph that was evaluated returned."""
    found: dict[tuple[int, ...], Any] = {}
    for n, equation in enumerate(graph.equations):
        if equation in values:
            found.update({(n, *key): value for key, value in values[equation].items()})
        elif equation.has_effects and equation.region is None:
            results = enumerate(values[v] for v in equation.outputs)
            found.update({(n, o): x for o, x in results if not isinstance(x, Unknown)})
    return found


def output_values(graph: Graph, values: Values) -> list[Any]:
    """The primal values of the graph's outputs."""
    return read(values, graph.outputs)


class Visit(NamedTuple):
    """What a sweep knows when it comes by an equation.

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
    graph: Graph, semiring: Semiring, values: Values, cotangents: Sequence[Elements | None]
) -> Sequence[Elements | None]:
    """The reverse sweep: from elements at the outputs to elements at the inputs.

    Args:
        graph: the function.
        semiring: which statistic.
        values: the primal values that ``evaluate`` returned.
        cotangents: elements of every output, or None for 0̄.

    Returns:
        The elements of every input: the ⊕ over its paths to the outputs; None where there is none.
    """
    return _far_end(backward(graph, semiring, values, cotangents))


def push(
    graph: Graph, semiring: Semiring, values: Values, tangents: Sequence[Elements | None]
) -> Sequence[Elements | None]:
    """The forward sweep: from elements at the inputs to elements at the outputs.

    Paths start at ``graph.starts`` too. Arguments and result are those of ``pull``, with inputs and
    outputs exchanged.
    """
    return _far_end(forward(graph, semiring, values, tangents))


def backward(
    graph: Graph, semiring: Semiring, values: Values, cotangents: Sequence[Elements | None]
) -> Iterator[Visit]:
    """The reverse sweep, equation by equation; the arguments are those of ``pull``."""
    state: dict[Variable, Elements] = {}
    for output, cotangent in zip(graph.outputs, cotangents, strict=True):
        if cotangent is not None:
            _accumulate(graph, semiring, state, output, cotangent)
    for equation in reversed(graph.equations):
        arrived = [state.pop(v, None) for v in equation.outputs]
        jacobian, sent = None, {}
        leads_on = equation.wrt or equation.starts_inside
        if leads_on and any(element is not None for element in arrived):
            jacobian = _jacobian(equation, values)
        if jacobian and equation.wrt:
            local = _on(semiring, equation, jacobian)
            sent = _settled(semiring, jacobian, jacobian.pull(local, arrived))
        yield Visit(equation, jacobian, arrived, sent)
        for i, part in sent.items():
            _accumulate(graph, semiring, state, equation.inputs[i], part)
    yield Visit(None, None, [state.get(v) for v in graph.inputs], {})


def forward(
    graph: Graph, semiring: Semiring, values: Values, tangents: Sequence[Elements | None]
) -> Iterator[Visit]:
    """The forward sweep, equation by equation; the arguments are those of ``push``."""
    state: dict[Variable, Elements] = {}

    def define(variable: Variable, arrived: Elements | None) -> None:
        going = departing(graph, semiring, variable, arrived)
        if going is not None:
            state[variable] = going

    for variable, tangent in zip(graph.inputs, tangents, strict=True):
        define(variable, tangent)
    for equation in graph.equations:
        visit = push_through(equation, semiring, values, state)
        yield visit
        for o, variable in enumerate(equation.outputs):
            define(variable, visit.sent.get(o))
    outputs = [state.get(v) if isinstance(v, Variable) else None for v in graph.outputs]
    yield Visit(None, None, outputs, {})


def push_through(
    equation: Equation, semiring: Semiring, values: Values, state: Mapping[Any, Elements]
) -> Visit:
    """A forward sweep's step: from the elements of variables through one equation."""
    arrived = {i: state[v] for i in equation.wrt if (v := equation.inputs[i]) in state}
    jacobian, sent = None, {}
    if arrived or equation.starts_inside:
        jacobian = _jacobian(equation, values)
        pushed = jacobian.push(_on(semiring, equation, jacobian), arrived)
        parts = {o: part for o, part in enumerate(pushed) if part is not None}
        sent = _settled(semiring, jacobian, parts)
    return Visit(equation, jacobian, [arrived.get(i) for i in range(len(equation.inputs))], sent)


def departing(
    graph: Graph, semiring: Semiring, variable: Variable, arrived: Elements | None
) -> Elements | None:
    """What a forward sweep goes on with from an array: what has arrived, and 1̄ where paths start.

    None for 0̄.
    """
    if variable not in graph.active:
        return None
    dtype = el.accumulation_dtype(variable.dtype)
    if arrived is not None:
        arrived = el.cast_like(arrived, semiring.element_type(dtype))
    if variable not in graph.starts:
        return arrived
    empty = at_starts(graph, semiring, variable, semiring.one(el.node_shape(variable), dtype))
    return empty if arrived is None else semiring.add(arrived, empty)


def at_starts(graph: Graph, semiring: Semiring, variable: Variable, elements: Elements) -> Elements:
    """The elements of an array at those of its nodes where paths start, 0̄ at the others."""
    mask, shape = graph.starts[variable], semiring.shape(elements)
    if mask is None:
        return elements
    mask = jnp.asarray(mask).reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    none = semiring.zero(shape, semiring.dtype(elements))
    return el.where(jnp.broadcast_to(mask, shape), elements, none)


def _jacobian(equation: Equation, values: Values) -> EquationJacobian:
    seen = values.get(equation)
    return equation_jacobian(equation, *read(values, equation.inputs), seen=seen)


def _far_end(visits: Iterator[Visit]) -> Sequence[Elements | None]:
    arrived: Sequence[Elements | None] = ()
    for visit in visits:
        arrived = visit.arrived
    return arrived


def _settled(
    semiring: Semiring, jacobian: EquationJacobian, parts: Mapping[int, Elements]
) -> Mapping[int, Elements]:
    """The parts of an equation where they arrive; those of a region have settled inside of it."""
    if jacobian.bodies:
        return parts
    return {position: semiring.settle(part) for position, part in parts.items()}


def _on(semiring: Semiring, equation: Equation, jacobian: EquationJacobian) -> Semiring:
    """The semiring on the edges of an equation; a region's edges are those of its bodies."""
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
    """0̄ of a variable, or of anything else with a shape and a dtype."""
    return semiring.zero(el.node_shape(variable), el.accumulation_dtype(variable.dtype))


def read(values: Values, atoms: Sequence[Variable | Constant]) -> list[Any]:
    """The primal values of variables and constants.

    Raises:
        NotImplementedError: if one is ``Unknown``.
    """
    found = _look_up(values, atoms)
    for value in found:
        if isinstance(value, Unknown):
            raise NotImplementedError(
                f"A sweep through a loop or a branch computes the values inside of it again, and "
                f"'{value.equation.name}' has a side effect and must not run again; "
                f"{value.equation.where()}. Call it outside of the loop or branch and pass on what "
                "it returns."
            )
    return found


def _look_up(values: Values, atoms: Sequence[Variable | Constant]) -> list[Any]:
    return [values[v] if isinstance(v, Variable) else v.value for v in atoms]

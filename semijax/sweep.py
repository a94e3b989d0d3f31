"""The dynamic programme: every equation's local Jacobian applied once, in order.

``evaluate`` runs the function, ``pull`` goes backward from the outputs and ``push`` forward from
the inputs. A semiring element arriving at a variable is the ⊕ over all paths between it and the far
end (Du et al. 2023, Alg. 1 and Eq. 4; for the sum this is backpropagation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semijax import elements as el
from semijax.elements import Elements
from semijax.graph import Constant, Equation, Graph, Variable
from semijax.jacobians import EquationJacobian, equation_jacobian
from semijax.semirings.base import Semiring

Values = dict[Variable, Any]


def evaluate(graph: Graph, inputs: Sequence[Any]) -> Values:
    """The primal value of every variable."""
    values: Values = {**graph.constants, **dict(zip(graph.inputs, inputs, strict=True))}
    for equation in graph.equations:
        outputs = equation.bind(*read(values, equation.inputs))
        values.update(zip(equation.outputs, outputs, strict=True))
    return values


def output_values(graph: Graph, values: Values) -> list[Any]:
    """The primal values of the graph's outputs."""
    return read(values, graph.outputs)


def pull(
    graph: Graph, semiring: Semiring, values: Values, cotangents: Sequence[Elements | None]
) -> list[Elements | None]:
    """The reverse sweep: from elements at the outputs to elements at the inputs.

    Args:
        graph: the function.
        semiring: which statistic.
        values: the primal values that ``evaluate`` returned.
        cotangents: elements of every output, or None for 0̄.

    Returns:
        The elements of every input: the ⊕ over its paths to the outputs; None where there is none.
    """
    state: dict[Variable, Elements] = {}
    for output, cotangent in zip(graph.outputs, cotangents, strict=True):
        if cotangent is not None:
            _accumulate(graph, semiring, state, output, cotangent)
    for equation in reversed(graph.equations):
        arrived = [state.pop(v, None) for v in equation.outputs]
        if not equation.wrt or all(element is None for element in arrived):
            continue
        jacobian = equation_jacobian(equation, *read(values, equation.inputs))
        for i, part in jacobian.pull(_on(semiring, equation, jacobian), arrived).items():
            _accumulate(graph, semiring, state, equation.inputs[i], part)
    return [state.get(v) for v in graph.inputs]


def push(
    graph: Graph, semiring: Semiring, values: Values, tangents: Sequence[Elements | None]
) -> list[Elements | None]:
    """The forward sweep: from elements at the inputs to elements at the outputs.

    Arguments and result are those of ``pull``, with inputs and outputs exchanged.
    """
    state: dict[Variable, Elements] = {}
    for variable, tangent in zip(graph.inputs, tangents, strict=True):
        if tangent is not None:
            _accumulate(graph, semiring, state, variable, tangent)
    for equation in graph.equations:
        departing = {i: state[v] for i in equation.wrt if (v := equation.inputs[i]) in state}
        if not departing:
            continue
        jacobian = equation_jacobian(equation, *read(values, equation.inputs))
        pushed = jacobian.push(_on(semiring, equation, jacobian), departing)
        for variable, part in zip(equation.outputs, pushed, strict=False):
            if part is not None:
                _accumulate(graph, semiring, state, variable, part)
    return [state.get(v) if isinstance(v, Variable) else None for v in graph.outputs]


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
    """The primal values of variables and constants."""
    return [values[v] if isinstance(v, Variable) else v.value for v in atoms]

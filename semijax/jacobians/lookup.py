"""The way from an equation to its local Jacobians: the choice of the rule."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from semijax.jacobians import (  # noqa: F401, each declares the rules of its family
    axis_labels,
    collectives,
    contraction,
    cumulative,
    elementwise,
    linear_algebra,
    movement,
    reduction,
    scatter,
    window,
)
from semijax.jacobians.base import (
    NOTHING_KNOWN,
    Declaration,
    EquationJacobian,
    Table,
    as_table,
    declaration,
    no_derivative,
    user_rule,
)
from semijax.jacobians.complex import both_parts, involves_complex, part_by_part
from semijax.jacobians.dense import dense_jacobian
from semijax.jacobians.line import Line
from semijax.trace.graph import Equation, as_arrays


def equation_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """Return the edges of an equation that is not a region, at these primal values.

    Args:
        equation: the equation.
        *values: one for each of its inputs.

    Raises:
        NotImplementedError: where JAX has no derivative either.
        ValueError: where the only way is a dense Jacobian, and that is over its budget.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> from semijax.trace.graph import trace
        >>> x = jnp.array([0.0, 3.0])
        >>> graph, _ = trace(jnp.exp, x)
        >>> table = sj.jacobians.equation_jacobian(graph.equations[0], x)
        >>> print(table.kind, table.pull(sj.SumProduct(), [jnp.ones(2)])[0].round(2))
        Diagonal [ 1.   20.09]
    """
    assert equation.region is None
    if rule := user_rule(equation.primitive):
        return as_table(equation, rule(equation, *as_arrays(values)))
    known = _known(equation)
    parts = involves_complex(equation) and not known.knows_parts
    table = None
    try:
        if parts and not known.same_for_both_parts:
            table = part_by_part(equation, known, values)
        elif known.rule is not None:
            table = as_table(equation, known.rule(equation, *values))
    except NotImplementedError as error:
        raise no_derivative(equation, error) from error
    if table is None:
        return Table(dense_jacobian(equation, *values))
    return both_parts(table) if parts and known.same_for_both_parts else table


def averaged_jacobian(equation: Equation, line: Line) -> EquationJacobian:
    """Return the edges of an equation that is not a region, averaged along a line.

    Whatever has no derivative keeps its value at the point.

    Raises:
        NotImplementedError: where JAX has no derivative.
        ValueError: where the only way is a dense Jacobian, and that is over its budget.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> from semijax.trace.graph import trace
        >>> graph, _ = trace(jnp.abs, 3.0)
        >>> line = sj.jacobians.Line([3.0], {0: -1.0}, points=4)
        >>> table = sj.jacobians.averaged_jacobian(graph.equations[0], line)
        >>> print(table.pull(sj.SumProduct(), [1.0])[0])  # (3 − 1) / (3 + 1)
        0.5
    """
    nothing_moves = line.moving and not any(jnp.size(line.values[n]) for n in line.moving)
    if not line.others or nothing_moves:
        return equation_jacobian(equation, *line.values)
    known, own_rule = _known(equation), user_rule(equation.primitive)
    parts = involves_complex(equation) and not known.knows_parts
    if own_rule is None:
        only_numbers_differ = {*line.others} == line.moving
        if known.is_linear_in(line.moving) and only_numbers_differ:
            return equation_jacobian(equation, *line.values)
        if known.average is not None and not parts:
            found = known.average(equation, line)
            if found is not None:
                return as_table(equation, found)
            return equation_jacobian(equation, *line.values)
        if known.is_linear_in(line.moving):
            return equation_jacobian(equation, *line.values)
        if known.bilinear and line.moving <= {0, 1}:
            middle = line.at(0.5) if known.rule is None else line.middle()
            return equation_jacobian(equation, *middle)
        if known.rule is None and not (parts and known.axes is axis_labels.elementwise):
            return Table(dense_jacobian(equation, *line.values, line=line))
    try:
        return line.average(lambda *values: equation_jacobian(equation, *values))
    except ValueError as error:
        raise NotImplementedError(
            f"No average of the local Jacobian of '{equation.name}' {equation.where()}: {error}. "
            "A weighting of your own may say what its edges weigh."
        ) from error


def _known(equation: Equation) -> Declaration:
    return NOTHING_KNOWN if equation.is_atomic else declaration(equation.primitive)

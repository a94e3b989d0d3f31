"""From an equation to its local Jacobians: which rule applies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semijax.jacobians import (  # noqa: F401, each declares the rules of its family
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
    EquationJacobian,
    Table,
    as_table,
    declaration,
    no_derivative,
    user_rule,
)
from semijax.jacobians.complex import both_parts, involves_complex, part_by_part
from semijax.jacobians.dense import dense_jacobian
from semijax.trace.graph import Equation, as_arrays


def equation_jacobian(
    equation: Equation, *values: Any, seen: Mapping[Any, Any] | None = None
) -> EquationJacobian:
    """The edges of an equation at these primal values.

    Args:
        equation: the equation.
        *values: one for each of its inputs.
        seen: what side effects inside of a region returned, see ``sweep.evaluate``.

    Raises:
        NotImplementedError: where JAX has no derivative either.
        ValueError: where the only way is a dense Jacobian, and that is over its budget.
    """
    primitive = equation.primitive
    if rule := user_rule(primitive):
        return as_table(equation, rule(equation, *as_arrays(values)))
    known = NOTHING_KNOWN if equation.is_atomic else declaration(primitive)
    # What is complex in a region's bodies is seen to there, equation by equation.
    parts = equation.region is None and involves_complex(equation)
    table = None
    try:
        if parts and not known.same_for_both_parts:
            table = part_by_part(equation, known, values)
        elif known.rule is not None:
            options = {} if equation.region is None else {"seen": seen or {}}
            table = as_table(equation, known.rule(equation, *values, **options))
    except NotImplementedError as error:
        raise no_derivative(equation, error) from error
    if table is None:
        return Table(dense_jacobian(equation, *values))
    return both_parts(table) if parts and known.same_for_both_parts else table

"""From an equation to its local Jacobians: which rule applies."""

from __future__ import annotations

from typing import Any

from semijax.jacobians.base import (
    NOTHING_KNOWN,
    EquationJacobian,
    Table,
    as_table,
    declaration,
    no_derivative,
    user_rule,
)
from semijax.jacobians.complex import both_parts, involves_complex
from semijax.jacobians.dense import dense_jacobian
from semijax.trace.graph import Equation


def equation_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """The edges of an equation at these primal values.

    Raises:
        NotImplementedError: where JAX has no derivative either.
        ValueError: where the only way is a dense Jacobian, and that is over its budget.
    """
    primitive = equation.primitive
    if rule := user_rule(primitive):
        return as_table(equation, rule(equation, *values))
    known = NOTHING_KNOWN if equation.is_atomic else declaration(primitive)
    # What is complex in a region's bodies is seen to there, equation by equation.
    parts = equation.region is None and involves_complex(equation)
    if known.rule is None or (parts and not known.same_for_both_parts):
        return Table(dense_jacobian(equation, *values))
    try:
        table = as_table(equation, known.rule(equation, *values))
    except NotImplementedError as error:
        raise no_derivative(equation, error) from error
    return both_parts(table) if parts else table

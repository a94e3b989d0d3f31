"""From an equation to its local Jacobians: which rule applies."""

from __future__ import annotations

from typing import Any

from semijax.jacobians.base import (
    EquationJacobian,
    Table,
    as_table,
    builtin_rule,
    no_derivative,
    user_rule,
)
from semijax.jacobians.complex import SAME_FOR_BOTH_PARTS, both_parts, involves_complex
from semijax.jacobians.dense import dense_jacobian
from semijax.trace.graph import Equation

REGIONS = ("scan", "cond", "while")
"""Control flow: what is complex in there is seen to equation by equation."""


def equation_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """The edges of an equation at these primal values.

    Raises:
        NotImplementedError: where JAX has no derivative either.
        ValueError: where the only way is a dense Jacobian, and that is over its budget.
    """
    primitive = equation.primitive
    if rule := user_rule(primitive):
        return as_table(equation, rule(equation, *values))
    rule = None if equation.is_atomic else builtin_rule(primitive)
    parts = primitive.name not in REGIONS and involves_complex(equation)
    if rule is None or (parts and primitive.name not in SAME_FOR_BOTH_PARTS):
        return Table(dense_jacobian(equation, *values))
    try:
        table = as_table(equation, rule(equation, *values))
    except NotImplementedError as error:
        raise no_derivative(equation, error) from error
    return both_parts(table) if parts else table

"""Scatters: every update feeds at most one element of the output."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax.jacobians.base import LocalJacobian, rule_for
from semijax.jacobians.compiled import compiled_on_numbers
from semijax.jacobians.diagonal import Diagonal, Transposed
from semijax.jacobians.line import Line, shares_of_largest_in_groups
from semijax.jacobians.movement import Movement, positions
from semijax.trace.graph import Equation
from semijax.trace.primitives import primitive, primitives

OPERAND_AND_UPDATES = slice(0, 3, 2)


@rule_for("scatter", same_for_both_parts=True, linear_in=OPERAND_AND_UPDATES)
def scatter_jacobian(
    equation: Equation, x: Any, indices: Any, updates: Any
) -> list[LocalJacobian | None]:
    """Return ∂o/∂i = 1 where o was written from i; what was overwritten has no edge."""
    params = equation.params
    own = positions(x.shape)
    source = lax.scatter(
        own,
        indices,
        positions(updates.shape) + jnp.asarray(x.size, own.dtype),
        params["dimension_numbers"],
        indices_are_sorted=params["indices_are_sorted"],
        unique_indices=params["unique_indices"],
        mode=params["mode"],
    )
    return [
        Diagonal(None, x.shape, x.shape, present=source == own),
        None,
        Movement(source - x.size, updates.shape, x.shape),
    ]


@compiled_on_numbers
def averaged_extrema(equation: Equation, line: Line) -> list[LocalJacobian | None]:
    """Return ∂o/∂i, the share of the line on which o is i, among operand and updates."""
    x, _, updates = line.values
    targets = _targets(equation, *line.values)
    own = positions(x.shape)
    dropped = jnp.asarray(x.size, own.dtype)
    groups = jnp.concatenate([own.ravel(), jnp.where(targets < 0, dropped, targets).ravel()])
    sign = -1 if equation.primitive is SCATTER_MIN else 1
    at_point, at_reference = (
        jnp.concatenate([sign * of_x.ravel(), sign * of_updates.ravel()])
        for of_x, of_updates in zip(line.ends(0), line.ends(2), strict=True)
    )
    shares = shares_of_largest_in_groups(at_point, at_reference, groups, x.size + 1)
    by_operand = shares[: x.size].reshape(x.shape)
    by_update = shares[x.size :].reshape(updates.shape)
    movement = Movement(targets, x.shape, updates.shape, by_update, by_update != 0)
    return [
        Diagonal(by_operand, x.shape, x.shape, selected=by_operand != 0),
        None,
        Transposed(movement),
    ]


@rule_for("scatter-add", same_for_both_parts=True, linear_in=OPERAND_AND_UPDATES)
@rule_for("scatter-sub", linear_in=OPERAND_AND_UPDATES)
@rule_for("scatter-mul")
@rule_for("scatter-min", "scatter-max", average=averaged_extrema)
def scatter_reduce_jacobian(
    equation: Equation, x: Any, indices: Any, updates: Any
) -> list[LocalJacobian | None]:
    """Compute ∂o/∂i by JAX's own derivative; an update out of bounds has no edge."""

    def function(x: Any, updates: Any) -> Any:
        return equation.bind(x, indices, updates)[0]

    by_operand, by_update = (i in equation.wrt for i in (0, 2))
    targets = Movement(_targets(equation, x, indices, updates), x.shape, updates.shape)
    if equation.primitive is SCATTER_ADD:
        return [Diagonal(None, x.shape, x.shape), None, Transposed(targets)]

    def selected(weights: jax.Array) -> jax.Array | None:
        return weights != 0 if equation.primitive in EXTREMA else None

    operand = update = None
    if by_operand:
        out, pullback = jax.vjp(lambda x: function(x, updates), x)
        (weights,) = pullback(jnp.ones_like(out))
        operand = Diagonal(weights, x.shape, x.shape, selected=selected(weights))
    if by_update:
        out, pullback = jax.vjp(lambda updates: function(x, updates), updates)
        (weights,) = pullback(jnp.ones_like(out))
        sides = x.shape, updates.shape
        update = Transposed(Movement(targets.source, *sides, weights, selected(weights)))
    return [operand, None, update]


SCATTER_ADD, SCATTER_MIN = primitive("scatter-add"), primitive("scatter-min")

EXTREMA = primitives("scatter-min", "scatter-max")
"""Scatters whose derivative is 0 for what they do not select of the operand and the updates."""


def _targets(equation: Equation, x: Any, indices: Any, updates: Any) -> jax.Array:
    """Return the position in the output that every update goes to; −1 for those dropped."""
    numbers = equation.params["dimension_numbers"]
    windows = iter(numbers.update_window_dims)
    dropped = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    sizes = tuple(1 if d in dropped else updates.shape[next(windows)] for d in range(x.ndim))
    gather_numbers = lax.GatherDimensionNumbers(
        offset_dims=numbers.update_window_dims,
        collapsed_slice_dims=numbers.inserted_window_dims,
        start_index_map=numbers.scatter_dims_to_operand_dims,
        operand_batching_dims=numbers.operand_batching_dims,
        start_indices_batching_dims=numbers.scatter_indices_batching_dims,
    )
    mode = equation.params["mode"]
    return lax.gather(positions(x.shape), indices, gather_numbers, sizes, mode=mode, fill_value=-1)

"""Reductions over axes: every input element feeds one output element."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from semijax.jacobians import axis_labels
from semijax.jacobians.base import EVERY, LocalJacobian, declare, rule_for
from semijax.jacobians.compiled import compiled_on_numbers
from semijax.jacobians.diagonal import Reduction
from semijax.jacobians.line import Line, shares_of_largest
from semijax.trace.graph import Equation
from semijax.trace.primitives import primitives


@rule_for("reduce_sum", axes=axis_labels.reduced, same_for_both_parts=True, linear_in=EVERY)
def reduce_sum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1."""
    return [Reduction(None, x.shape, equation.outputs[0].shape, tuple(equation.params["axes"]))]


@rule_for("reduce_prod", axes=axis_labels.reduced)
def reduce_prod_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i, the product of the others, by JAX's own derivative."""
    return [_reduction(equation, x)]


@compiled_on_numbers
def averaged_extremum(equation: Equation, line: Line) -> list[LocalJacobian]:
    """Return ∂o/∂i, the share of the line on which i is largest; those equal all along share it."""
    axes, out = tuple(equation.params["axes"]), equation.outputs[0].shape
    x, r = (sign_of_extremum(equation) * end for end in line.ends(0))
    weights = shares_of_largest_over(x, r, axes)
    return [Reduction(weights, x.shape, out, axes, selected=weights != 0)]


def shares_of_largest_over(x: jax.Array, r: jax.Array, axes: Sequence[int]) -> jax.Array:
    """Compute ``shares_of_largest`` over some axes."""
    last = range(-len(axes), 0)

    def flat(array: jax.Array) -> jax.Array:
        moved = jnp.moveaxis(array, axes, last)
        return moved.reshape(*moved.shape[: moved.ndim - len(axes)], -1)

    shape = jnp.moveaxis(x, axes, last).shape
    return jnp.moveaxis(shares_of_largest(flat(x), flat(r)).reshape(shape), last, axes)


def sign_of_extremum(equation: Equation) -> int:
    """Return −1 for a minimum, which is the maximum of the negative, and 1 for a maximum."""
    return -1 if equation.primitive in MINIMA else 1


MINIMA = {*primitives("reduce_min", "reduce_window_min", "cummin", "pmin")}


@rule_for("reduce_max", "reduce_min", axes=axis_labels.reduced, average=averaged_extremum)
def reduce_extremum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1/n for the n winners; 0 for the others, which were not selected."""
    reduction = _reduction(equation, x)
    assert reduction.weights is not None
    return [dataclasses.replace(reduction, selected=reduction.weights != 0)]


def _reduction(equation: Equation, x: Any) -> Reduction:
    out, pullback = jax.vjp(lambda x: equation.bind(x)[0], x)
    (weights,) = pullback(jnp.ones_like(out))
    return Reduction(weights, x.shape, out.shape, tuple(equation.params["axes"]))


declare("reduce_and", "reduce_or", "reduce_xor", "argmax", "argmin", axes=axis_labels.reduced)

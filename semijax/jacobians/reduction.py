"""Reductions over axes: every input element feeds one output element."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from semijax.jacobians import axis_labels
from semijax.jacobians.base import LocalJacobian, declare, rule_for
from semijax.jacobians.diagonal import Reduction
from semijax.trace.graph import Equation


@rule_for("reduce_sum", axes=axis_labels.reduced, same_for_both_parts=True)
def reduce_sum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """∂o/∂i = 1."""
    return [Reduction(None, x.shape, equation.outputs[0].shape, tuple(equation.params["axes"]))]


@rule_for("reduce_max", "reduce_min", "reduce_prod", axes=axis_labels.reduced)
def reduce_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """∂o/∂i by JAX's own derivative; the n winners of a tie share, 1/n each."""
    out, pullback = jax.vjp(lambda x: equation.bind(x)[0], x)
    (weights,) = pullback(jnp.ones_like(out))
    return [Reduction(weights, x.shape, out.shape, tuple(equation.params["axes"]))]


declare("reduce_and", "reduce_or", "reduce_xor", "argmax", "argmin", axes=axis_labels.reduced)

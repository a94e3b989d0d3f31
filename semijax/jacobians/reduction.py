"""Reductions over axes: every input element feeds one output element."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from semijax.jacobians.base import LocalJacobian, rule_for
from semijax.jacobians.diagonal import Reduction
from semijax.trace.graph import Equation


@rule_for("reduce_sum")
def reduce_sum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """∂o/∂i = 1."""
    axes = tuple(equation.params["axes"])
    return [Reduction(None, x.shape, equation.outputs[0].shape, axes)]


@rule_for("reduce_max", "reduce_min", "reduce_prod")
def reduce_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """∂o/∂i by JAX's own derivative; the n winners of a tie share, 1/n each."""
    out, pullback = jax.vjp(lambda x: equation.bind(x)[0], x)
    (weights,) = pullback(jnp.ones_like(out))
    return [Reduction(weights, x.shape, out.shape, tuple(equation.params["axes"]))]

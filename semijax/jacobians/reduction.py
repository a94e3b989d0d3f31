"""Reductions over axes: every input element feeds one output element."""

from __future__ import annotations

import dataclasses
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


@rule_for("reduce_prod", axes=axis_labels.reduced)
def reduce_prod_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """∂o/∂i is the product of the others, by JAX's own derivative."""
    return [_reduction(equation, x)]


@rule_for("reduce_max", "reduce_min", axes=axis_labels.reduced)
def reduce_extremum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """∂o/∂i = 1/n for the n winners; 0 for the others, which were not selected."""
    reduction = _reduction(equation, x)
    assert reduction.weights is not None
    return [dataclasses.replace(reduction, selected=reduction.weights != 0)]


def _reduction(equation: Equation, x: Any) -> Reduction:
    out, pullback = jax.vjp(lambda x: equation.bind(x)[0], x)
    (weights,) = pullback(jnp.ones_like(out))
    return Reduction(weights, x.shape, out.shape, tuple(equation.params["axes"]))


declare("reduce_and", "reduce_or", "reduce_xor", "argmax", "argmin", axes=axis_labels.reduced)

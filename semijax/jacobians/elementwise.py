"""Elementwise primitives: ∂o/∂i is a diagonal, and a JVP with a tangent of ones is just that."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from semijax.jacobians import axis_labels
from semijax.jacobians.base import LocalJacobian, declare, rule_for
from semijax.jacobians.diagonal import Diagonal
from semijax.trace.graph import Equation

ELEMENTWISE = (
    *("sub", "mul", "div", "rem", "pow", "atan2", "nextafter"),
    *("neg", "abs", "square", "integer_pow", "one_minus_square"),
    *("sqrt", "rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log1p", "log2", "logistic"),
    *("sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("erf", "erfc", "erf_inv", "lgamma", "digamma", "polygamma", "zeta"),
    *("igamma", "igammac", "igamma_grad_a", "regularized_incomplete_beta", "random_gamma"),
    *("bessel_i0e", "bessel_i1e", "reduce_precision"),
)
"""Elementwise, of the weight that JAX's own derivative has."""

SELECTIONS = ("select_n", "clamp", "max", "min")
"""Elementwise, of weight 1 for what is selected, ½ at a tie of ``max``, and 0 for what is not."""

STEPS = ("sign", "floor", "ceil", "round")
"""Elementwise and constant almost everywhere: of weight 0, whatever arrives."""


@rule_for("add", "add_any", "copy", axes=axis_labels.elementwise, same_for_both_parts=True)
@rule_for(
    *("convert_element_type", "name", "sharding_constraint", "reshard"),
    axes=axis_labels.elementwise,
)
def unit_jacobian(equation: Equation, *values: Any) -> list[LocalJacobian]:
    """∂o/∂i = 1."""
    out = equation.outputs[0].shape
    return [Diagonal(None, jnp.shape(v), out) for v in values]


@rule_for(
    "optimization_barrier", "device_put", axes=axis_labels.unchanged, same_for_both_parts=True
)
def identity_jacobian(equation: Equation, *values: Any) -> dict[tuple[int, int], LocalJacobian]:
    """Output k is input k."""
    return {(k, k): Diagonal(None, v.shape, v.shape) for k, v in enumerate(equation.outputs)}


@rule_for(*ELEMENTWISE, axes=axis_labels.elementwise)
def elementwise_jacobian(equation: Equation, *values: Any) -> list[LocalJacobian | None]:
    """∂o/∂i = JAX's own derivative, at kinks too."""
    return [_diagonal(equation, position, values) for position in range(len(values))]


@rule_for(*SELECTIONS, *STEPS, axes=axis_labels.elementwise)
def selection_jacobian(equation: Equation, *values: Any) -> list[LocalJacobian | None]:
    """∂o/∂i = JAX's own derivative, at ties too; where it is 0, the input was not selected."""
    found = [_diagonal(equation, position, values) for position in range(len(values))]
    return [d and dataclasses.replace(d, selected=d.weights != 0) for d in found]


def _diagonal(equation: Equation, position: int, values: Sequence[Any]) -> Diagonal | None:
    if position not in equation.wrt:
        return None
    weights = _derivative(equation, position, values)
    return Diagonal(weights, jnp.shape(values[position]), equation.outputs[0].shape)


declare(
    *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "xor", "is_finite"),
    *("real", "imag", "complex", "conj", "stop_gradient"),
    axes=axis_labels.elementwise,
)
declare("bitcast_convert_type", axes=axis_labels.same_bits)


def _derivative(equation: Equation, position: int, values: Sequence[Any]) -> jax.Array:
    """∂o/∂i, by a tangent of ones; on numbers, compiled once for all equations that are alike."""
    if not any(isinstance(value, jax.core.Tracer) for value in values):
        try:
            return _compiled(_SameOperation(equation), position, *values)
        except TypeError:  # parameters that are not hashable
            pass
    return _jvp_of_ones(equation, position, *values)


class _SameOperation:
    """An equation, equal to those of the same primitive and parameters."""

    def __init__(self, equation: Equation) -> None:
        self.equation = equation
        self._key = equation.primitive, tuple(equation.params.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameOperation) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _jvp_of_ones(equation: Equation, position: int, *values: Any) -> jax.Array:
    def function(x: Any) -> Any:
        return equation.bind(*values[:position], x, *values[position + 1 :])[0]

    x = jnp.asarray(values[position])
    return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(alike: _SameOperation, position: int, *values: Any) -> jax.Array:
    return _jvp_of_ones(alike.equation, position, *values)

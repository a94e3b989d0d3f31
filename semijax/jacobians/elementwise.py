"""Elementwise primitives: ∂o/∂i is a diagonal, which a JVP with a tangent of ones gives."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax.jacobians import axis_labels
from semijax.jacobians.base import EVERY, FIRST, LocalJacobian, declare, rule_for
from semijax.jacobians.compiled import compiled_on_numbers
from semijax.jacobians.diagonal import Diagonal
from semijax.jacobians.line import Line, between_crossings, crossing, secant
from semijax.trace.graph import Equation

CONTINUOUS = (
    *("pow", "atan2", "abs", "integer_pow"),
    *("sqrt", "rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log1p", "log2", "logistic"),
    *("sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("erf", "erfc", "erf_inv", "lgamma", "digamma", "polygamma", "zeta"),
    *("igamma", "igammac", "igamma_grad_a", "regularized_incomplete_beta", "random_gamma"),
    *("bessel_i0e", "bessel_i1e"),
)
"""Elementwise primitives that are continuous where they have a derivative."""

QUADRATIC = ("square", "one_minus_square")
"""Elementwise primitives whose derivative is linear."""

PIECEWISE_LINEAR = ("clamp", "max", "min")
"""Elementwise primitives of weight 1 for what is selected, ½ at a tie of ``max``, 0 otherwise."""

SELECTIONS = (*PIECEWISE_LINEAR, "select_n")
"""Elementwise primitives of weight 1 for what is selected and 0 for what is not."""

STEPS = ("sign", "floor", "ceil", "round")
"""Elementwise primitives, constant almost everywhere: of weight 0, whatever arrives."""


@rule_for(
    *("add", "add_any", "copy"),
    axes=axis_labels.elementwise,
    same_for_both_parts=True,
    linear_in=EVERY,
)
@rule_for(
    *("convert_element_type", "name", "sharding_constraint", "reshard"),
    axes=axis_labels.elementwise,
    linear_in=EVERY,
)
def unit_jacobian(equation: Equation, *values: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1."""
    out = equation.outputs[0].shape
    return [Diagonal(None, jnp.shape(v), out) for v in values]


@rule_for(
    *("optimization_barrier", "device_put"),
    axes=axis_labels.unchanged,
    same_for_both_parts=True,
    linear_in=EVERY,
)
def identity_jacobian(equation: Equation, *values: Any) -> dict[tuple[int, int], LocalJacobian]:
    """Return identities: output k is input k."""
    return {(k, k): Diagonal(None, v.shape, v.shape) for k, v in enumerate(equation.outputs)}


@compiled_on_numbers
def averaged(equation: Equation, line: Line) -> list[LocalJacobian | None]:
    """Return the secant of an input that moves alone; if several move, ∫ ∂o/∂i by quadrature."""

    def weights(i: int) -> jax.Array:
        if line.moving != {i}:
            # Cheap, and steep where a denominator is near 0.
            return line.average(lambda *inputs: _derivative(equation, i, inputs), times=4)

        def inputs(x: jax.Array) -> list[Any]:
            dtype = jnp.result_type(line.values[i])
            return [*line.values[:i], x.astype(dtype), *line.values[i + 1 :]]

        return secant(
            lambda x: equation.bind(*inputs(x))[0],
            lambda x: _derivative(equation, i, inputs(x)),
            *line.ends(i),
        )

    return _diagonals(equation, line.values, weights)


@compiled_on_numbers
def averaged_quotient(equation: Equation, line: Line) -> list[LocalJacobian | None]:
    """Compute ∫ 1/b dt and −∫ a/b² dt in closed form, accurate for b of very different sizes.

    From the end where |b| is the larger, with u = 1 − b'/b for b' at the other end, they are L/b
    and a'/(b' b) + (a − a') M/b², where L = −log(1 − u)/u and M = (L − 1)/u.
    """
    (a_x, a_r), (b_x, b_r) = line.ends(0), line.ends(1)
    larger = jnp.abs(b_x) >= jnp.abs(b_r)
    a, b = jnp.where(larger, a_x, a_r), jnp.where(larger, b_x, b_r)
    other_a, other_b = jnp.where(larger, a_r, a_x), jnp.where(larger, b_r, b_x)
    u = (b - other_b) / b
    small = u < 0.05
    near = jnp.where(small, u, 0)
    m_near = functools.reduce(lambda m, k: m * near + 1 / k, range(14, 1, -1), 0.0)
    apart = jnp.where(small, 0.5, u)
    log = jnp.where(apart < 0.5, jnp.log1p(-apart), jnp.log(jnp.where(small, 0.5, other_b / b)))
    m = jnp.where(small, m_near, (-log / apart - 1) / apart)
    by_numerator = (1 + u * m) / b
    by_denominator = -(other_a / other_b / b + (a - other_a) / b * m / b)
    found = by_numerator, by_denominator
    return _diagonals(equation, line.values, lambda i: found[i])


def averaged_quadratic(equation: Equation, line: Line) -> list[LocalJacobian | None]:
    """Compute ∂o/∂i half way."""
    return elementwise_jacobian(equation, *line.middle())


@rule_for("sub", "neg", "reduce_precision", axes=axis_labels.elementwise, linear_in=EVERY)
@rule_for("div", axes=axis_labels.elementwise, linear_in=FIRST, average=averaged_quotient)
@rule_for("rem", "nextafter", axes=axis_labels.elementwise)
@rule_for(*CONTINUOUS, axes=axis_labels.elementwise, average=averaged)
@rule_for(*QUADRATIC, axes=axis_labels.elementwise, average=averaged_quadratic)
def elementwise_jacobian(equation: Equation, *values: Any) -> list[LocalJacobian | None]:
    """Compute ∂o/∂i by JAX's own derivative, at kinks too."""
    return _diagonals(equation, values, _derivatives(equation, *values).__getitem__)


@rule_for("mul", axes=axis_labels.elementwise, bilinear=True)
def product_jacobian(equation: Equation, a: Any, b: Any) -> list[LocalJacobian | None]:
    """Return, for each factor, the other one."""
    return _diagonals(equation, (a, b), lambda i: jnp.asarray((b, a)[i]))


@compiled_on_numbers
def averaged_pieces(equation: Equation, line: Line) -> list[LocalJacobian | None]:
    """Sum ∂o/∂i times length over the stretches where the inputs keep their order."""
    ends = [line.ends(i) for i in range(len(line.values))]
    middles, lengths = between_crossings(ends)

    def weights(i: int) -> jax.Array:
        there = jax.vmap(lambda t: _derivative(equation, i, line.at(t)))(middles)
        return (there * lengths).sum(0)

    return _selected(_diagonals(equation, line.values, weights))


@compiled_on_numbers
def averaged_selection(equation: Equation, line: Line) -> list[LocalJacobian | None]:
    """Return the shares of the line on which each case is selected.

    Where the two ends select different cases, one gives way to the other where they are equal: a
    continuous function such as ``where(x > 0, x, 0)`` thus keeps nothing back. Where they are
    equal nowhere on the line, the function jumps, and the selection is that of the point all
    along.
    """
    at_x, at_r = jnp.asarray(line.values[0]), jnp.asarray(line.others[0])
    cases = [line.ends(i) for i in range(1, len(line.values))]
    over_other = [  # the case selected at the point over that at the reference, at both ends
        lax.select_n(at_x, *inputs) - lax.select_n(at_r, *inputs)
        for inputs in zip(*cases, strict=True)
    ]
    end = jnp.where((over_other[0] == 0) & (over_other[1] != 0), 1.0, 0.0)
    before = crossing(*over_other, otherwise=end)

    def weights(i: int) -> jax.Array:
        number = jnp.asarray(i - 1, at_x.dtype)
        return jnp.where(at_x == number, 1 - before, 0) + jnp.where(at_r == number, before, 0)

    return _selected(_diagonals(equation, line.values, weights))


@rule_for(*PIECEWISE_LINEAR, axes=axis_labels.elementwise, average=averaged_pieces)
@rule_for(
    "select_n",
    axes=axis_labels.elementwise,
    linear_in=slice(1, None),
    average=averaged_selection,
)
@rule_for(*STEPS, axes=axis_labels.elementwise)
def selection_jacobian(equation: Equation, *values: Any) -> list[LocalJacobian | None]:
    """Compute ∂o/∂i by JAX's own derivative, at ties too; where it is 0, i was not selected."""
    return _selected(elementwise_jacobian(equation, *values))


def _diagonals(equation: Equation, values: Sequence[Any], weights: Any) -> list[Any]:
    """Return a diagonal of these weights for each input that paths come through."""
    out = equation.outputs[0].shape
    return [
        Diagonal(jnp.broadcast_to(weights(i), out), jnp.shape(v), out)
        if i in equation.wrt
        else None
        for i, v in enumerate(values)
    ]


def _selected(found: Sequence[Diagonal | None]) -> list[Any]:
    return [d and dataclasses.replace(d, selected=d.weights != 0) for d in found]


declare(
    *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "xor", "is_finite"),
    "stop_gradient",
    axes=axis_labels.elementwise,
)
declare("real", "imag", "complex", "conj", axes=axis_labels.elementwise, linear_in=EVERY)
declare("bitcast_convert_type", axes=axis_labels.same_bits)


@compiled_on_numbers
def _derivatives(equation: Equation, *values: Any) -> dict[int, jax.Array]:
    """Compute ∂o/∂i for each input that paths come through."""
    return {i: _derivative(equation, i, values) for i in equation.wrt}


def _derivative(equation: Equation, position: int, values: Sequence[Any]) -> jax.Array:
    """Compute ∂o/∂i, by a tangent of ones."""

    def function(x: Any) -> Any:
        return equation.bind(*values[:position], x, *values[position + 1 :])[0]

    x = jnp.asarray(values[position])
    return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]

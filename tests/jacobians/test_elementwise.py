"""Elementwise primitives: diagonals, with broadcasting on either side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from .oracle import LIGHT, check, check_dense, check_each, numbers

ANY = np.array([-1.3, 0.4, 2.1], np.float32)
POSITIVE = np.array([0.3, 1.7, 2.6], np.float32)
UNIT = np.array([-0.8, 0.1, 0.6], np.float32)
LARGE = np.array([1.2, 2.3, 3.1], np.float32)

UNARY = {
    "rounding": [(f, ANY) for f in (lax.neg, lax.sign, lax.abs, lax.floor, lax.ceil, lax.round)],
    "powers": [
        (lax.square, ANY),
        (lambda x: lax.integer_pow(x, 3), ANY),
        (lambda x: lax.integer_pow(x, -2), ANY),
        (lax.sqrt, POSITIVE),
        (lax.rsqrt, POSITIVE),
        (lax.cbrt, ANY),
    ],
    "exponentials": [
        *[(f, ANY) for f in (lax.exp, lax.exp2, lax.expm1, lax.logistic)],
        *[(f, POSITIVE) for f in (lax.log, lax.log1p, jnp.log2)],
    ],
    "trigonometric": [
        *[(f, UNIT) for f in (lax.sin, lax.cos, lax.tan, lax.asin, lax.acos, lax.atan)],
        *[(f, UNIT) for f in (lax.sinh, lax.cosh, lax.tanh, lax.asinh, lax.atanh)],
        (lax.acosh, LARGE),
    ],
    "special": [
        *[(f, UNIT) for f in (lax.erf, lax.erfc, lax.erf_inv, lax.bessel_i0e, lax.bessel_i1e)],
        *[(f, POSITIVE) for f in (lax.lgamma, lax.digamma)],
    ],
    "conversions": [
        (lambda x: lax.reduce_precision(x, 8, 7), ANY),
        (lambda x: x.astype(jnp.float16).astype(jnp.float32), ANY),
        (lambda x: x.astype(jnp.int32).astype(jnp.float32), ANY),
        (jnp.copy, ANY),
        (lax.optimization_barrier, ANY),
    ],
}

BINARY = {
    "arithmetic": [(f, ANY, LARGE) for f in (lax.add, lax.sub, lax.mul, lax.div, lax.rem)],
    "others": [
        *[(f, ANY, LARGE) for f in (lax.atan2, lax.max, lax.min)],
        (lax.pow, LARGE, ANY),
        (lambda x, y: lax.clamp(-1.0, x, y), ANY, LARGE),
        (lambda x, y: jnp.where(np.array([True, False, True]), x, y), ANY, LARGE),
    ],
    "incomplete gamma": [(lax.igamma, POSITIVE, LARGE), (lax.igammac, POSITIVE, LARGE)],
}


@pytest.mark.parametrize("family", [*UNARY, *BINARY])
def test_family(family):
    cases = {str(n): case for n, case in enumerate((UNARY | BINARY)[family])}
    # JAX rounds the cotangents of a conversion too; here they stay in float32.
    check_each(cases, against_jax=family != "conversions")


def test_one_differentiable_operand():
    """By the other one JAX has no derivative."""
    ones = np.ones(3, np.float32)
    cases = {
        "polygamma": (lambda x: lax.polygamma(ones, x), POSITIVE),
        "betainc": (lambda x: lax.betainc(1.5 * ones, 2.5 * ones, x), POSITIVE / 3),
    }
    check_each(cases)


BROADCASTS = {
    "scalar and array": lambda s, x, row, column: (s * x, x - s),
    "axes of size 1": lambda s, x, row, column: row * column - x * row,
    "everything": lambda s, x, row, column: jnp.exp(s * row) * (column + x),
    "literal": lambda s, x, row, column: (2.0 * x + 1.0, -3.0 - s),
    "power": lambda s, x, row, column: (x * x) ** s,
}


def test_broadcasting():
    args = (np.float32(0.7), numbers((2, 3)), numbers((1, 3), 1), numbers((2, 1), 2))
    check_each({name: (fun, *args) for name, fun in BROADCASTS.items()}, semirings=LIGHT)
    check(BROADCASTS["everything"], *args)


def test_an_array_used_more_than_once():
    check(lambda x: (x * x * x, x + x, jnp.sin(x) * x - x), ANY)
    found = sj.semiring_grad(lambda x: x * x + x, {"n": sj.PathCount(), "top": sj.TopK(4)})(-3.0)
    np.testing.assert_allclose(np.exp(found["n"]), 3, rtol=1e-6)
    np.testing.assert_array_equal(found["top"], [3, 3, 1, 0])


TIES = {
    "maximum": lambda x, y: jnp.maximum(x, y),
    "minimum": lambda x, y: jnp.minimum(x, y),
    "maximum of one": lambda x, y: jnp.maximum(x, x) - jnp.minimum(y, y),
    "relu": lambda x, y: jax.nn.relu(x) - jnp.maximum(y, 0.0),
    "absolute value": lambda x, y: jnp.abs(x) * jnp.sign(y),
    "clamp": lambda x, y: jnp.clip(x, -1.0, 2.0) + lax.clamp(x, y, np.float32(2)),
    "where": lambda x, y: jnp.where(x > 0, x, y),
    "nested where": lambda x, y: jnp.where(x > y, -x, jnp.where(y > 0, y, x)),
}


def test_ties_and_kinks():
    x = np.array([-1.0, 0.0, 2.0, -3.0, 0.0], np.float32)
    y = np.array([-1.0, 0.0, 2.0, 4.0, -5.0], np.float32)
    check_each({name: (fun, x, y) for name, fun in TIES.items()}, semirings=LIGHT)
    check(TIES["maximum"], x, y)


LOSERS = {
    "relu": (lambda x: jax.nn.relu(x), -1.0),
    "where": (lambda x: jnp.where(x > 0, x, 5.0), -1.0),
    "clamp": (lambda x: jnp.clip(x, 0.0, 1.0), 7.0),
    "maximum": (lambda x: jnp.maximum(x, 2.0), 1.0),
    "multiplication by 0": (lambda x: x * 0.0, 1.0),
}


@pytest.mark.parametrize(("fun", "x"), LOSERS.values(), ids=LOSERS)
def test_an_edge_of_weight_0_is_a_path(fun, x):
    """The other path weighs −3, so that 0 is the largest and not the smallest."""
    semirings = {
        "max": sj.MaxProduct(),
        "min": sj.MinProduct(),
        "count": sj.PathCount(),
        "reach": sj.Reachability(),
    }
    found = sj.semiring_grad(lambda x: fun(x) - 3.0 * x, semirings)(x)
    assert (found["max"], found["min"], found["reach"]) == (0, -3, True)
    np.testing.assert_allclose(found["count"], 0, atol=1e-6)
    alone = sj.semiring_grad(lambda x: -fun(x), semirings)(x)
    assert (alone["max"], alone["min"], alone["reach"]) == (0, 0, False)
    assert alone["count"] == -np.inf


def test_nothing_comes_through_integers_and_stopped_gradients():
    def fun(x):
        return [lax.stop_gradient(x) * 2.0, x.astype(jnp.int32) * 0.5, (x > 0) * 3.0]

    check(fun, ANY)
    grads = sj.semiring_grad(lambda x: sum(y.sum() for y in fun(x)), sj.MaxProduct())(ANY)
    np.testing.assert_array_equal(grads, np.full(3, -np.inf))


def test_infinite_weights():
    """1/0, √0 and log 0 have infinite derivatives; their entropy is undefined."""
    zero = np.array([0.0, 1.0, 2.0], np.float32)
    check(lambda x, y, z: [jnp.sqrt(x) + x, jnp.log(y) - y, 1.0 / z - z], zero, zero, zero)


NOT_A_NUMBER = {
    "square root": lambda x, y: jnp.sqrt(x) * y - x,
    "0 times infinity": lambda x, y: 0.0 * jnp.sqrt(jnp.abs(x) + x) + y,
    "a weight": lambda x, y: y * jnp.where(x < 0, np.nan, 1.0),
    "a sum of many": lambda x, y: (jnp.sqrt(x) * y).sum() + (x * y).sum(),
    "a repeated use": lambda x, y: (x * y, jnp.log(x) * x - y),
}


def test_what_is_not_a_number_stays_so():
    x, y = np.array([-1.0, 4.0, 0.0], np.float32), np.array([1.0, -2.0, np.nan], np.float32)
    check_each({name: (fun, x, y) for name, fun in NOT_A_NUMBER.items()})


def test_sizes():
    def fun(x, y):
        return jnp.tanh(x) * y + x, y * 2.0

    shapes = [(), (1,), (0,), (2, 0, 3), (1, 1)]
    check_each({str(shape): (fun, numbers(shape), np.float32(0.6)) for shape in shapes})


def test_dense():
    x = numbers((2, 3))
    check_dense(
        lambda x, y: jnp.exp(x) * jnp.sin(y) - jnp.maximum(x, 0.5) / 3.0, x, numbers((1, 3))
    )

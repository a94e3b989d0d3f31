"""Reductions over axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

from .oracle import LIGHT, check, check_dense, check_each, numbers

KINDS = {"sum": jnp.sum, "max": jnp.max, "min": jnp.min, "prod": jnp.prod}
AXES = [(), (0,), (1, 2), (0, 2), (0, 1, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_axes(kind):
    def over(axes):
        return lambda x: KINDS[kind](x, axes)

    x = numbers((2, 3, 2))
    check_each({str(axes): (over(axes), x) for axes in AXES}, semirings=LIGHT)
    check(over((0, 2)), x)


def test_ties():
    """The winners of a tie share, and the losers have edges of weight 0."""
    x = np.array([[2.0, 2.0, -1.0], [-1.0, -1.0, 2.0]], np.float32)

    def fun(reduce):
        return lambda x: (reduce(x, 1), reduce(x, keepdims=True))

    check_each({kind: (fun(KINDS[kind]), x) for kind in ("max", "min")})


@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_product_with_zeros(zeros):
    x = numbers((2, 3))
    x[1, :zeros] = 0.0
    check(lambda x: (jnp.prod(x, 1), jnp.prod(x)), x)


# One row at a time: JAX's Jacobian of several would have 0 · ∞ between them.
NOT_FINITE = {
    "infinite": [1.0, np.inf, -2.0],
    "negative infinite": [-np.inf, 3.0, 0.5],
    "both": [np.inf, 3.0, -np.inf],
    "not a number": [1.0, np.nan, -2.0],
    "all are not": [np.nan, np.nan],
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite(kind):
    rows = {name: np.array(row, np.float32) for name, row in NOT_FINITE.items()}
    if kind in ("max", "min"):  # compiled, JAX's own derivative at NaN is 0
        rows = {name: row for name, row in rows.items() if not np.isnan(row).any()}
    check_each({name: (KINDS[kind], row) for name, row in rows.items()})


def test_losers_are_paths():
    x = jnp.array([1.0, 3.0])
    found = sj.semiring_grad(lambda x: -jnp.max(x), sj.MaxProduct())(x)
    np.testing.assert_array_equal(found, [0, -1])


def test_nothing_to_reduce():
    def fun(reduce):
        return lambda x, y: (reduce(x, 1), reduce(x, 0), reduce(y, 0))

    cases = {k: (fun(KINDS[k]), numbers((3, 0)), numbers((1, 2))) for k in ("sum", "prod")}
    check_each(cases)


COMPOSED = {
    "log-sum-exp": lambda x: jax.scipy.special.logsumexp(x, axis=1),
    "mean and variance": lambda x: (jnp.mean(x, 0), jnp.var(x, 1)),
    "norm": lambda x: jnp.linalg.norm(x, axis=1),
    "softmax": lambda x: jax.nn.softmax(x, axis=1),
    "argmax": lambda x: x[jnp.argmax(x, 0), jnp.arange(3)],
    "any": lambda x: jnp.where(jnp.any(x > 1, 1, keepdims=True), x, -x),
}


def test_composed():
    check_each({name: (fun, numbers((2, 3))) for name, fun in COMPOSED.items()}, semirings=LIGHT)


@pytest.mark.parametrize("name", ["mean and variance", "softmax"])
def test_composed_in_all_semirings(name):
    check(COMPOSED[name], numbers((2, 3)))


def test_dense():
    def fun(x):
        return [reduce(x, axes) for reduce in KINDS.values() for axes in ((1,), (0, 2))]

    check_dense(fun, numbers((2, 3, 2)))

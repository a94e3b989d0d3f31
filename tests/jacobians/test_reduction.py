"""Reductions over axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

from .oracle import check, check_dense, numbers

KINDS = {"sum": jnp.sum, "max": jnp.max, "min": jnp.min, "prod": jnp.prod}
AXES = [(), (0,), (1, 2), (0, 2), (0, 1, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_axes(kind):
    reduce = KINDS[kind]

    def fun(*xs):
        return [reduce(x, axes) for x, axes in zip(xs, AXES, strict=True)]

    check(fun, *[numbers((2, 3, 2), seed) for seed in range(len(AXES))])


@pytest.mark.parametrize("kind", KINDS)
def test_ties(kind):
    """The winners of a tie share, and the losers have edges of weight 0."""
    x = np.array([[2.0, 2.0, -1.0], [-1.0, -1.0, 2.0]], np.float32)
    check(lambda x: (KINDS[kind](x, 1), KINDS[kind](x, keepdims=True)), x)


@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_product_with_zeros(zeros):
    x = numbers((3, 3)).at[1, :zeros].set(0.0)
    check(lambda x: (jnp.prod(x, 1), jnp.prod(x)), x)


@pytest.mark.parametrize("kind", KINDS)
def test_infinite_numbers(kind):
    x = np.array([[1.0, np.inf, -2.0], [-np.inf, 3.0, 0.5]], np.float32)
    check(lambda x: KINDS[kind](x, 1), x)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_stays_so(kind):
    x = np.array([[1.0, np.nan, -2.0], [4.0, 3.0, 0.5]], np.float32)
    check(lambda x: KINDS[kind](x, 1), x)


def test_losers_are_paths():
    x = jnp.array([1.0, 3.0])
    found = sj.semiring_grad(lambda x: -jnp.max(x), sj.MaxProduct())(x)
    np.testing.assert_array_equal(found, [0, -1])


@pytest.mark.parametrize("kind", ["sum", "prod"])
def test_nothing_to_reduce(kind):
    def fun(x, y):
        return KINDS[kind](x, 1), KINDS[kind](x, 0), KINDS[kind](y, 0)

    check(fun, numbers((3, 0)), numbers((1, 2)))


COMPOSED = {
    "log-sum-exp": lambda x: jax.scipy.special.logsumexp(x, axis=1),
    "mean and variance": lambda x: (jnp.mean(x, 0), jnp.var(x, 1)),
    "norm": lambda x: jnp.linalg.norm(x, axis=1),
    "softmax": lambda x: jax.nn.softmax(x, axis=1),
    "argmax": lambda x: x[jnp.argmax(x, 0), jnp.arange(3)],
    "any": lambda x: jnp.where(jnp.any(x > 1, 1, keepdims=True), x, -x),
}


@pytest.mark.parametrize("fun", COMPOSED.values(), ids=COMPOSED)
def test_composed(fun):
    check(fun, numbers((2, 3)))


def test_dense():
    def fun(x):
        return [reduce(x, axes) for reduce in KINDS.values() for axes in ((1,), (0, 2))]

    check_dense(fun, numbers((2, 3, 2)))

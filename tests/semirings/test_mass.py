"""Masses where float32 has no room for them, and where a derivative is infinite."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from semijax import native

LAYERS, WIDTH = 40, 5


def layers(seed=0):
    return np.random.default_rng(seed).normal(0, 20, (LAYERS, WIDTH, WIDTH)).astype(np.float32)


def deep(x, matrices, last):
    """A residual network; the mass of the paths is a product of sums of matrices."""
    for matrix in matrices:
        x = x + x @ matrix
    return x @ last


def masses(matrices, last):
    """Of all paths from each unit, in float64: Σ over paths of Π |w| is a matrix product."""
    found = np.abs(np.asarray(last, np.float64))
    for matrix in matrices[::-1]:
        found = (np.eye(WIDTH) + np.abs(matrix, dtype=np.float64)) @ found
    return found


LAST = np.array([1.0, -2.0, 0.0, 0.5, 3.0], np.float32)
X = jnp.linspace(-1, 1, WIDTH)


def test_a_mass_beyond_float32_reads_infinite_and_is_known():
    matrices = layers()
    wanted = masses(matrices, LAST)
    assert (wanted > 1e46).all()
    logs = sj.semiring_grad(deep, sj.AbsSumProduct(), raw=True)(X, matrices, LAST)
    np.testing.assert_allclose(logs, np.log(wanted), rtol=1e-6)
    read = sj.semiring_grad(deep, sj.AbsSumProduct())(X, matrices, LAST)
    np.testing.assert_array_equal(read, np.inf)
    # … and where it comes back from there, a number.
    small = np.float32(1e-30)
    read = sj.semiring_grad(lambda x: deep(x * small, matrices, LAST * small), sj.AbsSumProduct())
    np.testing.assert_allclose(read(X), wanted * float(small) ** 2, rtol=1e-4)


def test_the_logarithm_has_a_derivative_at_any_depth():
    """d log Z[i] / d last[j] is sign(last[j]) · (the mass from i to j) / Z[i]."""
    matrices = layers()

    def log_masses(last):
        return sj.semiring_grad(deep, sj.AbsSumProduct(), raw=True)(X, matrices, last)

    to_each = np.stack([masses(matrices, unit) for unit in np.eye(WIDTH)], 1)
    wanted = to_each * np.sign(LAST) / masses(matrices, LAST)[:, None]
    np.testing.assert_allclose(jax.jacobian(log_masses)(LAST), wanted, 1e-4)


def test_the_mass_has_the_derivative_of_absolute_values():
    """Z = |a|·|b| + |c| for f = a·b·x + c·x; the derivative of |w| at 0 is 0."""

    def mass(a, b, c):
        return sj.semiring_grad(lambda x: x * a * b + x * c, sj.AbsSumProduct())(1.0)

    def by_hand(a, b, c):
        return a * b * jnp.sign(a * b) + c * jnp.sign(c)

    for point in ((2.0, -3.0, 0.5), (0.0, -3.0, 0.5), (0.0, 0.0, 0.0), (2.0, 0.0, -1.5)):
        wanted = jax.grad(by_hand, (0, 1, 2))(*point)
        np.testing.assert_allclose(jax.grad(mass, (0, 1, 2))(*point), wanted, rtol=1e-6)


NUMBERS = np.array([0, 1, 2, np.inf, np.nan], np.float32)
PAIRS = np.array([*itertools.product(NUMBERS, NUMBERS)])


def read(elements):
    return np.asarray(sj.AbsSumProduct().readout(elements))


@pytest.mark.parametrize("kernels", [True, False])
def test_infinite_masses_add_up_as_numbers_do(kernels):
    """∞ + 1 is infinite, and 0 · ∞ not a number."""
    semiring = sj.AbsSumProduct()
    with np.errstate(invalid="ignore"):
        products = (PAIRS[:, None] * PAIRS).sum(-1)
    sums = PAIRS.sum(-1)
    logs = semiring.lift(jnp.asarray(PAIRS))
    with contextlib.nullcontext() if kernels else native.off():
        found = jax.jit(lambda *operands: semiring.contract(*operands))(-PAIRS[None], logs.T[None])
        np.testing.assert_allclose(read(found)[0], products, rtol=1e-6)
        for axis in (0, 1):
            found = semiring.sum(logs.T if axis == 0 else logs, (axis,))
            np.testing.assert_allclose(read(found), sums, rtol=1e-6)
        np.testing.assert_allclose(read(semiring.add(*logs.T)), sums, rtol=1e-6)
        segments = jnp.arange(PAIRS.size) // 2
        found = semiring.segment_sum(logs.ravel(), segments, len(PAIRS))
        np.testing.assert_allclose(read(found), sums, rtol=1e-6)


def test_an_infinite_derivative_is_an_infinite_mass():
    def f(x):
        return jnp.sqrt(x @ jnp.array([[2.0, 0.0], [1.0, 3.0]])) @ jnp.ones(2)

    x = jnp.zeros(2)
    found = sj.semiring_grad(f, sj.AbsSumProduct())(x)
    np.testing.assert_array_equal(found, jax.grad(f)(x))  # nan, of 0 · ∞, and inf
    assert np.isinf(found[1]) and np.isnan(found[0])

"""The derivatives of ⊕ of masses and means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from semijax.semirings import Weighted
from semijax.semirings.expectation import LogMassSemiring


@pytest.mark.parametrize("semiring", [LogMassSemiring(), sj.Entropy()], ids=repr)
@pytest.mark.parametrize("gap", [0.0, 0.7, -2.0, 60.0])
def test_add(semiring, gap):
    def add(a, m, b, n):
        return tuple(semiring.add(Weighted(a, m), Weighted(b, n)))

    with jax.enable_x64(True):
        point = np.array([gap, 2.0, 0.0, 5.0])
        got = np.array(jax.jacobian(add, (0, 1, 2, 3))(*jnp.asarray(point)))
        step = 1e-6 * np.eye(4)
        pairs = [(add(*jnp.asarray(point + h)), add(*jnp.asarray(point - h))) for h in step]
        want = [(np.array(up) - np.array(down)) / 2e-6 for up, down in pairs]
        np.testing.assert_allclose(got, np.transpose(want), atol=1e-8)


@pytest.mark.parametrize("semiring", [LogMassSemiring(), sj.Entropy()], ids=repr)
def test_add_to_no_path(semiring):
    def add(a, m, b, n):
        return tuple(semiring.add(Weighted(a, m), Weighted(b, n)))

    jacobian = np.array(jax.jacobian(add, (0, 1, 2, 3))(*jnp.array([1.0, 2.0, -jnp.inf, 0.0])))
    np.testing.assert_array_equal(jacobian, [[1, 0, 0, 0], [0, 1, 0, 0]])
    nothing = np.array(jax.jacobian(add, (0, 1, 2, 3))(*jnp.array([-jnp.inf, 0.0, -jnp.inf, 0.0])))
    assert np.isfinite(nothing).all()


def test_an_entropy_of_equal_paths_has_the_derivative_of_their_weights():
    """f = x·a + x·b: p = (a, b) / (a + b), and dH/da = −log(p₁/p₂) p₁p₂ / a, 0 where a = b."""

    def entropy(a, b):
        return sj.semiring_grad(lambda x: x * a + x * b, sj.Entropy())(1.0)

    np.testing.assert_allclose(jax.grad(entropy, (0, 1))(1.5, 1.5), (0, 0), atol=1e-6)

    def log_mass(a, b):
        elements = sj.semiring_grad(lambda x: x * a + x * b, sj.Entropy(), raw=True)(1.0)
        return elements.log_mass

    np.testing.assert_allclose(jax.grad(log_mass, (0, 1))(1.5, 1.5), (1 / 3, 1 / 3), rtol=1e-6)

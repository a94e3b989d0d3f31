"""The strongest path and the mass in logarithms, against the same in numbers with more room."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semijax.semirings import AbsSumProduct, Semiring
from semijax.semirings.logarithmic import ZERO, LogAbsMaxProduct

SEMIRINGS = [LogAbsMaxProduct(), AbsSumProduct()]


def contracted(semiring, weights, logs):
    with jax.enable_x64(True):
        elements = jnp.asarray(logs, jnp.float64)[None]
        return np.asarray(semiring.contract(jnp.asarray(weights)[None], elements))[0]


@pytest.mark.parametrize("semiring", SEMIRINGS)
@pytest.mark.parametrize("spread", [3.0, 400.0, 5000.0])
def test_contraction(semiring, spread):
    random = np.random.default_rng(0)
    weights = random.standard_normal((5, 7)).astype(np.float32)
    weights[random.random((5, 7)) < 0.5] = 0
    logs = random.uniform(-spread, spread, (7, 3))
    logs[2], logs[:, 2] = -np.inf, -np.inf  # no path
    with np.errstate(divide="ignore"):
        terms = np.log(np.abs(weights, dtype=np.float64))[:, :, None] + logs
        is_sum = semiring == AbsSumProduct()
        wanted = np.logaddexp.reduce(terms, 1) if is_sum else terms.max(1)
    found = contracted(semiring, weights, logs)
    dead = found < ZERO / 2
    np.testing.assert_allclose(found[~dead], wanted[~dead], 1e-12)
    assert np.all(wanted[dead] == -np.inf)


def test_a_dead_path_is_not_none():
    weights = np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 1.0]], np.float32)
    logs = np.array([[1.0, -np.inf, -np.inf], [ZERO, 2.0, -np.inf]])
    found = contracted(LogAbsMaxProduct(), weights, logs)
    assert np.all(found[:, 2] == -np.inf)
    assert ZERO / 2 > found[0, 0] > -np.inf and found[0, 1] == pytest.approx(2 + np.log(2))
    assert np.all((found[1, :2] < ZERO / 2) & (found[1, :2] > -np.inf))
    assert found[2, 0] == pytest.approx(1 + np.log(3))


@pytest.mark.parametrize("semiring", SEMIRINGS)
def test_what_is_faster_is_the_same(semiring):
    with jax.enable_x64(True):
        logs = jnp.array([[700.0, -900.0, -np.inf], [3.0, 3.5, -np.inf]])
        for axes in ((), (0,), (1,), (0, 1)):
            sums = semiring.sum(logs, axes), Semiring.sum(semiring, logs, axes)
            np.testing.assert_allclose(*sums, rtol=1e-12)
        assert np.all(np.asarray(semiring.sum(jnp.zeros((2, 0)), (1,))) == -np.inf)
        flat, segments = logs.ravel(), jnp.array([1, 1, 0, 3, 1, 7])
        parts = semiring.segment_sum(flat, segments, 4)
        wanted = Semiring.segment_sum(semiring, flat, segments, 4)
        np.testing.assert_allclose(parts, wanted, rtol=1e-12)
        weights = jnp.array([[2.0, -0.5, 0.0], [1.0, 3.0, 4.0]], jnp.float32)
        scaled = np.asarray(semiring.scale(weights, logs))
        exact = np.log(float(fractions.Fraction(1, 2)))
        assert scaled[0, 1] == -900 + exact and scaled[1, 2] == -np.inf

"""What was not selected is worth nothing, whatever lies beyond: 0 · ∞ and 0 · NaN are 0 there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

MASK = jnp.array([True, False, True])
X = jnp.array([4.0, -1.0, 9.0])


def guarded_root(x):
    return jax.vmap(lambda v: lax.cond(v > 0, jnp.sqrt, lambda v: 3 * v, v))(x).sum()


def masked_distances(x):
    difference = x[:, None] - x[None]
    squared = difference * difference
    return jnp.sqrt(jnp.where(jnp.eye(len(x), dtype=bool), 0.0, squared)).sum()


LIKE_JAX = {
    "relu": lambda x: jnp.sqrt(jax.nn.relu(x)).sum(),
    "relu6": lambda x: jnp.sqrt(6 - jax.nn.relu6(x)).sum(),
    "where": lambda x: jnp.sqrt(jnp.where(MASK, x, 0.0)).sum(),
    "where, reversed": lambda x: jnp.log(jnp.where(~MASK, 0.0, x)).sum(),
    "three cases": lambda x: (1 / lax.select_n(jnp.array([0, 1, 2]), x, jnp.zeros(3), 2 * x)).sum(),
    "clamp": lambda x: (1 / lax.clamp(0.0, x, 8.0)).sum(),
    "clamped and weighted": lambda x: jnp.sqrt(lax.clamp(0.0, x, 8.0)) @ jnp.array([1.0, 0.0, 2.0]),
    "vmap of cond": guarded_root,
    "masked distances": masked_distances,
    "masked softmax": lambda x: jnp.log(jax.nn.softmax(x, where=MASK) + 0.0)[0],
    "max pooling": lambda x: jnp.sqrt(
        lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID") - 4
    ).sum(),
    "in a scan": lambda x: lax.scan(
        lambda c, v: (c + jnp.sqrt(jnp.where(v > 0, v, 0.0)), v), 0.0, x
    )[0],
    "under checkpoint": lambda x: jax.checkpoint(lambda x: jnp.sqrt(jnp.where(MASK, x, 0.0)).sum())(
        x
    ),
}
"""Where JAX's own transpose selects."""

MORE = {
    "max": (lambda x: jnp.sqrt(jnp.maximum(x, 0.0)).sum(), [1 / 4, 0, 1 / 6]),
    "min": (lambda x: jnp.sqrt(-jnp.minimum(x, 0.0)).sum(), [0, -1 / 2, 0]),
    "a maximum": (lambda x: jnp.sqrt(jnp.max(x) - 9) * 0 + x[0], [1, 0, np.nan]),
    "a minimum": (lambda x: jnp.log(jnp.min(x) + 1), [0, np.inf, 0]),
    "scattered maximum": (
        lambda x: jnp.sqrt(jnp.zeros(3).at[jnp.array([2, 0, 1])].max(x)).sum(),
        [1 / 4, 0, 1 / 6],
    ),
    "sign": (lambda x: jnp.sqrt(jnp.sign(x) + 1).sum(), [0, 0, 0]),
    "floor": (lambda x: jnp.sqrt(jnp.floor(x) + 1).sum(), [0, 0, 0]),
    "round": (lambda x: jnp.sqrt(jnp.round(x) + 1).sum(), [0, 0, 0]),
    "updated minimum": (lambda x: jnp.sqrt(-x.at[jnp.arange(3)].min(0.0)).sum(), [0, -1 / 2, 0]),
}
"""The losers of a maximum, where JAX has 0 · ∞, and steps, where it has a 0 that it knows."""

SEMIRINGS = {
    "sum": sj.SumProduct(),
    "mass": sj.AbsSumProduct(),
    "abs_max": sj.AbsMaxProduct(),
    "max": sj.MaxProduct(),
    "min": sj.MinProduct(),
    "top": sj.TopK(3),
    "entropy": sj.Entropy(),
    "count": sj.PathCount(),
    "length": sj.PathLength(),
    "reachable": sj.Reachability(),
}


@pytest.mark.parametrize("name", LIKE_JAX)
def test_the_sum_is_the_gradient(name):
    function = LIKE_JAX[name]
    found = sj.semiring_grad(function, sj.SumProduct())(X)
    np.testing.assert_allclose(found, jax.grad(function)(X), rtol=1e-5)
    tangent = jnp.array([1.0, -2.0, 0.5])
    _, pushed = sj.semiring_jvp(function, (X,), (tangent,), sj.SumProduct())
    np.testing.assert_allclose(pushed, jax.jvp(function, (X,), (tangent,))[1], rtol=1e-5)


@pytest.mark.parametrize("name", MORE)
def test_losers_and_steps(name):
    function, expected = MORE[name]
    np.testing.assert_allclose(sj.semiring_grad(function, sj.SumProduct())(X), expected, rtol=1e-5)


@pytest.mark.parametrize("name", [*LIKE_JAX, *MORE])
def test_every_semiring_is_its_definition(name):
    function = LIKE_JAX[name] if name in LIKE_JAX else MORE[name][0]
    found = sj.semiring_grad(function, SEMIRINGS)(X)
    expected = sj.testing.enumerate_paths(function, X, argnums=0).fold(SEMIRINGS)
    for statistic in SEMIRINGS:
        np.testing.assert_allclose(
            found[statistic], expected[statistic], rtol=1e-4, atol=1e-5, err_msg=statistic
        )


FORWARD = {
    "the root of nothing": lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0),
    "the logarithm of nothing": lambda x: jnp.where(x > 0, jnp.log(x), 2 * x),
    "clamped": lambda x: lax.clamp(0.0, 1 / x, 1.0),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_what_arrives_from_before_is_worth_nothing(name):
    function, x = FORWARD[name], jnp.array([4.0, 0.0, 9.0])
    expected = jax.jvp(function, (x,), (jnp.ones(3),))[1]
    for semiring in (sj.SumProduct(), sj.AbsMaxProduct(), sj.MaxProduct()):
        one = semiring.one(x.shape, x.dtype)
        _, pushed = sj.semiring_jvp(function, (x,), (one,), semiring)
        values = semiring.readout(pushed)
        absolute = isinstance(semiring, sj.AbsMaxProduct)
        np.testing.assert_allclose(
            values, jnp.abs(expected) if absolute else expected, err_msg=str(semiring)
        )


def test_a_weight_of_0_that_was_computed_multiplies():
    def function(x):
        return jnp.sqrt(0 * x).sum()

    for semiring in (sj.SumProduct(), sj.AbsMaxProduct(), sj.MaxProduct()):
        assert jnp.isnan(sj.semiring_grad(function, semiring)(X)).all()
    assert jnp.isnan(jax.grad(function)(X)).all()


def test_what_was_not_selected_is_an_edge():
    def function(x):
        return -jnp.sqrt(jax.nn.relu(x)).sum() - x[1]

    (best,) = sj.top_paths(function, by="max", source=(0, 1))(X)
    assert best.weight == 0 and best.length == 5
    assert sj.semiring_grad(function, sj.MaxProduct())(X)[1] == 0


def test_paths_are_found_beside_what_was_not_selected():
    paths = sj.top_paths(masked_distances, k=7)(X)
    assert all(np.isfinite(path.weight) for path in paths)
    everything = sj.testing.enumerate_paths(masked_distances, X)
    sizes = sorted((abs(path.weight) for path in everything), reverse=True)
    np.testing.assert_allclose([abs(path.weight) for path in paths], sizes[:7], rtol=1e-6)

    drawn = sj.sample_paths(masked_distances, 50, jax.random.key(0))(X)
    assert len(drawn) == 50 and all(abs(path.weight) > 0 for path in drawn)


def test_all_paths_are_found_where_some_are_dead():
    def function(x):
        return jnp.sqrt(jax.nn.relu(x)).sum() + 2 * x[0]

    paths = sj.top_paths(function, k=9)(X)
    assert [round(path.weight, 6) for path in paths] == [2, 0.25, 0.166667, 0]
    trace = sj.trace_gradient(function, source=(0, 0))(X)
    assert trace.weight == 2


def test_derivatives_of_statistics_stay_finite():
    def entropy(x):
        function = LIKE_JAX["where"]
        return sj.semiring_grad(lambda x: function(x * x + x), sj.Entropy())(x)[0]

    assert jnp.isfinite(jax.grad(entropy)(X)).all()

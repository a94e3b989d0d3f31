"""⊕ over the members of a named axis, each with elements of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

SEMIRINGS = [
    sj.SumProduct(),
    sj.AbsSumProduct(),
    sj.MaxProduct(),
    sj.AbsMaxProduct(),
    sj.TopK(2),
    sj.Entropy(),
    sj.PathLength(),
    sj.PathCount(),
    sj.Reachability(),
]


@pytest.mark.parametrize("shape", [(), (2, 5), (6,), (0,)], ids=str)
@pytest.mark.parametrize("semiring", SEMIRINGS, ids=str)
def test_all_members_get_the_sum(semiring, shape):
    weights = np.random.default_rng(0).standard_normal((3, *shape))
    weights.flat[:1] = 0
    elements = semiring.lift(jnp.asarray(weights, jnp.float32))
    found = jax.vmap(lambda own: semiring.all_reduce(own, "i"), axis_name="i")(elements)
    expected = semiring.sum(elements, (0,))
    for member in range(3):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[member], b, 1e-5)


@pytest.mark.parametrize("semiring", [sj.MaxProduct(), sj.AbsMaxProduct(), sj.TopK(2)], ids=str)
def test_what_is_not_a_number_is_kept(semiring):
    weights = jnp.array([[1.0, jnp.nan, -jnp.inf], [jnp.nan, 2.0, 3.0], [-4.0, jnp.inf, 5.0]])
    weights = jnp.where(jnp.isnan(weights), -weights, weights)  # of either sign
    elements = semiring.lift(jnp.concatenate([weights, -weights], 1))
    found = jax.vmap(lambda own: semiring.all_reduce(own, "i"), axis_name="i")(elements)
    for a, b in zip(
        jax.tree.leaves(found), jax.tree.leaves(semiring.sum(elements, (0,))), strict=True
    ):
        np.testing.assert_array_equal(a[1], b)

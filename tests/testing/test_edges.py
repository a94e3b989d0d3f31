"""The edges of one equation where numbers are not finite: written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.testing import enumerate_paths

NAN, INF = np.nan, np.inf
ROWS = jnp.array([[1.0, NAN, 2.0], [INF, -3.0, 0.0]])
COLUMNS = jnp.array([[5.0, NAN], [-INF, 7.0], [0.5, -1.0]])
VECTOR = jnp.array([2.0, NAN, -3.0, INF, 0.0])


def edges(fun, *args, leaf="[0]"):
    """The weight of each edge of a function of one equation: {(input index, output index): …}."""
    found = {}
    for path in enumerate_paths(fun, *args):
        if path.source[0] == leaf:
            key = (path.source[1], path.target[1])
            assert key not in found and path.length == 1
            found[key] = path.weight
    return found


def assert_edges(found, expected):
    assert set(found) == set(expected)
    np.testing.assert_equal(found, {key: float(weight) for key, weight in expected.items()})


def in_place(weights):
    return {((i,), (i,)): weight for i, weight in enumerate(weights)}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_factor_of_a_matrix_product_is_the_other(dtype):
    rows, columns = ROWS.astype(dtype), COLUMNS.astype(dtype)
    triples = [(r, k, c) for r in range(2) for k in range(3) for c in range(2)]
    assert_edges(
        edges(jnp.matmul, rows, columns, leaf="[0]"),
        {((r, k), (r, c)): COLUMNS[k, c] for r, k, c in triples},
    )
    assert_edges(
        edges(jnp.matmul, rows, columns, leaf="[1]"),
        {((k, c), (r, c)): ROWS[r, k] for r, k, c in triples},
    )


def test_a_batch_of_matrix_products():
    x, y = jnp.stack([ROWS, ROWS + 1]), jnp.stack([COLUMNS, 2 * COLUMNS])
    found = edges(lambda x: lax.batch_matmul(x, y), x)
    expected = {((b, r, k), (b, r, c)): y[b, k, c] for b, r, k, c in np.ndindex(2, 2, 3, 2)}
    assert_edges(found, expected)


def test_a_matrix_product_of_size_0():
    assert len(enumerate_paths(jnp.matmul, ROWS, jnp.zeros((3, 0)))) == 0
    assert len(enumerate_paths(jnp.matmul, jnp.zeros((2, 0)), jnp.zeros((0, 3)))) == 0


def test_a_factor_of_a_convolution_is_the_other():
    kernel = jnp.array([NAN, 2.0, -INF])

    def convolve(x, w):
        return lax.conv_general_dilated(x, w, (1,), [(1, 1)])

    # The output at o is the sum over k of x[o + k − 1] · w[k], where there is such an x.
    pairs = [(o, k) for o in range(5) for k in range(3) if 0 <= o + k - 1 < 5]
    arrays = VECTOR[None, None], kernel[None, None]
    assert_edges(
        edges(convolve, *arrays, leaf="[0]"),
        {((0, 0, o + k - 1), (0, 0, o)): kernel[k] for o, k in pairs},
    )
    assert_edges(
        edges(convolve, *arrays, leaf="[1]"),
        {((0, 0, k), (0, 0, o)): VECTOR[o + k - 1] for o, k in pairs},
    )


def test_elementwise_products():
    other = jnp.array([1.0, 4.0, NAN, 0.0, -INF])
    assert_edges(edges(jnp.multiply, VECTOR, other, leaf="[0]"), in_place(other))
    assert_edges(edges(jnp.multiply, VECTOR, other, leaf="[1]"), in_place(VECTOR))


def test_one_number_that_meets_many():
    meets = {((), (o,)): weight for o, weight in enumerate(VECTOR)}
    assert_edges(edges(lax.mul, jnp.float32(3.0), VECTOR), meets)
    found = edges(lambda s: jnp.array([1.0, 0.0, -2.0]) / s, jnp.float32(0.0))
    assert_edges(found, {((), (0,)): -INF, ((), (1,)): NAN, ((), (2,)): INF})


def test_infinite_derivatives():
    found = edges(jnp.sqrt, jnp.array([0.0, 4.0, NAN, INF]))
    assert_edges(found, in_place([INF, 0.25, NAN, 0.0]))


def test_reductions():
    pairs = [((r, k), (r,)) for r in range(2) for k in range(3)]
    assert_edges(edges(lambda x: x.sum(1), ROWS), dict.fromkeys(pairs, 1.0))
    products = [NAN, 1 * 2, NAN, -3 * 0, NAN, INF * -3]  # ∞ · 0 is NaN
    assert_edges(edges(lambda x: x.prod(1), ROWS), dict(zip(pairs, products, strict=True)))
    # Which element is the largest of the first row nobody knows; the second row does not care.
    largest = edges(lambda x: x.max(1), ROWS)
    assert set(largest) == set(pairs)
    assert [largest[pair] for pair in pairs[3:]] == [1.0, 0.0, 0.0]


def test_cumulative_products():
    x = jnp.array([2.0, -1.0, NAN, 3.0])
    products = {(0, 0): 1, (0, 1): -1, (1, 1): 2, (2, 2): -2, (2, 3): -6}
    found = edges(lax.cumprod, x)
    expected = {((i,), (o,)): products.get((i, o), NAN) for o in range(4) for i in range(o + 1)}
    assert_edges(found, expected)


def test_a_cumulative_product_that_overflows():
    found = edges(lax.cumprod, jnp.array([2.0, 1e30, 1e30]))
    assert found[(0,), (0,)] == 1
    assert found[(0,), (1,)] == pytest.approx(1e30)
    assert found[(0,), (2,)] == INF


def test_cumulative_log_sums():
    found = edges(lax.cumlogsumexp, jnp.array([0.0, 0.0, NAN]))
    expected = {
        ((i,), (o,)): NAN if o == 2 else 1 / (o + 1) for o in range(3) for i in range(o + 1)
    }
    np.testing.assert_allclose(list(found.values()), [expected[key] for key in found], rtol=1e-6)
    assert set(found) == set(expected)


@jax.custom_jvp
def squared(x):
    return x * x


squared.defjvp(lambda primals, tangents: (squared(*primals), 2 * primals[0] * tangents[0]))


@pytest.mark.parametrize("square", [squared, sj.atomic(lambda x: x * x)])
def test_functions_of_one_node(square):
    assert_edges(edges(square, VECTOR), in_place(2 * VECTOR))


def test_what_moves_elements_has_no_numbers():
    found = edges(jnp.sort, jnp.array([2.0, NAN, -INF]))
    assert found == {((2,), (0,)): 1.0, ((0,), (1,)): 1.0, ((1,), (2,)): 1.0}

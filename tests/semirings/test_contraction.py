"""Contractions in blocks: the same values and derivatives as without, and no product stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from semijax import elements as el
from semijax.jacobians.einsum import einsum
from semijax.semirings import Semiring, Weighted

SEMIRINGS = [
    sj.AbsSumProduct(),
    sj.AbsMaxProduct(),
    sj.MaxProduct(),
    sj.TopK(1),
    sj.TopK(3),
    sj.TopK(4),
    sj.TopK(6),
    sj.Reachability(),
    sj.Entropy(),
    sj.PathCount(),
]
DEPTHS = [1, 16, 31, 33, 64, 75]


def operands(semiring, depth, rows=3, columns=4, seed=0):
    """Weights of both signs, some 0; elements of one or two paths of both signs, or of none."""
    random = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    shape = (2, depth, columns)
    weights = jnp.where(random.random((2, rows, depth)) < 0.1, 0, normal(2, rows, depth))
    one, two = semiring.lift(normal(*shape)), semiring.lift(normal(*shape))
    elements = el.where(random.random(shape) < 0.5, one, semiring.add(one, two))
    absent = random.random(shape) < 0.2
    absent[0, :, 0] = True  # a column without any path
    return weights, el.where(jnp.asarray(absent), semiring.zero(shape, jnp.float32), elements)


def by_definition(semiring, weights, elements):
    """All products at once, summed by ⊕."""
    batch, rows, depth = weights.shape
    shape = (batch, rows, depth, semiring.shape(elements)[2])
    lifted = semiring.lift(jnp.broadcast_to(weights[..., None], shape))
    terms = semiring.mul(lifted, el.broadcast_in_dim(elements, shape, (0, 2, 3)))
    return Semiring.sum(semiring, terms, (2,))


def assert_same(got, want, rtol=2e-5):
    if isinstance(got, Weighted):  # where there is no mass, the mean is any number
        got, want = (Weighted(m, jnp.where(m == -jnp.inf, 0, mean)) for m, mean in (got, want))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, 2e-5), got, want)


@pytest.mark.parametrize("semiring", SEMIRINGS, ids=repr)
def test_values(semiring):
    for depth in DEPTHS:
        arguments = operands(semiring, depth)
        both = jax.jit(lambda *a: (semiring.contract(*a), by_definition(semiring, *a)))
        assert_same(*both(*arguments))


@pytest.mark.parametrize("letters", ["ab,bc->ac", "ba,bc->ac", "ab,cb->ca", "zab,zcb->zac"])
@pytest.mark.parametrize("semiring", SEMIRINGS, ids=repr)
def test_a_depth_of_1_needs_no_contraction(semiring, letters):
    weights, elements = operands(semiring, 1)
    wanted = by_definition(semiring, weights, elements)
    if letters[0] != "z":
        weights = weights[0]
        elements, wanted = (el.map_leaves(lambda leaf: leaf[0], e) for e in (elements, wanted))
    of_weights, of_elements, of_result = letters.replace("->", ",").split(",")
    order = [*range(len(of_result))]
    swapped = [*order[:-2], order[-1], order[-2]]
    weights = weights.transpose(swapped if of_weights == "ba" else order)
    elements = el.transpose(elements, swapped if of_elements.endswith("cb") else order)
    wanted = el.transpose(wanted, swapped if of_result == "ca" else order)
    traced = jax.make_jaxpr(lambda *a: einsum(semiring, letters, *a))(weights, elements)
    assert "ffi_call" not in str(traced) and "dot_general" not in str(traced)
    assert_same(einsum(semiring, letters, weights, elements), wanted)


@pytest.mark.parametrize("semiring", SEMIRINGS[1:6], ids=repr)
def test_what_is_selected_is_exact(semiring):
    weights, elements = operands(semiring, 75)
    got, want = semiring.contract(weights, elements), by_definition(semiring, weights, elements)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("semiring", SEMIRINGS[1:7], ids=repr)
@pytest.mark.parametrize("place", ["weights", "elements"])
def test_nan(semiring, place):
    weights, elements = operands(semiring, 40)
    elements = semiring.lift(jnp.ones((2, 40, 4)))
    if place == "weights":
        weights = weights.at[1, 2, 30].set(jnp.nan).at[0, 0, 3].set(-jnp.nan)
        expected = np.zeros((2, 3, 4), bool)
        expected[1, 2] = expected[0, 0] = True
    else:
        elements = jax.tree.map(lambda leaf: leaf.at[1, 35, 2].set(jnp.nan), elements)
        expected = np.zeros((2, 3, 4), bool)
        expected[1, :, 2] = True
    got = semiring.readout(semiring.contract(weights, elements))
    unknown = np.isnan(got).reshape(2, 3, 4, -1)
    np.testing.assert_array_equal(unknown.all(-1), expected)
    np.testing.assert_array_equal(unknown.any(-1), expected)


def test_an_infinite_weight_beside_no_path():
    weights = jnp.array([[[jnp.inf, -2.0]]])
    for semiring, there, absent in (
        (sj.MaxProduct(), [jnp.inf], [jnp.nan]),
        (sj.MinProduct(), [-2.0], [jnp.nan]),
        (sj.TopK(2), [jnp.inf, 2.0], [2.0, 0.0]),
    ):
        one, none = semiring.lift(jnp.ones((1, 2, 1))), semiring.zero((1, 2, 1), jnp.float32)
        got = semiring.readout(semiring.contract(weights, one))
        np.testing.assert_array_equal(got.ravel(), there)
        first_absent = el.where(jnp.array([[[False], [True]]]), one, none)
        got = semiring.readout(semiring.contract(weights, first_absent))
        np.testing.assert_array_equal(got.ravel(), absent)


@pytest.mark.parametrize("semiring", SEMIRINGS, ids=repr)
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 0, 3, 2), (2, 3, 0, 2), (2, 3, 2, 0)])
def test_empty(semiring, shape):
    batch, rows, depth, columns = shape
    weights, values = jnp.ones((batch, rows, depth)), jnp.ones((batch, depth, columns))

    def contract(weights, values):
        return semiring.contract(weights, semiring.lift(values))

    expected = semiring.zero((batch, rows, columns), jnp.float32)
    assert_same(contract(weights, values), expected)
    jax.jvp(contract, (weights, values), (weights, values))


def test_operands_of_two_dtypes():
    def fun(x, w):
        return jax.lax.dot(x, w, preferred_element_type=jnp.float64)[0, 0]

    with jax.enable_x64(True):
        for semiring in SEMIRINGS:
            for depth in (33, 48):
                x, w = jnp.ones((1, depth), jnp.float32), jnp.ones((depth, 1), jnp.float32)
                found = sj.semiring_grad(fun, semiring)(x, w)
                assert found.shape[:2] == (1, depth)


def scalar(semiring, contract):
    """A smooth function of everything in the elements that the contraction gives."""

    def function(weights, values, present):
        zero = semiring.zero(values.shape, values.dtype)
        elements = contract(weights, el.where(present, semiring.lift(values), zero))
        leaves = jax.tree.leaves(elements)
        return sum(jnp.sum(jnp.sin(jnp.where(jnp.isfinite(x), x, 0) / 10)) for x in leaves)

    return function


SPREAD = {(semiring, 0) for semiring in [*SEMIRINGS[:6], sj.Entropy(), sj.PathLength()]}
SPREAD |= {(sj.Entropy(), 150), (sj.PathCount(), 150)}


@pytest.mark.parametrize(("semiring", "spread"), sorted(SPREAD, key=repr), ids=repr)
@pytest.mark.parametrize("depth", [5, 75])
def test_derivatives(semiring, spread, depth):
    random = np.random.default_rng(1)
    weights, values = random.normal(size=(2, 3, depth)), random.normal(size=(2, depth, 4))
    # What is large on one side is small on the other: in a common scale, all would be lost.
    fall = np.linspace(0, -spread / 2, depth)
    weights, values = weights * np.exp(fall[::-1]), values * np.exp(fall)[:, None]
    point = tuple(jnp.asarray(x, jnp.float32) for x in (weights, values))
    present = np.ones((2, depth, 4), bool)
    present[0, :, 1] = False  # no path at all
    present[1, ::2, 2] = False
    fast = scalar(semiring, semiring.contract)
    slow = scalar(semiring, lambda w, e: by_definition(semiring, w, e))
    got, want = (jax.jit(jax.grad(f, (0, 1)))(*point, present) for f in (fast, slow))
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, 2e-3, 1e-5 * float(jnp.abs(w).max()))
    tangents = jax.tree.map(jnp.cos, point)
    _, forward = jax.jvp(lambda *point: fast(*point, present), point, tangents)
    backward = sum(jnp.vdot(a, b) for a, b in zip(got, tangents, strict=True))
    np.testing.assert_allclose(forward, backward, rtol=1e-3, atol=1e-4)


def test_an_infinite_factor_leaves_other_derivatives_alone():
    weights, values = jnp.array([[[-jnp.inf, 2.0]]]), jnp.array([[[1.0], [3.0]]])

    def largest(values):
        return sj.MaxProduct().contract(weights, sj.MaxProduct().lift(values)).max.sum()

    np.testing.assert_array_equal(jax.grad(largest)(values).ravel(), [0, 2])


def test_equal_products_share_the_derivative():
    semiring = sj.AbsMaxProduct()
    weights = jnp.array([[[2.0, -2.0, 1.0]]])
    found = jax.grad(lambda w: semiring.contract(w, jnp.ones((1, 3, 1))).sum())(weights)
    np.testing.assert_array_equal(found[0, 0], [0.5, -0.5, 0])


def arrays_held(function, size):
    """The temporary memory for two square matrices, in units of one of them."""
    matrix = jnp.ones((1, size, size))
    compiled = jax.jit(function).lower(matrix, matrix).compile()
    return compiled.memory_analysis().temp_size_in_bytes / matrix.nbytes


@pytest.mark.parametrize("semiring", [*SEMIRINGS[:3], sj.TopK(4), sj.Entropy()], ids=repr)
def test_neither_value_nor_derivative_stores_the_products(semiring):
    def fast(weights, values):
        return scalar(semiring, semiring.contract)(weights, values, values > 0)

    for function in (fast, jax.grad(fast, (0, 1))):
        assert arrays_held(function, 192) < 1.1 * arrays_held(function, 96)

"""The enumeration of paths, against what can be counted by hand and against JAX's derivatives."""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from semijax import semirings
from semijax.semirings import Semiring
from semijax.testing import Paths, enumerate_paths

VECTOR = np.array([0.7, -1.3, 0.4, 2.1, -0.6], np.float32)


def structure(fun, *args, **options):
    """Which outputs each input element reaches, with which weights: {(source, target): weights}."""
    found: dict[Any, list[float]] = {}
    for path in enumerate_paths(fun, *args, **options):
        found.setdefault((path.source[1], path.target[1]), []).append(round(path.weight, 5))
    return found


def jacobian_of_paths(paths, out_shape, in_shape, leaf="[0]"):
    total = np.zeros((*out_shape, *in_shape))
    for path in paths:
        if path.source[0] == leaf:
            total[(*path.target[1], *path.source[1])] += path.weight
    return total


# The paper's Figure 1.


def figure_1(x, y):
    return jnp.exp(x) + (x - y) * y


def test_figure_1():
    paths = enumerate_paths(figure_1, 0.5, -1.25)
    assert [p.primitives for p in paths] == [
        ("exp", "add"),
        ("sub", "mul", "add"),
        ("mul", "add"),
        ("sub", "mul", "add"),
    ]
    assert [p.source for p in paths] == [("[0]", ())] * 2 + [("[1]", ())] * 2
    np.testing.assert_allclose(paths.weights(0), [math.exp(0.5), -1.25], rtol=1e-6)
    np.testing.assert_allclose(paths.weights("[1]"), [1.75, 1.25], rtol=1e-6)
    assert paths[1].weights == (1.0, -1.25, 1.0)
    assert paths[1].nodes == (("sub", ()), ("mul", ()), ("add", ()))
    assert paths[1].length == 3
    assert paths[1].target == ("", ())


def test_paths_are_read_at_a_glance():
    def fun(x):
        return {"a": x["w"][1] * 3.0}

    path = enumerate_paths(fun, {"w": jnp.ones(2)})[0]
    text = "[0]['w'][1] → slice[0] (1) → squeeze (1) → mul (3) = output['a']: 3"
    assert repr(path) == text
    assert repr(enumerate_paths(jnp.sin, 0.0)) == "1 path\n  [0] → sin (1): 1"
    assert repr(enumerate_paths(jnp.sum, jnp.ones(13))).splitlines()[-1] == "  … and 3 more"


# The program is the graph.


def test_each_use_is_an_edge():
    assert structure(lambda x: x * x, 3.0) == {((), ()): [3.0, 3.0]}
    assert structure(lambda x: x**2, 3.0) == {((), ()): [6.0]}
    assert structure(jnp.dot, jnp.array([2.0]), jnp.array([5.0]), argnums=0) == {((0,), ()): [5.0]}
    assert structure(lambda x: jnp.dot(x, x), jnp.array([2.0, 3.0])) == {
        ((0,), ()): [2.0, 2.0],
        ((1,), ()): [3.0, 3.0],
    }


def with_own_vmap(fun):
    wrapped = jax.custom_batching.custom_vmap(fun)
    wrapped.def_vmap(lambda size, batched, *args: (jax.vmap(fun)(*args), True))
    return wrapped


def test_called_functions_are_inlined():
    expected = structure(figure_1, 0.5, 2.0)
    for wrap in (
        jax.jit,
        jax.checkpoint,
        lambda f: jax.jit(jax.jit(f)),
        with_own_vmap,
    ):
        assert structure(wrap(figure_1), 0.5, 2.0) == expected
    primitives = [
        p.primitives for p in enumerate_paths(jax.jit(jax.checkpoint(figure_1)), 0.5, 2.0)
    ]
    assert primitives == [p.primitives for p in enumerate_paths(figure_1, 0.5, 2.0)]


def test_a_jitted_function_that_is_called_twice_has_two_bodies():
    inner = jax.jit(lambda x: jnp.sin(x) * x)
    paths = enumerate_paths(lambda x: inner(inner(x)), 0.7)
    assert len(paths) == 4
    np.testing.assert_allclose(
        paths.weights(0).sum(), jax.grad(lambda x: inner(inner(x)))(0.7), rtol=1e-6
    )


def test_an_output_that_is_an_input_has_the_empty_path():
    paths = enumerate_paths(lambda x, y: (y, x), 2.0, jnp.ones(2))
    assert {(p.source, p.target) for p in paths} == {
        (("[0]", ()), ("[1]", ())),
        (("[1]", (0,)), ("[0]", (0,))),
        (("[1]", (1,)), ("[0]", (1,))),
    }
    assert all(p.weight == 1 and p.length == 0 and p.nodes == () for p in paths)


def test_an_output_returned_twice_is_two_targets():
    def fun(x):
        y = jnp.sin(x)
        return y, [y]

    assert [p.target[0] for p in enumerate_paths(fun, 0.0)] == ["[0]", "[1][0]"]


@pytest.mark.parametrize(
    "fun",
    [lambda x: 3.0, lambda x: (), lambda x: jnp.arange(3), lambda x: lax.stop_gradient(x) * 2],
)
def test_functions_without_paths(fun):
    paths = enumerate_paths(fun, VECTOR)
    assert len(paths) == 0
    assert list(paths) == []
    np.testing.assert_array_equal(paths.fold(semirings.MaxProduct())[0], np.full(5, -np.inf))
    np.testing.assert_array_equal(paths.weights(0, (3,)), [])


def test_functions_of_nothing():
    assert len(enumerate_paths(lambda: 1.0)) == 0
    assert enumerate_paths(lambda: 1.0).fold(semirings.SumProduct()) == ()
    assert len(enumerate_paths(jnp.sum, jnp.zeros((0, 3)))) == 0
    assert len(enumerate_paths(lambda x: x, jnp.arange(3))) == 0


# Loops and branches.


def unrolled(x, w):
    carry, rows = x[0], []
    for i in range(5):
        carry = jnp.sin(carry * x[i]) + w
        rows.append(carry * w)
    return carry + jnp.stack(rows)[2] * x[1]


def scanned(x, w, **options):
    def body(carry, row):
        carry = jnp.sin(carry * row) + w
        return carry, carry * w

    carry, rows = lax.scan(body, x[0], x, **options)
    return carry + rows[2] * x[1]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_scan_is_the_unrolled_loop(wrap):
    loop, straight = (
        enumerate_paths(wrap(scanned), VECTOR, 0.9),
        enumerate_paths(unrolled, VECTOR, 0.9),
    )
    assert len(loop) == len(straight) == 20
    for leaf, index in [("[0]", (i,)) for i in range(5)] + [("[1]", ())]:
        np.testing.assert_allclose(
            np.sort(loop.weights(leaf, index)), np.sort(straight.weights(leaf, index)), rtol=1e-5
        )
    # Slicing x and stacking the rows are edges of the straight program, not of the loop.
    assert "stack" not in {name for p in loop for name in p.primitives}
    assert sum(p.length for p in loop) < sum(p.length for p in straight)


def test_reversed_scan():
    def fun(x):
        return lax.scan(lambda c, r: (c * r, c), jnp.float32(1.0), x, reverse=True)

    x = VECTOR[:3]
    paths = enumerate_paths(fun, x)
    jacobians = jax.jacrev(fun)(x)
    for leaf, jacobian in zip(("[0]", "[1]"), jacobians, strict=True):
        ending = [p for p in paths if p.target[0] == leaf]
        found = jacobian_of_paths(ending, jacobian.shape[:-1], (3,))
        np.testing.assert_allclose(found, jacobian, rtol=1e-5)


def test_scan_of_length_0():
    def fun(x):
        carry, rows = lax.scan(lambda c, r: (c * r, r), x, jnp.ones((0, 2)))
        return carry, rows

    assert [p.target for p in enumerate_paths(fun, jnp.ones(2))] == [("[0]", (0,)), ("[0]", (1,))]


def test_loops_with_dynamic_bounds():
    def fun(n, x):
        return lax.fori_loop(0, n, lambda i, c: c * x, x)

    assert structure(fun, 3, 2.0) == {((), ()): [8.0] * 4}
    assert structure(fun, 0, 2.0) == {((), ()): [1.0]}


def test_of_a_cond_the_branch_that_is_taken():
    def fun(x):
        return lax.switch(jnp.int32(x), [jnp.sin, lambda x: x * x, lambda x: x], x)

    assert [len(enumerate_paths(fun, x)) for x in (0.5, 1.5, 2.5, 3.5, -1.5)] == [1, 2, 1, 1, 1]
    assert enumerate_paths(fun, 2.5)[0].length == 0


# Zeros: which of them are edges.

X = jnp.array([0.0, -2.0, 3.0])
ALIGNED = {((i,), (i,)) for i in range(3)}
TRIANGLE = {((i,), (o,)) for i in range(3) for o in range(i, 3)}
ALL_TO_ALL = {((i,), (o,)) for i in range(3) for o in range(3)}
TO_SCALAR = {((i,), ()) for i in range(3)}


@jax.custom_jvp
def heaviside(x):
    return jnp.where(x > 0, 1.0, 0.0)


@heaviside.defjvp
def heaviside_jvp(primals, tangents):
    return heaviside(*primals), tangents[0] * jnp.maximum(0, 1 - jnp.abs(primals[0]))


@jax.custom_vjp
def first_twice(x):
    return jnp.stack([x[0], x[0]])


first_twice.defvjp(lambda x: (first_twice(x), None), lambda _, ct: (ct.sum() * jnp.eye(3)[0],))


@pytest.mark.parametrize(
    ("fun", "edges"),
    [
        (jax.nn.relu, ALIGNED),
        (heaviside, ALIGNED),
        (lambda x: jnp.where(jnp.array([True, False, True]), x, 1.0), ALIGNED),
        (lambda x: jnp.maximum(x, 1.0), ALIGNED),
        (lambda x: lax.clamp(-1.0, x, 1.0), ALIGNED),
        (lambda x: lax.clamp(x, X + 5, X + 9), ALIGNED),
        (jnp.floor, ALIGNED),
        (jnp.sign, ALIGNED),
        (lambda x: lax.integer_pow(x, 0), ALIGNED),
        (lambda x: lax.pow(x, jnp.zeros(3)), ALIGNED),
        (lambda x: x * jnp.array([0.0, 1.0, 0.0]), ALIGNED),
        (jnp.max, TO_SCALAR),
        (jnp.prod, TO_SCALAR),
        (lambda x: x @ jnp.zeros(3), TO_SCALAR),
        (lambda x: jnp.zeros((3, 3)) @ x, ALL_TO_ALL),
        (lambda x: jnp.triu(jnp.ones((3, 3))) @ x, ALL_TO_ALL),
        (lax.cumsum, TRIANGLE),
        (lax.cumprod, TRIANGLE),
        (lax.cummax, TRIANGLE),
        (lax.cumlogsumexp, TRIANGLE),
        (lambda x: lax.cumsum(x, reverse=True), {(i, o) for o, i in TRIANGLE}),
        (
            lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID"),
            {((i,), (o,)) for o in range(2) for i in (o, o + 1)},
        ),
        (
            lambda x: jnp.convolve(x, jnp.array([0.0, 1.0]), "valid"),
            {((i,), (o,)) for o in range(2) for i in (o, o + 1)},
        ),
        (lambda x: x.at[jnp.array([0])].multiply(0.0, unique_indices=True), ALIGNED),
        # No edge at all.
        (lambda x: x[1:], {((1,), (0,)), ((2,), (1,))}),
        (lambda x: jnp.pad(x, (1, 0)), {((i,), (i + 1,)) for i in range(3)}),
        (lambda x: jnp.concatenate([x[:1], X[1:]]), {((0,), (0,))}),
        (lambda x: x.at[1].set(7.0), {((0,), (0,)), ((2,), (2,))}),
        (lambda x: jnp.where(jnp.array([True, False, True]), 1.0, X), set()),
        (lambda x: jnp.take(x, jnp.array([0, 7, 2]), mode="fill"), {((0,), (0,)), ((2,), (2,))}),
        (jnp.sort, {((1,), (0,)), ((0,), (1,)), ((2,), (2,))}),
        (lambda x: lax.top_k(x, 2)[0], {((2,), (0,)), ((0,), (1,))}),
        (lambda x: lax.dynamic_slice(x, (jnp.int32(1),), (2,)), {((1,), (0,)), ((2,), (1,))}),
        (
            lambda x: lax.reshape(jnp.broadcast_to(x[:1], (3,)), (3,)),
            {((0,), (o,)) for o in range(3)},
        ),
        (lambda x: lax.rev(x, (0,)), {((i,), (2 - i,)) for i in range(3)}),
        (first_twice, {((i,), (o,)) for i in range(3) for o in range(2)}),  # as its rule has it
        (
            lambda x: lax.linalg.triangular_solve(
                jnp.eye(3) + jnp.tri(3), x[:, None], left_side=True, lower=True
            )[:, 0],
            TRIANGLE,
        ),
    ],
)
def test_which_zeros_are_edges(fun, edges):
    assert set(structure(fun, X)) == edges


def test_padding_of_a_convolution_is_no_edge():
    def convolve(x, w):
        return lax.conv_general_dilated(x[None, None], w[None, None], (1,), [(1, 1)])[0, 0]

    by_input = structure(convolve, X, jnp.zeros(3), argnums=0)
    by_kernel = structure(convolve, X, jnp.zeros(3), argnums=1)
    near = {((i,), (o,)) for i in range(3) for o in range(3) if abs(i - o) < 2}
    assert set(by_input) == near
    assert set(by_kernel) == {
        ((k,), (o,)) for k in range(3) for o in range(3) if 0 <= o + k - 1 < 3
    }


def test_broadcasting_is_one_edge_per_output():
    assert len(enumerate_paths(lambda x, y: x * y, 2.0, jnp.ones(3))) == 6
    assert len(enumerate_paths(lambda x, y: lax.mul(x, y), jnp.ones((1, 3)), jnp.ones((1, 3)))) == 6
    paths = enumerate_paths(lambda x, y: x * y, jnp.ones((2, 1)), jnp.ones((1, 3)))
    assert len(paths.from_source("[0]", (1, 0))) == 3


UNARY = (
    "abs acosh asin asinh atan atanh bessel_i0e bessel_i1e cbrt ceil cos cosh digamma erf erf_inv "
    "erfc exp exp2 expm1 floor lgamma log log1p logistic neg round rsqrt sign sin sinh sqrt square "
    "tan tanh"
)


@pytest.mark.parametrize("name", UNARY.split())
def test_elementwise_functions_have_one_edge_per_element(name):
    x = jnp.array([0.2, 0.7, 1.0])
    assert set(structure(getattr(lax, name), x)) == ALIGNED


BINARY = "add atan2 div igamma igammac max min mul pow rem sub"


@pytest.mark.parametrize("name", BINARY.split())
def test_binary_functions_have_an_edge_per_operand(name):
    x, y = jnp.array([1.2, 1.7, 2.0]), jnp.array([2.0, 1.5, 2.5])
    found = structure(getattr(lax, name), x, y)
    assert set(found) == ALIGNED
    assert all(len(weights) == 2 for weights in found.values())


# Custom derivatives and atomic functions are one node.


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda p, t: (straight_through(p[0]), t[0]))


@jax.custom_vjp
def reversed_gradient(x):
    return x * 1.0


reversed_gradient.defvjp(lambda x: (x, None), lambda _, ct: (-3 * ct,))


@jax.custom_jvp
def softmax(x):
    return jnp.exp(x) / jnp.exp(x).sum()


softmax.defjvps(lambda t, out, x: out * (t - jnp.vdot(out, t)))


def test_custom_derivatives_are_one_node():
    assert structure(straight_through, 0.4) == {((), ()): [1.0]}
    assert structure(reversed_gradient, 0.4) == {((), ()): [-3.0]}
    assert structure(jax.vmap(straight_through), X) == {edge: [1.0] for edge in ALIGNED}
    found = enumerate_paths(softmax, X)
    assert len(found) == 9
    jacobian = jacobian_of_paths(found, (3,), (3,))
    np.testing.assert_allclose(jacobian, jax.jacrev(softmax)(X), rtol=1e-6)


def test_custom_derivative_inside_a_loop():
    def fun(x):
        return lax.scan(lambda c, r: (straight_through(c) * r, None), x[0], x)[0]

    paths = enumerate_paths(fun, VECTOR)
    sums = [paths.weights(0, (i,)).sum() for i in range(5)]
    np.testing.assert_allclose(sums, jax.grad(fun)(VECTOR), rtol=1e-5)


def atomic(fun, name):
    fun.__name__ = "sj.atomic:" + name
    return jax.jit(fun)


def test_atomic_functions_are_one_node():
    norm = atomic(lambda x: x / jnp.sqrt((x * x).sum()), "normalise")
    paths = enumerate_paths(lambda x: norm(x).sum(), X)
    assert {p.primitives for p in paths} == {("normalise", "reduce_sum")}
    assert len(paths) == 9
    assert sum(p.weight == 0 for p in paths) == 4  # x[0] is 0: all to and from it but to itself

    relu = atomic(lambda x: jnp.maximum(x, 0), "relu")
    assert set(structure(relu, X)) == ALIGNED
    loop = atomic(lambda x: lax.while_loop(lambda c: c[0] < 9, lambda c: c * x, x), "powers")
    np.testing.assert_allclose(
        enumerate_paths(loop, jnp.array([2.0])).weights(0, (0,)), [4 * 2.0**3], rtol=1e-6
    )


# The sum over paths is JAX's derivative.


def attention(x, wq, wk, wv):
    q, k, v = x @ wq, x @ wk, x @ wv
    return jnp.sum(jax.nn.softmax(q @ k.T / 2**0.5, axis=-1) @ v)


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return (centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3))[..., 1]


def pooled(x):
    y = lax.reduce_window(x, -jnp.inf, lax.max, (3,), (2,), "SAME")
    return (y * lax.reduce_window(x, 0.0, lax.add, (3,), (2,), "SAME")).sum()


@pytest.mark.parametrize(
    ("fun", "shapes"),
    [
        (attention, [(3, 2), (2, 2), (2, 2), (2, 2)]),
        (layer_norm, [(2, 3)]),
        (pooled, [(7,)]),
        (lambda w, x: jax.nn.relu(jnp.tanh(x @ w) @ w.T), [(2, 3), (5, 2)]),
        (lambda x: jnp.einsum("bij,bkj->bik", x, x), [(2, 3, 2)]),
        (lambda x: jnp.linalg.cholesky(x @ x.T + jnp.eye(3)), [(3, 3)]),
        (lambda x: jnp.linalg.solve(x + 3 * jnp.eye(3), x[0]), [(3, 3)]),
        (lambda x: jax.nn.logsumexp(x, axis=0) * jax.nn.gelu(x), [(5,)]),
        (lambda x: x[jnp.array([0, 2, 2, -1])] * jnp.cumsum(x)[:4], [(5,)]),
        (lambda x: x.at[jnp.array([0, 2, 2])].add(x[:3]), [(5,)]),
        (lambda x, y: x.at[jnp.array([0, 2])].multiply(y, unique_indices=True), [(5,), (2,)]),
        (lambda x: jnp.stack(jnp.split(jnp.tile(x, 2), 2)) * jnp.flip(x), [(3,)]),
        (lambda x: lax.associative_scan(jnp.multiply, x), [(7,)]),
        (lambda x: jnp.sort(x) * jnp.median(x), [(5,)]),
        (lambda x: lax.sort_key_val(x, x**2)[1], [(5,)]),
        (lambda x: jnp.where(x > 0, x, jnp.exp(x)) + jnp.linalg.norm(x), [(5,)]),
        (lambda x, w: lax.conv(x, w, (2,), "SAME"), [(1, 2, 5), (3, 2, 2)]),
        (lambda x: jax.jacrev(lambda x: jnp.sin(x) * x[::-1])(x), [(3,)]),
    ],
)
def test_the_sum_over_paths_is_the_derivative(fun, shapes):
    random = np.random.default_rng(0)
    args = [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]
    paths = enumerate_paths(fun, *args)
    out_shape = jnp.shape(fun(*args))
    jacobians = jax.jacrev(fun, tuple(range(len(args))))(*args)
    for n, jacobian in enumerate(jacobians):
        found = jacobian_of_paths(paths, out_shape, shapes[n], f"[{n}]")
        np.testing.assert_allclose(found, jacobian, rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_the_arguments_dtype():
    with jax.enable_x64(True):
        x = jnp.float64(1 / 3)
        assert enumerate_paths(jnp.exp, x)[0].weight == float(jnp.exp(x))
    x = jnp.bfloat16(1 / 3)
    assert enumerate_paths(jnp.exp, x)[0].weight == float(jnp.exp(x))


def test_nan_is_a_weight():
    weights = enumerate_paths(lambda x: jnp.log(x) * x, jnp.nan).weights(0)
    assert np.isnan(weights).tolist() == [True, True]


# Folding with a semiring.


@pytest.fixture(scope="module")
def mixed_paths():
    return enumerate_paths(
        lambda x, w: jnp.sum(jnp.tanh(x @ w) @ w.T * x), VECTOR[None], 0.3 * WEIGHTS
    )


WEIGHTS = np.array([[0.5, -1.0], [1.5, 0.0], [-0.7, 0.2], [2.0, 1.0], [0.1, -0.4]], np.float32)


def entropy(weights):
    mass = np.abs(weights)
    p = mass[mass > 0] / mass.sum()
    return -(p * np.log(p)).sum()


@pytest.mark.parametrize(
    ("semiring", "statistic"),
    [
        (semirings.SumProduct(), np.sum),
        (semirings.AbsSumProduct(), lambda w: np.abs(w).sum()),
        (semirings.MaxProduct(), np.max),
        (semirings.MinProduct(), np.min),
        (semirings.AbsMaxProduct(), lambda w: np.abs(w).max()),
        (semirings.TopK(3), lambda w: np.sort(np.abs(w))[:-4:-1]),
        (semirings.Entropy(), entropy),
        (semirings.PathCount(), lambda w: np.log((w != 0).sum())),
        (semirings.Reachability(), lambda w: (w != 0).any()),
    ],
    ids=lambda x: type(x).__name__,
)
def test_fold_is_the_statistic_of_the_weights(mixed_paths, semiring, statistic):
    folded = mixed_paths.fold(semiring)
    assert isinstance(folded, tuple)
    for leaf, result, shape in zip(("[0]", "[1]"), folded, ((1, 5), (5, 2)), strict=True):
        assert result.shape[:2] == shape
        for index in np.ndindex(shape):
            expected = statistic(mixed_paths.weights(leaf, index))
            np.testing.assert_allclose(result[index], expected, rtol=1e-4, atol=1e-6)


def test_fold_with_several_semirings(mixed_paths):
    together = mixed_paths.fold(
        {"sum": semirings.SumProduct(), "others": [semirings.TopK(2), semirings.MaxProduct()]}
    )
    alone = mixed_paths.fold(semirings.SumProduct())
    for n, shape in enumerate(((1, 5), (5, 2))):
        np.testing.assert_array_equal(together["sum"][n], alone[n])
        assert together["others"][0][n].shape == (*shape, 2)
        assert together["others"][1][n].shape == shape
    with pytest.raises(TypeError):
        mixed_paths.fold(3.0)


def test_fold_asks_the_semiring_about_each_equation():
    def fun(x):
        with jax.named_scope("inside"):
            y = jax.jit(lambda x: jnp.sin(x) * 2.0)(x)
        return y + x

    def is_inside(equation):
        return float(equation.scope.startswith("inside"))

    def is_sine(equation):
        return float(equation.primitive.name == "sin")

    paths = enumerate_paths(fun, 0.0)
    assert sorted(paths.weights(0)) == [1.0, 2.0]
    lengths = [p.length for p in paths]
    mean = sum(p.length * p.weight for p in paths) / 3
    assert lengths == [1, 3]
    np.testing.assert_allclose(paths.fold(semirings.PathLength())[0], mean, rtol=1e-6)
    np.testing.assert_allclose(paths.fold(semirings.Expectation(is_inside))[0], 4 / 3, rtol=1e-6)
    np.testing.assert_allclose(paths.fold(semirings.Expectation(is_sine))[0], 2 / 3, rtol=1e-6)


def test_an_equation_knows_its_line():
    def twice(x):
        return x * 2.0

    def fun(x):
        y = jax.jit(jnp.sin)(x)
        return lax.scan(lambda c, _: (twice(c), None), y, None, length=3)[0]

    seen = []

    def look(equation):
        seen.append((equation.name, equation.source))
        return 0.0

    enumerate_paths(fun, 1.0).fold(semirings.Expectation(look))
    assert [name for name, _ in seen] == ["sin", "mul", "mul", "mul"]
    line = fun.__code__.co_firstlineno + 1
    assert f"test_enumeration.py:{line}" in seen[0][1]
    line = twice.__code__.co_firstlineno + 1
    assert all(f"test_enumeration.py:{line}" in source for _, source in seen[1:])


@dataclasses.dataclass(frozen=True)
class WeightAndLength(Semiring):
    """⟨Σ weight, Σ weight · length⟩ over the paths."""

    def zero(self, shape, dtype):
        return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)

    def one(self, shape, dtype):
        return jnp.ones(shape, dtype), jnp.zeros(shape, dtype)

    def lift(self, weights):
        return weights, weights

    def add(self, a, b):
        return a[0] + b[0], a[1] + b[1]

    def mul(self, a, b):
        return a[0] * b[0], a[0] * b[1] + a[1] * b[0]


def test_fold_with_a_semiring_of_pairs(mixed_paths):
    weight, counted = mixed_paths.fold(WeightAndLength())[0]
    assert weight.shape == counted.shape == (1, 5)
    expected = [
        sum(p.weight * p.length for p in mixed_paths.from_source(0, (0, i))) for i in range(5)
    ]
    np.testing.assert_allclose(counted[0], expected, rtol=1e-4)


def test_fold_has_the_structure_of_the_arguments():
    def fun(parameters, n, x):
        return parameters["w"] * x[0] + n

    args = ({"w": 2.0, "unused": jnp.ones(2)}, 3, [jnp.float16(4.0)])
    fold = enumerate_paths(fun, *args).fold(semirings.SumProduct())
    assert fold == ({"w": 4.0, "unused": fold[0]["unused"]}, None, [2.0])
    np.testing.assert_array_equal(fold[0]["unused"], [0.0, 0.0])
    assert fold[2][0].dtype == jnp.float32
    assert enumerate_paths(fun, *args, argnums=2).fold(semirings.SumProduct()) == [2.0]
    assert enumerate_paths(fun, *args, argnums=(-1,)).fold(semirings.SumProduct()) == ([2.0],)


def test_fold_of_a_part(mixed_paths):
    part = mixed_paths.from_source("[1]", (3, 1)).fold(semirings.MaxProduct())
    whole = mixed_paths.fold(semirings.MaxProduct())
    assert part[1][3, 1] == whole[1][3, 1]
    assert np.isneginf(np.asarray(part[0])).all()
    assert np.isneginf(np.asarray(part[1])).sum() == 9


# The sequence.


def test_paths_are_an_immutable_sequence(mixed_paths):
    assert isinstance(mixed_paths[2:5], Paths)
    assert list(mixed_paths[2:5]) == [mixed_paths[2], mixed_paths[3], mixed_paths[4]]
    assert mixed_paths[-1] == mixed_paths[len(mixed_paths) - 1]
    assert mixed_paths[1] in mixed_paths
    sources = [(p.source, p.length) for p in mixed_paths]
    assert sources == sorted(sources)
    with pytest.raises(TypeError):
        mixed_paths[0] = mixed_paths[1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        mixed_paths[0].weight = 3.0
    with pytest.raises(IndexError):
        mixed_paths[len(mixed_paths)]


def test_unknown_sources(mixed_paths):
    with pytest.raises(KeyError, match=r"no input is called '\[7\]'; there are: \[0\], \[1\]"):
        mixed_paths.from_source(7)
    for index in ((), (0,), (5, 0), (0, -1)):
        with pytest.raises(KeyError, match=r"has shape \(5, 2\) and no element"):
            mixed_paths.weights(1, index)


# Limits.


def test_too_many_paths_are_counted_not_followed():
    def deep(x):
        for _ in range(100):
            x = x * x
        return x

    started = time.perf_counter()
    with pytest.raises(
        ValueError, match=rf"deep has {2**100} paths, more than limit=100000"
    ) as error:
        enumerate_paths(deep, 1.0)
    assert time.perf_counter() - started < 20
    assert "argnums" in str(error.value)
    assert len(enumerate_paths(lambda x: (x * x) * x, 1.0, limit=3)) == 3
    with pytest.raises(ValueError, match="has 3 paths, more than limit=2"):
        enumerate_paths(lambda x: (x * x) * x, 1.0, limit=2)


def test_a_large_equation_is_refused_before_its_jacobian_is_made():
    with pytest.raises(ValueError, match=r"'sin' may have 100000000 edges"):
        enumerate_paths(jnp.sin, jnp.ones(10_000))


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match=r"makes complex numbers of shape \(5,\)"):
        enumerate_paths(lambda x: jnp.abs(jnp.fft.fft(x)), VECTOR)
    power = atomic(lambda x: jnp.abs(jnp.fft.fft(x)) ** 2, "power")
    assert len(enumerate_paths(power, VECTOR)) > 0


def test_bad_argnums():
    with pytest.raises(ValueError, match="requires at least 3 positional arguments"):
        enumerate_paths(figure_1, 1.0, 2.0, argnums=2)
    with pytest.raises(TypeError, match=r"argument \[0\] has dtype int32"):
        enumerate_paths(figure_1, 1, 2.0, argnums=0)

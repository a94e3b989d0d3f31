"""The averaged Jacobian of one equation, against an integral that knows no rule of the package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.jacobians.line import (
    Line,
    secant,
    shares_of_largest,
    shares_of_largest_in_groups,
    shares_of_ranks,
)
from semijax.jacobians.lookup import averaged_jacobian
from semijax.trace.graph import trace

RNG = np.random.default_rng(7)


def real(*shape):
    return RNG.normal(size=shape)


def positive(*shape):
    """Of very different sizes."""
    return np.exp(2 * RNG.normal(size=shape))


def two(draw, *shape):
    return draw(*shape), draw(*shape)


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (jnp.round(primals[0]), tangents[0]))

TRIANGLE = two(lambda: np.tril(real(3, 3)) + 3 * np.eye(3))
CASES = {
    "exp": (jnp.exp, [two(real, 3)]),
    "tanh": (jnp.tanh, [two(real, 3)]),
    "log": (jnp.log, [two(positive, 3)]),
    "rsqrt": (lax.rsqrt, [two(positive, 3)]),
    "abs": (jnp.abs, [two(real, 3)]),
    "cube": (lambda x: x**3, [two(real, 3)]),
    "floor": (jnp.floor, [two(real, 3)]),
    "straight through": (straight_through, [two(real, 3)]),
    "relu": (jax.nn.relu, [two(real, 4)]),
    "gelu, one node": (sj.atomic(jax.nn.gelu), [two(real, 4)]),
    "product": (lambda x, y: x * y, [two(real, 3), two(real, 3)]),
    "quotient": (lambda x, y: x / y, [two(real, 6), two(positive, 6)]),
    "negative quotient": (lambda x, y: -x / y, [two(real, 6), two(positive, 6)]),
    "power": (lambda x, y: x**y, [two(positive, 3), two(real, 3)]),
    "angle": (jnp.arctan2, [two(positive, 3), two(real, 3)]),
    "logaddexp": (jnp.logaddexp, [two(real, 4), two(real, 4)]),
    "maximum": (jnp.maximum, [two(real, 4), two(real, 4)]),
    "minimum of a constant": (lambda x: jnp.minimum(x, 0.25), [two(real, 4)]),
    "clamp": (lambda x: lax.clamp(-0.4, x, 0.3), [two(real, 6)]),
    "reduce_max": (lambda x: lax.reduce_max(x, (0, 2)), [two(real, 2, 3, 3)]),
    "reduce_min": (lambda x: lax.reduce_min(x, (1,)), [two(real, 2, 3)]),
    "reduce_prod": (lambda x: lax.reduce_prod(x, (1,)), [two(real, 2, 5)]),
    "dot": (jnp.dot, [two(real, 2, 3), two(real, 3, 2)]),
    "conv": (
        lambda x, k: lax.conv(x, k, (1, 1), "SAME"),
        [two(real, 1, 2, 3, 3), two(real, 2, 2, 2, 2)],
    ),
    "sort": (lambda x: lax.sort(x, dimension=0), [two(real, 5, 2)]),
    "sort with a payload": (
        lambda x, y: tuple(lax.sort((x, y), dimension=1, num_keys=1)),
        [two(real, 2, 4), two(real, 2, 4)],
    ),
    "cumsum": (lambda x: lax.cumsum(x, 0), [two(real, 4)]),
    "cummax": (lambda x: lax.cummax(x, 0), [two(real, 4, 2)]),
    "cummin": (lambda x: lax.cummin(x, 1, reverse=True), [two(real, 2, 4)]),
    "cumprod": (lambda x: lax.cumprod(x, 0), [two(real, 4, 2)]),
    "cumlogsumexp": (lambda x: lax.cumlogsumexp(x, 0), [two(real, 4, 2)]),
    "pooling": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 2), "SAME"),
        [two(real, 4, 4)],
    ),
    "scatter_max": (
        lambda x, u: x.at[np.array([2, 0, 2, 9, 2])].max(u, mode="drop"),
        [two(real, 3, 2), two(real, 5, 2)],
    ),
    "scatter_min": (
        lambda x, u: x.at[:, np.array([1, 1])].min(u),
        [two(real, 2, 3), two(real, 2, 2)],
    ),
    "triangular system": (
        lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, lower=True),
        [TRIANGLE, two(real, 3, 2)],
    ),
    "attention, one node": (
        sj.atomic(lambda x, y: jax.nn.softmax(3 * x) @ y),
        [two(real, 2, 3), two(real, 3, 2)],
    ),
}
TOO_STEEP = {"maximum", "minimum of a constant", "clamp", "relu", "pooling", "abs"} | {
    "reduce_max",
    "reduce_min",
    "sort",
    "sort with a payload",
    "cummax",
    "cummin",
    "scatter_max",
    "scatter_min",
}
"""Their derivatives jump: the integral by panels is as exact as a panel is wide."""

PANELS = 2000


def integrated(function, points, references):
    """∫ ∂ outputs/∂ inputs along the line, by input and output, panel by panel."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    ts = ((np.arange(PANELS)[:, None] + (nodes + 1) / 2) / PANELS).ravel()

    def outputs(*args):
        return jax.tree.leaves(function(*args))

    def at(args):
        return jax.jacrev(outputs, argnums=tuple(range(len(args))))(*args)

    # In NumPy: XLA may compute what is compared twice, to two precisions.
    lines = [
        r + ts.reshape(-1, *(1,) * np.ndim(x)) * (np.asarray(x) - np.asarray(r))
        for x, r in zip(points, references, strict=True)
    ]
    rows = jax.jit(lambda args: lax.map(at, args, batch_size=100))(lines)
    mean = np.tile(weights / 2 / PANELS, PANELS)
    return {
        (i, o): np.tensordot(mean, np.asarray(block), 1)
        for o, row in enumerate(rows)
        for i, block in enumerate(row)
    }


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_integral(name):
    function, ends = CASES[name]
    with jax.enable_x64(True):
        points, references = zip(*ends, strict=True)
        graph, _ = trace(function, *map(jnp.asarray, points))
        equation = graph.equations[-1]
        own = [graph.inputs.index(v) if v in graph.inputs else None for v in equation.inputs]
        if None in own and len(graph.equations) > 1:
            values, others = inputs_of_the_last(graph, points, references)
        else:
            values = [
                v.value if n is None else points[n]
                for n, v in zip(own, equation.inputs, strict=True)
            ]
            others = {i: references[n] for i, n in enumerate(own) if n is not None}
        table = averaged_jacobian(equation, Line(values, others, 32))
        wanted = integrated(alone(equation, values, others), *ends_of(values, others))
        tolerance = 2 / PANELS if name in TOO_STEEP else 1e-9
        moving = sorted(others)
        for (i, o), matrix in wanted.items():
            entry = table.entries.get((moving[i], o))
            found = np.zeros(matrix.shape) if entry is None else entry.dense()[0]
            np.testing.assert_allclose(found, matrix, atol=tolerance * (1 + abs(matrix).max()))


def inputs_of_the_last(graph, points, references):
    from semijax.evaluation import Runs, evaluate

    at = evaluate(graph, Runs([points, references], [None, None], sj.Contrast(*references)))
    values, others = at.read(graph.equations[-1].inputs)
    pairs = enumerate(zip(values, others, strict=True))
    return values, {n: r for n, (x, r) in pairs if x is not r}


def alone(equation, values, others):
    def function(*moving):
        inputs = list(values)
        for n, x in zip(sorted(others), moving, strict=True):
            inputs[n] = x
        return equation.bind(*inputs)

    return function


def ends_of(values, others):
    return [values[n] for n in sorted(others)], [others[n] for n in sorted(others)]


@pytest.mark.parametrize("points", [2, 3])
def test_products_are_exact_with_few_points(points):
    """Of n factors that move, the weights are polynomials of degree n − 1."""
    n = 2 * points
    with jax.enable_x64(True):
        x, r = two(real, n)
        contrast = sj.Contrast(jnp.asarray(r), points=points)
        parts = sj.semiring_grad(jnp.prod, sj.SumProduct(), weighting=contrast)(jnp.asarray(x))
        np.testing.assert_allclose(parts.sum(), x.prod() - r.prod(), rtol=1e-12)


@pytest.mark.parametrize("step", [0.0, 1e-7, 1e-5, 1e-3, 0.03, 0.3, 3.0])
@pytest.mark.parametrize("name", ["exp", "tanh", "log", "relu"])
def test_secants_are_accurate_however_close(name, step):
    function = {"exp": jnp.exp, "tanh": jnp.tanh, "log": jnp.log, "relu": jax.nn.relu}[name]
    x = np.float32(0.75)
    r = np.float32(x + step)
    found = secant(function, jax.grad(function), jnp.asarray(x), jnp.asarray(r))
    ts = (np.arange(20_000) + 0.5) / 20_000
    with jax.enable_x64(True):
        wanted = jax.vmap(jax.grad(function))(float(r) + ts * (float(x) - float(r))).mean()
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


@pytest.mark.parametrize("seed", range(6))
def test_shares(seed):
    rng = np.random.default_rng(seed)
    n, ts = rng.integers(1, 7), (np.arange(50_000) + 0.5) / 50_000
    x, r = rng.normal(size=(2, n)).round(1 if seed % 2 else 9)
    if n > 2:
        x[1], r[1] = x[0], r[0]  # a tie all along
    lines = r + ts[:, None] * (x - r)
    largest = lines >= lines.max(-1, keepdims=True) - 1e-12
    wanted = (largest / largest.sum(-1, keepdims=True)).mean(0)
    with jax.enable_x64(True):
        np.testing.assert_allclose(shares_of_largest(*map(jnp.asarray, (x, r))), wanted, atol=1e-4)
        if seed % 2 == 0:  # where only those two meet
            order = np.argsort(lines, -1, kind="stable")
            ranks = [np.bincount(column, minlength=n) / len(ts) for column in order.T]
            np.testing.assert_allclose(
                shares_of_ranks(jnp.asarray(x), jnp.asarray(r)), ranks, atol=1e-4
            )


def test_shares_in_groups():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 5, 40)
    groups[groups == 3] = 2  # one group has no members
    x, r = jnp.asarray(rng.normal(size=(2, 40)).round(1), jnp.float32)
    found = shares_of_largest_in_groups(x, r, jnp.asarray(groups), 5)
    for group in set(groups):
        own = groups == group
        np.testing.assert_allclose(found[own], shares_of_largest(x[own], r[own]), atol=1e-6)


def test_segments():
    segments = np.array([0, 1, 0, 3, 0, 1])

    def f(x):  # segment 2 is empty: -inf
        largest = jax.ops.segment_max(x, segments, 4)
        return (jnp.exp(x - largest[segments]) * x).sum()

    x, r = (jnp.asarray(end, jnp.float32) for end in two(real, 6))
    left = sj.residuals(f, (x,), (r,))
    assert abs(left.remainder) < 1e-5 * abs(left.whole)
    parts = sj.semiring_grad(f, sj.SumProduct(), weighting=sj.Contrast(r))(x)
    np.testing.assert_allclose(parts.sum(), f(x) - f(r), rtol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: lax.reduce_max(x, (0,)),
        lambda x: lax.reduce_prod(x, (0,)),
        lambda x: lax.cummax(x, 0),
        lambda x: jnp.sort(x, 0),
        lambda x: jax.ops.segment_max(x, jnp.zeros(0, int), 2),
        lambda x: jnp.maximum(x, 1) / x,
        lambda x: jax.nn.softmax(x, 1),
        lambda x: lax.top_k(x.T, 0)[0],
    ],
)
def test_nothing(function):
    """An array of no elements has no edges."""
    x = jnp.ones((0, 2))

    def f(x):
        return jnp.isfinite(function(x)).sum() + 0 * function(x)[:0].sum()

    assert sj.semiring_grad(f, sj.SumProduct(), weighting=sj.Contrast(x + 1))(x).shape == (0, 2)


def test_shares_do_not_depend_on_how_numbers_are_compiled():
    """XLA fuses u·u − v·v so that the difference of a product and itself is not 0."""
    with jax.enable_x64(True):
        u, v = (jnp.asarray(real(20, 3)) for _ in range(2))

        def shares(pair):
            x, r = pair[0] * pair[0], pair[1] * pair[1]
            return shares_of_ranks(x, r), shares_of_largest(x, r)

        found = lax.map(shares, (u, v))
        wanted = shares_of_ranks, shares_of_largest
        for share, function in zip(found, wanted, strict=True):
            rows = jnp.stack([function(a * a, b * b) for a, b in zip(u, v, strict=True)])
            np.testing.assert_allclose(share, rows, atol=1e-12)


def test_a_rule_of_the_users_is_integrated():
    from jax.extend.core import Primitive
    from jax.interpreters import ad

    scaled_p = Primitive("scaled")
    scaled_p.def_impl(lambda x: jnp.sin(x))
    scaled_p.def_abstract_eval(lambda x: x)
    ad.defjvp(scaled_p, lambda t, x: jnp.cos(x) * t)

    @sj.register_jacobian(scaled_p)
    def rule(equation, x):
        return [sj.jacobians.Diagonal(jnp.cos(x), x.shape, x.shape)]

    x, r = jnp.array([1.0, 2.0]), jnp.array([-1.0, 2.5])
    weighting = sj.Contrast(r)
    parts = sj.semiring_grad(
        lambda x: scaled_p.bind(x).sum(), sj.SumProduct(), weighting=weighting
    )(x)
    np.testing.assert_allclose(parts, jnp.sin(x) - jnp.sin(r), rtol=1e-5)


@pytest.mark.parametrize("largest", [1.0, 1e9, 1e30])
def test_nothing_competes_with_large_numbers(largest):
    """What a window or a prefix does not have is less than any number, however large."""
    x, r = jnp.array([-3.0, -2.0, -1.0]) * largest, jnp.array([-3.0, -1.0, -2.0]) * largest
    for f in (
        lambda x: lax.cummax(x, 0),
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "SAME"),
    ):
        _, pull = sj.semiring_vjp(f, x, semiring=sj.SumProduct(), weighting=sj.Contrast(r))
        (weights,) = pull()
        assert float(weights.sum()) == pytest.approx(3)  # what enters each output is 1

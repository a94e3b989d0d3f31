"""The k best paths are the k best of all paths."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.testing import enumerate_paths
from semijax.testing.unrolling import UnrolledGraph

from ..test_random_functions import draw_program, numbers
from .oracle import check_best, place

ORDERS = ["abs", "max", "min"]


def scalar_program(seed):
    """A random program, contracted to a number."""
    program, args, _ = draw_program(seed)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(program, *args)
    cotangents = [numbers(rng, v.shape) for v in jax.tree.leaves(shapes)]

    def function(*args):
        outputs = jax.tree.leaves(program(*args))
        return sum(jnp.vdot(c, out) for c, out in zip(cotangents, outputs, strict=True))

    return function, args


def check_program(seed, by):
    function, args = scalar_program(seed)
    try:
        check_best(function, *args, by=by, limit=3_000)
    except FloatingPointError:
        weights = [path.weight for path in enumerate_paths(function, *args, limit=3_000)]
        assert not np.isfinite(weights).all()
    except ValueError as error:
        if "more than limit" in str(error):
            pytest.skip("too many paths to follow")
        raise


@pytest.mark.parametrize("seed", range(40))
def test_random_program(seed):
    check_program(seed, [ORDERS[seed % 3]])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_more_random_programs(seed):
    check_program(seed, ORDERS)


X = jnp.array([0.7, -1.2, 0.4])
W = jnp.array([[0.5, -1.0, 0.3], [1.5, 0.2, -0.7], [-0.4, 0.9, 1.1]])


def attention(x, w):
    queries, keys = x @ w, x @ w.T
    return jnp.sum(jax.nn.softmax(queries @ keys.T) @ x * jnp.array([1.0, -2.0, 0.5]))


def convolution(image, kernel):
    out = lax.conv_general_dilated(
        image[None], kernel, (2, 1), [(1, 0), (0, 1)], rhs_dilation=(1, 2), feature_group_count=2
    )
    return jnp.sum(jnp.sin(out))


def scan(x, w):
    def body(carry, row):
        carry = jnp.tanh(w @ carry) + row[:2].sum()
        return carry, carry * row

    carry, ys = lax.scan(body, jnp.ones(3), jnp.stack([x, -x]))
    return carry[0] + ys[1].sum()


def scan_in_scan(x, w):
    def outer(carry, row):
        def inner(c, element):
            return c * element + row[0], c

        c, _ = lax.scan(inner, carry, row, reverse=True)
        return c, c * row[1]

    carry, ys = lax.scan(outer, x[0], w[:2, :2])
    return carry + ys.sum()


def loops(x, w):
    def body(i, carry):
        return lax.cond(i % 2 == 0, jnp.sin, lambda c: c * w[0], carry)

    y = lax.fori_loop(0, jnp.argmin(x) + 1, body, x)  # dynamic: a while loop
    return y.sum() + lax.switch(jnp.argmax(x), [jnp.sum, jnp.max, jnp.min], y * x)


@jax.custom_vjp
def mixed(x):
    return jnp.cumsum(x) ** 2


mixed.defvjp(lambda x: (mixed(x), x), lambda x, g: (jnp.flip(g) * x + g.sum(),))


FUNCTIONS = {
    "attention": (attention, W[:2], W),
    "convolution": (
        convolution,
        jnp.arange(24.0).reshape(2, 4, 3) - 11,
        W.reshape(-1)[:8].reshape(2, 1, 2, 2),
    ),
    "scan": (scan, X, W),
    "scan in scan": (scan_in_scan, X, W),
    "scan of nothing": (lambda x: lax.scan(lambda c, _: (c * 2, c), x[0], None, 0)[0], X),
    "what a scan reads": (lambda x: lax.scan(lambda c, r: (c, r), 0.0, x)[1] @ x, X),
    "loops": (loops, X, W),
    "custom derivative": (lambda x: mixed(jnp.sin(x)) @ x, X),
    "atomic": (lambda x, w: sj.atomic(jax.nn.softmax)(w @ x) @ x, X, W),
    "gathers": (lambda x, w: jnp.sum(w[jnp.array([0, 0, 2])] * x[jnp.array([1, 2, 1])]), X, W),
    "scatters": (lambda x: jnp.prod(jnp.ones(3).at[jnp.array([0, 0, 2])].add(x) * x), X),
    "sorted": (lambda x: jnp.sort(x) @ jnp.array([1.0, 2.0, 3.0]) + lax.cummax(x)[1], X),
    "linear algebra": (lambda w: jnp.linalg.cholesky(w @ w.T + jnp.eye(3)).sum(), W),
    "parallel edges": (lambda x: jnp.sum(x * x + (x + x)), X),
    "dead": (lambda x: jnp.sum(jax.nn.relu(-jnp.abs(x)) * x), X),
    "all negative": (lambda x: -jnp.sum(jnp.exp(x)) - jax.nn.relu(-x[0]), X),
    "no path at all": (lambda x: jnp.sum(lax.stop_gradient(x)), X),
    "itself": (lambda x: x, X[0]),
    "pooling": (lambda w: lax.reduce_window(w, -jnp.inf, lax.max, (2, 2), (1, 1), "SAME").sum(), W),
    "dead twice": (
        lambda x, w: jnp.sum(jax.nn.relu(jax.nn.relu(-jnp.abs(x) - 1) @ w - 9) @ w),
        X,
        W,
    ),
    "no contraction": (lambda x: jnp.sum(x) + jnp.sum(x @ jnp.zeros((3, 0))), X),
    "a constant first row": (lambda x: lax.scan(lambda c, r: (c * r, c), 1.0, x)[1].sum(), X),
    "in a vmap": (lambda x, w: jax.vmap(lambda row: jnp.tanh(row) @ x)(w).prod(), X, W),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    check_best(*FUNCTIONS[name])


def test_complex_numbers_are_two_nodes():
    def function(x):
        return jnp.abs(jnp.fft.fft(x * (1 + 2j))).sum()

    paths = sj.top_paths(function, 200)(X)
    gradient = jax.grad(function)(X)
    for i, total in enumerate(gradient):
        own = [path.weight for path in paths if path.nodes[0].index == (i,)]
        assert sum(own) == pytest.approx(float(total), rel=1e-4)
    assert {node.shape for path in paths for node in path.nodes} == {(3,), (3, 2), ()}
    assert max(path.verify() for path in paths[::9]) < 1e-5


def test_complex_numbers_that_are_read_twice():
    def function(x):
        z = (x * (1 + 2j))[jnp.array([0, 0, 2])]
        return jnp.sum(z.imag + z.real)

    paths = sj.top_paths(function, 100)(X)
    assert len(paths) == 6 and sum(path.weight for path in paths) == pytest.approx(9)


def test_signed_orders_refuse_what_float64_cannot_hold():
    def deep(x, factor):
        return lax.scan(lambda c, _: (c * factor, None), x, None, 1200)[0].sum()

    for by in ("max", "min"):
        for factor in (jnp.array([1.0, 1.01, 1.001]) * 0.5, -0.5 * jnp.ones(3), 2 * jnp.ones(3)):
            with pytest.raises(FloatingPointError, match=r"float64.*'mul' at .*test_top_paths"):
                sj.top_paths(deep, 2, by=by)(X, factor)
    assert sj.top_paths(deep, 1)(X, 2.0)[0].log_abs_weight == pytest.approx(1200 * math.log(2))


def test_half_and_double_precision():
    check_best(lambda x: jnp.sum(jnp.sin(x) * x), X.astype(jnp.bfloat16), k=6)
    with jax.enable_x64(True):
        x = np.array([1.0, 1.0 + 1e-9, 1.0 - 1e-9])
        paths = sj.top_paths(lambda x: jnp.sum(x * x), 6)(x)
        assert [path.nodes[0].index for path in paths] == [(1,), (1,), (0,), (0,), (2,), (2,)]


def test_all_paths_are_found_where_there_are_fewer_than_k():
    paths = sj.top_paths(lambda x: jnp.sum(x * x), 100)(X)
    assert len(paths) == 6
    assert len({path.edges[0].input for path in paths}) == 2


def test_of_equal_paths_the_lower_index_comes_first():
    paths = sj.top_paths(lambda x, y: jnp.sum(x) + jnp.sum(y), 4, argnums=(0, 1))(
        jnp.ones(3), jnp.ones(2)
    )
    starts = [(path.nodes[0].variable, path.nodes[0].index) for path in paths]
    assert starts == [("[0]", (0,)), ("[0]", (1,)), ("[0]", (2,)), ("[1]", (0,))]

    def wide(x):
        return jnp.sum(jnp.broadcast_to(x, (1000,)) @ jnp.ones((1000, 1000)))

    paths = sj.top_paths(wide, 5)(1.0)
    assert [path.nodes[1].index for path in paths] == [(0,)] * 5
    assert [path.nodes[2].index for path in paths] == [(i,) for i in range(5)]


def test_fewer_paths_are_the_first_of_more():
    def function(x):
        return x[0] * 2 + x[1] * 4 + x[1] * 2 + jnp.sum(x @ jnp.full((3, 4), 0.5) * 4)

    many = sj.top_paths(function, 15)(X)
    assert sorted(abs(path.weight) for path in many) == [2.0] * 14 + [4.0]
    for k in range(1, 15):
        assert sj.top_paths(function, k)(X) == many[:k]


def test_a_scan_and_the_unrolled_loop_have_the_same_paths():
    def step(carry, w):
        return jnp.tanh(w @ carry) * carry

    def looped(x, w):
        return lax.scan(lambda c, _: (step(c, w), None), x, None, 4)[0].sum()

    def unrolled(x, w):
        for _ in range(4):
            x = step(x, w)
        return x.sum()

    for by in ORDERS:
        one, other = (sj.top_paths(f, 30, by=by, argnums=(0, 1))(X, W) for f in (looped, unrolled))
        assert [place(path) for path in one] == [place(path) for path in other]
        np.testing.assert_allclose([p.weight for p in one], [p.weight for p in other], 1e-6)
    assert {node.iteration for node in one[0].nodes} <= {(), (0,), (1,), (2,), (3,)}
    assert one[0].nodes[-2].iteration == (3,)


def test_through_a_scope():
    def function(x, w):
        with jax.named_scope("left"):
            a = jnp.sin(x @ w)
            with jax.named_scope("inner"):
                a = a * x
        with jax.named_scope("right"):
            b = jnp.cos(x * a[0])
        return jnp.sum(a * b)

    graph = UnrolledGraph(function, (X, W), None)

    def passes(scope):
        def visits(path):
            equations = [graph.equations[graph.equation_of[edge]] for edge in path.edges]
            return any(scope in equation.scope.split("/") for equation in equations)

        return visits

    for pattern, scope in {"right": "right", "*/inner": "inner", "lef?": "left"}.items():
        some = check_best(function, X, W, through=pattern, passes=passes(scope))
        assert len(some) > 20
    found = sj.top_paths(function, 1000, argnums=(0, 1), through="*inn*")(X, W)
    assert all("left/inner" in path.components() for path in found)


def test_from_some_sources():
    def function(args):
        return jnp.sum(jnp.sin(args["w"] @ args["x"]))

    args = {"x": X, "w": W}
    everything = sj.top_paths(function, 1000)(args)
    assert len(everything) == 18
    for source in [((0, "w"), (2, 1)), ("[0]['w']", (2, -2))]:
        (one,) = sj.top_paths(function, 1000, source=source)(args)
        assert one.nodes[0].index == (2, 1)
    mask = {"x": jnp.array([True, False, True]), "w": jnp.zeros((3, 3), bool)}
    some = sj.top_paths(function, 1000, source=mask)(args)
    starts = [("[0]['x']", (0,)), ("[0]['x']", (2,))]
    assert some == [p for p in everything if (p.nodes[0].variable, p.nodes[0].index) in starts]


def test_deep_and_wide_networks():
    def deep(x, factor):
        return lax.scan(lambda c, _: (jnp.sin(c) * factor, None), x, None, 1500)[0].sum()

    for factor in (0.2, 5.0):  # by the end 10⁻¹⁰⁰⁰ or 10¹⁰⁰⁰
        for path in sj.top_paths(deep, 3)(jnp.zeros(2), factor):
            assert path.log_abs_weight == pytest.approx(1500 * math.log(factor), rel=1e-6)

    layers = 1100  # 2 ** 1100 paths: their number is no float64

    def many(x):
        return lax.scan(lambda c, _: (c + 0.5 * jnp.sin(c), None), x, None, layers)[0]

    best = sj.top_paths(many, 3)(0.0)
    assert best[0].weight == 1.0 and best[1].weight == best[2].weight == 0.5
    samples = sj.sample_paths(many, 50)(jax.random.key(1), 0.0)
    lengths = [path.length for path in samples]
    # A third of the layers is passed by the sine, three edges instead of one.
    assert layers * 1.5 < np.mean(lengths) < layers * 1.85


def test_paths_that_vanish():
    def recurrent(xs):
        return lax.scan(lambda h, x: (0.5 * h + x, None), 0.0, xs)[0]

    xs = jnp.ones(1200)
    first = jnp.arange(1200) < 4
    found = sj.top_paths(recurrent, 4, source=first)(xs)
    assert [path.nodes[0].index for path in found] == [(3,), (2,), (1,), (0,)]
    logs = [-math.log(2) * (1199 - i) for i in (3, 2, 1, 0)]
    assert [path.log_abs_weight for path in found] == pytest.approx(logs, rel=1e-9)
    assert "exp(-" in repr(found)
    drawn = sj.sample_paths(recurrent, 200, source=first)(jax.random.key(0), xs)
    counts = np.bincount([path.nodes[0].index[0] for path in drawn])
    np.testing.assert_allclose(counts / 200, np.array([1, 2, 4, 8]) / 15, atol=0.12)

    def apart(x):  # and joined by a matrix product
        for _ in range(60):
            x = x * jnp.array([1.0, 1e-9, 1e-8])
        return (jnp.array([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0]]) @ x).sum()

    found = sj.top_paths(apart, 300)(X)
    assert [path.nodes[0].index for path in found[:3]] == [(2,), (1,), (1,)]
    assert found[0].log_abs_weight == pytest.approx(60 * math.log(1e-8), rel=1e-6)
    assert found[1].log_abs_weight == pytest.approx(60 * math.log(1e-9), rel=1e-6)
    assert {path.weight for path in found[3:]} == {0.0} and len(found) == 6
    assert len(sj.sample_paths(apart, 9, source=(0, 1))(jax.random.key(0), X)) == 9


def test_a_scope_behind_a_long_way():
    def function(x):
        y = lax.scan(lambda c, _: (c * 0.5, None), x, None, 1500)[0]
        with jax.named_scope("special"):
            return jnp.sin(y) + 0.0 * x

    (path,) = sj.top_paths(function, through="special")(1.0)
    assert path.log_abs_weight == 0 - math.inf or path.length < 1510
    drawn = sj.sample_paths(function, 5, through="special")(jax.random.key(0), 1.0)
    assert {round(path.log_abs_weight) for path in drawn} == {round(1500 * math.log(0.5))}


def test_a_scope_that_no_path_passes():
    def function(x):
        with jax.named_scope("constant"):
            y = jnp.exp(2.0)

        def named(scope):
            def branch(x):
                with jax.named_scope(scope):
                    return jnp.sin(x)

            return branch

        return lax.cond(x > 0, named("yes"), named("no"), x) * y

    for scope in ("*no", "constant"):
        none = sj.top_paths(function, through=scope)(1.0)
        assert none == [] and f"through '{scope}'" in repr(none)
    assert len(sj.top_paths(function, through="*yes")(1.0)) == 1


def test_the_best_path_weighs_what_the_sweep_says():
    x = jax.random.normal(jax.random.key(3), (5, 7))
    w = jax.random.normal(jax.random.key(4), (7, 7)) / 2

    def function(x):
        for _ in range(5):
            x = x + jnp.tanh(x @ w)
        return jax.nn.logsumexp(x)

    for by, semiring, best in (
        ("abs", sj.AbsMaxProduct(), jnp.max),
        ("max", sj.MaxProduct(), jnp.max),
        ("min", sj.MinProduct(), jnp.min),
    ):
        (path,) = sj.top_paths(function, by=by)(x)
        wanted = float(best(sj.semiring_grad(function, semiring)(x)))
        weight = abs(path.weight) if by == "abs" else path.weight
        assert weight == pytest.approx(wanted, rel=1e-5)
        top = sj.aggregate(sj.semiring_grad(function, sj.TopK(9), raw=True)(x), sj.TopK(9))
    sizes = [abs(path.weight) for path in sj.top_paths(function, 9)(x)]
    np.testing.assert_allclose(sizes, top, 1e-5)


ERRORS = {
    "k": (dict(k=0), ValueError, "k must be an integer of at least 1, got 0"),
    "a boolean k": (dict(k=True), ValueError, "at least 1"),
    "a list": (dict(by=["abs"]), ValueError, "got \\['abs'\\]"),
    "a boolean index": (dict(source=(0, (True,))), IndexError, "out of range"),
    "by": (dict(by="sum"), ValueError, "'abs', 'max', 'min', got 'sum'"),
    "an index": (dict(source=(0, 7)), IndexError, r"index 7 is out of range for \[0\].*\(3,\)"),
    "too few indices": (dict(source=(0, ())), IndexError, "out of range"),
    "a leaf": (
        dict(source=("[1]", 0)),
        ValueError,
        r"No site matches '\[1\]'. The nearest are '\[0\]'",
    ),
    "a mask's shape": (dict(source=jnp.ones(4, bool)), ValueError, r"shape \(3,\), got \(4,\)"),
    "a mask's type": (dict(source=jnp.ones(3)), TypeError, "must be boolean, got float32"),
    "a mask's structure": (dict(source=[X > 0, X > 0]), ValueError, "structure of the different"),
    "a scope": (dict(through="mlp/dens"), ValueError, r"matches 'mlp/dens'. The nearest are 'mlp/"),
    "no string": (dict(through=3), TypeError, "a string, got 3 of type int"),
    "argnums": (dict(argnums=4), ValueError, "requires at least 5 positional"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_arguments(name):
    options, error, message = ERRORS[name]

    def function(x):
        with jax.named_scope("mlp"), jax.named_scope("dense"):
            return jnp.sum(jnp.sin(x))

    with pytest.raises(error, match=message):
        sj.top_paths(function, **options)(X)


def test_functions_without_an_order_of_paths():
    with pytest.raises(TypeError, match="scalar-output"):
        sj.top_paths(jnp.sin)(X)
    with pytest.raises(TypeError, match="real-valued inputs"):
        sj.top_paths(jnp.sum)(jnp.arange(3))
    with pytest.raises(FloatingPointError, match=r"not a number.*'sqrt' at .*test_top_paths"):
        sj.top_paths(lambda x: jnp.sum(jnp.sqrt(x)))(jnp.zeros(3))
    with pytest.raises(FloatingPointError, match="'sqrt'"):
        sj.top_paths(lambda x: -jnp.sum(jnp.sqrt(x)), by="max")(jnp.zeros(3))
    with pytest.raises(jax.errors.ConcretizationTypeError, match="outside of jit, vmap and grad"):
        jax.jit(sj.top_paths(jnp.sum))(X)
    with pytest.raises(jax.errors.ConcretizationTypeError, match="outside of jit, vmap and grad"):
        jax.jit(lambda y: sj.top_paths(lambda x: jnp.sum(x * y))(X)[0].weight)(X)
    with pytest.raises(jax.errors.ConcretizationTypeError, match="outside of jit, vmap and grad"):
        jax.jit(lambda y: sj.top_paths(jnp.sum)(X)[0].weight * y)(2.0)
    with pytest.raises(FloatingPointError, match="'log'"):
        sj.top_paths(lambda x: jnp.log(x[0]) + x[1] * 2)(jnp.zeros(2))

    def halted(start):
        return lax.while_loop(lambda s: s < 2, lambda s: s * 1.7 + 1, start)

    with pytest.raises(NotImplementedError, match="while_loop under vmap"):
        sj.top_paths(lambda x: jax.vmap(halted)(x).sum())(X)


def test_no_path():
    none = sj.top_paths(lambda x: x[0], 3, source=(0, 2))(X)
    assert none == [] and "no path leads from (0, 2) to the output" in repr(none)
    assert "no path" in none._repr_html_()
    nowhere = sj.sample_paths(lambda x: jnp.sum(jnp.zeros(3) * x), 3)(jax.random.key(0), X)
    assert nowhere == [] and "no path" in repr(nowhere)
    assert sj.top_paths(lambda x: 1.0, 3)(X) == []
    with pytest.raises(ValueError, match="no path leads from"):
        sj.trace_gradient(lambda x: x[0], source=(0, 1))(X)


@pytest.mark.parametrize(
    "last",
    [
        lambda u: jnp.linalg.qr(u)[1],
        lambda u: jnp.linalg.inv(u),
        lambda u: jnp.abs(jnp.fft.rfft(u[0])),
        lambda u: sj.atomic(lambda u: jnp.cumsum(u * u[0, 0], 0))(u),
    ],
    ids=["qr", "inverse", "fft", "atomic"],
)
@pytest.mark.parametrize("by", ["abs", "max", "min"])
def test_a_loop_whose_body_ends_in_a_dense_jacobian(by, last):
    x = numbers(np.random.default_rng(0), (2, 2, 2)) + 2 * np.eye(2)

    def function(x):
        return jnp.sum(lax.map(last, x))

    found = [path.weight for path in sj.top_paths(function, k=5, by=by)(x)]
    whole = sj.semiring_grad(function, {"max": sj.MaxProduct(), "min": sj.MinProduct()})(x)
    best = {"max": whole["max"].max(), "min": whole["min"].min()}
    best["abs"] = max(best["max"], -best["min"])
    np.testing.assert_allclose(abs(found[0]) if by == "abs" else found[0], best[by], rtol=1e-4)
    assert len(found) == 5

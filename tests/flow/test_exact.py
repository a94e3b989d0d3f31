"""Sites, branches and components against all paths, one by one."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.flow import branch_flow, component_flow, list_sites, site_flow, site_grads, tap
from semijax.testing import enumerate_paths
from semijax.trace.scope_names import REST

from .. import test_random_functions as randomly
from ..compilation import quick_jit
from .oracle import (
    ALL,
    PAIRS,
    PARTS,
    Brute,
    Case,
    by_semiring,
    check_case,
    close,
    mark,
    marked_by,
    measured,
)


def numbers(*shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return (rng.uniform(0.3, 1.4, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


W, V = numbers(3, 3), numbers(3, 3, seed=1)
scope = jax.named_scope


def residual(x):
    with scope("block"):
        h = mark(jnp.sin(x), "h")
        with scope("up"):
            f = mark(jax.nn.relu(h @ W), "f")
        return ((h + f) * W[:2]).sum() + h[0, 1]


def attention(x):
    with scope("block"):
        h = mark(x * 0.7, "h")
        with scope("query"):
            q = h @ W[:2, :2]
        with scope("key"):
            k = h @ V[:2, :2]
        with scope("mix"):
            a = mark(jnp.exp(q @ k.T * 0.3), "a")
            y = a @ h
        return (mark(y + h, "y") * W[:2, :2]).sum()


def looped(reverse):
    def fun(x, w, b):
        def cell(carry, xs):
            count, c = carry  # the count is no number that paths lead through
            w, b, i = xs
            with scope("cell"):
                h = mark(jnp.tanh(c * w), "h", i)
                with scope("gate"):
                    g = mark(h * b, "g", i)
                c = h + g * c
            return (count + 1, c), jnp.sin(g).sum()

        with scope("rnn"):
            (_, c), ys = lax.scan(cell, (0, x), (w, b, jnp.arange(3)), reverse=reverse)
        return c.sum() + (ys * b[:, 0]).sum() + x[0]

    return fun


def nested(x, w):
    def outer(c, row):
        def inner(c, pair):
            with scope("inner"):
                h = mark(c * pair[0], "h", pair[1])
                return jnp.sin(h), None

        with scope("outer"):
            c, _ = lax.scan(inner, c, row)
            o = mark(c * x, "o", row[1][0] // 2)
        return o, o[0]

    c, ys = lax.scan(outer, x, (w, jnp.arange(4).reshape(2, 2)))
    return c.sum() + ys.sum()


def branching(x, flag):
    def taken(x):
        with scope("left"):
            h = mark(jnp.sin(x) * x, "h")
            return h * h

    def other(x):
        with scope("right"):
            return mark(x[::-1] * 2.0, "o") + x

    y = lax.cond(flag > 0, taken, other, x)
    z = lax.cond(flag > 1, lambda x: x, lambda x: mark(jnp.cos(x), "k"), x)
    return (y * z).sum()


def switching(x, w):
    """A ``cond`` in a loop, whose taps are not met in every iteration."""

    def body(c, pair):
        i, wi = pair
        with scope("body"):
            odd = lambda c: mark(jnp.sin(c), "odd", i) * wi  # noqa: E731
            c = lax.cond(i % 2 == 1, odd, lambda c: jax.named_call(jnp.square, name="even")(c), c)
            with scope("move"):
                c = c[::-1]
            return c, mark(c * 2.0, "ys", i)

    c, ys = lax.scan(body, x, (jnp.arange(3), w))
    return c.sum() + ys.sum()


def called(x):
    @jax.jit
    def layer(h, n):
        with scope("layer"):
            return jnp.tanh(mark(h * 1.3, "h", n) + 0.1) @ W

    layer = jax.checkpoint(layer)
    with scope("net"):
        return (layer(jax.checkpoint(jnp.sin)(layer(x, 0)), 1) * V[0]).sum()


def shared(x):
    """A module used twice in sequence, with a way around, and another between."""

    def module(x, use):
        with scope("shared"):
            return mark(jnp.sin(x) * W[0], "h", use)

    y = module(x, 0)
    with scope("between"):
        z = y * y + x
    return (module(z, 1) + z[::-1]).sum() - x[1]


def mapped(x):
    def one(row, w):
        with scope("row"):
            return jnp.sum(mark(jnp.sin(row) * w, "h") * row)

    return (jax.vmap(one)(x, W[:2]) * W[0, :2]).sum()


def degenerate(x):
    """Weights of 0, dead units, ties, an edge twice, and arrays that nobody reads."""
    h = mark(x * np.float32([0, 1, -1]), "h")
    with scope("dead"):
        r = mark(jax.nn.relu(h - 5), "r")
    unused = mark(jnp.cos(h), "unused")
    ties = mark(jnp.maximum(h, h[::-1]), "ties")
    square = mark(h * h, "square")
    del unused
    lost = mark(square * 2.0, "lost")
    return (r * W[0] + ties * 0.0).sum() + square.sum() + jnp.max(h) + lax.stop_gradient(lost).sum()


def looked_up(tokens, E):
    h = mark(E[tokens], "h")
    with scope("net"):
        return jnp.tanh(h @ W).sum() + (h * h)[0].sum()


X = numbers(2, 3, seed=2)
CASES = {
    "residual": Case(
        residual,
        (X,),
        {"h": "h", "f": "f", "block/up:input": "h", "block/up": "f"},
        branches={"h": {"up": ["block/up/*"], "add": ["block/add"], "slice": ["block/slice"]}},
        depths=(1, 2, None),
    ),
    "attention": Case(
        attention,
        (X[:, :2],),
        ("h", "a", "y"),
        branches={
            "h": {"qk": ["*/query/*", "*/key/*"], "mix": ["*/mix/*"], "rest": ["*/add"]},
            "a": {"qk": [], "mix": ["*/mix/*"], "rest": []},
            "y": {"qk": [], "mix": [], "rest": ["*"]},
        },
        groups={"qk": ["*/query", "*/key"], "mix": "*/mix/dot_general", "rest": REST},
        depths=(2,),
    ),
    "scan": Case(
        looped(False),
        (X[0, :2], W[:, :2], V[:, :2]),
        ("h", "g"),
        {"h": (3,), "g": (3,)},
        {"h": {"gate": ["*/gate/*"], "add": ["*cell/add"]}},
        argnums=(0, 1),
        depths=(2, None),
    ),
    "scan in reverse": Case(
        looped(True),
        (X[0, :2], W[:, :2], V[:, :2]),
        ("h", "g"),
        {"h": (3,), "g": (3,)},
        argnums=(1,),
        depths=(None,),
    ),
    "nested scans": Case(
        nested, (X[0, :1], numbers(2, 2)), ("h", "o"), {"h": (2, 2), "o": (2,)}, argnums=(0, 1)
    ),
    "cond": Case(branching, (X[0], 1), ("h", "o", "k"), branches={"h": {"mul": ["left/mul"]}}),
    "other cond": Case(branching, (X[0], 0), ("h", "o", "k")),
    "third cond": Case(branching, (X[0], 2), ("h", "o", "k"), depths=(None,)),
    "cond in scan": Case(
        switching, (X[0], numbers(3)), ("odd", "ys"), {"odd": (3,), "ys": (3,)}, argnums=(0, 1)
    ),
    "called twice": Case(called, (X[0],), ("h",), depths=(1, None)),
    "used twice": Case(shared, (X[0],), ("h",)),
    "vmap": Case(mapped, (X,), ("h",)),
    "degenerate": Case(
        degenerate, (np.float32([0.5, 0.3, -0.3]),), ("h", "r", "unused", "ties", "square", "lost")
    ),
    "embedding": Case(looked_up, (np.array([1, 0]), W), ("h",), argnums=(1,)),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    some = PARTS[[*CASES].index(name) % 3]
    check_case(CASES[name], some if "scan" in name or "cond" in name else ALL, some)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_case_in_every_semiring(name):
    check_case(CASES[name])


# Random programs.


def draw_marked(seed):
    """A random program with a mark on every array, in a scope of its own; some within a region."""
    made = itertools.count()

    def marked(draw):
        @functools.wraps(draw)
        def drawn(rng, *shapes):
            function = draw(rng, *shapes)
            number = next(made)

            def step(*arrays):
                with scope(f"op{number % 4}"):
                    return mark(function(*arrays), f"s{number}")

            return step if function else None

        return drawn

    with pytest.MonkeyPatch.context() as patch:
        steps = [(marked(draw), arity) for draw, arity in randomly.OPERATIONS]
        patch.setattr(randomly, "OPERATIONS", steps)
        patch.setattr(randomly, "MAX_SIZE", 6)
        program, args, _ = randomly.draw_program(seed)

    def scalar(*args):
        with scope("end"):
            leaves = [leaf.ravel() * numbers(leaf.size, seed=1) for leaf in program(*args)]
            return sum(leaf.sum() for leaf in leaves)

    def inside(*args):
        taken = lambda *args: scalar(*args)  # noqa: E731, JAX knows the last trace of a function
        return lax.cond(args[0].sum() < 1e6, taken, lambda *args: args[0].sum(), *args)

    return (inside if seed % 5 == 4 else scalar), args


def check_random(seed, semirings, of):
    fun, args = draw_marked(seed)
    rows = list_sites(fun)(*args)
    marks = {row.names[0]: row.names[0].split("/")[-1] for row in rows if row.primitive == "name"}
    argnums = tuple(range(len(args)))
    check_case(
        Case(fun, args, marks, argnums=argnums, depths=((1, None, 2)[seed % 3],), of=of), semirings
    )


@pytest.mark.parametrize("seed", range(16))
def test_random_program(seed):
    check_random(seed, PAIRS[seed % 6], Case.of[seed // 6 % 4 :][:1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_more_random_programs(seed):
    check_random(seed, ALL, Case.of)


# What else there is to the results.


def leaves_close(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-5, 1e-5), found, wanted)


@pytest.mark.parametrize("name", ["attention", "used twice", "cond in scan"])
def test_transformed(name):
    """Under jit and vmap the same as without."""
    case = dataclasses.replace(CASES[name], branches={}, depths=(None,))
    few = {"max": ALL["max"], "entropy": ALL["entropy"]}
    everything = measured(case, few)
    batch = [jnp.stack([jnp.asarray(a), a * 0.5 if a.dtype.kind == "f" else a]) for a in case.args]
    each = [quick_jit(everything)(*(a[n] for a in batch)) for n in range(2)]
    mapped = quick_jit(jax.vmap(everything))(*batch)
    leaves_close(mapped, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
    for n, one in enumerate(each):
        got, want = mapped["flow"]["max"].share(), one["flow"]["max"].share()
        leaves_close({k: v[n] for k, v in got.items()}, want)
        winners = mapped["oplus"]["max"].winner(), one["oplus"]["max"].winner()
        for site in winners[1]:
            np.testing.assert_array_equal(winners[0][site][n], winners[1][site])
    if name == "used twice":
        leaves_close(everything(*(a[0] for a in batch)), each[0])


@pytest.mark.parametrize("name", ["scan", "scan in reverse"])
def test_input_of_a_body(name):
    """What a module in a loop reads is an array that no equation of the body makes."""
    reverse = name == "scan in reverse"

    def fun(x, w):
        def body(c, xs):
            c = mark(c, "m", xs[1])
            with scope("cell"):
                return jnp.sin(c) * xs[0] + c * c, None

        return lax.scan(body, x, (w, jnp.arange(3)), reverse=reverse)[0].sum()

    args = X[0, :2], W[:, :2]
    brute = Brute(fun, args)
    semirings = {name: ALL[name] for name in ("sum", "min", "top", "count", "feature")}

    def grads(*args):
        with marked_by("bare"):
            return site_grads(fun, semirings, "cell:input")(*args)

    wanted = brute.table((3, 2), lambda i: brute.after("m", i[0], i[1:]))
    close(by_semiring(quick_jit(grads)(*args), "cell:input"), wanted, "cell:input")


def test_input_output_and_nothing_before():
    """A site that is an argument, the output, or lies behind what has no derivative."""
    fun = lambda x: mark((x * x).sum() * x[0], "out")  # noqa: E731
    found = quick_jit(site_grads(fun, ALL, ["[0]", "out"]))(X[0])
    paths = Brute(fun, (X[0],))
    starts = [path.source[1] for path in enumerate_paths(fun, X[0])]
    pairs = [*zip(paths.complete, starts, strict=True)]
    wanted = paths.table((3,), lambda i: [path for path, start in pairs if start == i])
    close(by_semiring(found, "[0]"), wanted, "argument")
    close(by_semiring(found, "out"), paths.of([np.zeros(0, int)]), "output")
    tokens = np.array([2, 0])
    fun = functools.partial(looked_up, E=jnp.asarray(W))
    brute = Brute(fun, (tokens,), ())
    found = quick_jit(site_grads(fun, ALL, "h"))(tokens)
    close(by_semiring(found, "h"), brute.table((2, 3), lambda i: brute.after("h", 0, i)), "h")
    found = quick_jit(branch_flow(fun, ALL, "h"))(tokens)
    every = brute.table((2,), lambda i: [p for u in range(3) for p in brute.after("h", 0, (*i, u))])
    parts = {k: functools.reduce(ALL[k].add, f.elements["h"].values()) for k, f in found.items()}
    close({k: ALL[k].readout(e) for k, e in parts.items()}, every, "branches of h")


@pytest.mark.parametrize("dtype, rtol", [("float16", 2e-2), ("bfloat16", 8e-2), ("float64", 1e-9)])
def test_dtypes(dtype, rtol):
    with jax.enable_x64(dtype == "float64"):
        args = (jnp.asarray(X[:, :2], dtype),)
        case = dataclasses.replace(CASES["used twice"], args=(jnp.asarray(X[0], dtype),))
        parts = {k: ALL[k] for k in ("sum", "abs sum", "max", "top", "length")}
        check_case(case, parts, rtol=rtol)
        assert args[0].dtype == dtype


# Found wrong.


def test_flow_through_a_region_that_no_argument_reaches():
    def beside(x, w):
        loop = lax.scan(lambda c, wi: (tap(jnp.sin(c * wi), "h"), None), jnp.ones(2), w)[0]
        return (x * loop).sum()

    flow = site_flow(beside, sj.AbsSumProduct(), "h")(X[0, :2], W[0])["h"]
    np.testing.assert_array_equal(flow, 0)


def test_flow_through_components_of_complex_numbers_is_one_number():
    fun = lambda x: jnp.real(lax.complex(x, 2 * x) ** 2).sum()  # noqa: E731
    assert component_flow(fun, sj.AbsSumProduct())(X[0])["(outside)"].shape == ()


def test_op_of_a_component_in_a_region():
    def fun(x, loop):
        def module(c):
            with scope("m"):
                return c * -2.0

        looped = lambda x: lax.scan(lambda c, _: (module(c), None), x, None, length=1)[0]  # noqa: E731
        y = looped(x) if loop else module(x)
        return (y * 3.0 - x).sum()

    def flow(loop, iterations):
        options = {"granularity": "op", "iterations": iterations}
        found = component_flow(functools.partial(fun, loop=loop), sj.MaxProduct(), **options)(X[0])
        return found["m[0]" if loop and iterations else "m"]

    for iterations in (False, True):
        np.testing.assert_allclose(flow(True, iterations), flow(False, iterations))


def two_ways(x):
    y = tap(x, "y")
    return jnp.sin(y).sum() + (y * y).sum()


@pytest.mark.parametrize("semiring", [sj.PathCount(), sj.PathLength(), sj.Entropy()], ids=repr)
def test_shares_of_sums_are_of_masses_and_counts(semiring):
    flow = branch_flow(two_ways, semiring, "y", reduce="sum")(jnp.array([1.0, 2.0]))
    wanted = branch_flow(two_ways, semiring, "y")(jnp.array([1.0, 2.0])).share()["y"]
    leaves_close(flow.share()["y"], wanted)


def test_shares_of_sums_where_a_hidden_unit_has_no_path():
    fun = lambda x: jnp.sin(tap(x, "y")[0]) + x.sum()  # noqa: E731
    flow = branch_flow(fun, sj.MaxProduct(), "y", reduce="sum")(X[0])
    assert not np.isnan([*flow.share()["y"].values()]).any()


def test_branches_of_an_array_that_nobody_reads():
    fun = lambda x: (tap(jnp.sin(x), "h"), jnp.cos(x).sum())[1]  # noqa: E731
    flow = branch_flow(fun, sj.SumProduct(), "h")(X[0])
    assert flow.share()["h"] == {"(nobody)": 0} and str(flow)


def test_shares_of_nothing():
    fun = lambda x: lax.stop_gradient(tap(jnp.sin(x), "h")).sum()  # noqa: E731
    assert (site_flow(fun, sj.AbsSumProduct(), "h")(X[0]).share()["h"] == 0).all()
    assert component_flow(fun, sj.AbsSumProduct())(X[0]).share()["(outside)"] == 0

"""Contributions to the difference between two runs."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.paths import Path

from .programs import SEMIRINGS, differences, draw

RNG = np.random.default_rng(3)
W, K, V = (RNG.normal(size=(4, 4)).astype(np.float32) for _ in range(3))


def numbers(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


X, R = numbers(3, 4), numbers(3, 4)


def attention(x):
    query, key, value = x @ W, x @ K, x @ V
    y = x + jax.nn.softmax(3 * query @ key.T) @ value
    y = (y - y.mean(-1, keepdims=True)) * lax.rsqrt(y.var(-1, keepdims=True) + 1e-5)
    return jnp.tanh(y).sum(0)[0] + jax.nn.gelu(y)[1, 1]


def recurrent(x):
    def step(carry, row):
        carry = jnp.tanh(carry @ W + row)
        return carry, jax.nn.softmax(carry)

    carry, rows = lax.scan(step, jnp.zeros(4), x)
    return (rows * carry).sum()


def nested(x):
    def step(carry, row):
        inner, _ = lax.scan(lambda c, r: (jnp.sin(c) * r, None), carry, jnp.stack([row, row + 1]))
        return lax.cond(True, jnp.tanh, jnp.sin, inner), inner.max()

    carry, rows = lax.scan(step, jnp.ones(4), x, reverse=True)
    return carry.sum() + rows.prod()


def pieces(x):
    low = jnp.where(x > 0, x, 0).sum() + jnp.maximum(x, x[::-1]).sum() * jax.nn.relu(x).max()
    return low + jnp.clip(x, -0.5, 0.5).sum() ** 2 + jnp.abs(x).min()


def activations(x):
    found = (f(x).sum() for f in (jax.nn.leaky_relu, jax.nn.elu, jax.nn.silu, jax.nn.softplus))
    return sum(found) ** 2 + jax.nn.hard_tanh(x).prod()


def orders(x):
    top, _ = lax.top_k(x.ravel(), 2)
    return (jnp.sort(x.ravel()) * jnp.arange(12.0)).sum() + top.prod() + lax.cummax(x, axis=0).sum()


def steep(x):
    """Attention patterns that have nothing in common."""
    return (jax.nn.softmax(20 * x) @ V).sum(0) @ jax.nn.softmax(-30 * x[0])


def masked(x):
    scores = jnp.where(np.tri(4, dtype=bool)[:3], x @ W, -jnp.inf)
    return (jax.nn.softmax(scores) * x).sum()


FUNCTIONS = attention, recurrent, nested, pieces, activations, orders, steep, masked


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_parts_add_up(function):
    weighting, whole = sj.Contrast(R), float(function(X) - function(R))
    near = pytest.approx(whole, rel=1e-4)
    assert float(sj.semiring_grad(function, sj.SumProduct(), weighting=weighting)(X).sum()) == near
    value, parts = sj.semiring_value_and_grad(
        function, sj.SumProduct(), weighting=weighting, aggregate=(0, 1)
    )(X)
    assert float(value) == pytest.approx(float(function(X))) and float(parts) == near
    _, pushed = sj.semiring_jvp(function, (X,), (X - R,), sj.SumProduct(), weighting=weighting)
    assert float(pushed) == near
    _, pull = sj.semiring_vjp(function, X, semiring=sj.SumProduct(), weighting=weighting)
    assert float((pull()[0] * (X - R)).sum()) == near
    flow = sj.component_flow(function, sj.SumProduct(), weighting=weighting)(X)
    assert float(flow.total) == near
    branches = sj.branch_flow(function, sj.SumProduct(), "[0]", weighting=weighting)(X)["[0]"]
    assert float(sum(x.sum() for x in branches.values())) == near
    left = sj.residuals(function, (X,), (R,))
    assert left.whole == pytest.approx(whole)
    assert abs(left.remainder) < 1e-4 * abs(whole)
    assert "no equation leaves more than rounding" in str(left) or len(left)


@pytest.mark.parametrize("function", [recurrent, orders], ids=lambda f: f.__name__)
def test_under_transformations(function):
    def parts(x, r):
        return sj.semiring_grad(function, SEMIRINGS, weighting=sj.Contrast(r))(x)

    wanted = parts(X, R)
    for found in (jax.jit(parts)(X, R), jax.tree.map(lambda v: v[1], jax.vmap(parts)(*both()))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-3, 2e-4), found, wanted)

    def spread(x):
        entropy = sj.semiring_grad(
            function, sj.Entropy(), weighting=sj.Contrast(R), aggregate=(0, 1)
        )
        return entropy(x)

    with jax.enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(0).normal(size=x.shape))
        slope = float(spread(x + 1e-6 * direction) - spread(x - 1e-6 * direction)) / 2e-6
        assert float((jax.grad(spread)(x) * direction).sum()) == pytest.approx(slope, rel=1e-4)


def both():
    return jnp.stack([R, X]), jnp.stack([X, R])


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_between_equal_runs_weights_are_derivatives(function):
    same = sj.Contrast(jnp.array(X))  # another object
    for name, semiring in SEMIRINGS.items():
        if name == "several":
            continue
        _, pull = sj.semiring_vjp(function, X, semiring=semiring, weighting=same)
        _, plain = sj.semiring_vjp(function, X, semiring=semiring)
        (found,), (wanted,) = (map(semiring.readout, each()) for each in (pull, plain))
        np.testing.assert_allclose(found, wanted, 1e-4, 1e-5, err_msg=name)


def test_nothing_changes_by_default():
    for semiring in SEMIRINGS.values():
        wanted = sj.semiring_grad(attention, semiring)(X)
        found = sj.semiring_grad(attention, semiring, weighting=sj.Derivative())(X)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    programs = (
        jax.jit(f).lower(X).as_text()
        for f in (
            sj.semiring_grad(attention, sj.Entropy()),
            sj.semiring_grad(attention, sj.Entropy(), weighting=sj.Derivative()),
        )
    )
    assert len({*programs}) == 1


SMALL = {
    "products": (lambda x: (x @ x).sum() * jnp.tanh(x)[0, 1], (2, 2)),
    "softmax": (lambda x: (jax.nn.softmax(2 * x) * x).sum(), (2, 2)),
    "pieces": (lambda x: jnp.maximum(x, x[::-1]).max() * jax.nn.relu(x).sum(), (2, 2)),
    "loop": (
        lambda x: lax.scan(lambda c, r: (c * r + r, jnp.sort(c * r)), jnp.ones(2), x)[1].sum(),
        (2, 2),
    ),
    "branch": (lambda x: lax.cond(x.sum() > 9, jnp.prod, lambda x: (x**3).sum(), x), (3,)),
    "windows": (lambda x: lax.cummax(x, 0).sum() * jnp.cumprod(x, 1)[0, 1], (2, 2)),
    "one node": (lambda x: sj.atomic(lambda x: jax.nn.softmax(x) * x.sum())(x).prod(), (3,)),
    "indices": (lambda x: (x[jnp.array([1, 1, 0])] * jnp.zeros(3).at[1].add(x[0])).sum(), (3,)),
}


# Relevance of a softmax is a quotient at 0; what a loop carries counts as what paths come through.
BOTH = [
    (weighting, name)
    for name in SMALL
    for weighting in ("contrast", "relevance")
    if weighting == "contrast" or name not in ("softmax", "one node", "loop")
]


@pytest.mark.parametrize(("weighting", "name"), BOTH)
def test_every_statistic_is_that_of_all_paths(weighting, name):
    function, shape = SMALL[name]
    with jax.enable_x64(True):
        x, r = (jnp.asarray(RNG.normal(size=shape)) for _ in range(2))
        chosen = sj.Contrast(r) if weighting == "contrast" else sj.Relevance()
        paths = sj.testing.enumerate_paths(function, x, argnums=0, weighting=chosen)
        found = sj.semiring_grad(function, SEMIRINGS, weighting=chosen)(x)
        for key, semiring in SEMIRINGS.items():
            jax.tree.map(
                lambda a, b, k=key: np.testing.assert_allclose(a, b, 1e-9, 1e-9, err_msg=k),
                found[key],
                paths.fold(semiring),
            )
        best = sj.top_paths(function, 3, weighting=chosen)(x)
        everything = sorted(
            (p.weight * float(at_start(chosen, x, p)) for p in paths), key=abs, reverse=True
        )
        np.testing.assert_allclose(
            [abs(p.contribution) for p in best], np.abs(everything[:3]), rtol=1e-9
        )
        assert all(p.verify() < 1e-6 for p in best)


def at_start(weighting, x, path):
    runs = (x,) if weighting.reference is None else (x, *weighting.reference)
    return weighting.at_start(*runs)[path.source[1]]


@pytest.mark.parametrize("seed", range(5))
def test_random_programs(seed):
    check_random(seed)


def check_random(seed):
    with jax.enable_x64(True):
        for program, args, reference in draw(seed):
            try:
                found, _ = differences(program, args, reference)
            except (ValueError, TypeError, FloatingPointError) as error:
                texts = "more than limit", "complex", "infinite or not"
                if any(text in str(error) for text in texts):
                    continue
                raise
            assert not found, f"seed {seed}\n{found}\n{program}\n{reference}"
            return


@pytest.mark.slow
def test_many_random_programs():
    for seed in range(5, 205):
        check_random(seed)
        if seed % 40 == 0:
            jax.clear_caches()


# Paths.


def test_a_path_knows_what_it_contributes():
    weighting = sj.Contrast(R)
    paths = sj.top_paths(attention, 5, weighting=weighting)(X)
    whole = float(attention(X) - attention(R))
    top = sj.semiring_grad(attention, sj.TopK(5), weighting=weighting, aggregate=(0, 1))(X)
    np.testing.assert_allclose([abs(p.contribution) for p in paths], top, rtol=1e-4)
    first = paths[0]
    node = first.nodes[0]
    assert first.carried == pytest.approx(float((X - R)[node.index]))
    assert first.contribution == pytest.approx(first.weight * first.carried)
    assert first.whole == pytest.approx(whole, rel=1e-5)
    share = f"{first.contribution / whole:.0%}"
    assert f"carries {first.contribution:+.4g} of {whole:.4g}, {share}" in repr(first)
    assert "contribution" in paths._repr_html_()
    read = Path.from_json(first.to_json())
    assert (read.carried, read.whole, read.contribution) == (
        first.carried,
        first.whole,
        first.contribution,
    )
    json.loads(first.to_json())
    with pytest.raises(ValueError, match="does not know its weighting"):
        read.verify(attention, X)
    assert first.verify() < 1e-3  # in float32
    largest = sj.top_paths(attention, 1, by="max", weighting=weighting)(X)[0]
    most = sj.semiring_grad(attention, sj.MaxProduct(), weighting=weighting)(X).max()
    assert largest.contribution == pytest.approx(float(most), rel=1e-4)
    least = sj.top_paths(attention, 1, by="min", weighting=weighting)(X)[0]
    assert least.contribution < 0 < largest.contribution


def test_samples_follow_contributions():
    f = lambda x: x @ jnp.array([1.0, 2.0, 1.0])  # noqa: E731
    x, r = jnp.array([3.0, 1.0, 5.0]), jnp.array([0.0, 0.0, 5.0])
    paths = sj.sample_paths(f, 2000, weighting=sj.Contrast(r))(jax.random.key(0), x)
    starts = [path.nodes[0].index[0] for path in paths]
    assert {*starts} == {0, 1}  # the third does not differ
    assert np.mean(np.equal(starts, 0)) == pytest.approx(3 / 5, abs=0.04)


def test_what_does_not_differ_contributes_nothing():
    f = lambda x: jnp.sqrt(x).sum()  # noqa: E731, with an infinite weight at 0
    x, r = jnp.array([4.0, 0.0]), jnp.array([1.0, 0.0])
    parts = sj.semiring_grad(f, SEMIRINGS, weighting=sj.Contrast(r))(x)
    np.testing.assert_allclose(parts["sum"], [1, 0])
    np.testing.assert_allclose(parts["strongest"], [1, 0])


def test_paths_start_behind_tokens():
    table = numbers(7, 4)

    def model(tokens, table):
        return attention(sj.tap(table[tokens], "embedded"))

    tokens, others = jnp.array([1, 2, 3]), jnp.array([1, 5, 3])
    contrast = sj.Contrast(others, table)
    whole = float(model(tokens, table) - model(others, table))
    near = pytest.approx(whole, rel=1e-4)
    parts = sj.site_grads(model, sj.SumProduct(), "embedded", weighting=contrast, aggregate=-1)
    by_token = parts(tokens, table)["embedded"]
    assert float(by_token.sum()) == near
    np.testing.assert_array_equal(by_token[np.array([0, 2])], 0)  # they are the same word
    flow = sj.site_flow(model, sj.SumProduct(), "*", source="embedded", weighting=contrast)(
        tokens, table
    )
    assert float(flow.total) == near
    (path,) = sj.top_paths(model, source="embedded", weighting=contrast)(tokens, table)
    assert path.nodes[0].index[0] == 1
    left = sj.residuals(model, (tokens, table), (others, table))
    assert (left[0].primitive, left[0].effect) == ("gather", near)
    assert left.contributed == 0


def test_a_loop_that_runs_until_it_is_done():
    def f(x):
        def body(state):
            n, y = state
            return n + 1, jnp.sin(y) * x

        return lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1].sum()

    _, pushed = sj.semiring_jvp(f, (X,), (X - R,), sj.SumProduct(), weighting=sj.Contrast(R))
    assert float(pushed) == pytest.approx(float(f(X) - f(R)), rel=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_dtypes(dtype):
    x, r = X.astype(dtype), R.astype(dtype)

    def f(x):
        return (jax.nn.gelu(x @ jnp.asarray(W, dtype)) * x).sum().astype(jnp.float32)

    parts = sj.semiring_grad(f, sj.SumProduct(), weighting=sj.Contrast(r))(x)
    assert parts.dtype == dtype
    left = sj.residuals(f, (x,), (r,))  # of numbers that were rounded at every step
    assert left.contributed == pytest.approx(float(f(x) - f(r)), rel=0.02)


def test_complex_numbers_on_the_way():
    def f(x):
        return jnp.abs(jnp.fft.fft(x * jnp.exp(1j * x))).sum() + jnp.real((x + 1j) ** 3).prod()

    parts = sj.semiring_grad(f, sj.SumProduct(), weighting=sj.Contrast(R))(X)
    assert float(parts.sum()) == pytest.approx(float(f(X) - f(R)), rel=1e-3)


def test_members_of_a_mapped_axis():
    """The parts of all members together, exchanged where they meet."""

    def of_member(x):
        together = lax.psum(x, "i") * jnp.tanh(x) + lax.pmax(x, "i")
        return together.sum()

    def parts(x, r):
        return sj.semiring_grad(of_member, sj.SumProduct(), weighting=sj.Contrast(r))(x)

    def whole(x):
        return jax.vmap(of_member, axis_name="i")(x).sum()

    found = jax.vmap(parts, axis_name="i")(X, R)
    assert float(found.sum()) == pytest.approx(float(whole(X) - whole(R)), rel=1e-4)


@pytest.mark.parametrize("granularity", ["element", "op"])
def test_granularity(granularity):
    f = lambda x: jnp.tanh(jnp.tanh(x @ W) @ W).sum()  # noqa: E731, one branch from end to end
    options = {"granularity": granularity, "weighting": sj.Contrast(R)}
    found = sj.semiring_grad(f, sj.MaxProduct(), **options)(X)
    sums = sj.semiring_grad(f, sj.SumProduct(), **options)(X)
    assert np.allclose(found, sums, rtol=1e-4) == (granularity == "op")
    flow = sj.site_flow(f, sj.MaxProduct(), "tanh*", **options)(X)
    assert "weights of Contrast" in str(flow) and flow.provenance["weighting"] == "Contrast(…)"


# What no path carries.


@jax.custom_jvp
def rounded(x):
    return jnp.round(x)


rounded.defjvp(lambda primals, tangents: (jnp.round(primals[0]), tangents[0]))

LEFT = {
    "an index": (lambda x: x[jnp.argmax(x)], "dynamic_slice"),
    "a branch": (lambda x: lax.cond(x[0] > 0, jnp.sum, lambda x: 3 * x[1] + 1, x), "cond"),
    "a step": (lambda x: jnp.floor(x).sum(), "floor"),
    "a jump": (lambda x: jnp.where(x > 0, x + 2, x - 2).sum(), "select_n"),
    "a straight-through estimator": (lambda x: (rounded(x) ** 2).sum(), "rounded"),
    "one that stops the gradient": (
        lambda x: (x + lax.stop_gradient(jnp.round(x) - x)).sum(),
        "stop_gradient",
    ),
    "a jump in a loop": (lambda x: lax.map(jnp.floor, x).sum(), "floor"),
}


@pytest.mark.parametrize("name", LEFT)
def test_residuals_say_where(name):
    function, primitive = LEFT[name]
    x, r = jnp.array([2.3, 1.2, 0.6]), jnp.array([-0.7, 0.4, 2.9])
    left = sj.residuals(function, (x,), (r,))
    parts = sj.semiring_grad(function, sj.SumProduct(), weighting=sj.Contrast(r))(x)
    whole = float(function(x) - function(r))
    assert left[0].primitive == primitive
    assert left.contributed == pytest.approx(float(parts.sum()), abs=1e-5)
    assert left.contributed + sum(row.effect for row in left) == pytest.approx(whole, abs=1e-5)
    assert abs(left.remainder) > 0.1
    assert primitive in str(left) and "remainder" in left._repr_html_()
    if primitive not in ("stop_gradient", "dynamic_slice"):
        rows = sj.explain(function, weighting=sj.Contrast(r))(x)
        assert max(row.remainder or 0 for row in rows if row.primitive == primitive) > 0.1
        assert "remainder" in str(rows)
    assert "remainder" not in str(sj.explain(function)(x))


def test_an_array_that_moves_without_a_path():
    def f(x, y):
        return (x * y).sum()

    args, reference = (X, X), (R, R)
    left = sj.residuals(f, args, reference, argnums=0)
    assert left[0].primitive == "mul"
    both = sj.residuals(f, args, reference)
    assert abs(both.remainder) < 1e-4 and left.whole == both.whole


def test_side_effects_happen_once_in_each_run():
    seen = []

    def f(x):
        jax.debug.callback(lambda x: seen.append(float(x)), x[0])
        return jnp.sin(x).sum()

    x, r = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    sj.residuals(f, (x,), (r,))
    jax.effects_barrier()
    assert sorted(seen) == [1.0, 3.0]


# Frozen arrays.


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm(name="norm")(x))
        return x + nn.Dense(4)(nn.gelu(nn.Dense(8, name="wide")(x)))


def test_frozen_arrays_keep_their_values_and_pass_nothing():
    model = Block()
    params = model.init(jax.random.key(0), X[None])

    def f(params, x):
        return model.apply(params, x[None])[0, 1, 2]

    frozen = sj.freeze(f, ["*/attention/*div*", "*/norm/rsqrt*"])
    np.testing.assert_allclose(frozen(params, X), f(params, X), rtol=1e-6)
    names, before = (
        {name for row in sj.list_sites(g)(params, X) for name in row.names} for g in (frozen, f)
    )
    modules = {"Block/attention", "Block/attention/query", "Block/norm", "Block/wide"}
    assert modules <= before and modules <= names
    flow = sj.site_flow(frozen, sj.AbsSumProduct(), ["*/query", "*/key", "*/value"], 1)(params, X)
    assert float(jnp.exp(flow.elements["Block/attention/query"]).sum()) == 0
    assert float(jnp.exp(flow.elements["Block/attention/value"]).sum()) > 0
    left = sj.residuals(frozen, (params, X), (params, R))
    held = [row.effect for row in left if row.primitive == "stop_gradient"]
    assert left.contributed + held[0] == pytest.approx(left.whole, rel=1e-3)
    with pytest.raises(ValueError, match="No site matches 'nothing'"):
        sj.freeze(f, "nothing")(params, X)


# What is wrong.


@pytest.mark.parametrize(
    ("function", "weighting", "where"),
    [
        (lambda x: jax.nn.softmax(x).max(), sj.Relevance(), "'div'"),
        (lambda x: lax.rsqrt(x**2).sum(), sj.Relevance(), "'rsqrt'"),
        (lambda x: jnp.exp(x).sum(), sj.Contrast(1e4 * abs(X)), "'exp'"),
        (lambda x: (x / x[0]).sum(), sj.Contrast(-X), "'div'"),
        (lambda x: jnp.log(abs(x)).sum(), sj.Contrast(0 * X), "'log'"),
    ],
)
def test_what_is_not_finite_says_which_equation(function, weighting, where):
    for call in (
        sj.semiring_grad(function, sj.SumProduct(), weighting=weighting),
        sj.semiring_grad(function, (sj.Entropy(), sj.MaxProduct()), weighting=weighting),
        sj.site_flow(function, sj.AbsSumProduct(), "*", weighting=weighting),
    ):
        with pytest.raises(FloatingPointError, match=where):
            call(X)
    with pytest.raises(FloatingPointError, match=where):
        sj.top_paths(function, weighting=weighting)(X)
    inside = jax.jit(sj.semiring_grad(function, sj.SumProduct(), weighting=weighting))(X)
    assert not jnp.isfinite(inside).all()


@pytest.mark.parametrize(
    ("weighting", "error", "text"),
    [
        (sj.Contrast, TypeError, "not the class"),
        ("contrast", TypeError, r"Contrast\(\*reference\)"),
        (sj.Contrast(R, R), ValueError, "as many arguments"),
        (sj.Contrast(R[0]), ValueError, "has shape"),
        (sj.Contrast({"x": R}), ValueError, "structure"),
        (sj.Contrast(jnp.ones((3, 4), int)), ValueError, "dtype"),
    ],
)
def test_misuse(weighting, error, text):
    with pytest.raises(error, match=text):
        sj.semiring_grad(jnp.sum, sj.SumProduct(), weighting=weighting)(X)
    with pytest.raises(error, match=text):
        sj.top_paths(jnp.sum, weighting=weighting)(X)


def test_other_misuse():
    with pytest.raises(ValueError, match="points must be"):
        sj.Contrast(R, points=0)
    with pytest.raises(ValueError, match="traced must be the same"):
        sj.semiring_grad(
            lambda x, how: getattr(x, how)(), sj.SumProduct(), weighting=sj.Contrast(R, "prod")
        )(X, "sum")
    with pytest.raises(TypeError, match="args must be a tuple"):
        sj.residuals(jnp.sum, X, (R,))
    with pytest.raises(NotImplementedError, match="must define jacobian"):
        sj.semiring_grad(jnp.sum, sj.SumProduct(), weighting=sj.Weighting())(X)

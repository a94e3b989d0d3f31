"""Sites in functions that ``vmap`` maps: the mapped axis is the first, wherever JAX has put it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

W = jax.random.normal(jax.random.key(0), (5, 3))
V = jax.random.normal(jax.random.key(1), (3, 5))
X = jax.random.normal(jax.random.key(2), (7, 3))
SQUARE = jax.random.normal(jax.random.key(3), (4, 4))
TOKENS = jax.random.normal(jax.random.key(4), (4, 4))


def scoped(name, function):
    def run(*args):
        with jax.named_scope(name):
            return function(*args)

    return run


up, down = scoped("up", lambda x: W @ x), scoped("down", lambda x: V @ x)
biased = scoped("up", lambda x: W @ x + 1.0)
mlp = scoped("mlp", lambda x: down(jnp.tanh(up(x))))

MAPPED = {
    "at the boundary": (jax.vmap(up), {"up": (7, 5), "up/dot_general": (7, 5)}),
    "with a bias": (jax.vmap(biased), {"up": (7, 5), "up/dot_general": (7, 5), "up/add": (7, 5)}),
    "inside": (jax.vmap(mlp), {"mlp/up": (7, 5), "mlp/down": (7, 3), "mlp/tanh": (7, 5)}),
    "under jit": (jax.vmap(jax.jit(mlp)), {"mlp/up": (7, 5), "mlp": (7, 3)}),
    "in a jit": (jax.jit(jax.vmap(mlp)), {"mlp/up": (7, 5), "mlp": (7, 3)}),
    "under checkpoint": (jax.vmap(jax.checkpoint(mlp)), {"mlp/up": (7, 5), "mlp": (7, 3)}),
    "through relu": (
        jax.vmap(scoped("net", lambda x: down(jax.nn.relu(up(x))))),
        {"net/up": (7, 5), "net/relu": (7, 5)},
    ),
    "of the second axis": (lambda x: jax.vmap(up, in_axes=1)(x.T), {"up": (7, 5)}),
    "and transposed": (lambda x: jax.vmap(up)(x).T, {"up": (7, 5), "transpose#2": (5, 7)}),
    "to the second axis": (lambda x: jax.vmap(up, out_axes=1)(x), {"up": (5, 7)}),
    "biased, to the second axis": (lambda x: jax.vmap(biased, out_axes=1)(x), {"up": (5, 7)}),
    "twice": (lambda x: jax.vmap(jax.vmap(mlp))(jnp.stack([x, x])), {"mlp/up": (2, 7, 5)}),
    "twice, in turn": (
        lambda x: jax.vmap(scoped("outer", lambda y: jnp.tanh(jax.vmap(mlp)(y))))(x[None]),
        {"outer/mlp/up": (1, 7, 5), "outer/mlp": (1, 7, 3), "outer": (1, 7, 3)},
    ),
    "in a scan": (
        lambda x: lax.scan(lambda c, _: (jax.vmap(mlp)(c), None), x, None, length=2)[0],
        {"mlp/up": (2, 7, 5), "mlp": (2, 7, 3)},
    ),
    "a scan in it": (
        jax.vmap(lambda x: lax.scan(lambda c, _: (mlp(c), None), x, None, length=2)[0]),
        {"mlp/up": (2, 7, 5), "mlp": (2, 7, 3)},
    ),
    "a cond in it": (
        jax.vmap(lambda x: lax.cond(W[0, 0] < 9, mlp, lambda x: x, x)),
        {"mlp/up": (7, 5), "mlp": (7, 3)},
    ),
    "heads": (
        jax.vmap(scoped("mix", lambda x: (up(x) * 2).reshape(5, 1) @ x[None])),
        {"mix/up": (7, 5), "mix": (7, 5, 3)},
    ),
    "reshaped on the way": (
        jax.vmap(scoped("net", lambda x: jnp.sin(up(x).reshape(1, 5, 1)).ravel())),
        {"net/up": (7, 5), "net/sin": (7, 1, 5, 1), "net": (7, 5)},
    ),
    "before a scan": (
        jax.vmap(lambda x: lax.scan(lambda c, _: (mlp(c), None), down(up(x)), None, length=2)[0]),
        {"up": (7, 5), "down": (7, 3)},
    ),
    "not mapped": (jax.vmap(lambda x: scoped("weights", jnp.sin)(W) @ x), {"weights": (5, 3)}),
}


def rows(fun, *args):
    return {name: row.shape for row in sj.list_sites(fun)(*args) for name in row.names}


@pytest.mark.parametrize("name", MAPPED)
def test_the_mapped_axis_is_the_first(name):
    fun, wanted = MAPPED[name]
    shapes = rows(lambda x: fun(x).sum(), X)
    assert {site: shapes[site] for site in wanted} == wanted


@pytest.mark.parametrize("name", [name for name in MAPPED if name not in ("not mapped",)])
def test_values_are_those_of_each_example(name):
    """What ``vmap`` maps, called by hand for one example after the other."""
    fun, wanted = MAPPED[name]
    if "second axis" in name or "scan" in name or "twice" in name:
        return  # with other axes before those of the examples

    def values(x):
        return sj.site_values(lambda x: fun(x).sum(), list(wanted))(x)

    together = values(X)
    each = [values(X[n : n + 1]) for n in range(7)]
    for site, value in together.items():
        axis = 1 if site == "transpose#2" else 0
        np.testing.assert_allclose(
            value, jnp.concatenate([e[site] for e in each], axis), rtol=1e-5, atol=1e-6
        )


def square(bias):
    """As many examples as units: no size says which axis is which."""
    layer = scoped("layer", lambda x: SQUARE @ x + (1.0 if bias else 0 * x))
    plain = scoped("layer", lambda x: SQUARE @ x)
    return lambda x: jnp.tanh(jax.vmap(layer if bias else plain)(x))[-1, 0]  # of the last one


@pytest.mark.parametrize("bias", [False, True])
def test_what_is_told_of_tokens_is_of_tokens(bias):
    fun = square(bias)
    last = np.arange(4) == 3
    flow = sj.site_flow(fun, sj.AbsSumProduct(), "layer", aggregate=-1)(TOKENS)
    np.testing.assert_allclose(flow.share()["layer"], last)
    grads = sj.site_grads(fun, sj.AbsSumProduct(), ["layer", "layer/dot_general"])(TOKENS)
    for found in grads.values():
        np.testing.assert_array_equal((found != 0).any(1), last)
    for branches in sj.branch_flow(fun, sj.AbsSumProduct(), "layer")(TOKENS).values():
        np.testing.assert_array_equal(branches["tanh"] != 0, last)
    others, itself = (sj.ablate(fun, "layer", where=w)(TOKENS) for w in (~last, last))
    np.testing.assert_allclose(others, fun(TOKENS), rtol=1e-6)
    assert abs(itself) < 1e-6
    values = sj.site_values(fun, "layer")(TOKENS)["layer"]
    np.testing.assert_allclose(values, TOKENS @ SQUARE.T + bias, rtol=1e-5, atol=1e-6)
    given = sj.ablate(fun, "layer", {"layer": values})(TOKENS)
    np.testing.assert_allclose(given, fun(TOKENS), rtol=1e-6)
    curves = sj.faithfulness(fun, {"layer": np.arange(4.0)}, steps=4, n_random=1)(TOKENS)
    np.testing.assert_allclose(curves.deletion["ranking"][1:], 0, atol=1e-6)
    start = sj.top_paths(fun, source=("layer", (3, 0)))(TOKENS)[0].nodes[0]
    assert start.variable == "layer" and start.value == pytest.approx(float(values[3, 0]))
    assert not sj.top_paths(fun, source=("layer", (0, 3)))(TOKENS)


def test_the_reader_of_a_modules_output_is_not_vmap():
    (branches,) = sj.branch_flow(square(False), sj.SumProduct(), "layer")(TOKENS).values()
    assert list(branches) == ["tanh"]
    assert "layer" in next(
        r.names for r in sj.list_sites(square(False))(TOKENS) if r.primitive == "transpose"
    )


def ranked(x):
    """Its way out leads through what says nothing of the axes."""
    with jax.named_scope("inner"):
        y = SQUARE @ x
    with jax.named_scope("sorted"):
        return lax.top_k(y, 3)[0]


def test_what_cannot_be_told_is_refused():
    fun = lambda x: jax.vmap(ranked)(x).sum()  # noqa: E731
    for call in (
        sj.site_grads(fun, sj.SumProduct(), "inner"),
        sj.site_flow(fun, sj.SumProduct(), "inner"),
        sj.branch_flow(fun, sj.SumProduct(), "inner"),
        sj.site_values(fun, "inner"),
        sj.ablate(fun, "inner"),
        sj.top_paths(fun, source=("inner", (0, 0))),
    ):
        with pytest.raises(ValueError, match=r"'inner'.*\(4, 4\), is the mapped one.*semijax\.tap"):
            call(TOKENS)
    values = sj.site_values(fun, "sorted")(TOKENS)["sorted"]
    np.testing.assert_allclose(values, lax.top_k(TOKENS @ SQUARE.T, 3)[0], rtol=1e-5)
    (path,) = sj.top_paths(fun, source="inner")(TOKENS)  # from any element: no axis matters
    assert path.weight == 1 and path.verify() < 1e-6


def test_a_tap_in_a_mapped_function():
    fun = lambda x: jax.vmap(lambda row: sj.tap(SQUARE @ row, "h") ** 2)(x).sum()  # noqa: E731
    values = sj.site_values(fun, "h")(TOKENS)["h"]
    np.testing.assert_allclose(values, TOKENS @ SQUARE.T, rtol=1e-5, atol=1e-6)


def test_an_analysis_that_is_mapped_is_of_one_example():
    run = lambda x: sj.site_values(lambda x: up(x).sum(), "up")(x)["up"]  # noqa: E731
    np.testing.assert_allclose(jax.vmap(run)(X), X @ W.T, rtol=1e-5, atol=1e-6)

"""Which arrays a name or a glob means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

X = jnp.array([0.3, -0.8, 0.5])


def scoped(name, function, x):
    with jax.named_scope(name):
        return function(x)


def nested(x):
    """Two layers of two modules each, the inner ones under a jit, a checkpoint and a vmap."""
    for n in range(2):
        with jax.named_scope(f"layer_{n}"):
            x = jax.jit(lambda x: scoped("up", jnp.sin, x))(x)
            x = jax.checkpoint(lambda x: scoped("down", jax.vmap(jnp.cos), x))(x)
            x = x + 1
    return x.sum()


def names(function, pattern, *args):
    return list(sj.site_grads(function, sj.SumProduct(), pattern)(*args))


@pytest.mark.parametrize(
    ("pattern", "found"),
    {
        "*": ["layer_0", "layer_1", "reduce_sum"],
        "layer_*": ["layer_0", "layer_1"],
        "*/up": ["layer_0/up", "layer_1/up"],
        "layer_1/*": ["layer_1/up", "layer_1/down", "layer_1/add"],
        "*/sin": ["layer_0/up/sin", "layer_1/up/sin"],
        "layer_0": ["layer_0"],
        "layer_1:input": ["layer_1:input"],
        "*:input": ["layer_0:input", "layer_1:input"],
        "*/down:input": ["layer_0/down:input", "layer_1/down:input"],
        "[0]": ["[0]"],
    }.items(),
)
def test_globs(pattern, found):
    assert names(nested, pattern, X) == found


def test_a_list_of_names_is_in_the_order_of_the_program():
    assert names(nested, ["*/down", "layer_0/up", "*/up"], X) == [
        "layer_0/up",
        "layer_0/down",
        "layer_1/up",
        "layer_1/down",
    ]


def test_transformations_do_not_change_names():
    def inside(x):
        return jax.vmap(lambda x: jax.jvp(nested, (x,), (x,))[1])(x[None])[0]

    found = sj.list_sites(inside)(X).names
    assert {"layer_0/up#1", "layer_1/down:input#1"} <= set(found)
    assert not any("vmap" in name or "jvp" in name for name in found)


def test_a_tap_is_found_by_its_own_name():
    def f(x):
        with jax.named_scope("net"):
            x = sj.tap({"a": jnp.sin(x), "b": x}, "pair")
        return (x["a"] * x["b"]).sum() + sj.tap(x["a"], "h[0]").sum()

    assert names(f, "pair", X) == ["net/pair#1", "net/pair#2"]
    assert names(f, "net/pair#2", X) == ["net/pair#2"]
    assert "net/pair#2" in names(f, "*#2", X)
    assert names(f, "h[0]", X) == ["h[0]"]
    row = next(row for row in sj.list_sites(f)(X) if "h[0]" in row.names)
    assert "test_survey.py" in row.source and row.primitive == "name"


@pytest.mark.parametrize("name", ["", "a:input"])
def test_a_tap_has_a_name(name):
    with pytest.raises(ValueError, match="must not be empty, or end with ':input'"):
        sj.tap(X, name)


def test_a_tap_is_the_identity():
    x = {"a": X, "n": jnp.arange(3)}
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), sj.tap(x, "x"), x))
    f = lambda x: jnp.sin(sj.tap(x, "x")).sum()  # noqa: E731
    for transform in (jax.grad, jax.jit, jax.hessian, jax.checkpoint):
        expected = transform(lambda x: jnp.sin(x).sum())(X)
        np.testing.assert_allclose(transform(f)(X), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(f)(X[None]), jnp.sin(X).sum()[None], rtol=1e-6)
    grad = sj.semiring_grad(f, (sj.MaxProduct(), sj.Entropy(), sj.PathCount()))(X)
    np.testing.assert_allclose(grad[0], jnp.cos(X), rtol=1e-6)


def test_each_use_of_a_module_is_one():
    def twice(x):
        shared = lambda x: scoped("shared", lambda x: jnp.tanh(2 * x), x)  # noqa: E731
        return shared(shared(x)).sum()

    assert names(twice, "shared", X) == ["shared#1", "shared#2"]
    called = jax.jit(lambda x: scoped("shared", jnp.sin, x))
    assert names(lambda x: called(called(x)).sum(), "shared", X) == ["shared#1", "shared#2"]


def test_weights_and_masks_are_no_inputs():
    def net(x, weights, mask):
        for n in range(2):
            with jax.named_scope(f"layer_{n}"):
                x = jnp.where(mask > 0, jnp.tanh(x @ weights[n]), x)
        return x.sum()

    weights = np.ones((2, 3, 3), np.float32)

    def cast(x):
        return net(x, jnp.asarray(weights, jnp.bfloat16).astype(jnp.float32), jnp.ones(3) * 2)

    assert names(cast, "layer_1:input", X) == ["layer_1:input"]


def test_what_is_only_compared_is_no_input():
    def f(x):
        with jax.named_scope("net"):
            everything = jnp.ones(3) * 2
            with jax.named_scope("layer"):
                return jnp.where(everything > 0, jnp.sin(x), 0).sum()

    assert list(sj.site_grads(f, sj.SumProduct(), "*/layer:input")(X)) == ["net/layer:input"]
    (row,) = (row for row in sj.list_sites(f)(X) if "net/layer:input" in row.names)
    assert row.primitive == "argument"


def test_an_einsum_is_no_module():
    def f(x):
        with jax.named_scope("net"):
            return jnp.einsum("i,i->", x, x)

    assert {row.scope for row in sj.list_sites(f)(X)} == {"", "net"}


def test_in_loops_there_is_a_value_per_iteration():
    def loop(x):
        def step(c, w):
            c = scoped("cell", lambda c: jnp.tanh(c * w), c)
            return c, None

        return lax.scan(step, x, jnp.arange(1.0, 6.0))[0].sum()

    (row,) = (row for row in sj.list_sites(loop)(X) if "cell" in row.names)
    assert row.shape == (5, 3)
    assert sj.site_grads(loop, sj.SumProduct(), "cell")(X)["cell"].shape == (5, 3)


def test_a_loop_that_is_not_reversed_is_refused():
    def loop(x):
        return lax.while_loop(lambda c: c.sum() < 9, lambda c: sj.tap(c * 2, "c"), x).sum()

    with pytest.raises(ValueError, match="reverse sweep does not work"):
        names(loop, "c", X)


def test_the_table():
    text = str(sj.list_sites(nested)(X))
    header, first, *_ = text.splitlines()
    assert header.split() == ["site", "primitive", "shape", "source", "also", "called"]
    assert first.split()[:3] == ["[0]", "argument", "float32[3]"]
    assert "layer_1:input, layer_1/up:input" in text and "test_survey.py" in text
    assert "<table>" in sj.list_sites(nested)(X)._repr_html_()


def test_branches_of_one_name_are_kept_apart():
    def f(x):
        other = scoped("exp", lambda x: 3 * x, x) + scoped("m", jnp.cos, x)
        return (jnp.exp(x) + other).sum()

    branches = sj.branch_flow(f, sj.SumProduct(), "[0]")(X)["[0]"]
    assert len(branches) == 3 and {"exp", "m"} < set(branches)


@pytest.mark.parametrize("sites", [3, None, [b"a"]])
def test_a_name_is_a_string(sites):
    with pytest.raises(TypeError, match="by its name or a glob, a string"):
        names(nested, sites, X)

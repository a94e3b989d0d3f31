"""Components of loops, an iteration at a time: as in the loop written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from ..compilation import quick_jit
from .oracle import ALL, Brute, close
from .test_exact import V, W, X

scope = jax.named_scope
KINDS = {name: ALL[name] for name in ("abs sum", "min", "entropy", "count")}


def layer(c, w, last, name="layer"):
    """A module of two, the one of which has a branch that only the last iteration takes."""
    with scope(name):
        with scope("mlp"):
            y = jnp.tanh(c @ w)
        with scope("tail"):
            y = lax.cond(last, lambda y: jnp.sin(y) * 2, lambda y: y * 1.5, y)
        return c + y


LAST = jnp.array([False, False, True])


def looped(x, w, reverse=False):
    with scope("net"):
        step = lambda c, xs: (layer(c * 0.9, *xs), None)  # noqa: E731
        x, _ = lax.scan(step, x, (w, LAST), reverse=reverse)
        with scope("head"):
            return (jnp.sin(x) * x)[-1].sum()


def unrolled(x, w, reverse=False):
    with scope("net"):
        for n in reversed(range(3)) if reverse else range(3):
            x = layer(x * 0.9, w[n], LAST[n], f"layer[{n}]")
        with scope("head"):
            return (jnp.sin(x) * x)[-1].sum()


def inner(c, w, name="cell"):
    with scope(name):
        return jnp.sin(c * w)


def nested(x, w):
    def outer(c, row):
        with scope("block"):
            c, _ = lax.scan(lambda c, w: (inner(c, w), None), c, row)
            return c * x[0], None

    return lax.scan(outer, x, w)[0].sum()


def nested_unrolled(x, w):
    y = x
    for m in range(2):
        with scope(f"block[{m}]"):
            for n in range(2):
                y = inner(y, w[m, n], f"cell[{n}]")
            y = y * x[0]
    return y.sum()


def directly(x, w):
    """A loop in a loop, with nothing between."""
    step = lambda c, row: (lax.scan(lambda c, w: (inner(c, w), None), c, row)[0], None)  # noqa: E731
    return lax.scan(step, x, w)[0].sum()


def directly_unrolled(x, w):
    for m in range(2):
        for n in range(2):
            x = inner(x, w[m, n], f"cell[{m}, {n}]")
    return x.sum()


STACK, ROWS = jnp.stack([W, V, W * V])[:, :2, :2], jnp.asarray(W[:2, :2])
LOOPS = {
    "layers": (looped, unrolled, (X[:, :2], STACK)),
    "in reverse": (
        lambda x, w: looped(x, w, reverse=True),
        lambda x, w: unrolled(x, w, reverse=True),
        (X[:, :2], STACK),
    ),
    "a loop in a loop": (nested, nested_unrolled, (X[0, :2], ROWS)),
    "directly in a loop": (directly, directly_unrolled, (X[0, :2], ROWS)),
}


@pytest.mark.parametrize("depth", [1, 2, None])
@pytest.mark.parametrize("name", LOOPS)
def test_as_in_the_loop_written_out(name, depth):
    fun, written_out, args = LOOPS[name]
    found = quick_jit(sj.component_flow(fun, KINDS, depth))(*args)
    brute = Brute(written_out, args)
    counts = [brute.components(path, depth) for path in brute.complete]
    one = next(iter(found.values()))
    names = {name for own in counts for name in own}
    assert names <= set(one.names) and not set(one.names) - names - {"(outside)"}
    for component in one.names:
        paths = [p for p, own in zip(brute.complete, counts, strict=True) if component in own]
        close({k: f[component] for k, f in found.items()}, brute.of(paths), component)
        edges = brute.mean(brute.complete, [own.get(component, 0) for own in counts])
        np.testing.assert_allclose(one.edges[component], edges, 1e-3, 1e-5, err_msg=component)


def test_rows_are_in_the_order_of_evaluation():
    flow = sj.component_flow(looped, sj.AbsSumProduct())(X[:, :2], STACK)
    layers = [f"net/layer[{n}]/{part}" for n in range(3) for part in ("mlp", "tail")]
    assert [name for name in flow if "layer[" in name and name.count("/") == 2] == layers
    together = sj.component_flow(looped, sj.AbsSumProduct(), iterations=False)(X[:, :2], STACK)
    assert list(together) == ["net", "net/layer/mlp", "net/layer/tail", "net/layer", "net/head"]


def test_what_two_loops_run_is_the_same_in_all_iterations():
    def twice(x, w):
        step = lambda c, w: (inner(c, w), None)  # noqa: E731
        return lax.scan(step, lax.scan(step, x, w)[0], w)[0].sum()

    flow = sj.component_flow(twice, sj.AbsSumProduct())(X[0], W)
    assert set(flow) == {"cell", "(outside)"}
    np.testing.assert_allclose(flow["cell"], flow.total, rtol=1e-5)


def test_from_a_source_in_the_loop():
    """Paths that start in an iteration have not been in those before."""
    flow = sj.component_flow(directly, sj.AbsSumProduct(), source="cell/sin")(X[0, :2], ROWS)

    def total(upto):  # of the paths that start in a later iteration, or in this one
        def after(delta):
            x, rows = X[0, :2], iter(delta)
            for m in range(2):
                for n in range(2):
                    x = jnp.sin(x * ROWS[m, n]) + next(rows)
            return x.sum()

        return np.abs(jax.grad(after)(jnp.zeros((4, 2)))[:upto]).sum()

    # Diagonal: the only path from each element. It enters the iterations after its own.
    found = [float(flow[f"cell[{m}, {n}]"]) for m in range(2) for n in range(2)]
    np.testing.assert_allclose(found, [total(n) for n in range(4)], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(flow.total, total(4), rtol=1e-5)


def test_under_vmap():
    few = X[:, :2]
    run = lambda x: dict(sj.component_flow(directly, sj.Entropy())(x, ROWS))  # noqa: E731
    each = [run(x) for x in few]
    for name, values in jax.vmap(run)(few).items():
        np.testing.assert_allclose(values, [e[name] for e in each], rtol=1e-5)

"""The table of a function's equations."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import semijax as sj

X = jnp.ones((3, 5))


def rows(function, *args):
    return {row.primitive: row for row in sj.explain(function)(*args)}


@pytest.mark.parametrize(
    ("primitive", "kind", "edges", "function"),
    [
        ("sin", "Diagonal", 15, jnp.sin),
        ("mul", "Diagonal", 30, lambda x: x * x),
        ("transpose", "Movement", 15, jnp.transpose),
        ("reduce_sum", "Reduction", 15, jnp.sum),
        ("dot_general", "Contraction", 3 * 5 * 7, lambda x: x @ jnp.ones((5, 7))),
        ("cumsum", "Window", 5 * 6, lambda x: lax.cumsum(x)),
        ("stop_gradient", "-", 0, lax.stop_gradient),
        ("relu", "Diagonal", 15, jax.nn.relu),
    ],
)
def test_kind_and_size(primitive, kind, edges, function):
    row = rows(function, X)[primitive]
    assert (row.kind, row.edges, row.dense) == (kind, edges, False)


def test_an_equation_knows_its_scope_and_line():
    def function(x):
        with jax.named_scope("encoder"), jax.named_scope("layer_0"):
            return jax.jit(jnp.sin)(x)

    row = rows(function, X)["sin"]
    assert row.scope == "encoder/layer_0"
    assert "test_explanation.py" in row.source
    assert row.shape == (3, 5)


def test_a_fallback_is_seen():
    row = rows(lambda x: jnp.fft.rfft(x), X)["fft"]
    assert row.dense
    assert row.kind == "Dense"
    assert row.edges == 3 * 5 * (3 * 2)  # rows × inputs × real and imaginary parts of 3 outputs


def test_a_loop_shows_its_body():
    def loop(x):
        return lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=4)[0]

    table = sj.explain(loop)(X)
    assert [(row.primitive, row.kind, row.depth) for row in table] == [
        ("scan", "scan", 0),
        ("sin", "Diagonal", 1),
    ]


def test_what_cannot_be_done_is_shown_and_does_not_raise():
    def function(x):
        return jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    assert rows(function, X)["pure_callback"].kind == "NotImplementedError"


def test_it_prints_as_a_table_with_totals():
    text = str(sj.explain(lambda x, n: (x @ x.T).sum() * n)(X, 3))
    header, *lines, total = text.splitlines()
    assert header.split() == ["primitive", "Jacobian", "edges", "shape", "scope", "source"]
    assert any(line.startswith("dot_general") and "Contraction" in line for line in lines)
    assert "0 dense fallbacks" in total
    assert len(lines) == len(sj.explain(lambda x, n: (x @ x.T).sum() * n)(X, 3))


def test_nothing_is_run():
    def function(x):
        jax.debug.callback(lambda _: pytest.fail("it ran"), x)
        return x * 2

    assert rows(function, X)["mul"].edges == 15

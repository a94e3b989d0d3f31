"""The names of axes: that following them gets through every program."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import Dense

import semijax as sj
from semijax.sites.axis_names import AxisNames
from semijax.sites.program import Program

from ..random_programs.generator import program as draw_program


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_programs(first):
    with jax.enable_x64(True):
        for seed in range(first, first + 50):
            program = draw_program(seed)
            args = tuple(program.args.values())
            names = AxisNames(Program(program.scalar, args, {}, caller="test").graph(), {})
            assert names.known <= {"token", "batch", "head"}


def axes_of(fun, name):
    (row,) = sj.list_sites(fun, match=name)(jnp.array([3, 0, 2]))
    return row.axes


@pytest.mark.parametrize(
    "look_up",
    [
        lambda table, words: table[words],
        lambda table, words: table.T[:, words].T,
        lambda table, words: jax.vmap(lambda word: table[word])(words),
        lambda table, words: jax.vmap(lambda column: column[words], 1, 1)(table),
    ],
)
def test_tokens_are_known_however_they_are_looked_up(look_up):
    table = jnp.arange(20.0).reshape(5, 4)
    assert axes_of(lambda words: sj.tap(look_up(table, words), "x").sum(), "x") == ("token", None)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("batch", [(), (None,)])
def test_heads_without_a_batch(heads, batch):
    """``jax.nn.dot_product_attention`` makes a batch of one sentence."""

    def f(words):
        x = jnp.arange(20.0).reshape(5, 4)[words[batch]]
        x = x.reshape(*x.shape[:-1], heads, -1)
        return jax.nn.dot_product_attention(x, x, x).sum()

    (pattern,) = sj.list_sites(f, match="exp")(jnp.array([3, 0, 2]))
    assert pattern.shape[pattern.axes.index("head")] == heads
    assert pattern.axes.count("token") == 2 and pattern.axes.count("batch") == len(batch)


def test_what_only_scales_has_no_heads():
    def f(words):
        x = jnp.arange(20.0).reshape(5, 4)[words]
        return sj.tap(jnp.einsum("ti,i->ti", x, jnp.arange(4.0)), "scaled").sum()

    assert axes_of(f, "scaled") == ("token", None)


def test_a_table_says_what_axes_count():
    def f(x):
        rows = sj.tap(jnp.swapaxes(x[:, None] * jnp.ones((1, 2, 1)), 0, 2), "rows")
        return (jnp.reshape(rows, (3, -1)) + 1.0).sum()

    x = jnp.ones((5, 3))
    table = sj.list_sites(f, match="rows")(x)
    assert [row.names for row in table] == [("rows",)]
    assert "float32[3, 2, 5]" in str(table)
    axes = {"[0]": ("token", "unit")}
    by_unit = sj.site_flow(f, sj.AbsSumProduct(), "rows", by="unit", axes=axes)(x)
    assert by_unit["rows"].tolist() == [10.0] * 3
    by_token = sj.site_flow(f, sj.AbsSumProduct(), "rows", by="token", axes=axes)(x)
    assert by_token["rows"].tolist() == [6.0] * 5
    with pytest.raises(ValueError, match="No site matches"):
        sj.list_sites(f, match="nothing")(x)


def test_listed_by_axis():
    def f(words):
        x = sj.tap(jnp.arange(20.0).reshape(5, 4)[words], "x")
        heads = sj.tap(x.reshape(-1, 2, 2), "heads")
        scores = jnp.einsum("qhd,khd->hqk", heads, heads)
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), heads)
        return sj.tap(mixed.reshape(x.shape), "joined").max()

    words = jnp.array([3, 0, 2])
    listed = sj.list_sites(f, axis="head")(words)
    assert {"x", "heads", "joined"} <= {*listed.names}  # in x and joined, heads are side by side
    assert "reduce_max" not in listed.names
    for row in listed:
        assert sj.site_grads(f, sj.SumProduct(), row.names[0], by="head")(words)
    tokens = sj.list_sites(f, axis="token", match="reduce_*")(words).names
    assert tokens == ("reduce_max#1", "reduce_sum")  # those of softmax; not the output
    with pytest.raises(ValueError, match=r"has an axis known as 'layer'\..*'head'"):
        sj.list_sites(f, axis="layer")(words)
    with pytest.raises(ValueError, match="list_sites\\(fun, axis='head'\\) lists the arrays"):
        sj.site_flow(f, sj.SumProduct(), "reduce_max#2", source="x", by="head")(words)


def test_lines_in_installed_packages_are_short():
    def f(x):
        return jax.nn.relu(Dense(3).init_with_output(jax.random.key(0), x)[0]).sum()

    x = jnp.ones(2)
    for table in (sj.list_sites(f)(x), sj.explain(f)(x)):
        assert any("-packages" in row.source for row in table)
        assert "-packages" not in str(table) and " flax/linen/" in str(table)
        assert f" {os.path.relpath(__file__)}:" in str(table)


def test_saved(tmp_path):
    table = sj.list_sites(lambda x: jnp.sin(x).sum())(jnp.ones(3))
    for ending in ("html", "txt", "csv"):
        table.save(tmp_path / f"table.{ending}")
        assert "sin" in (tmp_path / f"table.{ending}").read_text()
    with pytest.raises(ValueError, match=r"\.html, \.txt, \.csv"):
        table.save(tmp_path / "table.png")
    paths = sj.top_paths(lambda x: jnp.sin(x).sum(), 3)(jnp.ones(3))
    for ending in ("html", "txt", "json"):
        paths.save(tmp_path / f"paths.{ending}")
        assert (tmp_path / f"paths.{ending}").read_text()


def test_arrays_of_no_elements():
    table = sj.list_sites(lambda x: (x * 2).reshape(0, 4).sum())(jnp.ones((4, 0)))
    assert len(table) == 4
    cache = sj.list_sites(lambda x: jnp.swapaxes(x, 1, 2).reshape(1, 0, 128))(
        jnp.ones((1, 2, 0, 64))
    )
    assert "reshape" in cache.names


def test_a_batch_and_heads_in_one_axis():
    """As torch's attention has them: the heads are the other part."""
    table = jnp.arange(20.0).reshape(5, 4) / 10

    def f(ids):
        x = table[ids]
        split = x.reshape(2, 3, 2, 2).transpose(0, 2, 1, 3).reshape(4, 3, 2)
        q = sj.tap(split, "q")
        scores = jnp.einsum("bqd,bkd->bqk", q, q)
        return jnp.einsum("bqk,bkd->bqd", scores, q)[0, 1].sum()

    ids = np.array([[0, 1, 2], [3, 4, 0]])
    by_head = sj.site_flow(f, sj.AbsSumProduct(), "q", source="*gather", by="head")(ids)
    assert by_head["q"].shape == (2,) and by_head["q"][1] == 0


def test_heads_of_other_layers_are_not_taken_over():
    """A residual stream has no heads, whatever is added to it."""
    table = jnp.arange(40.0).reshape(5, 8) / 10

    def layer(x, heads):
        q = x.reshape(3, heads, -1)
        scores = jnp.einsum("qhd,khd->hqk", q, q)
        joined = sj.tap(jnp.einsum("hqk,khd->qhd", scores, q).reshape(3, 8), "joined")
        return sj.tap(x + joined, "stream")

    def f(ids):
        return layer(layer(table[ids] + 1.0, 2) * 1.0, 4).sum()

    ids = np.array([0, 1, 2])
    where = {"source": "*gather", "by": "head"}
    joined = sj.site_flow(f, sj.AbsSumProduct(), "joined", **where)(ids)
    assert [n.shape for n in joined.values()] == [(2,), (4,)]
    with pytest.raises(ValueError, match="no axis known as 'head'"):
        sj.site_flow(f, sj.AbsSumProduct(), "stream#2", **where)(ids)

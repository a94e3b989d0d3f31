"""The names of axes: that following them gets through every program."""

import jax
import jax.numpy as jnp
import pytest

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

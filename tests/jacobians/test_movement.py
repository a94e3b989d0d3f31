"""Primitives that move elements, and the edges that are not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from .oracle import ALL, LIGHT, check, check_dense, check_each, numbers

X = numbers((3, 5))
Y = numbers((2, 5), 1)

STATIC = {
    "reshape": lambda x, y: x.reshape(5, 3),
    "ravel": lambda x, y: jnp.ravel(x),
    "squeeze": lambda x, y: lax.squeeze(x[1:2, :, None], (0, 2)),
    "transpose": lambda x, y: jnp.stack([x, -x], 1).transpose(2, 0, 1),
    "reverse": lambda x, y: (lax.rev(x, (0,)), lax.rev(y, (0, 1))),
    "broadcast": lambda x, y: lax.broadcast_in_dim(x[:1, 0], (2, 1, 3), (1,)),
    "broadcast between axes": lambda x, y: lax.broadcast_in_dim(y, (2, 3, 5), (0, 2)),
    "tile": lambda x, y: lax.tile(y, (2, 3)),
    "repeat": lambda x, y: jnp.repeat(y, 2, axis=1),
    "roll": lambda x, y: jnp.roll(x, 2, axis=(1,)),
    "slice": lambda x, y: x[1:, 2:4],
    "strided slice": lambda x, y: lax.slice(x, (0, 1), (3, 5), (2, 3)),
    "empty slice": lambda x, y: (x[:0], y[:, 3:3], y),
    "concatenate": lambda x, y: jnp.concatenate([x, y, x[:1]], 0),
    "concatenate with nothing": lambda x, y: jnp.concatenate([x[:, :0], x], 1),
    "stack": lambda x, y: jnp.stack([x[0], y[1], x[2]], axis=1),
    "split": lambda x, y: jnp.split(x, [1, 1, 4], axis=1)[::2],
    "unstack": lambda x, y: jnp.unstack(x, axis=1)[1:3],
    "diagonal": lambda x, y: jnp.diag(x[:, :3]),
    "triangle": lambda x, y: jnp.tril(x[:, :3]),
}


@pytest.mark.parametrize("part", range(2))
def test_static(part):
    check_each({name: (fun, X, Y) for name, fun in list(STATIC.items())[part::2]}, semirings=LIGHT)


def test_static_in_all_semirings():
    def fun(x, y):
        z = jnp.concatenate([x, y], 0)[::2, 1:]
        return jnp.stack([z.reshape(2, 6).T, lax.rev(z, (0,)).reshape(6, 2)], 1)

    check(fun, X, Y)


PADDINGS = {
    "positive": ((1, 0, 0), (0, 2, 0)),
    "interior": ((0, 0, 1), (1, 1, 2)),
    "negative": ((-1, 0, 0), (0, -2, 0)),
    "negative of both signs": ((2, -1, 0), (-1, 1, 0)),
    "negative and interior": ((-1, 1, 1), (1, -3, 1)),
    "away with everything": ((-2, -1, 0), (0, 0, 0)),
}


def test_pad():
    def padded(config):
        return lambda x, fill: lax.pad(jnp.sin(x), fill, config)

    fill = np.float32(0.3)
    check_each({name: (padded(c), X, fill) for name, c in PADDINGS.items()}, semirings=LIGHT)
    check(padded(PADDINGS["negative and interior"]), X, fill)


STARTS = [(0, 0), (1, 2), (-1, 3), (9, 9), (-7, 1)]


def test_dynamic_slice():
    """Starts out of range are moved until the slice fits."""

    def fun(x, starts):
        return [lax.dynamic_slice(x, (i, j), (2, 3)) for i, j in starts]

    check(fun, X, np.array(STARTS))


def test_dynamic_update_slice():
    """What the update covers has no edge from the operand."""

    def updated(start):
        return lambda x, u: lax.dynamic_update_slice(x, u, tuple(map(jnp.int32, start)))

    check_each({str(start): (updated(start), X, Y[:, :3]) for start in STARTS}, semirings=LIGHT)
    check(updated((9, 2)), X, Y[:, :3])


INDICES = {
    "in range": [0, 2, 1],
    "repeated": [1, 1, 2, 1],
    "negative": [-1, 0, -3],
    "out of range": [5, 1, -4, 3],
    "none": [],
}


@pytest.mark.parametrize("mode", ["clip", "fill", "wrap"])
def test_take(mode):
    def taken(indices):
        return lambda x: jnp.take(x, np.array(indices, np.int32), axis=0, mode=mode)

    check_each({name: (taken(i), X[:, :2]) for name, i in INDICES.items()}, semirings=LIGHT)
    check(taken([1, -4, 2, 1, 9]), X)


GATHERS = {
    "points": lambda x, i: x[i % 3, i],
    "rows, filled with NaN": lambda x, i: x.at[i].get(mode="fill"),
    "rows, filled": lambda x, i: x.at[i].get(mode="fill", fill_value=0.0),
    "columns in bounds": lambda x, i: x.at[:, i % 5].get(mode="promise_in_bounds"),
    "batched": lambda x, i: jnp.take_along_axis(x, jnp.stack([i, i + 1, -i])[:, :2], 1),
    "windows": lambda x, i: lax.gather(
        x,
        i[:, None],
        lax.GatherDimensionNumbers((0, 1), (), (1,)),
        (2, 3),
        mode="clip",
    ),
    "under vmap": lambda x, i: jax.vmap(lambda row, j: row[j])(x, i[:3]),
}


def test_gather():
    indices = np.array([4, 0, 7, 0])
    cases = {name: (fun, X, indices) for name, fun in GATHERS.items()}
    check_each(cases, semirings=LIGHT)


SORTS = {
    "one operand": lambda x, y: jnp.sort(x, axis=1),
    "columns": lambda x, y: jnp.sort(x, axis=0, descending=True),
    "by another": lambda x, y: lax.sort((jnp.round(x[:2]), y), dimension=1, num_keys=1),
    "two keys": lambda x, y: lax.sort((jnp.floor(x[:2] / 2), y, x[:2]), dimension=1, num_keys=2),
    "integer keys": lambda x, y: lax.sort((jnp.array([2, 0, 1, 0, 2]), y[0], y[1]), num_keys=1),
    "ties": lambda x, y: jnp.sort(jnp.where(x > 0, 1.0, 0.0) * x),
    "indices": lambda x, y: x[jnp.argsort(x[:, 0])],
    "largest": lambda x, y: lax.top_k(x, 2)[0],
    "median": lambda x, y: jnp.median(x, axis=1),
}


def test_sort():
    check_each({name: (fun, X, Y) for name, fun in SORTS.items()}, semirings=LIGHT)
    check(SORTS["by another"], X, Y)


def test_sort_with_nan():
    """What moves is known even where the numbers are not: every weight is 1."""
    x = np.array([2.0, np.nan, -1.0, np.inf, -np.inf], np.float32)
    check(lambda x: (jnp.sort(x), lax.top_k(x, 3)[0]), x)


ABSENT = {
    "slice": lambda x: x[:1],
    "pad that crops": lambda x: lax.pad(x, 0.0, [(0, -1, 0)]),
    "dynamic slice": lambda x: lax.dynamic_slice(x, (jnp.int32(0),), (1,)),
    "dynamic update": lambda x: lax.dynamic_update_slice(x, jnp.ones(1), (jnp.int32(1),)),
    "gather": lambda x: x[jnp.array([0])],
    "gather out of bounds": lambda x: x.at[jnp.array([0, 7])].get(mode="fill", fill_value=0.0),
    "scatter": lambda x: x.at[jnp.array([1])].set(0.0),
    "top": lambda x: lax.top_k(x, 1)[0],
    "split": lambda x: jnp.split(x, 2)[0],
}


@pytest.mark.parametrize("fun", ABSENT.values(), ids=ABSENT)
def test_an_absent_edge_is_no_path(fun):
    x = jnp.array([2.0, 1.0])
    semirings = {"max": sj.MaxProduct(), "min": sj.MinProduct()}
    alone = sj.semiring_grad(lambda x: -(fun(x).sum()), semirings)(x)
    np.testing.assert_array_equal(alone["max"], [-1, -np.inf])
    np.testing.assert_array_equal(alone["min"], [-1, np.inf])
    beside = sj.semiring_grad(lambda x: -(fun(x).sum()) - 3.0 * x.sum(), semirings)(x)
    np.testing.assert_array_equal(beside["max"], [-1, -3])


def test_sizes():
    def fun(x):
        y = jnp.concatenate([x, jnp.flip(x, 1)], 0).T
        return y, lax.pad(x, 0.5, [(1, 0, 1), (0, 0, 0)]), jnp.sort(x, 1), jnp.tile(x, (1, 2))

    shapes = [(0, 3), (1, 1), (1, 5)]
    check_each({str(shape): (fun, numbers(shape)) for shape in shapes}, semirings=LIGHT)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_number_of_places(size):
    """An associative scan over a few elements combines empty parts at some sizes and not others."""
    semirings = {"top": ALL["top"], "bare": ALL["bare"]}
    check(lambda x: x[np.arange(size + 2) % size], numbers((size,)), semirings=semirings)


@pytest.mark.parametrize("mode", ["clip", "fill"])
def test_dense(mode):
    def fun(x, y):
        z = jnp.concatenate([x, y], 0)[::2, 1:]
        z = lax.pad(z, 0.1, [(1, -1, 0), (0, 1, 1)])
        z = lax.dynamic_update_slice(z, jnp.sort(x[:1, :2]), (1, 1))
        return jnp.take(
            jnp.tile(z, (1, 2)).T, jnp.array([1, 1, 30]), axis=0, mode=mode, fill_value=0
        )

    check_dense(fun, X, Y)

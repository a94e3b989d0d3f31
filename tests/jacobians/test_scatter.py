"""Scatters: in all modes, onto repeated and missing places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from .oracle import LIGHT, check, check_dense, check_each, numbers

INDICES = [2, 2, 0, 7, -1, -9]
"""Repeated, out of range at either end, negative."""


def scatter(kind, mode, unique=False):
    def fun(x, updates, indices):
        at = x.at[indices]
        return getattr(at, kind)(updates, mode=mode, unique_indices=unique)

    return fun


@pytest.mark.parametrize("kind", ["set", "add", "subtract", "min", "max"])
def test_rows(kind):
    x, updates = numbers((5, 2)), numbers((6, 2), 3)
    check(scatter(kind, "drop"), x, updates, np.array(INDICES), semirings=LIGHT)


@pytest.mark.parametrize("kind", ["set", "add", "subtract"])
def test_clipped_rows(kind):
    """JAX's own derivatives of minima and maxima are infinite where an index was clipped."""
    x, updates = numbers((5, 2)), numbers((6, 2), 3)
    check(scatter(kind, "clip"), x, updates, np.array(INDICES), semirings=LIGHT)


@pytest.mark.parametrize("kind", ["set", "max"])
def test_in_all_semirings(kind):
    check(scatter(kind, "drop"), numbers((3,)), numbers((5,), 3), np.array([2, 0, 2, 7, 0]))


def test_multiply():
    x = numbers((5, 2))
    x[0, 0] = 0.0
    fun = scatter("multiply", "drop", unique=True)
    check(fun, x, numbers((4, 2), 3), np.array([3, 0, 7, -4]), semirings=LIGHT)


def test_multiply_where_jax_has_no_derivative():
    x, updates, indices = jnp.ones(5), jnp.ones(3), np.array([1, 1, 2])
    fun = scatter("multiply", "drop")
    with pytest.raises(NotImplementedError, match=r"'scatter-mul'.*test_scatter.*unique_indices"):
        sj.semiring_grad(lambda u: fun(x, u, indices).sum(), sj.Entropy())(updates)


@pytest.mark.parametrize("kind", ["min", "max"])
def test_ties(kind):
    """The operand and the updates that have its value share the derivative."""
    x = np.array([1.0, -2.0, 3.0], np.float32)
    updates = np.array([1.0, 1.0, -2.0, 0.0], np.float32)
    check(scatter(kind, "drop"), x, updates, np.array([0, 0, 1, 2]))


WINDOWS = {
    "points": lambda x, u: jnp.asarray(x).at[np.array([0, 2]), np.array([4, 4])].set(u[0, :2]),
    "columns": lambda x, u: jnp.asarray(x).at[:, np.array([1, 1, 3])].add(jnp.tile(u[:1], (3, 1))),
    "scalar": lambda x, u: jnp.asarray(x).at[1].add(u[0, 0]),
    "slice": lambda x, u: jnp.asarray(x).at[1:, 2:4].set(u[:, :2]),
    "batched": lambda x, u: jax.vmap(lambda row, v, i: row.at[i].add(v))(
        x[:2], u, np.array([[0, 3, 0], [1, 1, 9]])
    ),
    "boxes": lambda x, u: lax.scatter_add(
        x,
        np.array([[0, 1], [2, 2]]),
        jnp.stack([u[:, :2], u[:, 1:]]),
        lax.ScatterDimensionNumbers((1, 2), (), (0, 1)),
        mode="drop",
    ),
    "clipped boxes": lambda x, u: lax.scatter(
        x,
        np.array([[0, 1], [2, 9]]),
        jnp.stack([u[:, :2], u[:, 1:]]),
        lax.ScatterDimensionNumbers((1, 2), (), (0, 1)),
        mode="clip",
    ),
    "an integer array in between": lambda x, u: x * jnp.zeros(5, int).at[2].set(3),
}


def test_windows():
    cases = {name: (fun, numbers((3, 5)), numbers((2, 3), 3)) for name, fun in WINDOWS.items()}
    check_each(cases, semirings=LIGHT)


def test_segment_sums_and_maxima():
    segments = np.array([0, 2, 2, 0, 5])

    def fun(x, y):
        return (
            jax.ops.segment_sum(x, segments, 4),
            jax.ops.segment_max(y, segments[:4], 3),
        )

    check(fun, numbers((5,)), numbers((4,), 1), semirings=LIGHT)


@pytest.mark.parametrize("kind", ["set", "add", "max"])
def test_nothing_to_scatter(kind):
    fun = scatter(kind, "drop")
    check(fun, numbers((3, 2)), numbers((0, 2)), np.zeros(0, int), semirings=LIGHT)


def test_overwritten_elements_have_no_paths():
    def fun(x, u):
        return -x.at[jnp.array([0, 0])].set(u).sum()

    x, u = jnp.ones(2), jnp.ones(2)
    of_x, of_u = sj.semiring_grad(fun, sj.MaxProduct(), (0, 1))(x, u)
    np.testing.assert_array_equal(of_x, [-np.inf, -1])
    assert sorted(of_u.tolist()) == [-np.inf, -1]  # one of the two was overwritten


@pytest.mark.parametrize("kind", ["set", "add", "subtract", "min", "max"])
def test_dense(kind):
    fun = scatter(kind, "drop")
    indices = np.array([2, 2, 7])
    check_dense(lambda x, u: fun(x, u, indices), numbers((5, 2)), numbers((3, 2), 3))

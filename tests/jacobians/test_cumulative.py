"""Cumulative reductions: triangles of edges."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from .oracle import LIGHT, check, check_dense, check_each, numbers

KINDS = {
    "sum": lax.cumsum,
    "prod": lax.cumprod,
    "max": lax.cummax,
    "min": lax.cummin,
    "logsumexp": lax.cumlogsumexp,
}


def cumulative(kind, axis=0, reverse=False):
    return lambda x: KINDS[kind](x, axis, reverse)


@pytest.mark.parametrize("kind", KINDS)
def test_axes_and_directions(kind):
    cases = {
        f"axis {axis}, reverse={reverse}": (cumulative(kind, axis, reverse), numbers((2, 3)))
        for axis in range(2)
        for reverse in (False, True)
    }
    check_each(cases, semirings=LIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_in_all_semirings(kind):
    check(cumulative(kind, 0, True), numbers((5,)))


@pytest.mark.parametrize("zeros", [1, 2])
def test_products_with_zeros(zeros):
    """A product with two zeros has edges of weight 0 alone, and they are paths."""
    x = numbers((5,))
    x[1 : 1 + zeros] = 0.0
    check(cumulative("prod"), x)


def test_ties():
    x = np.array([1.0, 1.0, 3.0, 3.0, 0.0], np.float32)
    check_each({kind: (cumulative(kind), x) for kind in ("max", "min")}, semirings=LIGHT)


def test_losers_are_paths_and_later_elements_are_not():
    x = jnp.array([3.0, 1.0, 2.0])
    found = sj.semiring_grad(lambda x: -lax.cummax(x)[1], sj.MaxProduct())(x)
    np.testing.assert_array_equal(found, [-1, 0, -np.inf])


def test_sizes():
    shapes = [(0, 3), (3, 0), (1, 2)]
    cases = {
        f"{kind} {shape}": (cumulative(kind), numbers(shape)) for kind in KINDS for shape in shapes
    }
    check_each(cases, semirings=LIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_dense(kind):
    check_dense(cumulative(kind, 1, True), numbers((2, 3)))


def test_an_edge_of_weight_0_is_present():
    found = sj.semiring_grad(
        lambda x: -lax.cumprod(x)[-1], {"max": sj.MaxProduct(), "reach": sj.Reachability()}
    )(jnp.array([0.0, 2.0, 0.0]))
    np.testing.assert_array_equal(found["max"], [0, 0, 0])
    np.testing.assert_array_equal(found["reach"], [False, False, False])

"""Loops and branches that no path crosses, or only along a value that is carried unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from .oracle import LIGHT, check, check_each, numbers

X = numbers((2,))


def while_loop(body, start, test=lambda c: c[-1] < 3.0):
    """Counts in its last value up to 3."""
    return lax.while_loop(test, body, start)


def beside(x):
    """It counts in a float, and what depends on x is not used."""
    return x * while_loop(lambda c: (jnp.sin(c[0]), c[1] + 1.0), (x, 0.0))[1]


def unused_beside_others(x):
    """Of three values that depend on each other, none is used."""
    loop = while_loop(lambda c: (c[1], c[2] * c[0], c[0], c[3] + 1.0), (x, 2 * x, x, 0.0))
    return x * loop[3]


def rides_along(x):
    return jnp.sin(x) * while_loop(lambda c: (c[0], c[1] + 1.0), (x, 0.0))[1]


def only_tested(x):
    return jnp.sin(x) * lax.while_loop(lambda t: t < x.sum(), lambda t: t + 1.0, -9.0)


def only_rounded(x):
    """Paths end where a float becomes an integer."""
    return x * while_loop(lambda c: (c[0] + 1, c[1] + 1.0), (x[0].astype(int), 0.0))[0]


def unchanged(x):
    kept, _, count = while_loop(lambda c: (c[0], jnp.cos(c[1]), c[2] + 1.0), (x, 2 * x, 0.0))
    return kept * x * count


def unchanged_by_a_call(x):
    body = jax.jit(lambda c: (c[0], c[1] * c[0], c[2] + 1.0))
    return while_loop(body, (x, x, 0.0))[0] * x


def constant_in_the_body(x):
    """What the body closes over leads nowhere either."""
    return x + while_loop(lambda c: (c[0] * x, c[1] + 1.0), (jnp.ones(2), 0.0))[1]


def in_a_scan(x):
    def body(c, t):
        dead, count = while_loop(lambda s: (jnp.exp(s[0] * c), s[1] + 1.0), (c, t))
        del dead
        return c * count, c

    return lax.scan(body, x, jnp.arange(2.0))


def behind_a_dead_carry(x):
    """Every iteration puts a loop's result into a carry that leads nowhere."""

    def body(carry, t):
        c, dead = carry
        return (c * t, while_loop(lambda s: (s[0] * c, s[1] + 1.0), (dead, t))[0]), c

    (c, _), ys = lax.scan(body, (x, x), jnp.arange(1.0, 3.0))
    return c, ys


def behind_a_dead_output(x):
    """Or into a row that nobody reads."""
    loop = lambda c: while_loop(lambda s: (s[0] * c, s[1] + 1.0), (c, 0.0))[0]  # noqa: E731
    return lax.scan(lambda c, t: (c * t, loop(c)), x, jnp.arange(1.0, 3.0))[0]


def in_a_branch(x):
    """Of both branches, one output leads on; the other comes from a loop."""

    def branch(x):
        return 2 * x, while_loop(lambda s: (s[0] * x, s[1] + 1.0), (x, 0.0))[0]

    return lax.cond(x[0] > 0, branch, lambda x: (x, x), x)[0] * x


def into_a_branch(x):
    """A loop's result goes into a branch that does not use it for what leads on."""
    dead = while_loop(lambda s: (s[0] * x, s[1] + 1.0), (x, 0.0))[0]
    return lax.cond(x[0] > 0, lambda x, y: (2 * x, y), lambda x, y: (x, x), x, dead)[0]


def through_scans(x):
    """A loop's result goes into a scan that does not use it for what leads on."""
    dead = while_loop(lambda s: (s[0] * x, s[1] + 1.0), (x, 0.0))[0]
    (c, _), _ = lax.scan(lambda c, t: ((c[0] * t, c[1] * dead), None), (x, dead), jnp.ones(2))
    return c


LOOPS = [
    *(beside, unused_beside_others, rides_along, only_tested, only_rounded, unchanged),
    *(unchanged_by_a_call, constant_in_the_body, in_a_scan, behind_a_dead_carry),
    *(behind_a_dead_output, in_a_branch, into_a_branch, through_scans),
]


def test_they_are_no_obstacle():
    """In any semiring, in both directions; JAX has no derivative of some of them."""
    check_each({f.__name__: (f, X) for f in LOOPS}, semirings=LIGHT, against_jax=False)


@pytest.mark.parametrize("fun", [beside, rides_along, only_tested, only_rounded, in_a_branch])
def test_the_gradient_is_that_of_jax(fun):
    found = sj.semiring_grad(lambda x: fun(x).sum(), sj.SumProduct())(X)
    np.testing.assert_allclose(found, jax.grad(lambda x: fun(x).sum())(X), 1e-5)


@pytest.mark.parametrize("fun", [beside, rides_along, unchanged, in_a_scan])
def test_nor_to_searches_and_sites(fun):
    def total(x):
        return sum(y.sum() for y in jax.tree.leaves(fun(jnp.cos(x))))

    strongest = sj.semiring_grad(total, sj.AbsMaxProduct())(X).max()
    np.testing.assert_allclose(abs(sj.top_paths(total)(X)[0].weight), strongest, 1e-5)
    flow, *within = sj.site_flow(total, sj.SumProduct(), "cos")(X).values()
    np.testing.assert_allclose(flow, sj.semiring_grad(total, sj.SumProduct())(X), 1e-5)
    assert not np.any(within)  # a cosine in a loop that leads nowhere
    components = sj.component_flow(total, sj.AbsMaxProduct())(X)
    np.testing.assert_allclose(components["(outside)"], strongest, 1e-5)


def test_what_is_carried_unchanged_is_the_same_node():
    """It adds no edge."""
    check(unchanged, X, against_jax=False)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: while_loop(lambda c: (jnp.sin(c[0]), c[1] + 1.0), (x, 0.0))[0],
        lambda x: while_loop(lambda c: (c[1], c[0], c[2] + 1.0), (x, 2 * x, 0.0))[0],
        lambda x: while_loop(lambda c: (c[0], c[1] + c[0], c[2] + 1.0), (x, x, 0.0))[1],
        lambda x: while_loop(lambda c: (x, c[1] + 1.0), (2 * x, 0.0))[0],
    ],
    ids=["changed", "swapped", "from what is unchanged", "from a constant of the body"],
)
def test_what_changes_on_the_way_is_refused(fun):
    with pytest.raises(ValueError, match=r"reverse sweep does not work for lax\.while_loop"):
        sj.semiring_grad(lambda x: fun(x).sum(), sj.MaxProduct())(X)
    check(fun, X, semirings=LIGHT, reverse=False)

"""Which results of a program depend on which of its inputs, and whether linearly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from semijax.jacobians.linearity import Form, dependences

from .oracle import numbers

X = jnp.asarray(numbers((5,)))
MATRIX = jnp.asarray(numbers((5, 5), 1)) + 7 * np.eye(5, dtype=np.float32)


def forms(fun, *args):
    """What is known of each result of a function."""
    return dependences(jax.make_jaxpr(fun)(*args))


def solve_by_iteration(g):
    """Conjugate gradients: linear, but only the author knows."""

    def step(state):
        y, r, p = state
        q = MATRIX @ p
        a = (r @ r) / (p @ q)
        s = r - a * q
        return y + a * p, s, s + (s @ s) / (r @ r) * p

    return lax.while_loop(lambda state: state[1] @ state[1] > 1e-8, step, (jnp.zeros(5), g, g))[0]


LINEAR = {
    "scaled": lambda g: g * X,
    "divided": lambda g: g / X,
    "matrix": lambda g: MATRIX @ g,
    "einsum": lambda g: jnp.einsum("i,ij->j", g, MATRIX),
    "selected": lambda g: jnp.where(X > 1, g, 0.0),
    "masked": lambda g: g * (X > 1),
    "updated": lambda g: jnp.zeros(7).at[np.array([1, 2, 2, 3, 6])].add(g),
    "written": lambda g: lax.dynamic_update_slice(jnp.zeros(7), g, (1,)),
    "gathered": lambda g: g[np.array([3, 0, 3])],
    "padded": lambda g: jnp.pad(g, 2),
    "cumulative": jnp.cumsum,
    "transformed": lambda g: jnp.fft.irfft(jnp.fft.rfft(g) * 2, 5),
    "solved": lambda g: jnp.linalg.solve(MATRIX, g),
    "to fewer bits and back": lambda g: g.astype(jnp.bfloat16).astype(jnp.float32),
    "scan": lambda g: lax.scan(lambda c, t: (2 * c + t, c), 0.0, g),
    "static loop": lambda g: lax.fori_loop(0, 3, lambda _, c: c * X, g),
    "loop of a length that is given": lambda g: lax.while_loop(
        lambda s: s[0] < X[0], lambda s: (s[0] + 1, s[1] * X), (0.0, g)
    )[1],
    "branch": lambda g: lax.cond(X[0] > 1, lambda g: g[::-1], lambda g: 2 * g, g),
    "jitted": lambda g: jax.jit(lambda g: g + X * g)(g),
    "convolved": lambda g: jnp.convolve(g, X),
    "of experts": lambda g: lax.ragged_dot(g[None], MATRIX[None], jnp.array([1])),
    "0": lambda g: 0.0 * g,
}


def written_to_a_reference(g):
    reference = jax.new_ref(jnp.zeros(5))
    reference[1:] = g[1:]
    return reference[...]


NOT_LINEAR = {
    "clipped": lambda g: jnp.clip(g, -1, 1),
    "normalised": lambda g: g / jnp.linalg.norm(g),
    "rounded": jnp.round,
    "sign": jnp.sign,
    "integers": lambda g: g.astype(int).astype(float),
    "with an offset": lambda g: g + X,
    "with a number": lambda g: g - 1,
    "squared": lambda g: g * g,
    "over itself": lambda g: g / g,
    "contracted with itself": lambda g: g @ g,
    "selected by itself": lambda g: jnp.where(g > 0, g, 2 * g),
    "padded with a number": lambda g: jnp.pad(g, 2, constant_values=1.0),
    "written over something": lambda g: lax.dynamic_update_slice(jnp.ones(7), g, (1,)),
    "sorted": jnp.sort,
    "largest": jnp.max,
    "scan from a number": lambda g: lax.scan(lambda c, t: (2 * c + t, c), 1.0, g),
    "scan that adds a number": lambda g: lax.scan(lambda c, t: (2 * c + t, c + 1), 0.0, g)[1],
    "scan in which squares come of it": lambda g: lax.scan(
        lambda c, t: ((c[1], c[0] * c[1] + t), None), (0.0, 0.0), g
    )[0],
    "loop of a length that depends": lambda g: lax.while_loop(
        lambda s: s[0] < 9, lambda s: (s[0] + 1, s[1] * X), (g[0], g)
    ),
    "branch that depends": lambda g: lax.cond(g[0] > 1, lambda g: g, lambda g: 2 * g, g),
    "branch to a number": lambda g: lax.cond(X[0] > 1, lambda g: g, lambda g: X, g),
    "by iteration": solve_by_iteration,
    "on the host": lambda g: jax.pure_callback(lambda v: v, g, g),
    "relu": jax.nn.relu,
    "written to a reference": written_to_a_reference,
    "written in a loop": lambda g: lax.fori_loop(0, 2, lambda _, c: written_to_a_reference(c), g),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear(name):
    found = forms(LINEAR[name], X)
    assert {d.form for d in found} <= {Form.LINEAR, Form.ZERO}
    assert all(d.origins == {0} for d in found)


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_not_known_to_be_linear(name):
    found = forms(NOT_LINEAR[name], X)
    assert all(d.form is Form.UNKNOWN for d in found)
    assert all(d.origins == {0} for d in found)


def test_what_does_not_depend():
    found = forms(lambda g, h: (X, jnp.zeros(3), g * 2, g + h, h * X.sum()), X, X)
    assert [d.form.name for d in found] == ["FIXED", "ZERO", "LINEAR", "LINEAR", "LINEAR"]
    assert [d.origins for d in found] == [set(), set(), {0}, {0, 1}, {1}]


def test_what_a_loop_carries():
    def fun(g, h, k):
        def step(carry, _):
            a, b, c = carry
            return (b, a + h, c), a * 2

        return lax.scan(step, (g, jnp.zeros(5), k), None, length=2)

    (a, b, c), ys = forms(fun, X, X, X)[:3], forms(fun, X, X, X)[3]
    assert [d.origins for d in (a, b, c, ys)] == [{0, 1}, {0, 1}, {2}, {0, 1}]


def test_who_decides_counts():
    def fun(g, h):
        branch = lax.cond(h[0] > 0, lambda g: g, lambda g: 2 * g, g)
        return branch, jnp.where(h > 0, g, 0.0), g[jnp.argmax(h)]

    assert [(d.form, d.origins) for d in forms(fun, X, X)] == [(Form.UNKNOWN, {0, 1})] * 3


def test_selections():
    def fun(g, h):
        chosen = jnp.where(X > 0, g, 0.0)
        branch = lax.cond(X[0] > 1, lambda h: h, lambda h: 2 * h, h)
        return g[np.array([-1])], chosen, jnp.cumsum(chosen) + h, branch, h

    assert [d.selected for d in forms(fun, X, X)] == [False, True, True, True, False]

"""Control flow: the paths are those through the unrolled loop and the branch that was taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from ..compilation import quick_jit
from .oracle import ALL, LIGHT, check, check_each, numbers

STEPS, WIDTH = 3, 2


def unrolled_scan(body, carry, xs, length=None, reverse=False):
    """``lax.scan`` as a Python loop over its body."""
    count = length if xs is None else len(jax.tree.leaves(xs)[0])
    order = reversed(range(count)) if reverse else range(count)
    ys = [None] * count
    for i in order:
        carry, ys[i] = body(carry, None if xs is None else jax.tree.map(lambda x, i=i: x[i], xs))
    return carry, jax.tree.map(lambda *rows: jnp.stack(rows), *ys)


def recurrent(scan, reverse=False):
    def fun(h, xs, w):
        def body(h, x):
            h = jnp.tanh(h * w + x)
            return h, h * x

        return scan(body, h, xs, reverse=reverse)

    return fun


def several_carries(scan, reverse=False):
    def fun(h, xs, w):
        def body(carry, x):
            i, a, b = carry  # the integer has no nodes, and b starts as a constant
            return (i + 1, a * x, b + jnp.where(i > 0, a, w)), (a, i)

        (_, a, b), (ys, _) = scan(body, (0, h, jnp.zeros(WIDTH)), xs, reverse=reverse)
        return a, b, ys

    return fun


def only_consts(scan, reverse=False):
    def fun(h, xs, w):
        def body(carry, _):
            return carry * w, None

        carry, _ = scan(body, h, None, length=STEPS, reverse=reverse)
        return carry, xs[0]

    return fun


def only_xs(scan, reverse=False):
    def fun(h, xs, w):
        _, ys = scan(lambda _, x: (None, jnp.sin(x) * w), None, xs, reverse=reverse)
        return ys, h

    return fun


def swapping(scan, reverse=False):
    def fun(h, xs, w):
        (a, b), _ = scan(lambda c, x: ((c[1] * x, c[0]), None), (h, w), xs, reverse=reverse)
        return a, b

    return fun


def nested(scan, reverse=False):
    def fun(h, xs, w):
        def inner(c, x):
            return c * x + w[0], c

        def outer(h, x):
            total, ys = scan(inner, h[0], x, reverse=reverse)
            return h.at[0].set(total), ys

        return scan(outer, h, xs)

    return fun


def unused_output(scan, reverse=False):
    def fun(h, xs, w):
        carry, _ = scan(lambda c, x: (c + x, (c * w, x)), h, xs, reverse=reverse)
        return carry

    return fun


SCANS = {
    f.__name__: f
    for f in (recurrent, several_carries, only_consts, only_xs, swapping, nested, unused_output)
}
ARGS = (numbers((WIDTH,)), numbers((STEPS, WIDTH), 1), numbers((WIDTH,), 2))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_scan(reverse):
    cases = {name: (make(lax.scan, reverse), *ARGS) for name, make in SCANS.items()}
    check_each(cases, semirings=LIGHT)


@pytest.mark.parametrize("name", ["recurrent", "several_carries"])
def test_scan_in_all_semirings(name):
    check(SCANS[name](lax.scan, True), *ARGS)


@pytest.mark.parametrize("name", SCANS)
def test_scan_is_the_unrolled_loop(name):
    """Of the same body: stacking and indexing are written out, which changes the lengths only."""
    semirings = {key: s for key, s in ALL.items() if key not in ("length", "bare", "min")}

    def gradients(scan):
        def total(*args):
            leaves = jax.tree.leaves(SCANS[name](scan)(*args))
            return sum((leaf * numbers(leaf.shape, n)).sum() for n, leaf in enumerate(leaves))

        gradient = sj.semiring_grad(total, semirings, (0, 1, 2))
        return quick_jit(gradient)(*ARGS)

    found, expected = gradients(lax.scan), gradients(unrolled_scan)
    for key in semirings:
        for a, b in zip(found[key], expected[key], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=key)


def test_lstm():
    def fun(x, w, u):
        def cell(state, x):
            h, c = state
            i, f, g, o = jnp.split(x @ w + h @ u, 4)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return lax.scan(cell, (jnp.zeros(1), jnp.zeros(1)), x)[1][-1]

    x, w, u = numbers((2, 1)), numbers((1, 4), 1), numbers((1, 4), 2)
    check(fun, x, w, u, semirings=LIGHT)


@pytest.mark.parametrize("length", [0, 1])
def test_short_scans(length):
    def fun(h, xs):
        return lax.scan(lambda c, x: (c * x, c), h, xs)

    check(fun, numbers((WIDTH,)), numbers((length, WIDTH), 1), semirings=LIGHT)


def test_no_paths_through_a_scan_are_none():
    def fun(h, xs):
        (a, b), _ = lax.scan(lambda c, x: ((c[0] + x, c[1]), None), (h, jnp.ones(WIDTH)), xs)
        return -(a * 2.0 + b).sum()

    found = sj.semiring_grad(lambda h, xs, z: fun(h, xs), sj.MaxProduct(), (0, 1, 2))(*ARGS)
    np.testing.assert_array_equal(found[0], [-2, -2])
    np.testing.assert_array_equal(found[1], np.full((STEPS, WIDTH), -2))
    np.testing.assert_array_equal(found[2], [-np.inf, -np.inf])


def test_what_is_overwritten_in_a_carry_has_no_path():
    def fun(h, xs):
        return -lax.scan(lambda c, x: (x, None), h, xs)[0].sum()

    of_h, of_xs = sj.semiring_grad(fun, sj.MaxProduct(), (0, 1))(*ARGS[:2])
    np.testing.assert_array_equal(of_h, [-np.inf] * WIDTH)
    np.testing.assert_array_equal(of_xs, [[-np.inf] * WIDTH] * (STEPS - 1) + [[-1] * WIDTH])


LOOPS = {
    "static bounds": lambda x, w: lax.fori_loop(0, 3, lambda i, c: c * w + i * x, x),
    "map": lambda x, w: lax.map(lambda row: row * w[0], x),
    "associative scan": lambda x, w: lax.associative_scan(lax.mul, jnp.stack([x, w, x])),
    "associative scan in reverse": lambda x, w: lax.associative_scan(
        lax.add, jnp.stack([x, w, x * w]), reverse=True
    ),
    "checkpointed": lambda x, w: lax.scan(
        jax.checkpoint(lambda c, _: (jnp.sin(c) * w, None)), x, None, length=2
    )[0],
    "jitted twice": lambda x, w: jax.jit(jax.jit(lambda x: x * w))(x) + jax.jit(jnp.sin)(x),
}


def test_loops():
    cases = {name: (fun, numbers((2,)), numbers((2,), 1)) for name, fun in LOOPS.items()}
    check_each(cases, semirings=LIGHT)


@pytest.mark.parametrize("index", [-1, 0, 1, 2, 7])
def test_switch(index):
    """The index is clamped; another branch has no paths."""
    branches = [lambda x, y: x * y, lambda x, y: -y, lambda x, y: jnp.zeros(WIDTH)]

    def fun(x, y, i):
        return lax.switch(i, branches, x, y), x[0]

    check(fun, numbers((WIDTH,)), numbers((WIDTH,), 1), np.int32(index), semirings=LIGHT)


def test_cond_in_all_semirings():
    def fun(x, y):
        return lax.cond(x[0] > 0, lambda x, y: (x * y, x[1]), lambda x, y: (y, y[0]), x, y)

    check(fun, numbers((WIDTH,)), numbers((WIDTH,), 1))
    check(fun, -numbers((WIDTH,)), numbers((WIDTH,), 1), semirings=LIGHT)


def test_the_other_branch_has_no_paths():
    def fun(x, y):
        return -lax.cond(x > 0, lambda: 2.0 * x, lambda: y)

    assert sj.semiring_grad(fun, sj.MaxProduct(), (0, 1))(1.0, 1.0) == (-2, -np.inf)
    assert sj.semiring_grad(fun, sj.MaxProduct(), (0, 1))(-1.0, 1.0) == (-np.inf, -1)


def test_cond_in_a_scan_under_vmap():
    """Under vmap a cond becomes a selection: both branches have paths, one of them of weight 0."""

    def fun(h, xs):
        def body(h, x):
            return lax.cond(x > 0, lambda: h * x, lambda: h - x), h

        return lax.scan(body, h, xs)

    cases = {
        "alone": (fun, np.float32(0.7), ARGS[1][:, 0]),
        "under vmap": (jax.vmap(fun, in_axes=(0, 1)), *ARGS[:2]),
    }
    check_each(cases, semirings=LIGHT)


def while_loop(x, w):
    def body(state):
        i, c, d = state
        return i + 1, c * w + x[::-1], d * 2.0

    return lax.while_loop(lambda s: (s[0] < 3) & (s[2].sum() < 1e6), body, (0, x, w))[1:]


def test_while_forward():
    x, w = numbers((WIDTH,)), numbers((WIDTH,), 1)
    check(while_loop, x, w, reverse=False)


def test_while_of_dynamic_length():
    def fun(x, n):
        return lax.fori_loop(0, n, lambda i, c: c * jnp.sin(c), x)

    x = numbers((WIDTH,))
    for n in range(3):
        check(fun, x, np.int32(n), reverse=False, semirings=LIGHT)


def test_while_in_reverse():
    x, w = numbers((WIDTH,)), numbers((WIDTH,), 1)
    with pytest.raises(ValueError, match=r"while_loop.*test_control_flow.*lax\.scan.*semiring_jvp"):
        sj.semiring_grad(lambda x: while_loop(x, w)[0].sum(), sj.Entropy())(x)


def test_a_while_loop_without_paths_is_no_obstacle():
    def fun(x):
        return x * lax.while_loop(lambda i: i < 5, lambda i: i * 2, 1)

    check(fun, numbers((WIDTH,)), semirings=LIGHT)


def test_what_is_not_a_number_stays_so():
    def fun(x):
        return lax.scan(lambda c, x: (c * x, None), jnp.float32(1), x)[0]

    x = np.array([2.0, np.nan, 3.0], np.float32)
    check(fun, x, semirings={key: ALL[key] for key in ("sum", "max", "abs max", "entropy")})


def test_a_loop_over_complex_numbers_is_the_unrolled_loop():
    def step(z, w):
        return z * lax.complex(w, 0.5), jnp.abs(z)

    def finish(z, lengths):
        return z.real + 2 * z.imag + (lengths * lengths).sum()

    def loop(x, w):
        return finish(*lax.scan(step, lax.complex(x, 0.0 * x), w))

    def unrolled(x, w):
        z, lengths = lax.complex(x, 0.0 * x), []
        for i in range(3):
            z, length = step(z, w[i])
            lengths.append(length)
        return finish(z, jnp.stack(lengths))

    arguments = jnp.float32(0.7), jnp.array([0.3, -0.4, 1.1], jnp.float32)
    semirings = {"sum": sj.SumProduct(), "max": sj.MaxProduct(), "count": sj.PathCount()}
    found, expected = (
        jax.jit(sj.semiring_grad(f, semirings, argnums=(0, 1)))(*arguments)
        for f in (loop, unrolled)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), found, expected)

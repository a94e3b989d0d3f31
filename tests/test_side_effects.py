"""What a function does beside computing happens once, in whatever way it is asked about."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

import semijax as sj

STEPS = 3
X = jnp.array([0.3, 0.7], jnp.float32)
NOTES = collections.Counter()


@pytest.fixture(autouse=True)
def nothing_noted():
    jax.effects_barrier()
    NOTES.clear()


def note(what):
    jax.debug.callback(lambda: NOTES.update([what]))


def noted():
    jax.effects_barrier()
    return dict(NOTES)


def program(x):
    """Notes on every level: in a loop, in a branch within it, in a loop within that."""
    note("outside")

    def inner(c, t):
        note("inner")
        return c * t, None

    def taken(c):
        note("branch")
        return lax.scan(inner, c, jnp.arange(1.0, 3.0))[0]

    def step(c, t):
        note("loop")
        c = lax.cond(c.sum() > -100, taken, lambda c: note("other branch") or c, jnp.sin(c) * t)
        return c, c.sum()

    c, sums = lax.scan(step, x, jnp.linspace(0.5, 1.0, STEPS))

    def again(state):
        note("test")
        return state < 2.0

    steps = lax.while_loop(again, lambda s: note("while") or s + 1.0, 0.0)
    return (jnp.cos(c) * sums.sum() * steps).sum()


ONCE = {"outside": 1, "loop": 3, "branch": 3, "inner": 6, "test": 3, "while": 2}
SEMIRINGS = {"sum": sj.SumProduct(), "max": sj.MaxProduct(), "entropy": sj.Entropy()}
SITES = ["cos", "mul"]


def pull_twice(x):
    _, pull = sj.semiring_vjp(program, x, semiring=SEMIRINGS)
    return pull(), pull()


VERBS = {
    "semiring_grad": sj.semiring_grad(program, SEMIRINGS),
    "semiring_value_and_grad": sj.semiring_value_and_grad(program, SEMIRINGS),
    "semiring_vjp, pulled twice": pull_twice,
    "semiring_jvp": lambda x: sj.semiring_jvp(
        program, (x,), ({name: s.lift(x) for name, s in SEMIRINGS.items()},), SEMIRINGS
    ),
    "site_grads": sj.site_grads(program, SEMIRINGS, SITES),
    "site_flow": sj.site_flow(program, SEMIRINGS, SITES),
    "component_flow": sj.component_flow(program, SEMIRINGS),
    "branch_flow": sj.branch_flow(program, SEMIRINGS, "sin"),
    "site_values": sj.site_values(program, SITES),
    "ablate": sj.ablate(program, "sin"),
}


@pytest.mark.parametrize("name", VERBS)
def test_once(name):
    VERBS[name](X)
    assert noted() == ONCE


@pytest.mark.parametrize("name", ["semiring_grad", "site_flow", "ablate"])
def test_once_under_jit(name):
    compiled = jax.jit(VERBS[name])
    compiled(X)
    assert noted() == ONCE
    compiled(2 * X)
    assert noted() == {what: 2 * count for what, count in ONCE.items()}


def test_once_for_every_example_under_vmap():
    def fun(x):
        def step(c, t):
            jax.debug.callback(lambda _: NOTES.update(["loop"]), c)
            return c * t, None

        return lax.scan(step, x, jnp.arange(1.0, 4.0))[0]

    jax.vmap(sj.semiring_grad(fun, sj.MaxProduct()))(X)
    assert noted() == {"loop": 2 * 3}


@pytest.mark.parametrize(
    "search",
    [
        sj.top_paths(program),
        lambda x: sj.sample_paths(program, 2, jax.random.key(0))(x),
        sj.trace_gradient(program, source=(0, (0,))),
    ],
    ids=["top_paths", "sample_paths", "trace_gradient"],
)
def test_once_in_path_searches(search):
    search(X)
    assert noted() == ONCE


def test_the_trace_of_a_function_has_none():
    sj.explain(program)(X)
    sj.list_sites(program)(X)
    assert noted() == {}


def test_in_a_while_loop_on_the_way_forward():
    def fun(x):
        def step(state):
            note("while")
            return state[0] + 1, state[1] * x

        def again(state):
            note("test")
            return state[0] < 3

        return lax.while_loop(again, step, (0, x))[1]

    _, pushed = sj.semiring_jvp(fun, (X,), (jnp.ones(2),), sj.SumProduct())
    np.testing.assert_allclose(pushed, 4 * X**3, 1e-5)
    assert noted() == {"while": 3, "test": 4}


# What a side effect returns is kept: a second call might return something else.

CALLS = []


def draw(like):
    """A number from the host, another one each time."""

    def host(x):
        CALLS.append(float(x))
        return np.float32(1 + len(CALLS) / 10)

    return io_callback(host, jax.ShapeDtypeStruct((), jnp.float32), like, ordered=True)


def of_draws(x):
    """The product of all draws: two in each iteration, one of them in a branch, in a loop."""

    def inner(c, t):
        return c * draw(t), None

    def step(c, t):
        c = c * draw(t)
        c = lax.cond(t > 0, lambda c: lax.scan(inner, c, jnp.ones(2))[0], lambda c: c, c)
        return c, None

    return lax.scan(step, x, jnp.arange(3.0))[0]


@pytest.mark.parametrize("compile", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_values_and_gradients_are_of_the_same_draws(compile):
    for ask in (
        sj.semiring_value_and_grad(of_draws, sj.SumProduct()),
        sj.semiring_value_and_grad(of_draws, sj.MaxProduct()),
        lambda x: sj.semiring_jvp(of_draws, (x,), (jnp.ones(()),), sj.SumProduct()),
    ):
        CALLS.clear()
        value, gradient = compile(ask)(jnp.float32(1))
        assert len(CALLS) == 3 + 2 * 2
        product = np.prod(1 + np.arange(1, 8) / 10)
        np.testing.assert_allclose([value, gradient], product, 1e-5)


def test_sites_see_the_same_draws():
    CALLS.clear()
    found = sj.site_flow(of_draws, sj.SumProduct(), "mul")(jnp.float32(1))
    np.testing.assert_allclose(found["mul#1"], np.prod(1 + np.arange(1, 8) / 10), 1e-5)
    assert len(CALLS) == 7


def test_what_a_while_loop_draws_is_not_kept():
    def fun(x):
        step = lambda s: (s[0] + 1, s[1] * draw(s[0]))  # noqa: E731
        return lax.while_loop(lambda s: s[0] < 2, step, (0, x))[1]

    message = r"io_callback.*side effect.*test_side_effects.*outside of the loop"
    with pytest.raises(NotImplementedError, match=message):
        sj.semiring_jvp(fun, (jnp.float32(1),), (jnp.ones(()),), sj.SumProduct())
    beside = sj.semiring_grad(lambda x: x * lax.stop_gradient(fun(x)), sj.SumProduct())
    CALLS.clear()
    assert beside(jnp.float32(1)) == np.float32(1.1) * np.float32(1.2)
    assert len(CALLS) == 2


def test_references_are_written_once():
    def fun(x, y):
        total = jax.new_ref(jnp.zeros((), jnp.float32))

        def step(c, t):
            total[...] += t
            return c * total[...], None

        product = lax.scan(step, y, jnp.arange(1.0, 4.0))[0]
        return x * product * jax.freeze(total)

    value, gradient = sj.semiring_value_and_grad(fun, sj.SumProduct())(*jnp.float32([1, 1]))
    assert value == gradient == (1 * 3 * 6) * 6


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_paths_through_references_are_refused(where):
    """Also where what is written in a loop leaves by the reference alone."""

    def fun(x):
        outer = jax.new_ref(jnp.zeros((), jnp.float32))

        def step(c, t):
            own = jax.new_ref(t) if where == "inside" else outer
            own[...] = own[...] + x
            return c + (own[...] if where == "inside" else 0.0), None

        total = lax.scan(step, jnp.zeros((), jnp.float32), jnp.arange(3.0))[0]
        return total if where == "inside" else jax.freeze(outer)

    with pytest.raises(NotImplementedError, match=r"mutable array reference.*test_side_effects"):
        sj.semiring_grad(fun, sj.SumProduct())(jnp.float32(1))


def test_a_reference_that_is_made_in_a_loop_is_no_side_effect():
    def fun(x):
        def step(c, t):
            own = jax.new_ref(t)
            own[...] *= 2
            return c * jax.freeze(own), None

        return lax.scan(step, x, jnp.arange(1.0, 4.0))[0]

    assert sj.semiring_grad(fun, sj.MaxProduct())(jnp.float32(1)) == 2 * 4 * 6


def noisy(x):
    note("noisy")
    return jnp.sin(x)


@jax.custom_jvp
def noisy_with_a_derivative(x):
    return noisy(x)


noisy_with_a_derivative.defjvp(lambda p, t: (jnp.sin(p[0]), jnp.cos(p[0]) * t[0]))


@pytest.mark.parametrize("function", [sj.atomic(noisy), noisy_with_a_derivative])
def test_one_equation_with_side_effects_is_refused(function):
    """Its derivative is computed by running it."""
    with pytest.raises(NotImplementedError, match=r"one equation.*side effects.*test_side_effects"):
        sj.semiring_grad(lambda x: function(x).sum(), sj.AbsMaxProduct())(X)
    noted()

"""Functions with a derivative of their author's: whatever ``jax.grad`` can do with a rule."""

import functools

import jax
import jax.custom_derivatives
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.ode import odeint
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

import semijax as sj
from semijax.jacobians import Dense, Diagonal

from .oracle import LIGHT, check, check_dense, check_each, numbers
from .test_dense import jacobians

X = jnp.asarray(numbers((3,)))
W = jnp.array([0.1, 0.3, -4.0])
SEMIRINGS = {"sum": sj.SumProduct(), "max": sj.MaxProduct(), "entropy": sj.Entropy()}


def with_backward(backward, keep=lambda x: None, forward=lambda x: 2.0 * x):
    """A function of one array with this backward rule, which gets what is kept of the input."""

    @jax.custom_vjp
    def function(x):
        return forward(x)

    function.defvjp(lambda x: (forward(x), keep(x)), lambda kept, g: (backward(kept, g),))
    return function


def weighted(function):
    return lambda x: (function(x) * W).sum()


def check_sum(function, *args, rtol=1e-5):
    """The sum is the gradient, whether the values are known or traced, alone or in a batch."""
    argnums = tuple(range(len(args)))
    expected = jax.grad(function, argnums)(*args)
    semiring_grad = sj.semiring_grad(function, sj.SumProduct(), argnums)
    batch = [jnp.stack([x, x]) for x in args]
    for found in (
        semiring_grad(*args),
        jax.jit(semiring_grad)(*args),
        jax.tree.map(lambda x: x[1], jax.jit(jax.vmap(semiring_grad))(*batch)),
    ):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol, 1e-6)


# Backward rules that are no linear maps.

NOT_LINEAR = {
    "clipped": lambda _, g: jnp.clip(g, -0.5, 0.5),
    "clipped far out": lambda _, g: jnp.clip(g, -1e4, 1e4),
    "clipped by norm": lambda _, g: g * jnp.minimum(1, 10 / jnp.linalg.norm(g)),
    "normalised": lambda _, g: g / jnp.linalg.norm(g),
    "sign": lambda _, g: jnp.sign(g),
    "rounded": lambda _, g: jnp.round(g / 0.25) * 0.25,
    "in 8 bits": lambda _, g: jnp.round(g / jnp.abs(g).max() * 127) * jnp.abs(g).max() / 127,
    "the largest ones": lambda _, g: jnp.where(jnp.abs(g) == jnp.abs(g).max(), g, 0.0),
    "squared": lambda _, g: g * g,
    "absolute": lambda _, g: jnp.abs(g),
    "with an offset": lambda _, g: g + 1.0,
    "a number": lambda _, g: jnp.ones_like(g),
    "on the host": lambda _, g: jax.pure_callback(lambda g: np.clip(g, -1, 1), g, g),
}


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_a_backward_rule_that_is_not_linear(name):
    fun = weighted(with_backward(NOT_LINEAR[name]))
    message = r"backward rule of 'function' at .*test_pullback.*not linear.*atomic does not help"
    for semiring in (sj.SumProduct(), sj.Reachability()):
        for transformed in (lambda f: f, jax.jit):
            with pytest.raises(NotImplementedError, match=message):
                transformed(sj.semiring_grad(fun, semiring))(X)
    with pytest.raises(NotImplementedError, match=message):
        sj.top_paths(fun)(X)
    with pytest.raises(NotImplementedError, match=r"'inside'.*not linear"):

        @sj.atomic
        def inside(x):
            return with_backward(NOT_LINEAR[name])(x)

        sj.semiring_grad(weighted(inside), sj.SumProduct())(X)


NOT_LINEAR_BY_VALUES = {
    "clipped": lambda x, g: jnp.clip(g, -x, x),
    "sometimes": lambda x, g: jnp.where(x.sum() > 1, jnp.clip(g, -1, 1), g),
}


@pytest.mark.parametrize("name", NOT_LINEAR_BY_VALUES)
@pytest.mark.parametrize("semiring", [sj.SumProduct(), sj.Reachability()])
def test_a_rule_whose_values_are_traced_is_checked_when_it_runs(name, semiring):
    fun = weighted(with_backward(NOT_LINEAR_BY_VALUES[name], jnp.abs))
    semiring_grad = sj.semiring_grad(fun, semiring)
    with pytest.raises(NotImplementedError, match="not linear"):
        semiring_grad(X)
    for traced, x in ((jax.jit(semiring_grad), X), (jax.vmap(semiring_grad), X[None])):
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"'function'.*not linear"):
            jax.block_until_ready(traced(x))


def test_a_rule_that_is_linear_at_these_values_only():
    fun = weighted(with_backward(NOT_LINEAR_BY_VALUES["sometimes"], lambda x: 0 * x))
    np.testing.assert_allclose(jax.jit(sj.semiring_grad(fun, sj.SumProduct()))(X), W)


def two_outputs(backward):
    @jax.custom_vjp
    def function(x):
        return x, x**2

    function.defvjp(lambda x: (function(x), x), backward)
    return function


def test_linear_in_each_cotangent_but_not_in_both():
    def backward(x, gs):
        return (gs[0] * gs[1],)

    function = two_outputs(backward)
    with pytest.raises(NotImplementedError, match="not linear"):
        sj.semiring_grad(lambda x: sum(y.sum() for y in function(x)), sj.SumProduct())(X)


MATRIX = jnp.asarray(numbers((3, 3), 1) + 7 * np.eye(3, dtype=np.float32))


def conjugate_gradients(kept, g):
    """Solves MATRIX.T @ MATRIX @ y = g."""
    matrix = MATRIX.T @ MATRIX

    def step(state):
        y, r, p, n = state
        q = matrix @ p
        a = (r @ r) / (p @ q)
        s = r - a * q
        return y + a * p, s, s + (s @ s) / (r @ r) * p, n + 1

    def go_on(state):
        return (state[1] @ state[1] > 1e-13 * (g @ g)) & (state[-1] < 20)

    return lax.while_loop(go_on, step, (jnp.zeros(3), g, g, 0))[0] * kept


LINEAR_ALL_THE_SAME = {
    "by iteration": conjugate_gradients,
    "on the host": lambda x, g: x * jax.pure_callback(lambda g: 3 * np.asarray(g), g, g),
    "one at a time on the host": lambda x, g: (
        x * jax.pure_callback(lambda g: 3 * np.asarray(g), g, g, vmap_method="sequential")
    ),
    "0 for 0": lambda x, g: jnp.where(g == 0, 0, g * x),
    "numbers only": lambda x, g: jnp.nan_to_num(g) * x,
    "normalised and back": lambda x, g: g / jnp.linalg.norm(g) * x * jnp.linalg.norm(g),
    "0 of the input's": lambda x, g: 0 * x,
}


@pytest.mark.parametrize("name", LINEAR_ALL_THE_SAME)
def test_linear_but_nobody_can_see_it(name):
    check_sum(weighted(with_backward(LINEAR_ALL_THE_SAME[name], jnp.abs)), X)


def test_gradients_of_what_is_checked_when_it_runs():
    fun = weighted(with_backward(LINEAR_ALL_THE_SAME["0 for 0"], lambda x: x * x))

    def loss(x):
        return (sj.semiring_grad(fun, sj.AbsSumProduct())(x)).sum()

    for transformed in (lambda f: f, jax.jit):
        np.testing.assert_allclose(transformed(jax.grad(loss))(X), 2 * X * np.abs(W), rtol=1e-5)


# Functions that have a reverse derivative only.


@jax.custom_vjp
def rms(x, w):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True)) * w


def rms_backward(kept, g):
    x, w = kept
    s = 1 / jnp.sqrt((x * x).mean(-1, keepdims=True))
    h = g * w
    return s * (h - x * s * s * (h * x).mean(-1, keepdims=True)), (g * x * s).sum(0)


rms.defvjp(lambda x, w: (rms(x, w), (x, w)), rms_backward)


@jax.custom_vjp
def scaled(x, c):
    return x * c


scaled.defvjp(lambda x, c: (scaled(x, c), (x, c)), lambda r, g: (g * r[1], (r[0] * g).sum()))


@jax.custom_vjp
def upsampled(x):
    return jnp.repeat(x, 2)


upsampled.defvjp(lambda x: (upsampled(x), None), lambda _, g: (g.reshape(-1, 2).sum(1),))


@jax.custom_vjp
def upsampled_in_a_loop(x):
    return jnp.repeat(x, 2)


def sum_pairs_in_a_loop(_, g):
    pairs = g.reshape(-1, 2)
    step = lambda s: (s[0] + 1, s[1] + pairs[:, s[0]])  # noqa: E731
    return (lax.while_loop(lambda s: s[0] < 2, step, (0, jnp.zeros(3)))[1],)


upsampled_in_a_loop.defvjp(lambda x: (jnp.repeat(x, 2), None), sum_pairs_in_a_loop)


@jax.custom_jvp
def spread(x):
    return jnp.repeat(x**2, 2)


spread.defjvp(lambda p, t: (spread(*p), jnp.repeat(2 * scaled(p[0], 1.0) * t[0], 2)))


REVERSE_ONLY = {
    "by the scale": (lambda x, c: scaled(x, c), numbers((5,)), numbers(())),
    "by the weights": (rms, numbers((3, 2)), numbers((2,), 1)),
    "more outputs": (upsampled, numbers((3,))),
    "more outputs, by a loop": (upsampled_in_a_loop, numbers((3,))),
    "jitted": (jax.jit(upsampled), numbers((3,))),
    "in a rule": (spread, numbers((3,))),
    "in a rule, backward": (
        with_backward(lambda x, g: jax.vjp(spread, x)[1](g)[0], lambda x: x, spread),
        numbers((3,)),
    ),
    "atomic": (sj.atomic(lambda x: upsampled(x) * x[0]), numbers((3,))),
    "in a loop": (
        lambda x, c: lax.scan(lambda y, _: (scaled(y, c), None), x, None, length=2)[0],
        numbers((3,)),
        numbers(()),
    ),
    "in a loop in an atomic function": (
        sj.atomic(lambda x, c: lax.scan(lambda y, t: (scaled(y, c), scaled(y, t)), x, x)[1]),
        numbers((3,)),
        numbers(()),
    ),
}


@pytest.mark.parametrize("part", range(2))
def test_functions_with_a_reverse_derivative_only(part):
    cases = dict([*REVERSE_ONLY.items()][part::2])
    check_each(cases, semirings=LIGHT)


def test_paths_through_functions_with_a_reverse_derivative_only():
    for fun, *args in REVERSE_ONLY.values():
        best = sj.top_paths(lambda *args, fun=fun: fun(*args).sum(), argnums=len(args) - 1)(*args)[
            0
        ]
        assert best.verify() < 1e-5


def test_columns_where_there_are_fewer_of_them():
    """A scale of many numbers takes one column of its transposed pullback, not a row for each."""
    many = jnp.ones(10_000)
    jacobian = jacobians(lambda c: scaled(many, c), 2.0)[1, 0]
    assert isinstance(jacobian, Dense) and not jacobian._by_rows()
    by_loop = jacobians(upsampled_in_a_loop, X)[0, 0]
    assert isinstance(by_loop, Dense) and by_loop._by_rows()


# Constants.


def test_a_constant_of_the_function_is_an_array_in_its_rule():
    @jax.custom_vjp
    def times(x, t):
        return x * t

    def backward(t, g):
        assert isinstance(t, jax.Array)
        return g * t.at[0].multiply(1), None

    times.defvjp(lambda x, t: (times(x, t), t), backward)
    check_sum(lambda x: times(x, jnp.array([1.0, 2.0, 3.0])).sum(), X)
    check_sum(lambda x: times(x[:1], 2.0 * jnp.ones(1)).sum(), X)
    check_sum(jax.jit(lambda x: times(x, jnp.array([1.0, 2.0, 3.0])).sum()), X)

    def loop(x):
        rows = np.arange(6, dtype=np.float32).reshape(2, 3)
        return lax.scan(lambda c, r: (times(c, r) + x, None), x, rows)[0].sum()

    check_sum(loop, X)
    assert sj.top_paths(loop)(X)[0].weight == 10


def test_a_differential_equation():
    def decayed(p):
        start, times = jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0])
        return odeint(lambda y, t, p: -p * y, start, times, p)[-1].sum()

    expected = jax.grad(decayed)(0.5)
    np.testing.assert_allclose(sj.semiring_grad(decayed, sj.SumProduct())(0.5), expected, 1e-4)
    largest = sj.semiring_grad(decayed, sj.MaxProduct())(0.5)
    np.testing.assert_allclose(largest, expected / 3, rtol=1e-4)  # of −e⁻⁰·⁵ and −2e⁻⁰·⁵


# Inputs that a rule ignores.


def newton(x):
    """√x, without a reverse derivative."""
    start = jnp.ones_like(x)
    return lax.while_loop(
        lambda y: jnp.any(jnp.abs(y * y - x) > 1e-5), lambda y: 0.5 * (y + x / y), start
    )


one_way_p = Primitive("one_way")
one_way_p.def_impl(lambda x: x)
one_way_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(one_way_p, lambda ctx, x: [x])
ad.deflinear2(one_way_p, lambda *_: pytest.fail("nothing may be asked to go back through this"))


@jax.custom_jvp
def attached(y, x):
    """Y, which solves y·y = x, with the derivative of the implicit function."""
    del x
    return y


attached.defjvp(lambda p, t: (p[0], t[1] / (2 * p[0])))


def attached_vjp(**options):
    @functools.partial(jax.custom_vjp, nondiff_argnums=())
    def function(y, x):
        del x
        return y

    def forward(y, x):
        if options:
            assert y.perturbed and x.perturbed
            y = y.value
        return y, y

    def backward(y, g):
        zero = None if not options else jnp.zeros_like(y)
        return zero, g / (2 * y)

    function.defvjp(forward, backward, **options)
    return function


@pytest.mark.parametrize(
    "attach",
    [
        attached,
        attached_vjp(),
        attached_vjp(symbolic_zeros=True),
        sj.atomic(lambda y, x: attached(y, x) + 0 * x),
        jax.jit(attached),
    ],
)
def test_what_a_rule_ignores_is_never_asked(attach):
    def fun(x):
        return attach(newton(one_way_p.bind(x)), x).sum()

    x = jnp.array([4.0, 9.0])
    expected = {"sum": 0.5 / np.sqrt(x), "max": 0.5 / np.sqrt(x), "entropy": jnp.zeros(2)}
    for transformed in (lambda f: f, jax.jit):
        found = transformed(sj.semiring_grad(fun, SEMIRINGS))(x)
        for name in SEMIRINGS:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_ignored_in_a_loop():
    def fun(x):
        return lax.scan(lambda c, _: (attached(newton(c), c) + x, None), x, None, length=2)[0].sum()

    x = jnp.array([4.0, 9.0])
    found = sj.semiring_grad(fun, sj.SumProduct())(x)
    np.testing.assert_allclose(found, jax.grad(fun)(x), rtol=1e-4)


def test_what_a_rule_ignores_has_no_edges():
    assert set(jacobians(attached, numbers((3,)), numbers((3,), 1))) == {(1, 0)}
    assert set(jacobians(rotated, numbers((2,)), numbers((3,)))) == {(0, 1), (1, 0)}


@jax.custom_jvp
def rotated(x, y):
    return jnp.sin(y), jnp.cos(x), x + 1


rotated.defjvp(lambda p, t: (rotated(*p), (t[1] * 2.0, t[0] * 3.0, jnp.zeros_like(p[0]))))


def test_pairs_of_inputs_and_outputs():
    check(rotated, numbers((2,)), numbers((3,)), semirings=LIGHT)
    found = sj.semiring_vjp(
        lambda x, y: rotated(x, y)[2], *map(numbers, [(2,), (3,)]), semiring=LIGHT
    )
    for elements in found[1]():
        assert (elements["max"].max == -np.inf).all()


# Rules that cannot be batched.

EXPERTS = jnp.asarray(numbers((2, 3, 2)))
SIZES = np.array([1, 3], np.int32)

doubled_p = Primitive("doubled")
doubled_p.def_impl(lambda x: 2 * x)
doubled_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(doubled_p, mlir.lower_fun(lambda x: 2 * x, multiple_results=False))
ad.deflinear2(doubled_p, lambda g, _: [doubled_p.bind(g)])


def on_the_host(x):
    return jax.pure_callback(lambda x: np.asarray(x)[::-1] * np.float32(2), x, x)


NOT_BATCHED = {
    "experts": (lambda x: lax.ragged_dot(x, EXPERTS, SIZES), numbers((4, 3))),
    "by the experts": (lambda w: lax.ragged_dot(numbers((4, 3)), w, SIZES), EXPERTS),
    "a linear call": (
        lambda x: jax.custom_derivatives.linear_call(
            lambda r, x: r * x, lambda r, ct: r * ct, jnp.arange(3.0), x
        ),
        numbers((3,)),
    ),
    "a callback": (
        with_backward(lambda _, g: on_the_host(g), forward=on_the_host),
        numbers((3,)),
    ),
    "a primitive": (lambda x: doubled_p.bind(x), numbers((3,))),
}


@pytest.mark.parametrize("name", NOT_BATCHED)
def test_without_a_batching_rule(name):
    fun, x = NOT_BATCHED[name]

    def loss(x):
        return jnp.tanh(fun(x)).sum()

    found = {}
    for transformed in (lambda f: f, jax.jit):
        found = transformed(sj.semiring_grad(loss, {**SEMIRINGS, "mass": sj.AbsSumProduct()}))(x)
        np.testing.assert_allclose(found["sum"], jax.grad(loss)(x), rtol=1e-4, atol=1e-6)
    rows = jax.jacrev(lambda x: jnp.tanh(unbatched(fun)(x)))(x)
    weights = np.asarray(rows).reshape(-1, *x.shape)
    np.testing.assert_allclose(found["mass"], np.abs(weights).sum(0), rtol=1e-4, atol=1e-6)
    largest = np.where(weights != 0, weights, -np.inf).max(0)
    np.testing.assert_allclose(found["max"], largest, rtol=1e-4, atol=1e-6)


def unbatched(fun):
    """The same, for ``jax.jacrev``: its rows one by one."""

    @jax.custom_vjp
    def function(x):
        return fun(x)

    def backward(x, g):
        one_by_one = jax.custom_batching.sequential_vmap(lambda g: jax.vjp(fun, x)[1](g)[0])
        return (one_by_one(g),)

    function.defvjp(lambda x: (fun(x), x), backward)
    return function


# Rules that close over something.


def test_a_rule_that_closes_over_a_value_says_so():
    @functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
    def masked(x, mask):
        return x * mask

    masked.defjvp(lambda mask, p, t: (masked(p[0], mask), t[0] * mask))

    def by_argument(x):
        return (masked(x, jnp.arange(3) > 1) * x).sum()

    def by_closure(x):
        kept = jnp.arange(3) > 1
        return (with_backward(lambda _, g: g * kept)(x) * x).sum()

    for name, fun in (("masked", by_argument), ("function", by_closure)):
        message = f"derivative rule of '{name}' at .*test_pullback.*Make it an argument"
        for transformed in (lambda f: f, jax.jit):
            with pytest.raises(NotImplementedError, match=message):
                transformed(sj.semiring_grad(fun, sj.SumProduct()))(X)


def test_a_rule_may_close_over_what_is_known_outside():
    kept = jnp.arange(3.0)

    @jax.jit
    def outer(x, y):
        function = with_backward(lambda _, g: g * kept + g * y)
        return sj.semiring_grad(lambda x: function(x).sum(), sj.SumProduct())(x)

    np.testing.assert_allclose(outer(X, 2 * X), kept + 2 * X)


def test_a_rule_that_writes_to_an_array():
    def backward(_, g):
        total = jax.new_ref(jnp.zeros(3))
        total[...] = g * 2
        return total[...] * W

    fun = weighted(with_backward(backward))
    for transformed in (lambda f: f, jax.jit):
        found = transformed(sj.semiring_grad(fun, SEMIRINGS))(X)
        np.testing.assert_allclose(found["sum"], jax.grad(fun)(X), rtol=1e-6)
        np.testing.assert_allclose(found["max"], found["sum"])


# Edges of weight 0, and what a selection makes of them.

SPARSE = jnp.asarray(numbers((3, 2)) * np.array([[1, 0], [0, 0], [1, 1]], np.float32))


@jax.custom_jvp
def sparse_jvp(x):
    return SPARSE @ x


sparse_jvp.defjvp(lambda p, t: (sparse_jvp(*p), SPARSE @ t[0]))

sparse_vjp = with_backward(lambda _, g: SPARSE.T @ g, forward=lambda x: SPARSE @ x)


@jax.custom_jvp
def of_positive(x):
    return jnp.cumsum(x)


of_positive.defjvp(lambda p, t: (of_positive(*p), jnp.cumsum(jnp.where(p[0] > 0, t[0], 0.0))))


@jax.custom_jvp
def dead(x):
    return x


dead.defjvp(lambda p, t: (dead(*p), 0.0 * t[0][::-1]))

STRUCTURES = {
    "a rule with a matrix": (sparse_jvp, numbers((2,))),
    "a backward rule with a matrix": (sparse_vjp, numbers((2,))),
    "an atomic matrix": (sj.atomic(lambda x: SPARSE @ x), numbers((2,))),
    "an atomic matrix from the left": (sj.atomic(lambda x: x @ SPARSE), numbers((3,))),
    "a rule that selects": (of_positive, numbers((5,))),
    "a rule with a factor of 0": (dead, numbers((3,))),
    "an atomic mask": (sj.atomic(lambda x: jnp.tril(x) + x.T), numbers((3, 3))),
    "overwritten": (sj.atomic(lambda x: x.at[1].set(0.0) * 2), numbers((5,))),
    "a dead unit": (sj.atomic(lambda x: jax.nn.relu(x).sum() * x), numbers((5,))),
    "in a loop": (
        sj.atomic(lambda x: lax.scan(lambda c, t: (c * 0.0 + t, c * t), 1.0, x)[1]),
        numbers((3,)),
    ),
    "the first branch": (
        sj.atomic(lambda x: lax.cond(x[0] < 9, lambda x: x[::-1] * 0, jnp.cumsum, x)),
        numbers((3,)),
    ),
    "the second branch": (
        sj.atomic(lambda x: lax.cond(x[0] > 9, lambda x: x[::-1] * 0, jnp.cumsum, x)),
        numbers((3,)),
    ),
    "a rule inside of a function": (sj.atomic(lambda x: sparse_jvp(x[:2]) * x), numbers((3,))),
    "few inputs": (
        sj.atomic(lambda x: (SPARSE @ x)[None] * jnp.array([[1.0], [0]])),
        numbers((2,)),
    ),
    "solved": (sj.atomic(lambda x: jnp.linalg.solve(MATRIX, x)), numbers((3,))),
}


@pytest.mark.parametrize("part", range(4))
def test_edges_of_weight_0(part):
    """Against all paths: where the others are negative, one of weight 0 is the largest."""
    check_each(dict([*STRUCTURES.items()][part::4]), semirings=LIGHT)


@pytest.mark.parametrize("name", ["a rule that selects", "overwritten", "few inputs"])
def test_structure_as_a_matrix(name):
    check_dense(*STRUCTURES[name])


def test_an_atomic_function_has_the_edges_of_its_paths():
    """To make a part one node keeps the largest of sums, where all weights are 0 or below."""

    def fun(part, x):
        return -jnp.abs(part(x)).sum()

    for part in (lambda x: jnp.tril(x) * 2, lambda x: jax.nn.relu(x), lambda x: x.at[0].set(0)):
        found = [
            sj.semiring_grad(functools.partial(fun, p), sj.MaxProduct())(numbers((3, 3)))
            for p in (part, sj.atomic(part))
        ]
        np.testing.assert_allclose(*found)


def test_a_path_of_weight_0_is_found():
    best = sj.top_paths(lambda x: -sparse_vjp(x)[:2].sum(), by="max")(jnp.ones(2))
    assert best[0].weight == 0


UNFOLLOWED = with_backward(
    lambda _, g: on_the_host(SPARSE @ (SPARSE.T @ g)), forward=lambda x: 1.0 * x
)


def test_an_exact_0_is_no_edge_where_nobody_can_follow():
    found = sj.semiring_grad(lambda x: -(UNFOLLOWED(x) ** 2).sum(), sj.MaxProduct())(jnp.ones(3))
    matrix = 2 * np.asarray(SPARSE @ SPARSE.T)[::-1]
    weights = np.where(matrix != 0, -2 * matrix, -np.inf)
    np.testing.assert_allclose(found, weights.max(1), rtol=1e-5)


def test_what_a_rule_did_not_select_is_0_whatever_arrives():
    @jax.custom_jvp
    def gate(x):
        return jnp.where(x > 0, x, 0.0)

    gate.defjvp(lambda p, t: (gate(*p), jnp.where(p[0] > 0, t[0], 0.0)))

    def pooled(x):  # mixes
        return gate(x) + of_positive(x)[-1]

    x = jnp.array([-1.0, 4.0, 9.0, -0.5, 1.0])
    assert isinstance(jacobians(gate, x)[0, 0], Diagonal)
    for name, function in (
        ("relu", lambda x: jnp.sqrt(jax.nn.relu(x)).sum()),
        ("relu6", lambda x: jnp.log(jax.nn.relu6(x)).sum()),
        ("a gate", lambda x: jnp.sqrt(gate(x)).sum()),
        ("an atomic gate", lambda x: jnp.sqrt(sj.atomic(gate)(x)).sum()),
        ("mixed", lambda x: jnp.log(sj.atomic(pooled)(x) - 14.0).sum()),
    ):
        expected = jax.grad(function)(x)
        assert np.isfinite(expected[x < 0]).all(), name
        for transformed in (lambda f: f, jax.jit):
            found = transformed(sj.semiring_grad(function, LIGHT))(x)
            np.testing.assert_allclose(found["sum"], expected, rtol=1e-5, err_msg=name)
            if name != "mixed":  # there is but one path from each
                np.testing.assert_allclose(found["max"], expected, rtol=1e-5, err_msg=name)
                np.testing.assert_allclose(found["abs max"], abs(expected), rtol=1e-5)

"""Collectives over an axis that is mapped outside: the paths are those of all members together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from .oracle import ALL, LIGHT, check, check_each, numbers

MEMBERS, WIDTH = 3, 2
SHIFT = [(source, (source + 1) % MEMBERS) for source in range(MEMBERS)]
# The same paths take a step more or less where the axis is mapped inside.
SEMIRINGS = {name: s for name, s in ALL.items() if name != "length"}
BRIEF = {name: s for name, s in LIGHT.items() if name != "length"}


def of_members(*shape, seed=0):
    return numbers((MEMBERS, *shape), seed)


X, W = of_members(WIDTH), of_members(WIDTH, seed=1)
SQUARE = of_members(MEMBERS, WIDTH)

LINEAR = {
    "psum": (lambda x, w: w * lax.psum(x * w, "i"), X, W),
    "psum of psum": (lambda x: jnp.sin(lax.psum(x * lax.psum(x, "i"), "i")), X),
    "pmean": (lambda x, w: w * (x - lax.pmean(x, "i")) ** 2, X, W),
    "psum of several": (lambda x, w: lax.psum((x, x * w), "i")[1] * x, X, W),
    "by the index": (lambda x: lax.psum(x * lax.axis_index("i"), "i"), X),
    "of a constant": (lambda x: x * lax.psum(jnp.ones(WIDTH), "i"), X),
    "all_gather": (lambda x, w: w * (lax.all_gather(x, "i") ** 2)[1], X, W),
    "all_gather along an axis": (lambda x: lax.all_gather(x, "i", axis=1) * 2.0, X),
    "all_gather, tiled": (lambda x: lax.all_gather(x, "i", tiled=True)[1:4] ** 2, X),
    "psum_scatter": (lambda x, w: w * lax.psum_scatter(x, "i"), SQUARE, W),
    "psum_scatter, tiled": (lambda x: lax.psum_scatter(jnp.sin(x), "i", tiled=True), SQUARE),
    "ppermute": (lambda x, w: w * lax.ppermute(x * w, "i", SHIFT), X, W),
    "pshuffle": (lambda x: x * lax.pshuffle(x, "i", [2, 0, 1]), X),
    "all_to_all": (lambda x: lax.all_to_all(x, "i", 0, 0) * x, SQUARE),
    "all_to_all, tiled": (lambda x: lax.all_to_all(x.T, "i", 1, 0, tiled=True) ** 2, SQUARE),
    "in a scan": (
        lambda x, w: lax.scan(lambda c, t: (c * t - lax.pmean(c, "i"), c), x, w)[0],
        *(X, W),
    ),
    "in a branch": (
        lambda x, w: lax.cond(jnp.ones(()) > 0, lambda x: lax.psum(x * w, "i"), lambda x: x, x),
        *(X, W),
    ),
    "in a function that is called": (
        lambda x: jax.checkpoint(lambda x: jax.jit(lambda x: x * lax.psum(x, "i"))(x))(x),
        X,
    ),
}


def test_every_collective():
    check_each(LINEAR, semirings=BRIEF, axis_name="i")


@pytest.mark.parametrize("name", ["pmean", "all_gather", "psum_scatter", "ppermute", "all_to_all"])
def test_in_all_semirings(name):
    check(*LINEAR[name], semirings=SEMIRINGS, axis_name="i")


def test_between_different_axes():
    """JAX's own transpose of this one has another shape than it should."""

    def fun(x):
        return lax.all_to_all(x, "i", 0, 1) * 2.0

    x = of_members(MEMBERS, WIDTH)
    check(fun, x, semirings=BRIEF, axis_name="i", against_jax=False)


@pytest.mark.parametrize("ties", [False, True])
def test_maximum_and_minimum(ties):
    """JAX has no derivative of these; a maximum over an axis has the same edges."""
    x = np.round(X) if ties else X

    def fun(x, w):
        return w * lax.pmax(x, "i"), lax.pmin(x * w, "i") * x

    def whole(x, w):
        return w * x.max(0), (x * w).min(0) * x

    check(fun, x, W, semirings=BRIEF, reference=whole, axis_name="i", against_jax=False)


def test_an_axis_that_is_mapped_inside_is_a_positional_one():
    def fun(x):
        mapped = jax.vmap(lambda x: x * lax.psum(x, "i") + lax.pmax(x, "i"), axis_name="i")
        return mapped(x)

    def plain(x):
        return x * x.sum(0) + x.max(0)

    semirings = {name: s for name, s in LIGHT.items()}
    check(fun, X, semirings=semirings, reference=plain, against_jax=False)


def test_two_axes():
    """One mapped outside, one inside, and a sum over both."""

    def fun(x):
        inner = jax.vmap(lambda x: x * lax.psum(x, ("i", "j")) - lax.pmax(x, "i"), axis_name="j")
        return inner(x)

    def whole(x):
        return x * x.sum((0, 1)) - x.max(0)

    x = of_members(WIDTH, WIDTH)
    check(fun, x, semirings=BRIEF, reference=whole, axis_name="i", against_jax=False)


def test_complex_numbers():
    def fun(x, w):
        return jnp.abs(lax.psum(lax.complex(x, w), "i")) * x

    def gradient(f):
        return jax.vmap(f, axis_name="i")(X, W)

    found = gradient(sj.semiring_grad(lambda x, w: fun(x, w).sum(), sj.SumProduct(), (0, 1)))
    expected = gradient(jax.grad(lambda x, w: fun(x, w).sum(), (0, 1)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), found, expected)


def test_batch_normalization_over_the_batch():
    """The population's statistics are of all members: the gradient of one is of all outputs."""
    from flax import linen as nn

    norm = nn.BatchNorm(use_running_average=False, axis_name="i")
    rows = of_members(WIDTH, seed=4)
    variables = norm.init(jax.random.key(0), rows)

    def fun(x):
        return jnp.sin(norm.apply(variables, x, mutable=["batch_stats"])[0]).sum()

    found = jax.vmap(sj.semiring_grad(fun, sj.SumProduct()), axis_name="i")(rows)
    expected = jax.vmap(jax.grad(fun), axis_name="i")(rows)
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5)
    whole = sj.semiring_grad(lambda x: jax.vmap(fun, axis_name="i")(x).sum(), sj.AbsMaxProduct())
    found = jax.vmap(sj.semiring_grad(fun, sj.AbsMaxProduct()), axis_name="i")(rows)
    np.testing.assert_allclose(found, whole(rows), 1e-4, 1e-5)


@jax.custom_vjp
def straight_through(x):
    return lax.psum(x, "i")


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))


@jax.custom_vjp
def synchronized(x):
    return 1.0 * x


synchronized.defvjp(lambda x: (synchronized(x), None), lambda _, g: (lax.psum(g, "i"),))


@pytest.mark.parametrize(
    "function",
    [
        *(synchronized, sj.atomic(lambda x: lax.psum(x, "i"))),
        sj.atomic(jax.jit(lambda x: lax.ppermute(x, "i", SHIFT))),
    ],
    ids=["in the derivative", "atomic", "atomic ppermute"],
)
def test_one_node_that_exchanges_is_refused(function):
    def fun(x):
        return jnp.sin(function(x)).sum()

    with pytest.raises(
        NotImplementedError, match=r"by p\w+\).*test_collectives.*[Mm]ap the axis ins"
    ):
        jax.vmap(sj.semiring_grad(fun, sj.MaxProduct()), axis_name="i")(X)


def test_one_node_whose_derivative_exchanges_nothing_has_the_edges_of_its_rule():
    def fun(x):
        return jnp.sin(straight_through(x)).sum()

    found = jax.vmap(sj.semiring_grad(fun, SEMIRINGS), axis_name="i")(X)
    expected = np.broadcast_to(np.cos(X.sum(0)), X.shape)
    np.testing.assert_allclose(found["sum"], expected, 1e-5)
    np.testing.assert_allclose(found["max"], expected, 1e-5)
    np.testing.assert_allclose(found["sum"], jax.vmap(jax.grad(fun), axis_name="i")(X), 1e-5)


def test_one_node_that_only_asks_for_its_index_is_not():
    @jax.custom_jvp
    def numbered(x):
        return x * lax.axis_index("i")

    numbered.defjvp(lambda p, t: (numbered(*p), t[0] * lax.axis_index("i")))
    found = jax.vmap(sj.semiring_grad(lambda x: numbered(x).sum(), sj.SumProduct()), axis_name="i")(
        X
    )
    np.testing.assert_array_equal(found, np.repeat(np.arange(MEMBERS), WIDTH).reshape(X.shape))


def test_a_single_path_cannot_be_followed_to_other_members():
    def fun(x):
        return jnp.sin(lax.psum(x, "i"))

    def follow(_):
        return sj.top_paths(fun)(1.0)[0].weight  # the same number in all of them

    with pytest.raises(NotImplementedError, match=r"one member of the axes \('i',\) to others"):
        jax.vmap(follow, axis_name="i")(X)
    with pytest.raises(jax.errors.ConcretizationTypeError, match="outside of jit, vmap"):
        jax.vmap(lambda x: sj.top_paths(lambda x: fun(x).sum())(x)[0].weight, axis_name="i")(X)


def test_sites_of_all_members():
    """What flows through a member's array is what flows from all members to all outputs."""

    def fun(x):
        return jnp.sum(jnp.sin(x * lax.psum(jnp.cos(x), "i")))

    names = ["cos", "psum", "sin"]
    found = jax.vmap(lambda x: sj.site_flow(fun, sj.AbsSumProduct(), names)(x), axis_name="i")(X)

    def whole(x):
        return jax.vmap(fun, axis_name="i")(x).sum()

    expected = sj.site_flow(whole, sj.AbsSumProduct(), names)(X)
    for name in ("cos", "sin"):
        np.testing.assert_allclose(found[name], expected[name], 1e-5)
        np.testing.assert_allclose(found.share()[name], expected.share()[name], 1e-5)
    # Mapped inside, the sum is one array; outside, each member has its own.
    np.testing.assert_allclose(found["psum"].sum(0), expected["psum"], 1e-5)
    with pytest.raises(NotImplementedError, match=r"axes \('i',\).*inside of the function"):
        jax.vmap(lambda x: sj.component_flow(fun, sj.Entropy())(x).total, axis_name="i")(X)

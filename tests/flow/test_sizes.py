"""Shares, winners, tables and pictures: of masses beyond float32, of NaN, of a user's semiring."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import named_scope as scope

import semijax as sj
from semijax import tap

# Masses beyond float32.

LAYERS, WIDTH = 48, 5
MATRICES = np.random.default_rng(0).normal(0, 20, (LAYERS, WIDTH, WIDTH)).astype(np.float32)
MATRICES[::2] /= 400  # so that the skip connections win in every other layer
LAST = np.array([1.0, -2.0, 0.0, 0.5, 3.0], np.float32)
X = jnp.asarray(np.linspace(-1, 1, 3 * WIDTH).reshape(3, WIDTH), jnp.float32)
SITES = [f"h{n}" for n in range(LAYERS)]


def deep(x):
    """A linear residual network."""
    for n, matrix in enumerate(MATRICES):
        x = tap(x, f"h{n}")
        with scope(f"mlp{n}"):
            y = x @ matrix
        x = x + y
    return (x @ LAST).sum()


def exact():
    """In float64: the masses to and from each layer's input; Σ over paths of Π |w| is a product."""
    to, behind = [np.abs(LAST).astype(np.float64)], [np.ones(WIDTH)]
    for matrix in np.abs(MATRICES[::-1].astype(np.float64)):
        to.insert(0, to[0] + matrix @ to[0])
    for matrix in np.abs(MATRICES.astype(np.float64)):
        behind.append(behind[-1] + behind[-1] @ matrix)
    return to, behind


MASSES = [sj.AbsSumProduct(), sj.Entropy(), sj.PathLength()]


@pytest.mark.parametrize("semiring", MASSES, ids=repr)
def test_branches_at_any_depth(semiring):
    to, _ = exact()
    assert to[0].min() > 1e40
    branches = {"mlp": "mlp*", "skip": sj.REST}
    flow = jax.jit(sj.branch_flow(deep, semiring, SITES, branches))(X)
    shares, winners, alone = flow.share(), flow.winner(), flow.only_winners()
    for n, site in enumerate(SITES):
        skip = to[n + 1].sum() / to[n].sum()
        np.testing.assert_allclose(shares[site]["mlp"], [1 - skip] * 3, rtol=1e-4)
        np.testing.assert_allclose(shares[site]["skip"], [skip] * 3, rtol=1e-4)
        assert winners[site].tolist() == ["mlp" if skip < 0.5 else "skip"] * 3
        assert not any(np.isnan(kept).any() for kept in alone[site].values())
    assert {name for own in winners.values() for name in own} == {"mlp", "skip"}
    assert "Share of the gradient's mass" in flow.plot().caption


def test_a_table_has_room_for_every_mass():
    to, _ = exact()
    log = np.log(to[1].sum())
    assert log > 89  # of what is read, e⁸⁸ is the largest
    flow = sj.branch_flow(deep, sj.AbsSumProduct(), ["h0", f"h{LAYERS - 1}"])(X)
    lines = str(flow).splitlines()
    assert f"exp({log:.4g})" in lines[1] and "inf" not in str(flow) and "nan" not in str(flow)
    assert np.isinf(flow["h0"]["add"]).all() and np.isfinite(flow[f"h{LAYERS - 1}"]["add"]).all()
    values = sj.site_flow(deep, sj.AbsSumProduct(), "h*", aggregate=-1)(X)
    assert str(values).count("exp(") == 3 * LAYERS and "inf" not in str(values)
    assert "exp(" in str(sj.component_flow(deep, sj.AbsSumProduct())(X))


@pytest.mark.parametrize("semiring", MASSES, ids=repr)
def test_sites_and_components_at_any_depth(semiring):
    to, behind = exact()
    total = to[0].sum() * 3
    flow = sj.site_flow(deep, semiring, "h*")(X)
    for n, site in enumerate(SITES):
        wanted = np.tile(behind[n] * to[n] / total, (3, 1))
        np.testing.assert_allclose(flow.share()[site], wanted, 2e-4, 1e-7)
    found = sj.component_flow(deep, semiring)(X)
    shares = found.share()
    for n in range(LAYERS):
        wanted = 1 - 3 * behind[n] @ to[n + 1] / total
        np.testing.assert_allclose(shares[f"mlp{n}"], wanted, rtol=2e-4)
        np.testing.assert_allclose(found.edges[f"mlp{n}"], wanted, rtol=2e-4)  # one edge per layer


def test_a_heat_map_of_infinite_masses_is_refused_and_one_of_shares_drawn():
    flow = sj.site_flow(deep, sj.AbsSumProduct(), "h*", aggregate=-1)(X)
    with pytest.raises(ValueError, match=r"infinite at 'h0'.*plot\(share=True\)"):
        flow.plot()
    caption = flow.plot(share=True).caption
    assert "Share of the gradient's mass" in caption and "no path" not in caption
    nowhere = sj.site_grads(
        lambda x: tap(jnp.sin(x), "y")[0].sum(), sj.MaxProduct(), "y", aggregate=-1
    )
    assert "hatched: no path" in nowhere(X).plot().caption


# What is not a number.


def unknown(x):
    """The left branch's weight is NaN at token 1, and 3 elsewhere; the right one's is 2."""
    x = tap(x, "y")
    with scope("left"):
        a = x * jnp.array([[3.0], [jnp.nan], [3.0]])
    with scope("right"):
        b = x * 2
    return (a + b).sum()


SIZED = [
    sj.SumProduct(),
    sj.MaxProduct(),
    sj.AbsMaxProduct(),
    sj.AbsSumProduct(),
    sj.Entropy(),
    sj.PathLength(),
    sj.PathCount(),
]


@pytest.mark.parametrize("semiring", [*SIZED, sj.MinProduct()], ids=repr)
@pytest.mark.parametrize("reduce", ["oplus", "sum"])
def test_nothing_is_named_where_a_value_is_nan(semiring, reduce):
    flow = sj.branch_flow(unknown, semiring, "y", reduce=reduce)(X)
    first = "right" if semiring == sj.MinProduct() else "left"
    assert flow.winner()["y"].tolist() == [first, "", first]
    for of_branch in (flow.share()["y"], flow.only_winners()["y"]):
        for numbers in of_branch.values():
            assert np.isnan(numbers).tolist() == [False, True, False]
    frame = flow.to_dataframe()
    assert frame.groupby("token").winner.sum().tolist() == [1, 0, 1]
    assert "nan" in str(flow).splitlines()[2]
    with pytest.raises(ValueError, match=r"branches of 'y' have no shares at 1 of .* index \(1,\)"):
        flow.plot()


@pytest.mark.parametrize("semiring", SIZED, ids=repr)
def test_shares_of_an_unknown_total_are_unknown(semiring):
    sites = sj.site_flow(unknown, semiring, ["left", "right"])(X)
    assert all(np.isnan(share).all() for share in sites.share().values())
    components = sj.component_flow(unknown, semiring)(X)
    assert np.isnan([*components.share().values()]).all()
    assert np.isnan([*components.edges.values()]).all()


def huge(x):
    """Weights of −10⁶⁰ and 2 · 10⁶⁰, beyond float32, and one of 3; of 3 only at the last token."""
    x = tap(x, "y") * 1
    big = jnp.array([[1e30], [1e30], [0.0]])
    with scope("one"):
        a = x * big * -1e30
    with scope("two"):
        b = x * big * jnp.array([[2e30], [0.0], [0.0]])
    with scope("small"):
        c = x * 3
    return (a + b + c).sum()


@pytest.mark.parametrize("semiring", [sj.SumProduct(), sj.AbsMaxProduct()], ids=repr)
def test_two_infinite_numbers_cannot_be_compared(semiring):
    flow = sj.branch_flow(huge, semiring, "mul")(X)
    assert flow.winner()["mul"].tolist() == ["", "one", "small"]
    alone = flow.only_winners()["mul"]
    assert np.isnan(alone["small"]).tolist() == [True, False, False] and alone["small"][1] == 0
    for share in flow.share()["mul"].values():
        assert np.isnan(share).tolist() == [True, True, False]


def test_masses_can():
    flow = sj.branch_flow(huge, sj.AbsSumProduct(), "mul")(X)
    assert flow.winner()["mul"].tolist() == ["two", "one", "small"]
    np.testing.assert_allclose(flow.share()["mul"]["two"], [2 / 3, 0, 0], rtol=1e-4)


def test_a_signed_maximum_of_weight_0_wins_over_no_path():
    def fun(x):
        y = tap(x, "y")
        with scope("zero"):
            a = y[0] * 0
        with scope("minus"):
            b = y[:2] * -3
        return a.sum() + b.sum()

    largest = sj.branch_flow(fun, sj.MaxProduct(), "y")(X).winner()["y"]
    assert largest.tolist() == ["zero", "minus", ""]
    smallest = sj.branch_flow(fun, sj.MinProduct(), "y")(X).winner()["y"]
    assert smallest.tolist() == ["minus", "minus", ""]
    sized = sj.branch_flow(fun, sj.AbsMaxProduct(), "y")(X).winner()["y"]
    assert sized.tolist() == ["minus", "minus", ""]


# Semirings of a user's own.


@dataclasses.dataclass(frozen=True)
class Bottleneck(sj.Semiring):
    """The guide's: the largest, over paths, of the smallest |derivative| on the path."""

    def zero(self, shape, dtype):
        return jnp.zeros(shape, dtype)

    def one(self, shape, dtype):
        return jnp.full(shape, jnp.inf, dtype)

    def lift(self, weights):
        return jnp.abs(weights)

    def add(self, a, b):
        return jnp.maximum(a, b)

    def mul(self, a, b):
        return jnp.minimum(a, b)


@dataclasses.dataclass(frozen=True)
class InLogarithms(Bottleneck):
    """The same, read as a logarithm."""

    units, size_of = "nats", "the widest path"

    def readout(self, elements):
        return jnp.log(elements)

    def log_size(self, elements):
        return jnp.log(elements)


@dataclasses.dataclass(frozen=True)
class Narrowest(sj.MaxProduct):
    """A signed one: the smallest number wins."""

    best = "smallest"

    def readout(self, elements):
        return elements.min


def two_ways(x):
    """Over the left the widest path is 0.5 wide, over the right 0.25, from the last token none."""
    y = tap(x, "y")
    with scope("left"):
        a = y[:2] * -0.5 * 4
    with scope("right"):
        b = y[:2] * 2 * 0.25
    return (a + b).sum()


@pytest.mark.parametrize("semiring", [Bottleneck(), InLogarithms()], ids=repr)
def test_a_users_semiring_has_all_that_others_have(semiring):
    sj.testing.check_semiring(semiring)
    flow = sj.branch_flow(two_ways, semiring, "y")(X)
    np.testing.assert_allclose(flow.share()["y"]["left"], [2 / 3, 2 / 3, 0], rtol=1e-6)
    assert flow.winner()["y"].tolist() == ["left", "left", ""]
    read = np.log if semiring.units else np.asarray
    assert flow.only_winners()["y"]["left"].tolist() == [read(np.float32(0.5))] * 2 + [0]
    assert f"{semiring!r}, ⊕" in str(flow) and str(flow).count("  left") == 3
    what = semiring.size_of or f"the absolute value of {semiring!r}"
    assert f"Share of {what}" in flow.plot().caption
    sites = sj.site_flow(two_ways, semiring, ["y", "right"], aggregate=-1)(X)
    np.testing.assert_allclose(sites.share()["right"], [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(sites.share()["y"], [1, 1, 0], rtol=1e-6)
    assert sj.site_grads(two_ways, semiring, "y", aggregate=-1)(X).plot().caption
    components = sj.component_flow(two_ways, semiring)(X)
    np.testing.assert_allclose(components.share()["right"], 0.5, rtol=1e-6)
    assert list(components.to_dataframe()) == ["component", "flow", "edges", "share"]
    assert str(components).count("0.5") >= 1 and repr(semiring) in str(components)


def test_sums_of_a_users_semiring_over_hidden_units():
    """Of sizes, or of what is read where that is the size."""
    for semiring in (Bottleneck(), InLogarithms()):
        flow = sj.branch_flow(two_ways, semiring, "y", reduce="sum")(X)
        np.testing.assert_allclose(flow.share()["y"]["left"], [2 / 3, 2 / 3, 0], rtol=1e-6)


def test_a_users_semiring_says_which_number_wins():
    winners = sj.branch_flow(two_ways, Narrowest(), "y")(X).winner()["y"]
    assert winners.tolist() == ["left", "left", ""]  # −2, and 0.5


@pytest.mark.parametrize("semiring", [sj.Reachability(), sj.TopK(2)], ids=repr)
def test_what_reads_no_number_has_values_and_no_shares(semiring):
    flow = sj.branch_flow(two_ways, semiring, "y")(X)
    for ask in (flow.share, flow.winner, flow.only_winners, flow.plot):
        with pytest.raises(TypeError, match=f"{type(semiring).__name__} has no shares"):
            ask()
    assert str(sj.component_flow(two_ways, semiring)(X))

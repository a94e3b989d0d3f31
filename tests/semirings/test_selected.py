"""Across an edge that was not selected, what is infinite becomes what is finite becomes."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from semijax.semirings import Interval, Semiring, Weighted, as_semiring
from semijax.semirings.around_through import AroundThrough
from semijax.semirings.jitted import Jitted
from semijax.semirings.logarithmic import ZERO, LogAbsMaxProduct

INF, NAN = np.inf, np.nan


@dataclasses.dataclass(frozen=True)
class Bottleneck(Semiring):
    """The widest path, with what must be defined and nothing else; its 1̄ is infinite."""

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


def inside(equation):
    return equation == "inside"


NOTHING, NO_PATH = Interval(0, 0), Interval(-INF, INF)
HULLS = [(INF, INF), (-INF, -INF), (INF, -INF), (INF, 2), (2, -INF), (NAN, 1), (1, NAN), (3, 2)]
MEANS = [(INF, 0), (NAN, 1), (1, NAN), (2, INF), (2, -INF), (-INF, NAN), (-INF, 0), (1, 2)]
COARSE = sj.MaxProduct().by_operation()

# A semiring, elements, and what becomes of them.
TABLE = [
    (sj.SumProduct(), (INF, -INF, NAN, 2, 0), 0),
    (sj.AbsSumProduct(), (INF, NAN, 2, -INF), -INF),
    (sj.AbsMaxProduct(), (INF, NAN, 2, 0), 0),
    (sj.PathCount(), (INF, NAN, 2, -INF), -INF),
    (sj.Reachability(), (True, False), False),
    (sj.MaxProduct(), HULLS, NOTHING),
    (sj.MinProduct(), HULLS, NOTHING),
    (sj.MaxProduct(), [NO_PATH], NO_PATH),
    (sj.TopK(3), [[INF, 2, -INF], [NAN, 2, -INF]], [0, 0, -INF]),
    (sj.TopK(3), [[INF, INF, INF], [NAN, NAN, NAN]], [0, 0, 0]),
    (sj.TopK(3), [[2, -INF, -INF], [INF, -INF, -INF]], [0, -INF, -INF]),
    (sj.TopK(3), [[-INF, -INF, -INF]], [-INF, -INF, -INF]),
    (sj.Entropy(), MEANS, Weighted(-INF, 0)),
    (sj.PathLength(), MEANS, Weighted(-INF, 0)),
    (LogAbsMaxProduct(), (INF, NAN, 0), ZERO),
    (LogAbsMaxProduct(), [-INF], -INF),
    (Bottleneck(), (INF, NAN, 2, 0), 0),
    (COARSE, HULLS, NOTHING),
    (COARSE, [NO_PATH], NO_PATH),
    (COARSE.at(None), HULLS, NOTHING),
    (COARSE.by_operation(absent=True).at(None), [NO_PATH], NO_PATH),
]
CASES = [(semiring, given, becomes) for semiring, many, becomes in TABLE for given in many]


def element(semiring, numbers):
    """An array of shape (1,) with an element of these numbers."""
    like = semiring.zero((1,), jnp.float32)
    leaves = jax.tree.leaves(like)
    given = [numbers] if len(leaves) == 1 else [*numbers]
    return jax.tree.structure(like).unflatten(
        [
            jnp.asarray(n, leaf.dtype).reshape(leaf.shape)
            for n, leaf in zip(given, leaves, strict=True)
        ]
    )


def cut(semiring, elements):
    no = jnp.zeros(1, bool)
    return semiring.scale_selected(jnp.zeros(1), no, elements)


def assert_equal(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize(("semiring", "numbers", "becomes"), CASES, ids=repr)
def test_what_was_not_selected(semiring, numbers, becomes):
    given, want = element(semiring, numbers), element(semiring, becomes)
    assert_equal(cut(semiring, given), want)
    assert_equal(cut(Jitted(semiring), given), want)
    pair = as_semiring({"a": semiring, "b": sj.SumProduct()})
    got = cut(pair, {"a": given, "b": jnp.array([INF])})
    assert_equal(got, {"a": want, "b": jnp.zeros(1)})


ALL = list(dict.fromkeys(semiring for semiring, *_ in TABLE))


@pytest.mark.parametrize("semiring", ALL, ids=repr)
def test_what_was_selected_is_scaled(semiring):
    for number, weight in itertools.product((2.0, INF, -INF, NAN), (3.0, -0.5, 0.0)):
        elements, weights = semiring.lift(jnp.array([number])), jnp.array([weight])
        got = semiring.scale_selected(weights, jnp.ones(1, bool), elements)
        assert_equal(got, semiring.scale(weights, elements))


@pytest.mark.parametrize("semiring", ALL, ids=repr)
def test_a_weight_of_0_is_no_path_where_it_is_said(semiring):
    zero = semiring.zero((1,), jnp.float32)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), semiring.lift(jnp.zeros(1)), zero)
    said = semiring.zero_weight_is_no_path or isinstance(semiring, Bottleneck)  # which may say so
    assert said == all(jax.tree.leaves(same))


def test_paths_around_and_through():
    apart = AroundThrough(sj.MaxProduct(), inside)
    infinite, none = element(sj.MaxProduct(), (INF, INF)), element(sj.MaxProduct(), NO_PATH)
    nothing = element(sj.MaxProduct(), NOTHING)
    for around, through in itertools.product((infinite, none), repeat=2):
        given = apart.join([around, through])
        want = [nothing if part is infinite else none for part in given]
        assert_equal(cut(apart.at("outside"), given), apart.join(want))
        entered = none if around is through is none else nothing
        assert_equal(cut(apart.at("inside"), given), apart.join([none, entered]))


REAL = [s for s in ALL if not isinstance(s, sj.Reachability)]


@pytest.mark.parametrize("semiring", REAL, ids=repr)
@pytest.mark.parametrize("number", [INF, NAN])
def test_derivatives_know_nothing_of_it(semiring, number):
    """Nor do JAX's of a selection: 0 for what was not selected, and finite for the others."""
    selected, weights = jnp.array([True, False]), jnp.array([3.0, 0.0])

    def total(weights, elements):
        found = semiring.scale_selected(weights, selected, elements)
        return sum(jnp.where(jnp.isfinite(x), x, 0).sum() for x in jax.tree.leaves(found))

    def gradients(second):
        elements = jax.tree.map(lambda x: x.at[1].set(second), semiring.lift(jnp.array([2.0, 5.0])))
        return jax.grad(total, (0, 1))(weights, elements)

    of_weights, of_elements = gradients(number)
    assert np.isfinite(of_weights).all()
    for found, want in zip(*map(jax.tree.leaves, (of_elements, gradients(5.0)[1])), strict=True):
        np.testing.assert_array_equal(found[1], 0)
        np.testing.assert_array_equal(found[0], want[0])


def test_the_gradient_is_jaxs():
    selected = jnp.array([True, False, True])
    cotangent, x = jnp.array([INF, INF, 2.0]), jnp.array([1.0, 2.0, 3.0])
    (want,) = jax.vjp(lambda x: jnp.where(selected, x, 0), x)[1](cotangent)
    got = sj.SumProduct().scale_selected(selected.astype(float), selected, cotangent)
    np.testing.assert_array_equal(got, want)

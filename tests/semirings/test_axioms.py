"""Every semiring that the library ships is one, and its fast operations are the slow ones."""

import dataclasses

import jax.numpy as jnp
import pytest

import semijax as sj

SEMIRINGS = [
    sj.SumProduct(),
    sj.AbsSumProduct(),
    sj.MaxProduct(),
    sj.MinProduct(),
    sj.AbsMaxProduct(),
    sj.Entropy(),
    sj.PathLength(),
    sj.TopK(1),
    sj.TopK(3),
    sj.TopK(4),
    sj.PathCount(),
    sj.Reachability(),
    {"max": sj.MaxProduct(), "more": (sj.Entropy(), sj.TopK(2))},
]


@pytest.mark.parametrize("semiring", SEMIRINGS, ids=str)
def test_axioms(semiring):
    sj.testing.check_semiring(semiring)


def test_max_times_on_signed_numbers_is_caught():
    @dataclasses.dataclass(frozen=True)
    class SignedMax(sj.Semiring):
        def zero(self, shape, dtype):
            return jnp.full(shape, -jnp.inf, dtype)

        def one(self, shape, dtype):
            return jnp.ones(shape, dtype)

        def lift(self, weights):
            return weights

        def add(self, a, b):
            return jnp.maximum(a, b)

        def mul(self, a, b):
            none = (a == -jnp.inf) | (b == -jnp.inf)
            return jnp.where(none, -jnp.inf, a * b)

    with pytest.raises(AssertionError, match="distribut"):
        sj.testing.check_semiring(SignedMax())


@pytest.mark.parametrize("k", [0, -1, 2.0, "3"])
def test_top_k_needs_a_positive_integer(k):
    with pytest.raises(ValueError, match="integer of at least 1"):
        sj.TopK(k)


@pytest.mark.parametrize("wrong", [sj.Entropy, (), "max", [sj.Entropy(), 3], None])
def test_what_is_no_semiring_is_refused(wrong):
    with pytest.raises(TypeError, match="semiring"):
        sj.semiring_grad(jnp.sum, wrong)


def test_semirings_are_values():
    assert sj.TopK(3) == sj.TopK(3)
    assert hash(sj.Entropy()) == hash(sj.Entropy())
    assert sj.TopK(3) != sj.TopK(2)

"""The axiom checker: it accepts what is a semiring, and names the law that is broken."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from semijax.semirings import Semiring
from semijax.testing import check_semiring


@dataclasses.dataclass(frozen=True)
class Real(Semiring):
    """(+, ×): the base of most of the broken ones below."""

    def zero(self, shape, dtype):
        return jnp.zeros(shape, dtype)

    def one(self, shape, dtype):
        return jnp.ones(shape, dtype)

    def lift(self, weights):
        return weights

    def add(self, a, b):
        return a + b

    def mul(self, a, b):
        return a * b


# Semirings.


class FastReal(Real):
    """Overrides everything, correctly."""

    def scale(self, weights, elements):
        return weights * elements

    def pass_through(self, elements):
        return elements

    def sum(self, elements, axes):
        return elements.sum(axes)

    def contract(self, weights, elements):
        return jnp.einsum("bmk,bkn->bmn", weights, elements)

    def segment_sum(self, elements, segments, count):
        kept = jnp.where(segments < 0, count, segments)
        return jnp.zeros(count, elements.dtype).at[kept].add(elements, mode="drop")


@dataclasses.dataclass(frozen=True)
class Tropical(Semiring):
    """(min, +): 0̄ is an infinity."""

    def zero(self, shape, dtype):
        return jnp.full(shape, jnp.inf, dtype)

    def one(self, shape, dtype):
        return jnp.zeros(shape, dtype)

    def lift(self, weights):
        return jnp.abs(weights)

    def add(self, a, b):
        return jnp.minimum(a, b)

    def mul(self, a, b):
        return a + b


@dataclasses.dataclass(frozen=True)
class Boolean(Semiring):
    """(or, and): the elements are not even numbers."""

    def zero(self, shape, dtype):
        return jnp.zeros(shape, bool)

    def one(self, shape, dtype):
        return jnp.ones(shape, bool)

    def lift(self, weights):
        return weights != 0

    def add(self, a, b):
        return a | b

    def mul(self, a, b):
        return a & b


@dataclasses.dataclass(frozen=True)
class Letters(Semiring):
    """Shortest paths, and which of three letters all of them have: leaves of different dtypes."""

    def zero(self, shape, dtype):
        return {"length": jnp.full(shape, jnp.inf, dtype), "letters": jnp.full(shape, 7, jnp.int32)}

    def one(self, shape, dtype):
        return {"length": jnp.zeros(shape, dtype), "letters": jnp.zeros(shape, jnp.int32)}

    def lift(self, weights):
        letters = jnp.where(weights > 1, 1, jnp.where(weights < -1, 2, 4))
        return {"length": jnp.floor(jnp.abs(2 * weights)), "letters": letters}

    def add(self, a, b):
        less, more = a["length"] < b["length"], a["length"] > b["length"]
        tie = a["letters"] & b["letters"]
        letters = jnp.where(less, a["letters"], jnp.where(more, b["letters"], tie))
        return {"length": jnp.minimum(a["length"], b["length"]), "letters": letters}

    def mul(self, a, b):
        length = a["length"] + b["length"]
        return {
            "length": length,
            "letters": jnp.where(jnp.isinf(length), 7, a["letters"] | b["letters"]),
        }


@dataclasses.dataclass(frozen=True)
class Lengths(Semiring):
    """Path weight by path length, up to ``size`` edges: a trailing axis, ⊗ is a convolution."""

    size: int

    def zero(self, shape, dtype):
        return jnp.zeros((*shape, self.size), dtype)

    def one(self, shape, dtype):
        return self.zero(shape, dtype).at[..., 0].set(1)

    def lift(self, weights):
        return self.zero(weights.shape, weights.dtype).at[..., 1].set(weights)

    def add(self, a, b):
        return a + b

    def mul(self, a, b):
        terms = [
            jnp.pad(a[..., i, None] * b[..., : self.size - i], [(0, 0)] * (a.ndim - 1) + [(i, 0)])
            for i in range(self.size)
        ]
        return sum(terms)


@dataclasses.dataclass(frozen=True)
class LogEntropy(Semiring):
    """⟨log mass, entropy⟩ where the entropy of no mass is whatever it happens to be."""

    def zero(self, shape, dtype):
        return jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype)

    def one(self, shape, dtype):
        return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)

    def lift(self, weights):
        return jnp.log(jnp.abs(weights)), 3 + jnp.zeros_like(weights)

    def add(self, a, b):
        log_mass = jnp.logaddexp(a[0], b[0])
        finite = jnp.where(jnp.isneginf(log_mass), 0, log_mass)
        p, q = jnp.exp(a[0] - finite), jnp.exp(b[0] - finite)
        return log_mass, p * a[1] + q * b[1] - jax.scipy.special.xlogy(
            p, p
        ) - jax.scipy.special.xlogy(q, q)

    def mul(self, a, b):
        return a[0] + b[0], a[1] + b[1]


@dataclasses.dataclass(frozen=True)
class Tagged(Real):
    """A lift that depends on the equation."""

    factor: float = 1.0

    def at(self, equation):
        return Tagged(equation)

    def lift(self, weights):
        return weights * self.factor


@pytest.mark.parametrize(
    "semiring",
    [
        Real(),
        FastReal(),
        Tropical(),
        Boolean(),
        Letters(),
        Lengths(3),
        LogEntropy(),
        (Real(), Tropical()),
        [Boolean()],
        {"one": Real(), "both": (Tropical(), Lengths(2))},
    ],
    ids=str,
)
def test_a_semiring_passes(semiring):
    check_semiring(semiring)


def test_other_draws_pass():
    check_semiring(FastReal(), seed=1, samples=3)


def test_half_precision_passes():
    check_semiring(Real(), dtype=jnp.float16)


def test_lifts_of_equations_are_checked():
    check_semiring(Tagged(), equations=[2.0, -3.0])
    with pytest.raises(AssertionError, match="differ in structure"):
        check_semiring(Tagged(), equations=[jnp.ones(3)])


# A broken semiring for each law.


class PlainMaxProduct(Real):
    """(max, ×) on signed numbers."""

    def zero(self, shape, dtype):
        return jnp.full(shape, -jnp.inf, dtype)

    def add(self, a, b):
        return jnp.maximum(a, b)


class First(Real):
    def add(self, a, b):
        return a


class Mean(Real):
    def add(self, a, b):
        return (a + b) / 2


class Matrices(Real):
    """2×2 matrices: a semiring, but not a commutative one."""

    def zero(self, shape, dtype):
        return jnp.zeros((*shape, 2, 2), dtype)

    def one(self, shape, dtype):
        return jnp.broadcast_to(jnp.eye(2, dtype=dtype), (*shape, 2, 2))

    def lift(self, weights):
        ones = jnp.ones_like(weights)
        return jnp.stack([jnp.stack([weights, ones], -1), jnp.stack([0 * ones, ones], -1)], -2)

    def mul(self, a, b):
        return jnp.einsum("...ij,...jk->...ik", a, b)


class Difference(Real):
    def mul(self, a, b):
        return jnp.abs(a - b)


class SumMax(Real):
    def mul(self, a, b):
        return jnp.maximum(a, b)


class WrongZero(Real):
    def zero(self, shape, dtype):
        return jnp.full(shape, 0.5, dtype)


class WrongOne(Real):
    def one(self, shape, dtype):
        return jnp.full(shape, -1, dtype)


class OrOr(Boolean):
    """Every law but the last: 0̄ is the identity of both operations."""

    def one(self, shape, dtype):
        return jnp.zeros(shape, bool)

    def mul(self, a, b):
        return a | b


class NotANumber(Real):
    """NaN equals nothing, not even another NaN."""

    def add(self, a, b):
        return jnp.full_like(a, jnp.nan)


class ClippedZero(LogEntropy):
    """An infinite log mass excuses the entropy next to it, not one that is NaN."""

    def mul(self, a, b):
        log_mass = a[0] + b[0]
        return log_mass, jnp.where(jnp.isneginf(log_mass), jnp.nan, a[1] + b[1])


@pytest.mark.parametrize(
    ("semiring", "law"),
    [
        (PlainMaxProduct(), "⊗ distributes over ⊕"),
        (SumMax(), "⊗ distributes over ⊕"),
        (First(), "⊕ is commutative"),
        (Mean(), "⊕ is associative"),
        (Matrices(), "⊗ is commutative"),
        (Difference(), "⊗ is associative"),
        (WrongZero(), "0̄ is the identity of ⊕"),
        (WrongOne(), "1̄ is the identity of ⊗"),
        (OrOr(), "0̄ annihilates"),
        (NotANumber(), "⊕ is commutative"),
        (ClippedZero(), "⊗ is commutative"),
        ((Real(), PlainMaxProduct()), "⊗ distributes over ⊕"),
    ],
    ids=str,
)
def test_a_broken_law_is_named(semiring, law):
    with pytest.raises(AssertionError, match=f"not true that {law}"):
        check_semiring(semiring)


def test_the_counterexample_is_shown():
    with pytest.raises(AssertionError) as error:
        check_semiring(PlainMaxProduct())
    lines = str(error.value).splitlines()
    assert lines[0].startswith("PlainMaxProduct() is not a commutative semiring")
    assert [line.split(" = ")[0].strip() for line in lines[2:]] == [
        "a",
        "b",
        "c",
        "a ⊗ (b ⊕ c)",
        "(a ⊗ b) ⊕ (a ⊗ c)",
    ]
    a, b, c, left, right = (float(line.split(" = ")[-1]) for line in lines[2:])
    assert a < 0
    assert left == a * max(b, c)
    assert right == max(a * b, a * c)
    assert left < right


# What is not a law but must hold, too.


class Unhashable(Real):
    __hash__: Any = None


class WrongDtype(Real):
    def lift(self, weights):
        return weights.astype(jnp.bfloat16)


class WrongShape(Lengths):
    def one(self, shape, dtype):
        return jnp.ones((*shape, 1), dtype)


class WrongTree(Real):
    def mul(self, a, b):
        return (a * b,)


class WrongReadout(Real):
    def readout(self, elements):
        return elements.sum()


class MixedUp(Real):
    def add(self, a, b):
        return a + jnp.roll(b, 1, -1) if a.ndim else a + b


class WrongScale(Real):
    def scale(self, weights, elements):
        return elements


class WrongPassThrough(Real):
    def pass_through(self, elements):
        return 2 * elements


class WrongSumOfNothing(Real):
    def sum(self, elements, axes):
        return jnp.prod(elements, axes) if 0 in elements.shape else elements.sum(axes)


class WrongContract(Real):
    def contract(self, weights, elements):
        return jnp.einsum("bmk,bkn->bmn", jnp.abs(weights), elements)


class WrongContractShape(Real):
    def contract(self, weights, elements):
        return jnp.einsum("bmk,bkn->bnm", weights, elements)


class WrongSegments(Real):
    """Negative segments count from the end, as JAX's indices do."""

    def segment_sum(self, elements, segments, count):
        return jnp.zeros(count, elements.dtype).at[segments].add(elements, mode="drop")


class SelectsNothing(Real):
    """0 stays of what was not selected, but of what was, too."""

    def scale_selected(self, weights, selected, elements):
        return jnp.zeros_like(elements)


class NoZero(Tropical):
    """lift(0) is 0 here, and 0̄ is infinite."""

    zero_weight_is_no_path = True


class NoName(Real):
    def log_size(self, elements):
        return jnp.log(jnp.abs(elements))


class NoSize(Real):
    size_of = "something"


class SomeSize(Real):
    size_of = "something"

    def log_size(self, elements):
        return elements


class NeverZero(Real):
    def is_zero(self, elements):
        return jnp.zeros(elements.shape, bool)


class Fastest(Real):
    best = "fastest"


@pytest.mark.parametrize(
    ("semiring", "problem"),
    [
        (SelectsNothing(), "its scale_selected does not agree with its scale"),
        (NoZero(), "its zero_weight_is_no_path is True, but lift"),
        (NoName(), "log_size and size_of go together"),
        (NoSize(), "log_size and size_of go together"),
        (SomeSize(), "its log_size of 0̄ .* should be −∞"),
        (NeverZero(), "its is_zero does not hold of 0̄"),
        (Fastest(), "its best is 'fastest'"),
        ((Real(), Fastest()), "its best is 'fastest'"),
        (WrongDtype(), "differ in structure"),
        (WrongShape(3), "differ in structure"),
        (WrongTree(), "differ in structure"),
        (WrongReadout(), "readout of elements of shape"),
        (MixedUp(), "add does not act element by element"),
        (WrongScale(), "its scale does not agree"),
        (WrongPassThrough(), "its pass_through does not agree"),
        (WrongSumOfNothing(), "its sum does not agree"),
        (WrongContract(), "its contract does not agree"),
        (WrongContractShape(), "its contract gives elements of another structure"),
        (WrongSegments(), "its segment_sum does not agree"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Semiring) else "",
)
def test_other_mistakes_are_found(semiring, problem):
    with pytest.raises(AssertionError, match=problem):
        check_semiring(semiring)


def test_what_is_not_a_semiring_at_all():
    with pytest.raises(TypeError, match="Expected a semiring"):
        check_semiring(3.0)
    with pytest.raises(TypeError, match="must be hashable"):
        check_semiring(Unhashable())

"""Whatever a semiring overrides, the semirings made of it use."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import semijax as sj
from semijax.semirings import Semiring, as_semiring
from semijax.semirings.around_through import AroundThrough
from semijax.semirings.jitted import Jitted
from semijax.semirings.wrapper import Wrapper

DERIVED = {"shape", "dtype", "element_type", "bytes_per_element"}
"""What follows from ``zero`` for every semiring."""

PUBLIC = {name for name in vars(Semiring) if not name.startswith("_")} - DERIVED
OPERATIONS = {name for name in PUBLIC if callable(getattr(Semiring, name))}

ONES = jnp.ones((2, 3, 5))
CALLS = {
    "zero": lambda s, e: s.zero((2,), jnp.float32),
    "one": lambda s, e: s.one((2,), jnp.float32),
    "lift": lambda s, e: s.lift(ONES),
    "add": lambda s, e: s.add(e, e),
    "mul": lambda s, e: s.mul(e, e),
    "readout": lambda s, e: s.readout(e),
    "log_size": lambda s, e: s.log_size(e),
    "is_zero": lambda s, e: s.is_zero(e),
    "at": lambda s, e: s.at("outside"),
    "settle": lambda s, e: s.settle(e),
    "by_operation": lambda s, e: s.by_operation(),
    "scale": lambda s, e: s.scale(ONES, e),
    "scale_selected": lambda s, e: s.scale_selected(ONES, ONES > 0, e),
    "pass_through": lambda s, e: s.pass_through(e),
    "sum": lambda s, e: s.sum(e, (1,)),
    "contract": lambda s, e: s.contract(jnp.ones((2, 7, 3)), e),
    "all_reduce": lambda s, e: jax.vmap(lambda e: s.all_reduce(e, "i"), axis_name="i", axis_size=1)(
        jax.tree.map(lambda leaf: leaf[None], e)
    ),
    "segment_sum": lambda s, e: s.segment_sum(s.lift(jnp.ones(3)), jnp.array([0, 1, 1]), 2),
}
CALLED = []


def recording(name):
    def operation(self, *args):
        CALLED.append(name)
        return getattr(sj.SumProduct, name)(self, *args)

    return operation


@dataclasses.dataclass(frozen=True)
class Overridden(sj.SumProduct):
    """Every operation overridden, and everything that is said of it."""

    number: int = 0  # different ones are traced anew

    units, additive, zero_weight_is_no_path = "stones", True, True
    best, size_of = "smallest", "stones"


for name in OPERATIONS:
    setattr(Overridden, name, recording(name))


def inside(equation):
    return equation == "inside"


WRAPPERS = {
    "Jitted": Jitted,
    "Product": lambda s: as_semiring({"a": s, "b": [s]}),
    "AroundThrough": lambda s: AroundThrough(s, inside),
    "_Within": lambda s: AroundThrough(s, inside).at("inside"),
}


def subclasses(kind):
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_all_operations_and_all_wrappers_are_here():
    assert set(CALLS) == OPERATIONS
    assert {kind.__name__ for kind in subclasses(Wrapper)} == {"Wrapper", *WRAPPERS}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_an_overridden_operation_is_called(wrapper, operation):
    wrapped = WRAPPERS[wrapper](Overridden(hash((wrapper, operation))))
    elements = wrapped.zero(ONES.shape, jnp.float32)
    CALLED.clear()
    CALLS[operation](wrapped, elements)
    assert operation in CALLED


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("attribute", sorted(PUBLIC - OPERATIONS))
def test_what_is_said_of_a_semiring_is_said_of_it_wrapped(wrapper, attribute):
    said = getattr(Overridden(), attribute)
    assert said != getattr(Semiring, attribute)
    assert getattr(WRAPPERS[wrapper](Overridden()), attribute) == said


def test_of_several_semirings_is_said_what_holds_of_all():
    both = as_semiring((sj.SumProduct(), sj.MaxProduct()))
    assert not both.zero_weight_is_no_path and not both.additive
    assert both.units == "weight" and both.best == "size" and both.size_of is None


@pytest.mark.parametrize("semiring", [sj.MaxProduct(), sj.MinProduct(), sj.AbsMaxProduct()])
def test_granularity_changes_nothing_of_what_is_asked(semiring):
    coarse = semiring.by_operation()
    assert str(coarse) == str(semiring)
    for attribute in ("units", "best", "size_of"):
        assert getattr(coarse, attribute) == getattr(semiring, attribute)
    numbers = jnp.array([2.0, -3.0])
    read = [s.readout(s.lift(numbers)).tolist() for s in (semiring, coarse)]
    sizes = [s.log_size(s.lift(numbers)).tolist() for s in (semiring, coarse)]
    assert read[0] == read[1] and sizes[0] == sizes[1]
    assert coarse.is_zero(coarse.zero((2,), jnp.float32)).all()
    assert coarse.log_size(coarse.zero((2,), jnp.float32)).tolist() == [-jnp.inf] * 2


def test_a_wrapped_semiring_gives_the_same():
    f = lambda x: jnp.sin(x * x[::-1]).sum()  # noqa: E731
    x = jnp.array([0.3, -0.8, 1.1])
    for semiring in (sj.MaxProduct(), sj.Entropy(), sj.TopK(2)):
        want = sj.semiring_grad(f, semiring)(x)
        for wrapped in (Jitted(semiring), Jitted(Jitted(semiring))):
            got = sj.semiring_grad(f, wrapped)(x)
            assert jax.tree.all(jax.tree.map(jnp.array_equal, got, want))

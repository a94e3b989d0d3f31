"""What is known of a primitive is known of the object, not of its name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

import semijax as sj
from semijax.jacobians.base import NOTHING_KNOWN, declaration
from semijax.trace import primitives
from semijax.trace.primitives import _BY_NAME, ONE_VERSION_ONLY

OLDEST = jax.__version_info__ < (0, 12)


def test_names_that_one_version_only_has():
    there = {name for name in ONE_VERSION_ONLY if name in _BY_NAME}
    assert there == (
        {"call", "closed_call"} if OLDEST else ONE_VERSION_ONLY - {"call", "closed_call"}
    )


def test_a_name_that_jax_has_not_is_an_error():
    with pytest.raises(AssertionError, match="sinus"):
        primitives.primitives("sin", "sinus")


def test_every_primitive_has_the_name_it_is_found_by():
    assert all(found.name == name for name, found in _BY_NAME.items())


def reversal(name):
    """A primitive that reverses a vector, and is called like another."""
    mine = Primitive(name)
    mine.def_impl(lambda x: x[::-1])
    mine.def_abstract_eval(lambda x: x)
    mlir.register_lowering(mine, mlir.lower_fun(lambda x: x[::-1], multiple_results=False))
    ad.deflinear2(mine, lambda cotangent, _: [mine.bind(cotangent)])
    batching.primitive_batchers[mine] = lambda args, dims: (
        jax.vmap(lambda x: x[::-1], dims[0])(args[0]),
        0,
    )
    return mine


def rotation(name):
    """A function of a vector whose graph has a primitive of this name in its middle."""
    mine = reversal(name)
    weights = jnp.array([1.0, -2.0, 3.0])
    return lambda x: (mine.bind(2 * x) * weights).sum()


def test_nothing_is_known_of_a_primitive_that_is_called_like_one_of_jaxs():
    assert all(declaration(reversal(name)) is NOTHING_KNOWN for name in _BY_NAME)


@pytest.mark.parametrize("name", ["neg", "square", "copy", "erfc", "tile", "call", "reduce_sum"])
def test_nor_is_it_taken_for_it(name):
    function, x = rotation(name), jnp.ones(3)
    found = sj.semiring_grad(function, (sj.SumProduct(), sj.MinProduct(), sj.PathCount()))(x)
    np.testing.assert_allclose(found[0], [6, -4, 2])
    np.testing.assert_allclose(found[1], [6, -4, 2])
    np.testing.assert_allclose(found[2], 0)


@pytest.mark.parametrize("name", ["scan", "jit", "stop_gradient", "add", "name", "get"])
def test_nor_by_the_searches_the_sites_or_the_oracle(name):
    function, x = rotation(name), jnp.ones(3)
    (best,) = sj.top_paths(function)(x)
    assert best.weight == 6 and best.nodes[0].index == (0,)
    paths = sj.testing.enumerate_paths(function, x)
    assert [path.weight for path in paths] == [6, -4, 2]
    (names,) = {path.primitives for path in paths}
    assert names[1] == name
    assert name in {row.primitive for row in sj.list_sites(function)(x)}

"""Matrix products in all layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from .oracle import LIGHT, check, check_dense, check_each, numbers

LAYOUTS = {
    "matrices": ((2, 3), (3, 5), (((1,), (0,)), ((), ()))),
    "transposed": ((3, 2), (5, 3), (((0,), (1,)), ((), ()))),
    "vectors": ((5,), (5,), (((0,), (0,)), ((), ()))),
    "outer product": ((2,), (3,), (((), ()), ((), ()))),
    "two contracted axes": ((2, 3, 2), (2, 3, 5), (((1, 2), (1, 0)), ((), ()))),
    "batched": ((2, 3, 2), (2, 2, 3), (((1,), (2,)), ((0,), (0,)))),
    "batched in the middle": ((3, 2, 2), (2, 3, 2), (((0,), (1,)), ((2,), (0,)))),
    "two batch axes": ((2, 3, 2), (3, 2, 2), (((2,), (2,)), ((0, 1), (1, 0)))),
    "batch axes only": ((2, 3), (2, 3), (((), ()), ((0, 1), (0, 1)))),
    "nothing to contract": ((2, 0), (0, 3), (((1,), (0,)), ((), ()))),
    "no rows": ((0, 2), (2, 3), (((1,), (0,)), ((), ()))),
    "no batches": ((0, 2, 3), (0, 3, 2), (((2,), (1,)), ((0,), (0,)))),
    "axes of size 1": ((1, 1), (1, 3), (((1,), (0,)), ((), ()))),
}


def product(name):
    lhs, rhs, dims = LAYOUTS[name]
    return lambda x, y: lax.dot_general(x, y, dims), numbers(lhs), numbers(rhs, 1)


@pytest.mark.parametrize("part", range(2))
def test_layouts(part):
    check_each({name: product(name) for name in list(LAYOUTS)[part::2]}, semirings=LIGHT)


@pytest.mark.parametrize(
    "name",
    ["vectors", "batched in the middle", "nothing to contract", "no rows", "no batches"],
)
def test_layouts_in_all_semirings(name):
    check(*product(name))


EINSUMS = {
    "attention": ("bqh,bkh->bqk", (2, 2, 3), (2, 2, 3)),
    "sum over one": ("ij,jk->k", (2, 3), (3, 2)),
    "trace": ("ij,ji->", (2, 3), (3, 2)),
    "diagonal": ("ii,i->i", (3, 3), (3,)),
    "elementwise": ("ij,ij->ij", (2, 3), (2, 3)),
}


def test_einsum():
    def einsum(spec):
        return lambda x, y: jnp.einsum(spec, x, y)

    cases = {
        name: (einsum(spec), numbers(lhs), numbers(rhs, 1))
        for name, (spec, lhs, rhs) in EINSUMS.items()
    }
    check_each(cases, semirings=LIGHT)


ALONE = {
    "square": lambda x: x @ x,
    "gram": lambda x: x @ x.T,
    "dot": lambda x: jnp.vdot(x, x),
    "constant on the right": lambda x: x @ numbers((3, 2), 4),
    "constant on the left": lambda x: numbers((2, 3), 4) @ x,
    "cube": lambda x: x @ x @ x[:, :1],
    "one row used twice": lambda x: x[0] @ x,
}


def test_one_array():
    check_each({name: (fun, numbers((3, 3))) for name, fun in ALONE.items()}, semirings=LIGHT)
    check(ALONE["square"], numbers((2, 2)))


WEIGHTS = {
    "all negative": [[-1.0, -2.0], [-0.5, -3.0]],
    "zeros": [[0.0, 2.0], [0.0, 0.0]],
    "infinite": [[np.inf, 2.0], [-1.0, -np.inf]],
    "infinite and zero": [[np.inf, 0.0], [0.0, -1.0]],
    "not a number": [[np.nan, 2.0], [-1.0, 0.0]],
    "tiny": [[1e-30, 2e-30], [-3e-30, 1e-30]],
    "huge": [[1e30, 2e30], [-3e30, 1e30]],
    "far apart": [[1e-30, 1e30], [-1.0, 1e-20]],
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_weights(weights):
    w = np.array(weights, np.float32)
    check(lambda x: x @ w, numbers((3, 2)))


def test_two_layers():
    def fun(x, w1, w2):
        return jnp.maximum(x @ w1, 0.0) @ w2

    check(fun, numbers((2, 3)), numbers((3, 2), 1, negative=True), numbers((2, 1), 2))


def test_weights_of_zero_are_edges():
    w = jnp.array([[0.0, -1.0], [-2.0, -3.0]])
    found = sj.semiring_grad(lambda x: (x @ w).sum(), sj.MaxProduct())(jnp.ones(2))
    np.testing.assert_array_equal(found, [0, -2])


def test_accumulates_in_float32():
    x, y = (jnp.asarray(numbers(shape), jnp.bfloat16) for shape in [(2, 3), (3, 1)])

    def fun(x, y):
        return lax.dot_general(x, y, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)

    check(fun, x, y, against_jax=False)


def test_under_vmap():
    check(lambda x, y: jax.vmap(jnp.dot, in_axes=(0, 1))(x, y), numbers((3, 2)), numbers((2, 3), 1))


@pytest.mark.parametrize("name", ["matrices", "two batch axes", "batched in the middle"])
def test_dense(name):
    check_dense(*product(name))


@pytest.mark.parametrize("dtype", [bool, jnp.int8, jnp.int32, jnp.uint8])
def test_the_other_operand_may_be_integers(dtype):
    kept = jnp.array([[1, 0, 1], [1, 1, 0]], dtype)

    def function(x):
        return jnp.einsum("bk,kn->bn", kept, x, preferred_element_type=jnp.float32).sum()

    x = jnp.arange(15.0).reshape(3, 5)
    found = sj.semiring_grad(function, {"sum": sj.SumProduct(), "max": sj.MaxProduct()})(x)
    np.testing.assert_allclose(found["sum"], jax.grad(function)(x))
    np.testing.assert_allclose(found["max"], jnp.ones((3, 5)))

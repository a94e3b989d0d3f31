"""Complex numbers: two nodes each, joined as real numbers would be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.jacobians import PartByPart
from semijax.jacobians.complex import as_complex, as_real

from .oracle import LIGHT, numbers
from .test_dense import jacobians


def complex_numbers(shape, seed=0):
    return lax.complex(
        jnp.asarray(numbers(shape, seed)), 1.1 * jnp.asarray(numbers(shape, seed + 50))
    )


def contracted(x, y):
    return lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,))))


def convolved(x, y):
    return lax.conv_general_dilated(x, y, (1,), "SAME")


Z, R = complex_numbers, numbers

CASES = {
    "mul": (lax.mul, Z, (2, 3), Z, (2, 3)),
    "mul by a number": (lambda x: lax.mul(x, jnp.complex64(2 - 1j)), Z, (2, 3)),
    "mul by a scalar": (lambda x, y: lax.mul(x, jnp.broadcast_to(y, x.shape)), Z, (3,), Z, (3,)),
    "div": (lax.div, Z, (5,), Z, (5,)),
    "sub": (lax.sub, Z, (5,), Z, (5,)),
    "neg": (lax.neg, Z, (5,)),
    "exp": (lax.exp, Z, (5,)),
    "log": (lax.log, Z, (5,)),
    "sqrt": (lax.sqrt, Z, (5,)),
    "tanh": (lax.tanh, Z, (5,)),
    "sin": (lax.sin, Z, (5,)),
    "integer_pow": (lambda x: lax.integer_pow(x, 3), Z, (5,)),
    "pow": (lax.pow, Z, (3,), Z, (3,)),
    "abs": (lax.abs, Z, (5,)),
    "sign": (lax.sign, Z, (5,)),
    "real": (lax.real, Z, (5,)),
    "imag": (lax.imag, Z, (5,)),
    "conj": (lax.conj, Z, (5,)),
    "complex": (lax.complex, R, (5,), R, (5,)),
    "to complex": (lambda x: lax.convert_element_type(x, jnp.complex64), R, (5,)),
    "select_n": (
        lambda x, y: lax.select_n(np.array([True, False, True]), x, y),
        *(Z, (3,), Z, (3,)),
    ),
    "dot_general": (contracted, Z, (2, 5, 3), Z, (2, 3, 2)),
    "conv_general_dilated": (convolved, Z, (1, 2, 5), Z, (3, 2, 3)),
}


def arguments(name, seed):
    _, *rest = CASES[name]
    pairs = zip(rest[::2], rest[1::2], strict=True)
    return [make(shape, seed + n) for n, (make, shape) in enumerate(pairs)]


def of_nodes(fun, args):
    """The function and its arguments in real numbers."""

    def real(*nodes):
        pairs = zip(nodes, args, strict=True)
        return as_real(fun(*(as_complex(n) if jnp.iscomplexobj(x) else n for n, x in pairs)))

    return real, [as_real(jnp.asarray(x)) for x in args]


def derivatives(name, seed):
    """JAX's, by the nodes of each argument."""
    args = arguments(name, seed)
    fun, nodes = of_nodes(CASES[name][0], args)
    return jax.jacrev(fun, tuple(range(len(nodes))))(*nodes)


@pytest.mark.parametrize("name", CASES)
def test_parts(name):
    """Weights are JAX's; there is an edge wherever a derivative is not 0 at some other point."""
    fun, args = CASES[name][0], arguments(name, 0)
    found, wanted = jacobians(fun, *args), derivatives(name, 0)
    elsewhere = [derivatives(name, seed) for seed in (100, 200, 300)]
    assert len(found) == len(args)
    for i, jacobian in enumerate(found.values()):
        assert isinstance(jacobian, PartByPart)
        weights, present = jacobian.dense()
        np.testing.assert_allclose(weights, wanted[i], rtol=1e-4, atol=1e-5)
        expected = np.any([np.abs(d[i]) > 1e-6 for d in elsewhere], 0)
        if name == "select_n":  # what is never selected is there all the same
            expected |= np.eye(6, dtype=bool).reshape(3, 2, 3, 2)
        if name == "sign":  # 0 everywhere
            expected |= np.eye(5, dtype=bool)[:, None, :, None]
        np.testing.assert_array_equal(present, expected)


@pytest.mark.parametrize("name", CASES)
def test_single_edges(name):
    for jacobian in jacobians(CASES[name][0], *arguments(name, 0)).values():
        weights, present = map(np.asarray, jacobian.dense())
        n_out, n_in = np.prod(jacobian.out_shape, dtype=int), np.prod(jacobian.in_shape, dtype=int)
        weights, present = weights.reshape(n_out, n_in), present.reshape(n_out, n_in)
        asked = np.random.default_rng(0).permutation(n_in)[: n_in - 1]
        edges = jacobian.leaving(asked)
        matrix, there = np.zeros_like(weights), np.zeros_like(present)
        matrix[edges.other, asked[edges.owner]] = edges.weight
        there[edges.other, asked[edges.owner]] = True
        np.testing.assert_array_equal(there[:, asked], present[:, asked])
        np.testing.assert_allclose(matrix[:, asked], weights[:, asked], rtol=1e-5, atol=1e-6)
        asked = np.random.default_rng(1).permutation(n_out)[: n_out - 1]
        edges = jacobian.entering(asked)
        there[:] = False
        there[asked[edges.owner], edges.other] = True
        np.testing.assert_array_equal(there[asked], present[asked])
        assert len(edges.owner) == there[asked].sum(), "an edge twice"


@pytest.mark.parametrize("name", ["mul", "dot_general", "complex", "abs"])
def test_forward_is_the_transpose_of_backward(name):
    for jacobian in jacobians(CASES[name][0], *arguments(name, 0)).values():
        g, t = numbers(jacobian.out_shape, 5), numbers(jacobian.in_shape, 6)
        for semiring in (sj.SumProduct(), sj.AbsMaxProduct()):
            arrived = semiring.mul(jacobian.pull(semiring, semiring.lift(g)), semiring.lift(t))
            departed = semiring.mul(jacobian.push(semiring, semiring.lift(t)), semiring.lift(g))
            both = [semiring.sum(e, tuple(range(e.ndim))) for e in (arrived, departed)]
            np.testing.assert_allclose(*both, rtol=1e-4)


def state_space(x):
    """A linear recurrence with complex eigenvalues, by an associative scan, as S5 has it."""
    eigenvalues = jnp.exp(complex_numbers((3,)) * (-0.2 + 0.5j))
    b, c = complex_numbers((2, 3), 1), complex_numbers((3, 2), 2)

    def join(left, right):
        return left[0] * right[0], right[0] * left[1] + right[1]

    driven = jnp.tanh(x).astype(jnp.complex64) @ b
    _, states = lax.associative_scan(join, (jnp.tile(eigenvalues, (5, 1)), driven))
    return jnp.tanh((states @ c).real)[-1].sum()


def test_a_state_space_model():
    x = jnp.asarray(numbers((5, 2)))
    kinds = {row.kind for row in sj.explain(state_space)(x)}
    assert "Contraction" in kinds and "Dense" not in kinds
    found = jax.jit(sj.semiring_grad(state_space, LIGHT))(x)
    np.testing.assert_allclose(found["sum"], jax.grad(state_space)(x), rtol=1e-4, atol=1e-6)
    best = sj.top_paths(state_space)(x)[0]
    np.testing.assert_allclose(abs(best.weight), found["abs max"].max(), rtol=1e-4)
    assert best.verify() < 1e-4

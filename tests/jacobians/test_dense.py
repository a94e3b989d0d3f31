"""The exact rule for everything else: custom derivatives, linear algebra, complex numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.evaluation import Runs, evaluate, read
from semijax.jacobians import BothParts, Dense, Diagonal, equation_jacobian
from semijax.trace.graph import trace

from .oracle import LIGHT, check, check_dense, check_each, numbers


def jacobians(fun, *args):
    """The local Jacobians of the last equation of a function."""
    args = [jnp.asarray(a) for a in args]
    graph, _ = trace(fun, *args)
    equation = graph.equations[-1]
    values = evaluate(graph, Runs.once(args)).values
    return equation_jacobian(equation, *read(values, equation.inputs)).entries


# Custom derivatives.


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (straight_through(primals[0]), tangents[0]))


@jax.custom_vjp
def clipped_gradient(x):
    return x * x


clipped_gradient.defvjp(lambda x: (x * x, x), lambda x, ct: (jnp.clip(2 * x, -1, 1) * ct,))


@jax.custom_vjp
def softmax(x):
    return jax.nn.softmax(x, 1)


def softmax_backward(p, ct):
    return (p * (ct - (p * ct).sum(1, keepdims=True)),)


softmax.defvjp(lambda x: (softmax(x),) * 2, softmax_backward)


@jax.custom_jvp
def two_outputs(x, y):
    return x * y, x.sum()


@two_outputs.defjvp
def two_outputs_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return two_outputs(x, y), (x * dy + 3.0 * y * dx, dx.sum())


CUSTOM = {
    "relu": lambda x: jax.nn.relu(x - 0.4),
    "logaddexp": lambda x: jnp.logaddexp(x, x[:1]),
    "straight through": lambda x: straight_through(x) * x,
    "clipped gradient": lambda x: clipped_gradient(x) - x,
    "softmax": softmax,
    "two outputs": lambda x: two_outputs(x, x[::-1]),
    "silu": jax.nn.silu,
}


def test_custom_derivatives():
    x = numbers((2, 3))
    check_each({name: (fun, x) for name, fun in CUSTOM.items()}, semirings=LIGHT)
    check(lambda x: softmax(jax.nn.relu(x)) * straight_through(x), x)


def test_a_straight_through_estimator_is_seen_as_its_author_meant_it():
    found = sj.semiring_grad(
        lambda x: -2.0 * straight_through(x), {"sum": sj.SumProduct(), "n": sj.PathCount()}
    )(0.7)
    assert found == {"sum": -2.0, "n": 0.0}


def test_a_dead_relu_is_a_path():
    found = sj.semiring_grad(lambda x: -jax.nn.relu(x).sum(), sj.MaxProduct())(
        jnp.array([-1.0, 2.0, 0.0])
    )
    np.testing.assert_array_equal(found, [0, -1, 0])


# One node on purpose.

ATOMIC = {
    "softmax": lambda x: jax.nn.softmax(x, 1),
    "normalisation over the first axis": lambda x: x - x.mean(0),
    "elementwise": lambda x: jnp.tanh(x) * x,
    "elementwise with zeros": lambda x: jnp.maximum(x, 0.0),
    "reversed": lambda x: x * x[::-1],
    "transposed": lambda x: x * x.T,
    "rolled": lambda x: x + jnp.roll(x, 1, 1),
    "outer": lambda x: x[:, :, None] * x[:, None, :],
    "outer of all": lambda x: jnp.outer(x, x[0]).reshape(3, 3, 3),
    "product": lambda x: x @ x,
    "cumulative": lambda x: jnp.cumsum(x, 0) * x,
    "sorted": lambda x: jnp.sort(x, 1),
    "gathered": lambda x: x[np.array([1, 0, 1])],
    "reshaped": lambda x: x.reshape(9)[::-1].reshape(3, 3),
    "updated": lambda x: lax.dynamic_update_slice(x, x[:1], (1, 0)),
    "padded": lambda x: lax.pad(x, 0.0, [(1, -1, 0), (0, 0, 0)]),
    "scanned": lambda x: lax.scan(lambda c, r: (c + r, c * r), x[0], x)[1],
    "stacked": lambda x: jnp.stack([x, 2.0 * x], 1),
    "conditional": lambda x: lax.cond(x[0, 0] > 0, lambda x: x.T, lambda x: -x, x),
    "of a batch": lambda x: jax.vmap(jnp.linalg.norm)(x),
}


@pytest.mark.parametrize("part", range(3))
def test_atomic(part):
    """Which axes are a batch must be found right: a wrong one would lose edges."""
    cases = list(ATOMIC.items())[part::3]
    check_each({k: (sj.atomic(f), numbers((3, 3))) for k, f in cases}, semirings=LIGHT)


def test_atomic_in_all_semirings():
    check(sj.atomic(ATOMIC["softmax"]), numbers((2, 3)))


def test_atomic_of_several_arrays():
    @sj.atomic
    def attend(q, kv):
        scores = jnp.einsum("bqh,bkh->bqk", q, kv["k"])
        return jax.nn.softmax(scores) @ kv["v"], q.sum()

    def fun(q, k, v):
        return attend(q, {"k": k, "v": v})

    check(fun, numbers((2, 2, 2)), numbers((2, 3, 2), 1), numbers((2, 3, 2), 2), semirings=LIGHT)


@pytest.mark.parametrize(
    ("name", "in_batch", "out_batch"),
    [
        ("softmax", (0,), (0,)),
        ("normalisation over the first axis", (1,), (1,)),
        ("reversed", (1,), (1,)),
        ("rolled", (0,), (0,)),
        ("stacked", (0, 1), (0, 2)),
        ("transposed", (), ()),
        ("product", (), ()),
        ("of a batch", (0,), (0,)),
    ],
)
def test_batch_axes(name, in_batch, out_batch):
    jacobian = jacobians(sj.atomic(ATOMIC[name]), numbers((3, 3)))[0, 0]
    assert isinstance(jacobian, Dense)
    pairs = set(zip(jacobian.in_batch, jacobian.out_batch, strict=True))
    assert pairs <= set(zip(in_batch, out_batch, strict=True)), "not a batch axis"
    assert pairs == set(zip(in_batch, out_batch, strict=True)), "a batch axis was missed"


def test_what_works_element_by_element_is_diagonal():
    for fun in (straight_through, clipped_gradient, jax.nn.relu, sj.atomic(ATOMIC["elementwise"])):
        assert isinstance(jacobians(fun, numbers((2, 3)))[0, 0], Diagonal)


# Linear algebra.


def definite(x):
    return x @ jnp.swapaxes(x, -1, -2) + 2.0 * np.eye(x.shape[-1], dtype=np.float32)


LINEAR_ALGEBRA = {
    "cholesky": (jnp.linalg.cholesky, (2, 2, 2)),
    "eigenvalues": (lambda x: jnp.linalg.eigh(x)[0], (2, 2, 2)),
    "inverse": (jnp.linalg.inv, (2, 2)),
    "determinant": (jnp.linalg.det, (2, 2)),
    "singular values": (lambda x: jnp.linalg.svd(x, compute_uv=False), (2, 2)),
}


@pytest.mark.parametrize("name", LINEAR_ALGEBRA)
def test_linear_algebra(name):
    """As one equation of a positive definite matrix, which has no derivative that is almost 0."""
    fun, shape = LINEAR_ALGEBRA[name]
    x = np.asarray(definite(numbers(shape)))
    check(sj.atomic(fun), x, semirings=LIGHT)
    np.testing.assert_allclose(
        sj.semiring_grad(lambda x: fun(x).sum(), sj.SumProduct())(x),
        jax.grad(lambda x: fun(x).sum())(x),
        rtol=1e-4,
        atol=1e-5,
    )


def test_triangular_solve():
    def fun(a, b):
        return lax.linalg.triangular_solve(a, b, left_side=True, lower=True)

    a = np.asarray(np.linalg.cholesky(definite(numbers((2, 2, 2)))), np.float32)
    check(fun, a, numbers((2, 2, 3), 1), semirings=LIGHT)
    entries = jacobians(fun, a, numbers((2, 2, 3), 1))
    assert entries[1, 0].in_batch == (0,)


def test_a_triangular_factor_has_no_paths_above():
    x = jnp.asarray(definite(numbers((2, 2))))
    fun = lambda x: -jnp.abs(lax.linalg.cholesky(x, symmetrize_input=False)[0, 0])  # noqa: E731
    found = sj.semiring_grad(fun, sj.MaxProduct())(x)
    assert found[0, 0] < 0
    np.testing.assert_array_equal(found[1], -np.inf)


# Complex numbers: the same functions on pairs of real numbers, as one node each.


def parts(fun):
    """A function of complex numbers as one of their real and imaginary parts, one node."""

    def split(y):
        return jnp.stack([y.real, y.imag], -1) if jnp.iscomplexobj(y) else y

    @sj.atomic
    def real(x):
        return split(fun(lax.complex(x[..., 0], x[..., 1])))

    @sj.atomic
    def from_real(x):
        return split(fun(x))

    return real, from_real


def complex_case(first, *rest):
    def fun(x):
        y = first(x)
        for f in rest:
            y = f(y)
        return y

    def reference(x):
        y = parts(first)[1](x)
        for f in rest:
            y = parts(f)[0](y)
        return y

    return fun, reference


def rfft(x):
    return lax.fft(x, "RFFT", (5,))


def absolute(y):
    return lax.abs(y)


COMPLEX = {
    "rfft": (rfft, absolute),
    "real part": (rfft, lax.real),
    "imaginary part of the conjugate": (rfft, lax.conj, lax.imag),
    "reversed": (rfft, lambda y: lax.rev(y, (0,)), absolute),
    "summed": (rfft, lambda y: lax.reduce_sum(y, (1,)), absolute),
    "squared": (rfft, lambda y: lax.integer_pow(y, 2), lax.real),
    "there and back": (rfft, lambda y: lax.fft(y, "IRFFT", (5,))),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex(name):
    fun, reference = complex_case(*COMPLEX[name])
    check(fun, numbers((2, 5)), reference=reference, semirings=LIGHT)


def test_kinds_of_complex_equations():
    x = numbers((2, 5)).astype(np.complex64)
    moved = jacobians(lambda x: lax.rev(x, (0,)), x)[0, 0]
    assert isinstance(moved, BothParts)
    assert moved.in_shape == moved.out_shape == (2, 5, 2)
    transformed = jacobians(lambda x: lax.fft(x, "FFT", (5,)), x)[0, 0]
    assert isinstance(transformed, Dense)
    assert transformed.in_batch == transformed.out_batch == (0,)


# Limits.


def test_budget():
    def fun(x):
        return jnp.linalg.inv(x).sum()

    x = numbers((5, 5))
    expected = sj.semiring_grad(fun, sj.AbsSumProduct())(x)
    atomic = sj.atomic(lambda x: jnp.linalg.inv(x))
    size = 25 * 25 * 4
    with (
        sj.dense_budget(size - 1),
        pytest.raises(ValueError, match=r"2,500 bytes.*2,499.*test_dense.*dense_budget"),
    ):
        sj.semiring_grad(lambda x: atomic(x).sum(), sj.AbsSumProduct())(x)
    with sj.dense_budget(size):
        found = sj.semiring_grad(lambda x: atomic(x).sum(), sj.SumProduct())(x)
    np.testing.assert_allclose(found, jax.grad(fun)(x), rtol=1e-3, atol=1e-5)
    assert expected.shape == found.shape


def test_blocks(monkeypatch):
    """Computed a few lines at a time, the last block being smaller than the others."""
    fun = sj.atomic(lambda x: jnp.tanh(x @ numbers((5, 7), 1)).sum(0) @ numbers((7, 3), 2))
    monkeypatch.setattr("semijax.jacobians.dense.BLOCK_BYTES", 200)
    check(fun, numbers((2, 5)), semirings=LIGHT)
    check(sj.atomic(lambda x: jnp.outer(jnp.sin(x), x)), numbers((5,)), semirings=LIGHT)


def test_nothing():
    fun = sj.atomic(lambda x: jax.nn.softmax(x, 1))
    check(fun, numbers((0, 3)), semirings=LIGHT)
    check(sj.atomic(lambda x: x.sum(0)), numbers((0, 3)), semirings=LIGHT)


def test_what_is_not_a_number_stays_so():
    x = np.array([[1.0, np.nan, 2.0], [0.5, 1.0, -1.0]], np.float32)
    fun = sj.atomic(lambda x: jax.nn.softmax(x, 1))
    found = sj.semiring_vjp(fun, x, semiring=LIGHT)[1]()[0]
    for name in ("sum", "abs sum", "abs max"):
        np.testing.assert_array_equal(np.isnan(found[name]), [[True] * 3, [False] * 3])
    assert np.isnan(found["max"].max[0]).all()


@pytest.mark.parametrize("name", ["softmax", "stacked", "product", "sorted"])
def test_dense(name):
    check_dense(sj.atomic(ATOMIC[name]), numbers((3, 3)))

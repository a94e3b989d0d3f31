"""The Jacobians of a user's own primitives."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import ad, batching, mlir

import semijax as sj
from semijax.jacobians import Diagonal, Movement
from semijax.jacobians.base import _USER_RULES


@pytest.fixture(autouse=True)
def forget_the_rules(monkeypatch):
    """Rules are global: those of a test end with it."""
    rules = dict(_USER_RULES)
    yield
    _USER_RULES.clear()
    _USER_RULES.update(rules)


def make_primitive(name, function, outputs=1):
    primitive = jax.extend.core.Primitive(name)
    primitive.multiple_results = outputs > 1
    primitive.def_impl(function)

    def shapes(*avals):
        found = jax.eval_shape(function, *avals)
        to_aval = lambda v: jax.core.ShapedArray(v.shape, v.dtype)  # noqa: E731
        return [to_aval(v) for v in found] if outputs > 1 else to_aval(found)

    primitive.def_abstract_eval(shapes)
    lowering = mlir.lower_fun(function, multiple_results=outputs > 1)
    mlir.register_lowering(primitive, lowering)
    return primitive


X = jnp.array([2.0, -3.0, 5.0])


def test_a_rule():
    cube = make_primitive("cube", lambda x: x**3)

    @sj.register_jacobian(cube)
    def cube_jacobian(equation, x):
        assert (equation.name, equation.wrt) == ("cube", (0,))
        return [Diagonal(3 * x**2, x.shape, x.shape)]

    def fun(x):
        return (cube.bind(x) * x).sum()

    for transform in (lambda f: f, jax.jit):
        found = transform(sj.semiring_grad(fun, {"s": sj.SumProduct(), "t": sj.TopK(2)}))(X)
        np.testing.assert_allclose(found["s"], 4 * X**3, rtol=1e-6)
        np.testing.assert_allclose(found["t"], np.abs(X**3)[:, None] * [3, 1], rtol=1e-6)
    s = sj.MaxProduct()
    _, pushed = sj.semiring_jvp(cube.bind, (X,), (s.lift(jnp.ones(3)),), semiring=s)
    np.testing.assert_allclose(s.readout(pushed), 3 * X**2, rtol=1e-6)


def test_one_jacobian_stands_for_a_list_of_one():
    triple = make_primitive("triple", lambda x: 3 * x)
    sj.register_jacobian(triple)(
        lambda equation, x: Diagonal(jnp.full(x.shape, 3.0), x.shape, x.shape)
    )
    found = sj.semiring_grad(lambda x: triple.bind(x).sum(), sj.SumProduct())(X)
    np.testing.assert_array_equal(found, [3, 3, 3])


def test_several_inputs_and_outputs():
    """No edge from an input is None; the others are looked up by input and output."""
    both = make_primitive("both", lambda x, y: (x[::-1], y * 2), outputs=2)

    @sj.register_jacobian(both)
    def both_jacobian(equation, x, y):
        return {
            (0, 0): Movement(jnp.arange(3)[::-1], x.shape, x.shape),
            (1, 1): Diagonal(jnp.full(y.shape, 2.0), y.shape, y.shape),
            (0, 1): None,
        }

    def fun(x, y):
        a, b = both.bind(x, y)
        return -(a * jnp.array([1.0, 2.0, 3.0])).sum() - b.sum()

    of_x, of_y = sj.semiring_grad(fun, sj.MaxProduct(), (0, 1))(X, X)
    np.testing.assert_array_equal(of_x, [-3, -2, -1])
    np.testing.assert_array_equal(of_y, [-2, -2, -2])
    only_y = sj.semiring_grad(lambda y: fun(X, y), sj.MaxProduct())(X)
    np.testing.assert_array_equal(only_y, [-2, -2, -2])


def test_an_input_without_edges():
    first = make_primitive("first", lambda x, y: x + 0 * y)
    sj.register_jacobian(first)(lambda equation, x, y: [Diagonal(None, x.shape, x.shape), None])
    found = sj.semiring_grad(lambda x, y: first.bind(x, y).sum(), sj.MaxProduct(), (0, 1))(X, X)
    np.testing.assert_array_equal(found[0], [1, 1, 1])
    np.testing.assert_array_equal(found[1], [-np.inf] * 3)


@pytest.mark.parametrize("shape", [(2,), (3, 1), ()])
def test_a_wrong_shape(shape):
    wrong = make_primitive("wrong", lambda x: x)
    sj.register_jacobian(wrong)(lambda equation, x: [Diagonal(None, shape, x.shape)])
    with pytest.raises(ValueError, match=r"'wrong' returned.*shapes are \(3,\).*test_registration"):
        sj.semiring_grad(lambda x: wrong.bind(x).sum(), sj.SumProduct())(X)


def test_a_wrong_shape_of_an_output():
    wrong = make_primitive("wrong", lambda x: x)
    sj.register_jacobian(wrong)(lambda equation, x: [Diagonal(None, x.shape, (2, 3))])
    with pytest.raises(ValueError, match=r"'wrong' returned.*from \(3,\) to \(2, 3\)"):
        sj.semiring_grad(lambda x: wrong.bind(x).sum(), sj.SumProduct())(X)


@pytest.mark.parametrize("not_a_primitive", ["sin", jnp.sin, None])
def test_what_is_no_primitive(not_a_primitive):
    with pytest.raises(
        TypeError, match=r"register_jacobian expects a jax\.extend\.core\.Primitive"
    ):
        sj.register_jacobian(not_a_primitive)


def test_without_a_rule_jax_derivative_is_used():
    half = make_primitive("half", lambda x: x / 2)
    ad.deflinear2(half, lambda ct, x: [half.bind(ct)])
    batching.primitive_batchers[half] = lambda args, dims: (half.bind(*args), dims[0])
    found = sj.semiring_grad(lambda x: (half.bind(x) * x).sum(), sj.TopK(2))(X)
    np.testing.assert_allclose(found, np.abs(X)[:, None] * [0.5, 0.5])


def test_without_any_derivative():
    opaque = make_primitive("opaque", lambda x: x)

    def fun(x):
        with jax.named_scope("layer"):
            return opaque.bind(x).sum()

    match = r"'opaque'.*test_registration.*scope 'layer'.*register_jacobian.*stop_gradient"
    with pytest.raises(NotImplementedError, match=match):
        sj.semiring_grad(fun, sj.Entropy())(X)


@pytest.mark.parametrize("name", ["sin", "add", "reshape", "dot_general", "scan"])
def test_a_foreign_primitive_of_the_same_name_as_one_of_jax(name):
    """It has nothing of JAX's: not its derivative, not its rule."""
    foreign = make_primitive(name, lambda x: 7 * x)
    with pytest.raises(NotImplementedError, match=f"'{name}'"):
        sj.semiring_grad(lambda x: foreign.bind(x).sum(), sj.SumProduct())(X)
    sj.register_jacobian(foreign)(
        lambda equation, x: Diagonal(jnp.full(x.shape, 7.0), x.shape, x.shape)
    )
    found = sj.semiring_grad(lambda x: foreign.bind(jnp.sin(x)).sum(), sj.SumProduct())(X)
    np.testing.assert_allclose(found, 7 * jnp.cos(X), rtol=1e-6)


def test_a_rule_for_a_primitive_of_jax_replaces_the_built_in_one():
    sin = jax.extend.core.primitives.sin_p
    sj.register_jacobian(sin)(
        lambda equation, x: Diagonal(jnp.full(x.shape, 9.0), x.shape, x.shape)
    )
    found = sj.semiring_grad(lambda x: jnp.sin(x).sum(), sj.SumProduct())(X)
    np.testing.assert_array_equal(found, [9, 9, 9])

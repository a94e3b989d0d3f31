"""Bad input is told so, in JAX's own manner."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.extend.core import Primitive

import semijax as sj

GRADS = [sj.semiring_grad, sj.semiring_value_and_grad]
X = jnp.arange(1.0, 4.0)


@pytest.mark.parametrize("transform", GRADS)
class TestGradients:
    def test_output_must_be_scalar(self, transform):
        with pytest.raises(TypeError, match=r"scalar-output functions.*had shape: \(3,\)"):
            transform(lambda x: 2 * x, sj.SumProduct())(X)

    def test_output_must_be_an_array(self, transform):
        with pytest.raises(TypeError, match=r"Output was a pytree.*has_aux=True"):
            transform(lambda x: (x.sum(), x), sj.SumProduct())(X)

    def test_auxiliary_data_must_be_there(self, transform):
        with pytest.raises(TypeError, match="must return a pair"):
            transform(jnp.sum, sj.SumProduct(), has_aux=True)(X)

    @pytest.mark.parametrize("dtype", [int, bool, complex])
    def test_output_must_be_real(self, transform, dtype):
        with pytest.raises(TypeError, match="real-valued outputs"):
            transform(lambda x: x.sum().astype(dtype), sj.SumProduct())(X)

    @pytest.mark.parametrize("dtype", [jnp.int32, bool, jnp.complex64])
    def test_input_must_be_real(self, transform, dtype):
        with pytest.raises(TypeError, match=r"real-valued inputs.*at args\[0\]\['w'\]"):
            transform(lambda p: p["w"].sum().real * 1.0, sj.Entropy())({"w": X.astype(dtype)})

    def test_integers_have_gradients_at_what_is_made_of_them(self, transform):
        with pytest.raises(TypeError, match=r"got int32 at args\[0\]\. semijax\.site_grads has"):
            transform(lambda n: X[n].sum(), sj.SumProduct())(jnp.arange(2))

    def test_semiring_must_be_hashable(self, transform):
        @dataclasses.dataclass
        class Mutable(sj.Semiring):
            unit: float = 1.0

        with pytest.raises(TypeError, match=r"must be hashable, and .*Mutable.* frozen dataclass"):
            transform(jnp.sum, {"strongest": Mutable()})

    def test_input_must_be_an_array(self, transform):
        with pytest.raises(TypeError, match="not a valid JAX type"):
            transform(lambda x: 1.0, sj.Entropy())("text")

    @pytest.mark.parametrize("argnums", [1, -2, (0, 1)])
    def test_argnums_out_of_range(self, transform, argnums):
        with pytest.raises(ValueError, match=r"requires at least 2 positional.*got only 1"):
            transform(jnp.sum, sj.SumProduct(), argnums=argnums)(X)

    def test_argnums_named_twice(self, transform):
        with pytest.raises(ValueError, match="twice"):
            transform(jnp.dot, sj.SumProduct(), argnums=(0, -2))(X, X)

    @pytest.mark.parametrize("argnums", ["0", None, (0, "1")])
    def test_argnums_must_be_integers(self, transform, argnums):
        with pytest.raises((TypeError, ValueError)):
            transform(jnp.sum, sj.SumProduct(), argnums=argnums)(X)

    @pytest.mark.parametrize("axes", [1, (0, 0), -2])
    def test_aggregated_axes_must_exist_once(self, transform, axes):
        with pytest.raises(ValueError, match=r"axis|axes"):
            transform(jnp.sum, sj.SumProduct(), aggregate=axes)(X)

    def test_function_must_be_callable(self, transform):
        with pytest.raises(TypeError, match="callable"):
            transform(3, sj.SumProduct())


def test_a_dynamic_loop_in_reverse_says_what_to_use_instead():
    def function(x, n):
        return lax.fori_loop(0, n, lambda i, y: y * x, x).sum()

    gradient = sj.semiring_grad(function, sj.Entropy())
    with pytest.raises(ValueError, match=r"(?s)dynamic start/stop.*test_errors.*semiring_jvp"):
        jax.jit(gradient)(X, 3)
    assert gradient(X, 3).shape == X.shape  # a bound that is not traced is static


def test_a_loop_off_the_path_is_no_trouble():
    def function(x, n):
        return x.sum() * lax.fori_loop(0, n, lambda i, y: y + 1.0, 0.0)

    np.testing.assert_allclose(sj.semiring_grad(function, sj.SumProduct())(X, 3), [3, 3, 3])


def test_an_unknown_primitive_is_named_with_its_place():
    unknown_p = Primitive("unknown")
    unknown_p.def_impl(lambda x: x)
    unknown_p.def_abstract_eval(lambda x: x)

    def function(x):
        with jax.named_scope("encoder"):
            return unknown_p.bind(x).sum()

    message = r"(?s)'unknown'.*test_errors.*'encoder'.*register_jacobian"
    with pytest.raises(NotImplementedError, match=message):
        sj.semiring_grad(function, sj.MaxProduct())(X)


def test_a_callback_has_no_derivative():
    def function(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((3,), jnp.float32), x).sum()

    with pytest.raises(NotImplementedError, match="'pure_callback'"):
        sj.semiring_grad(function, sj.SumProduct())(X)


def test_a_dense_jacobian_over_its_budget_says_its_size_and_the_two_ways_out():
    def spectrum(x):
        return jnp.abs(jnp.fft.rfft(x)).sum()

    x = jnp.arange(64.0)
    message = r"(?s)'fft'.*16,896 bytes.*1,024.*test_errors.*register_jacobian.*dense_budget"
    with sj.dense_budget(1024), pytest.raises(ValueError, match=message):
        sj.semiring_grad(spectrum, sj.SumProduct())(x)
    gradient = sj.semiring_grad(spectrum, sj.SumProduct())(x)
    np.testing.assert_allclose(gradient, jax.grad(spectrum)(x), 1e-4, 1e-4)


@pytest.mark.parametrize("write", ["created", "swapped", "added"])
def test_mutable_references_are_refused(write):
    def function(x):
        reference = jax.new_ref(x if write == "created" else jnp.zeros(3))
        if write == "swapped":
            reference[...] = x
        if write == "added":
            reference[...] += x
        return (reference[...] * 2).sum()

    with pytest.raises(NotImplementedError, match=r"(?s)mutable array reference.*test_errors"):
        sj.semiring_grad(function, sj.SumProduct())(X)


class TestElements:
    def test_tree_must_match(self):
        _, pull = sj.semiring_vjp(lambda x: (x, x), X, semiring=sj.MaxProduct())
        with pytest.raises(TypeError, match="tree structure"):
            pull([sj.MaxProduct().lift(X)])

    def test_numbers_are_not_elements(self):
        _, pull = sj.semiring_vjp(lambda x: x, X, semiring=sj.MaxProduct())
        with pytest.raises(TypeError, match="lift"):
            pull(X)

    def test_shapes_must_match(self):
        _, pull = sj.semiring_vjp(lambda x: x, X, semiring=sj.TopK(2))
        with pytest.raises(ValueError, match=r"shape \(3, 2\), got \(2, 2\)"):
            pull(sj.TopK(2).lift(X[:2]))

    def test_sources_are_one_per_primal(self):
        with pytest.raises(TypeError, match="same length"):
            sj.semiring_jvp(jnp.sin, (X,), (), semiring=sj.SumProduct())
        with pytest.raises(TypeError, match="tuples or lists"):
            sj.semiring_jvp(jnp.sin, X, X, semiring=sj.SumProduct())


@pytest.mark.parametrize("name", ["zero", "one", "lift", "add", "mul"])
def test_a_semiring_without_an_operation_says_which(name):
    arguments = {
        "zero": ((), float),
        "one": ((), float),
        "lift": (X,),
        "add": (X, X),
        "mul": (X, X),
    }
    with pytest.raises(NotImplementedError, match=f"Half must define {name}"):
        getattr(type("Half", (sj.Semiring,), {})(), name)(*arguments[name])


@pytest.mark.parametrize("size", ["x", -1, 0, 1.5, True, None])
def test_a_budget_is_a_number_of_bytes(size):
    with pytest.raises(ValueError, match="size must be an integer of at least 1"):
        sj.dense_budget(size).__enter__()


def test_a_function_that_returns_no_arrays_is_named():
    def greeting(x):
        return "hello"

    for asked in (sj.semiring_grad(greeting, sj.SumProduct()), sj.list_sites(greeting)):
        with pytest.raises(TypeError, match="greeting"):
            asked(1.0)


def test_elements_are_arrays():
    with pytest.raises(TypeError, match=r"aggregate expects .*'x' of type str"):
        sj.aggregate("x", sj.SumProduct())


def test_nnx_jit_is_explained():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    call = nnx.jit(lambda model, x: model(x).sum())
    with pytest.raises(Exception, match="trace level") as raised:
        sj.list_sites(lambda x: call(model, x))(jnp.ones(2))
    assert "nnx.merge inside" in "".join(raised.value.__notes__)

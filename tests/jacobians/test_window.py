"""Convolutions and pooling: strides, dilations, groups, paddings of either sign."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from .oracle import LIGHT, check, check_dense, check_each, numbers

# Input [batch, channels, *spatial], kernel [outputs, channels, *spatial] and the options.
CONVOLUTIONS = {
    "plain": ((2, 2, 5), (3, 2, 2), {}),
    "two axes": ((1, 2, 3, 3), (2, 2, 2, 3), {}),
    "no axes": ((2, 3), (2, 3), {"window_strides": (), "padding": ()}),
    "strided": ((1, 2, 7), (1, 2, 3), {"window_strides": (2,)}),
    "stride beyond the window": ((1, 1, 7), (2, 1, 2), {"window_strides": (3,)}),
    "padded": ((1, 1, 5), (1, 1, 3), {"padding": [(2, 1)]}),
    "padded on one side": ((1, 1, 5), (1, 1, 3), {"padding": [(-1, 2)]}),
    "negative padding": ((1, 1, 7), (1, 1, 2), {"padding": [(-2, -1)]}),
    "dilated input": ((1, 1, 3), (1, 1, 3), {"lhs_dilation": (2,), "padding": [(1, 1)]}),
    "dilated kernel": ((1, 1, 7), (1, 1, 3), {"rhs_dilation": (2,)}),
    "everything": (
        (1, 1, 5),
        (1, 1, 2),
        {
            "window_strides": (2,),
            "lhs_dilation": (3,),
            "rhs_dilation": (2,),
            "padding": [(-1, 2)],
        },
    ),
    "groups": ((1, 4, 3), (6, 2, 2), {"feature_group_count": 2}),
    "depthwise": ((1, 3, 3), (3, 1, 2), {"feature_group_count": 3}),
    "batch groups": ((4, 2, 3), (2, 2, 2), {"batch_group_count": 2}),
    "window larger than the input": ((1, 1, 2), (1, 1, 3), {}),
    "no batch": ((0, 1, 3), (1, 1, 2), {}),
    "no channels": ((1, 0, 3), (2, 0, 2), {}),
}


def convolution(name):
    lhs, rhs, options = CONVOLUTIONS[name]
    spatial = len(lhs) - 2
    options = {"window_strides": (1,) * spatial, "padding": [(0, 0)] * spatial, **options}
    fun = functools.partial(lax.conv_general_dilated, **options)
    return fun, numbers(lhs), numbers(rhs, 1)


@pytest.mark.parametrize("part", range(4))
def test_convolution(part):
    check_each({name: convolution(name) for name in list(CONVOLUTIONS)[part::4]}, semirings=LIGHT)


@pytest.mark.parametrize("name", ["strided", "everything", "groups"])
def test_convolution_in_all_semirings(name):
    check(*convolution(name))


def test_layout_of_dimensions():
    def fun(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    check(fun, numbers((1, 2, 3, 2)), numbers((2, 2, 2, 3), 1), semirings=LIGHT)


def test_kernel_of_zeros_and_the_same_array_twice():
    zeros = np.zeros((1, 1, 2), np.float32)
    conv = functools.partial(lax.conv_general_dilated, window_strides=(1,), padding=[(1, 0)])
    cases = {
        "zeros": (conv, numbers((1, 1, 3)), zeros),
        "all negative": (conv, numbers((1, 1, 3)), numbers((1, 1, 2), negative=True)),
        "twice": (lambda x: conv(x, x), numbers((1, 1, 3))),
    }
    check_each(cases, semirings=LIGHT)


def test_a_convolution_under_vmap():
    fun = jax.vmap(lambda x, k: jnp.convolve(x, k, mode="same"))
    check(fun, numbers((2, 5)), numbers((2, 3), 1), semirings=LIGHT)


def test_padding_has_no_paths():
    """The one weight is negative: a path through the padding would be a better one."""
    conv = functools.partial(lax.conv_general_dilated, window_strides=(1,), padding=[(2, 2)])
    x, kernel = jnp.ones((1, 1, 1)), -jnp.ones((1, 1, 3))
    of_x, of_kernel = sj.semiring_grad(
        lambda x, k: conv(x, k).sum(), sj.MaxProduct(), argnums=(0, 1)
    )(x, kernel)
    np.testing.assert_array_equal(of_x, [[[-1]]])
    np.testing.assert_array_equal(of_kernel, [[[1, 1, 1]]])
    outside = sj.semiring_grad(lambda k: conv(x, k)[0, 0, 0], sj.MaxProduct())(kernel)
    np.testing.assert_array_equal(outside, [[[-np.inf, -np.inf, 1]]])


# Input, window and the options.
WINDOWS = {
    "plain": ((5,), (2,), {}),
    "strided": ((7,), (3,), {"window_strides": (2,)}),
    "two axes": ((3, 5), (2, 2), {"window_strides": (1, 3)}),
    "padded": ((5,), (3,), {"padding": [(2, 1)]}),
    "same": ((5, 3), (2, 2), {"padding": "SAME"}),
    "dilated window": ((7,), (3,), {"window_dilation": (2,)}),
    "windows of padding": ((3,), (2,), {"padding": [(3, 2)]}),
    "everything": ((3, 5), (2, 2), {"window_strides": (2, 1), "padding": [(1, 1), (0, 2)]}),
    "window larger than the input": ((2,), (3,), {}),
    "no input": ((0, 3), (1, 2), {}),
}
START = {lax.add: 0.0, lax.max: -np.inf, lax.min: np.inf}


def pooling(operation, name):
    shape, window, options = WINDOWS[name]
    options = {"window_strides": (1,) * len(shape), "padding": "VALID", **options}

    def fun(x):
        return lax.reduce_window(x, START[operation], operation, window, **options)

    return fun, numbers(shape)


@pytest.mark.parametrize("operation", START, ids=lambda operation: operation.__name__)
def test_pooling(operation):
    cases = {name: pooling(operation, name) for name in WINDOWS}
    if operation is not lax.add:  # JAX has no reverse derivative of these
        del cases["dilated window"]
    check_each(cases, semirings=LIGHT)


@pytest.mark.parametrize("operation", START, ids=lambda operation: operation.__name__)
def test_pooling_in_all_semirings(operation):
    check(*pooling(operation, "everything"))


def test_sums_over_a_dilated_input():
    def fun(x):
        options = {"base_dilation": (2,), "padding": [(-1, 1)]}
        return lax.reduce_window(x, 0.0, lax.add, (2,), (1,), **options)

    check(fun, numbers((5,)), semirings=LIGHT)


@pytest.mark.parametrize("operation", [lax.max, lax.min], ids=lambda operation: operation.__name__)
def test_ties(operation):
    """One element of the window is selected, the others have edges of weight 0."""
    x = np.array([[1.0, 1.0, 0.0], [1.0, -2.0, -2.0], [0.0, 0.0, 0.0]], np.float32)

    def fun(x):
        return lax.reduce_window(x, START[operation], operation, (2, 2), (1, 1), "SAME")

    check(fun, x)


def test_losers_are_paths():
    def fun(x):
        return -lax.reduce_window(x, -np.inf, lax.max, (2,), (2,), "VALID").sum()

    found = sj.semiring_grad(fun, sj.MaxProduct())(jnp.array([1.0, 3.0, 2.0, 0.0, 9.0]))
    np.testing.assert_array_equal(found, [0, -1, -1, 0, -np.inf])


def test_positions_beyond_one_digit():
    """The winners among more elements than one digit of their positions can name."""
    x = np.random.default_rng(0).permutation(300).astype(np.float32)

    def fun(x):
        return lax.reduce_window(x, -np.inf, lax.max, (7,), (5,), "SAME")

    np.testing.assert_array_equal(
        sj.semiring_grad(lambda x: fun(x).sum(), sj.SumProduct())(x),
        jax.grad(lambda x: fun(x).sum())(x),
    )


def test_dense():
    def fun(x, kernel):
        y = lax.conv_general_dilated(x, kernel, (2,), [(1, 2)], (1,), (2,))
        windows = ((1, 1, 2), (1, 1, 1), ((0, 0), (0, 0), (1, 0)))
        largest = lax.reduce_window(y, -np.inf, lax.max, *windows)
        return largest + lax.reduce_window(y, 0.0, lax.add, *windows)

    check_dense(fun, numbers((2, 2, 5)), numbers((3, 2, 2), 1))

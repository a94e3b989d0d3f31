"""Deep in float32: the mass overflows, what is carried in logarithms does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

SEMIRINGS = {"entropy": sj.Entropy(), "count": sj.PathCount()}


def weights(layers, width):
    rng = np.random.default_rng(0)
    shapes = {
        "qkv": (3, width, width),
        "out": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
    }
    return {
        name: rng.standard_normal((layers, *shape)) / np.sqrt(shape[-2])
        for name, shape in shapes.items()
    }


def norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)


def layer(x, w, heads=4):
    tokens, width = x.shape
    q, k, v = (
        (norm(x) @ m).reshape(tokens, heads, width // heads).swapaxes(0, 1) for m in w["qkv"]
    )
    mixed = jax.nn.softmax(q @ k.mT / np.sqrt(width // heads)) @ v
    x = x + mixed.swapaxes(0, 1).reshape(tokens, width) @ w["out"]
    return x + jax.nn.gelu(norm(x) @ w["up"]) @ w["down"]


def transformer(x, w):
    x, _ = jax.lax.scan(lambda x, w: (layer(x, w), None), x, w)
    return norm(x)[0, 0]


def unrolled(x, w):
    for i in range(len(w["out"])):
        x = layer(x, {name: value[i] for name, value in w.items()})
    return norm(x)[0, 0]


def statistics(function, semirings, w, dtype):
    x = np.random.default_rng(1).standard_normal((3, w["out"].shape[-1]))
    arguments = jax.tree.map(lambda a: jnp.asarray(a, dtype), (x, w))
    return jax.jit(sj.semiring_grad(function, semirings))(*arguments)


@functools.cache
def deep():
    """48 layers of width 256, in float32 and in float64."""
    w = weights(48, 256)
    single = statistics(transformer, SEMIRINGS | {"mass": sj.AbsSumProduct()}, w, jnp.float32)
    with jax.enable_x64(True):
        double = statistics(transformer, SEMIRINGS, w, jnp.float64)
    return single, double


@pytest.mark.parametrize("name", SEMIRINGS)
def test_48_layers_of_width_256(name):
    single, double = (np.asarray(found[name]) for found in deep())
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    assert double.min() > 48 * np.log(256)
    np.testing.assert_allclose(single, double, rtol=1e-5)


def test_the_mass_itself_overflows():
    np.testing.assert_array_equal(deep()[0]["mass"], np.inf)


def test_the_unrolled_model_is_the_same():
    w = weights(2, 16)
    semirings = SEMIRINGS | {"sum": sj.SumProduct(), "max": sj.MaxProduct(), "top": sj.TopK(2)}
    loop, flat = (statistics(f, semirings, w, jnp.float32) for f in (transformer, unrolled))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), loop, flat)

"""Against recorded statistics of small functions, computed by brute force outside of this project.

Each file of ``golden/`` describes one function as a list of primitives and gives, for each input
element, statistics of the weights of its paths in float64. The functions are written out here so
that their graphs are the described ones; a path through the max inside a softmax counts.
"""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from semijax import semirings
from semijax.testing import enumerate_paths

FILES = sorted((pathlib.Path(__file__).parent / "golden").glob("*.json"))
MAX_PATHS = 20_000

INTEGERS = {"ids": np.array([1, 3, 1]), "target": np.array([0, 3, 2])}


@sj.atomic
def gelu(x):
    return jax.nn.gelu(x, approximate=False)


def log_softmax(x):
    largest = jnp.max(x, -1, keepdims=True)
    return x - (jnp.log(jnp.sum(jnp.exp(x - largest), -1, keepdims=True)) + largest)


def attend(x, wq, wk, wv, scale):
    scores = (x @ wq.T) @ (x @ wk.T).T / scale
    return jnp.exp(log_softmax(scores)) @ (x @ wv.T)


def normalise(x, w, b, eps):
    mean = jnp.sum(x, -1, keepdims=True) / x.shape[-1]
    variance = jnp.sum(x**2, -1, keepdims=True) / x.shape[-1] - mean**2
    return w * ((x - mean) / jnp.sqrt(variance + eps)) + b


def figure_1(x, y):
    return jnp.exp(x) + (x - y) * y


def bert_block(x, Wq, Wk, Wv, Wo, bo, g1, c1, U, bu, D, bd, g2, c2, Wc):
    hidden = normalise(attend(x, Wq, Wk, Wv, math.sqrt(2)) @ Wo.T + bo + x, g1, c1, 1e-12)
    forward = gelu(hidden @ U.T + bu) @ D.T + bd
    return jnp.dot(normalise(forward + hidden, g2, c2, 1e-12)[0], Wc[0])


def cross_entropy(E, W, b):
    log_probabilities = log_softmax(E[INTEGERS["ids"]] @ W.T + b)
    return jnp.sum(-log_probabilities[np.arange(3), INTEGERS["target"]]) / 3


FUNCTIONS = {
    "all_paths_negative": lambda x: x * -2.0 + x * -3.0,
    "attention_3x4": lambda x, Wq, Wk, Wv, C: jnp.sum(attend(x, Wq, Wk, Wv, math.sqrt(4)) * C),
    "embedding_linear_ce": cross_entropy,
    "fig1_a": figure_1,
    "fig1_x0": figure_1,
    "layernorm": lambda x, w, b, c: jnp.sum(normalise(x, w, b, 1e-5) * c, -1)[0],
    "mlp_tanh": lambda x, W1, b1, W2, b2: jnp.sum(jnp.tanh(x @ W1.T + b1) @ W2.T + b2, -1)[0],
    "products": lambda x, y, z: x * x * y + y * z * x - z * z,
    "sqrt_log_pow": lambda x, y: jnp.sqrt(x) * jnp.log(y) + (x**2) ** y - jnp.sin(x),
    "tiny_bert_block": bert_block,
}

STATISTICS = {
    "grad": semirings.SumProduct(),
    "max": semirings.MaxProduct(),
    "min": semirings.MinProduct(),
    "max_abs": semirings.AbsMaxProduct(),
    "Z": semirings.AbsSumProduct(),
    "entropy": semirings.Entropy(),
    "n_paths": semirings.PathCount(),
}


@functools.cache
def load(path):
    case = json.loads(path.read_text())
    inputs = {name: np.asarray(value, np.float64) for name, value in case["inputs"].items()}
    for name, value in case["integer_inputs"].items():
        np.testing.assert_array_equal(INTEGERS[name], value)
    expected = {
        name: {key: np.asarray(value, np.float64) for key, value in values.items()}
        for name, values in case["brute_force"].items()
    }
    return FUNCTIONS[case["name"]], inputs, case["output"], expected


def check(found, expected):
    """Compare what the semirings read with the recorded statistics of one input array."""
    paths, zeros = expected["n_paths"], expected["n_zero_paths"]
    for name, value in found.items():
        want = expected[name]
        if name == "n_paths":  # PathCount is of the paths with weight, and logarithmic
            with np.errstate(divide="ignore"):
                want = np.log(paths - zeros)
        if name in ("entropy", "max_abs"):  # NaN and −∞ were recorded where there is no path
            want = np.where(paths == zeros, 0, want)
        np.testing.assert_allclose(value, want, rtol=1e-9, atol=1e-12, err_msg=name)


def test_every_function_has_its_file():
    assert {path.stem for path in FILES} == set(FUNCTIONS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_enumeration(path):
    fun, inputs, output, expected = load(path)
    few = [n for n, name in enumerate(inputs) if expected[name]["n_paths"].sum() <= MAX_PATHS]
    assert few
    with jax.enable_x64(True):
        args = [jnp.asarray(value) for value in inputs.values()]
        np.testing.assert_allclose(fun(*args), output, rtol=1e-12)
        paths = enumerate_paths(fun, *args, argnums=few)
    for n in few:
        want = expected[list(inputs)[n]]
        for index in np.ndindex(args[n].shape):
            weights = paths.weights(n, index)
            mass = np.abs(weights[weights != 0])
            shares = mass / mass.sum()
            assert len(weights) == want["n_paths"][index]
            assert len(weights) - len(mass) == want["n_zero_paths"][index]
            found = {
                "grad": weights.sum(),
                "max": weights.max(initial=-np.inf),
                "min": weights.min(initial=np.inf),
                "Z": mass.sum(),
                "entropy": -(shares * np.log(shares)).sum(),
            }
            check(found, {name: values[index] for name, values in want.items()})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_semiring_gradient(path):
    fun, inputs, output, expected = load(path)
    with jax.enable_x64(True):
        args = [jnp.asarray(value) for value in inputs.values()]
        argnums = tuple(range(len(args)))
        value, grads = jax.jit(sj.semiring_value_and_grad(fun, STATISTICS, argnums))(*args)
    np.testing.assert_allclose(value, output, rtol=1e-12)
    for n, name in enumerate(inputs):
        check({key: found[n] for key, found in grads.items()}, expected[name])

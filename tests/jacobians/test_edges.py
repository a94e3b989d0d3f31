"""Single edges: those that leave each node, and enter it, against the dense matrix."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.evaluation import Runs, evaluate, read
from semijax.jacobians import Table, equation_jacobian
from semijax.jacobians.base import LocalJacobian
from semijax.jacobians.pins import part_of
from semijax.trace.graph import trace

from .oracle import numbers

X = jnp.asarray(numbers((3, 5)))
Y = jnp.asarray(numbers((2, 5), 1))
IMAGE = jnp.asarray(numbers((2, 4, 5, 6), 2))
KERNEL = jnp.asarray(numbers((6, 2, 3, 2), 3))
START = jnp.array(1)


def window(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (2, 3), (1, 2), "SAME")


@jax.custom_jvp
def normalised(x):
    return x / jnp.sum(x, -1, keepdims=True)


normalised.defjvp(lambda p, t: (normalised(*p), jnp.cumsum(t[0], -1) * p[0]))


@jax.custom_vjp
def backward_only(x):
    return jnp.cumsum(x, 0)


backward_only.defvjp(lambda x: (backward_only(x), x), lambda x, g: (g * x,))

FUNCTIONS = {
    "elementwise": lambda x, y: jnp.where(x > 0, jnp.sin(x), x * x),
    "broadcast": lambda x, y: (
        x[:, :1] * y[:1],
        x[0, 0] + y,
        lax.broadcast_in_dim(y, (2, 3, 5), (0, 2)),
    ),
    "reduced": lambda x, y: (x.sum(0), x.max(1), jnp.prod(y), y.sum((), keepdims=True)),
    "reshaped": lambda x, y: (x.T.reshape(5, 3)[::-1], lax.rev(y, (0, 1)), jnp.ravel(y)),
    "dimensions": lambda x, y: lax.reshape(x, (15,), dimensions=(1, 0)),
    "padded": lambda x, y: lax.pad(x, y[0, 0], ((1, -1, 2), (-1, 2, 0))),
    "sliced": lambda x, y: (x[1:, 1::2], x[:0], jnp.split(y, [1, 3], axis=1), jnp.unstack(y)),
    "joined": lambda x, y: (jnp.concatenate([x, y]), jnp.stack([y, y], 1)),
    "sliced at an index": lambda x, y: lax.dynamic_slice(x, (START, START + 1), (2, 3)),
    "updated": lambda x, y: lax.dynamic_update_slice(x, y, (START, START - 1)),
    "gathered": lambda x, y: (x[jnp.array([0, 2, 0])], jnp.take(y, jnp.array([1, 9]), axis=1)),
    "scattered": lambda x, y: (
        x.at[jnp.array([1, 1])].add(y),
        x.at[jnp.array([2, 0])].set(y),
        x.at[jnp.array([0, 2])].multiply(y, unique_indices=True),
        x.at[jnp.array([0, 7])].max(y),
    ),
    "sorted": lambda x, y: (jnp.sort(x, 1), lax.top_k(y, 2)[0], jnp.tile(y, (2, 1))),
    "contracted": lambda x, y: (x @ y.T, jnp.einsum("ij,kj->j", x, y), jnp.einsum("ij,kl->", x, y)),
    "outer": lambda x, y: (jnp.outer(x[0], y[0]), jnp.einsum("i,jk->kij", x[0], y)),
    "batched": lambda x, y: jnp.einsum("bij,bkj->bik", x.reshape(3, 1, 5), jnp.stack([y] * 3)),
    "cumulative": lambda x, y: (
        jnp.cumsum(x, 0),
        lax.cummax(x, 1, reverse=True),
        lax.cumprod(y, 1),
    ),
    "pooled": lambda x, y: (window(x), lax.reduce_window(y, 0.0, lax.add, (1, 2), (1, 1), "VALID")),
    "custom": lambda x, y: (normalised(x), backward_only(y), jax.nn.softmax(x, 0)),
    "atomic": lambda x, y: sj.atomic(lambda x: x @ y.T)(x),
    "complex": lambda x, y: jnp.real(jnp.fft.fft(lax.complex(x, x).T * 2j)),
    "linear algebra": lambda x, y: jnp.linalg.cholesky(x @ x.T + 3 * jnp.eye(3)),
}


def check(function, *args):
    graph, _ = trace(function, *args)
    values = evaluate(graph, Runs.once(args)).values
    checked = 0
    for equation in graph.equations:
        if not equation.wrt:
            continue
        table = equation_jacobian(equation, *read(values, equation.inputs))
        assert isinstance(table, Table)
        for jacobian in table.entries.values():
            weights, present = (np.asarray(a) for a in jacobian.dense())
            outs, ins = int(np.prod(jacobian.out_shape)), int(np.prod(jacobian.in_shape))
            weights, present = weights.reshape(outs, ins), present.reshape(outs, ins)
            every = LocalJacobian.leaving, LocalJacobian.entering
            for leaving, entering in ((type(jacobian).leaving, type(jacobian).entering), every):
                by_input = leaving(jacobian, np.arange(ins)[::-1])
                by_output = entering(jacobian, np.arange(outs)[::-1])
                found = by_input.other, ins - 1 - by_input.owner, by_input.weight
                _compare(found, weights, present, equation.name)
                found = outs - 1 - by_output.owner, by_output.other, by_output.weight
                _compare(found, weights, present, equation.name)
            _check_restricted(jacobian, weights, present, equation.name)
            checked += 1
            assert len(jacobian.leaving(np.zeros(0, int)).owner) == 0
    assert checked


def _compare(found, weights, present, name):
    outs, ins, values = found
    assert len({*zip(outs.tolist(), ins.tolist(), strict=True)}) == len(outs), f"{name}: twice"
    matrix, mask = np.zeros(weights.shape), np.zeros(weights.shape, bool)
    matrix[outs, ins], mask[outs, ins] = values, True
    assert values.dtype == np.float64
    np.testing.assert_array_equal(mask, present, name)
    np.testing.assert_allclose(matrix, weights, 1e-5, 1e-6, err_msg=name)


def _check_restricted(jacobian, weights, present, name):
    """Compare what enters parts of the output with these rows of the dense matrix."""
    rng, shape = np.random.default_rng(0), jacobian.out_shape
    rows = np.arange(len(weights)).reshape(shape)
    columns = np.arange(weights.shape[1]).reshape(jacobian.in_shape)
    choices = [[None] if n < 2 else [None, int(rng.integers(n))] for n in shape]
    for pins in itertools.product(*choices) if rows.size else ():
        found = jacobian.restricted(pins)
        if found is None:
            continue
        smaller, own = found
        here, there = part_of(rows, pins).ravel(), part_of(columns, own).ravel()
        assert smaller.out_shape == part_of(rows, pins).shape
        assert smaller.in_shape == part_of(columns, own).shape
        size = len(here), len(there)
        dense, mask = (np.asarray(a).reshape(size) for a in smaller.dense())
        np.testing.assert_array_equal(mask, present[np.ix_(here, there)], name)
        np.testing.assert_allclose(dense, weights[np.ix_(here, there)], 1e-6, err_msg=name)
        assert not np.delete(present[here], there, 1).any(), name  # no other edge enters


@pytest.mark.parametrize(
    ("function", "pins", "own"),
    [
        (jnp.sin, (1, None), (1, None)),
        (lambda x: lax.broadcast_in_dim(x, (2, 3, 4, 5), (1, 3)), (1, 2, None, 4), (2, 4)),
        (lambda x: lax.reduce_sum(x, (0,)), (3,), (None, 3)),
        (lambda x: lax.dot(x, Y.T), (2, 1), (2, None)),
        (lambda x: lax.dot(X.T, x), (1, 4), (None, 4)),
        (lambda x: lax.transpose(x, (1, 0)), (4, 1), (1, 4)),
        (lambda x: lax.rev(x, (0,)), (0, 1), (2, 1)),
        (lambda x: lax.reshape(x, (3, 1, 5)), (2, None, 4), (2, 4)),
        (lambda x: lax.reshape(x, (5, 3)), (2, None), None),
        (lambda x: lax.reshape(x, (15,)), (7,), None),
        (lax.cumsum, (1, None), None),
    ],
)
def test_a_part_of_the_output_depends_on_a_part_of_the_input(function, pins, own):
    graph, _ = trace(function, X)
    table = evaluate(graph, Runs.once([X])).jacobian(graph.equations[-1])
    ((_, jacobian),) = table.entries.items()
    found = jacobian.restricted(pins)
    assert (None if found is None else found[1]) == own


@pytest.mark.parametrize("name", FUNCTIONS)
def test_edges(name):
    check(FUNCTIONS[name], X, Y)


CONVOLUTIONS = {
    "groups": {"window_strides": (2, 1), "padding": "SAME", "feature_group_count": 2},
    "dilated": {
        "window_strides": (1, 2),
        "padding": [(1, 0), (2, 1)],
        "lhs_dilation": (2, 1),
        "rhs_dilation": (1, 2),
        "feature_group_count": 2,
    },
    "batch groups": {"window_strides": (1, 1), "padding": "VALID", "batch_group_count": 2},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_edges_of_convolutions(name):
    image, kernel = IMAGE[:, :, :3, :3], KERNEL[:2, :, :2]
    if name == "batch groups":
        image, kernel = image[:, :2], kernel[:2]
    check(lambda a, b: lax.conv_general_dilated(a, b, **CONVOLUTIONS[name]), image, kernel)


def test_an_infinite_weight_is_at_its_own_edge_only():
    x = jnp.array([1.0, 2.0, 3.0])
    w = jnp.array([[1.0, jnp.inf], [2.0, 3.0], [jnp.nan, 4.0]])
    graph, _ = trace(lambda x: x @ w, x)
    table = evaluate(graph, Runs.once([x])).jacobian(graph.equations[-1])
    (jacobian,) = table.entries.values()
    edges = jacobian.leaving(np.arange(3))
    matrix = np.zeros((3, 2))
    matrix[edges.owner, edges.other] = edges.weight
    np.testing.assert_array_equal(matrix, w)

"""The edges of one equation at a point: which elements depend on which, and JAX's derivatives.

A Jacobian does not tell which of its zeros are edges. And inside JAX's, 0 · NaN and 0 · ∞ are
NaN, far from the number that is not finite. So for the families of primitives below, which elements
meet is known or probed first, and a weight depends only on what its output depends on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax.jacobians import EquationJacobian
from semijax.trace.graph import Equation
from semijax.trace.primitives import primitives

Index = tuple[int, ...]


def _primitives(text: str) -> frozenset[Any]:
    return frozenset(primitives(*text.split()))


CUSTOM_DERIVATIVE = _primitives("custom_jvp_call custom_vjp_call")
"""Equations that are a function whose derivative its author wrote: one node."""

ELEMENTWISE = _primitives(
    "abs acos acosh add add_any asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
    "convert_element_type copy cos cosh digamma div erf erf_inv erfc exp exp2 expm1 floor "
    "igamma igammac integer_pow lgamma log log1p logistic max min mul neg "
    "polygamma pow reduce_precision regularized_incomplete_beta rem round rsqrt "
    "select_n sign sin sinh sqrt square sub tan tanh zeta"
)
"""Primitives whose output elements depend on the inputs at their place, whatever the values."""

SELECTIONS = _primitives(
    "select_n clamp max min sign floor ceil round reduce_max reduce_min cummax cummin "
    "reduce_window_max reduce_window_min scatter-min scatter-max"
)
"""Primitives whose derivative is 0 where something else was selected, or that are steps."""

BILINEAR = _primitives("dot_general conv_general_dilated")
"""Primitives that sum products; which factors meet does not depend on their values."""

FOLDS = _primitives(
    "reduce_max reduce_min reduce_prod reduce_sum cummax cummin cumprod cumsum cumlogsumexp "
    "reduce_window_max reduce_window_min reduce_window_sum "
    "scatter-mul scatter-min scatter-max"
)
"""Primitives that combine several input elements in one, the losers of a maximum among them."""


def local_edges(
    equation: Equation,
    values: Sequence[Any],
    results: Sequence[Any],
    made: Sequence[int],
    connected: Mapping[tuple[int, int], np.ndarray] | None = None,
) -> dict[tuple[int, int], tuple[np.ndarray, ...]]:
    """Return the edges between each input p in ``equation.wrt`` and each output k in ``made``.

    Where nothing is known about a primitive (linear algebra), all derivatives that are not exactly
    0 are edges. There, and where a custom derivative or an atomic function mixes elements, an input
    that is not finite may make NaNs that are not its own.

    Args:
        equation: the equation.
        values: its inputs.
        results: its outputs.
        made: the outputs that have nodes.
        connected: for a function that is one node, by (k, p), the pairs of elements of output and
            input that paths inside it join.

    Returns:
        By (k, p), the flat index in the output, that in the input, and the weight of each edge; and
        whether it was selected: if not, whatever arrives there, infinite or NaN, becomes 0.
    """
    edges = _weighted_edges(equation, values, results, made, connected or {})
    if equation.primitive in SELECTIONS:
        return {key: (o, i, w, w != 0) for key, (o, i, w) in edges.items()}
    if equation.primitive in CUSTOM_DERIVATIVE or equation.is_atomic:
        passed = _passing_nan(equation, values, results, made)
        return {(k, p): (o, i, w, passed[k, p][o, i]) for (k, p), (o, i, w) in edges.items()}
    return {key: (o, i, w, np.ones(len(w), bool)) for key, (o, i, w) in edges.items()}


def edges_of(
    jacobian: EquationJacobian, equation: Equation, values: Sequence[Any]
) -> dict[tuple[int, int], tuple[np.ndarray, ...]]:
    """Return the edges of a local Jacobian, whose weights only a weighting knows."""
    selects = equation.primitive in SELECTIONS | CUSTOM_DERIVATIVE
    found = {}
    for p in equation.wrt:
        every = np.arange(np.size(values[p]))
        for k, (i, o, weight) in jacobian.leaving(p, every):
            kept = weight != 0 if selects else np.ones(len(weight), bool)
            found[k, p] = o, i, weight, kept
    return found


def _weighted_edges(
    equation: Equation,
    values: Sequence[Any],
    results: Sequence[Any],
    made: Sequence[int],
    connected: Mapping[tuple[int, int], np.ndarray],
) -> dict[tuple[int, int], tuple[np.ndarray, ...]]:
    primitive, wrt = equation.primitive, equation.wrt
    if primitive in ELEMENTWISE:
        return {(0, p): _elementwise(equation, values, results, p) for p in wrt}
    if primitive in BILINEAR:
        return {(0, p): _bilinear(equation, values, results, p) for p in wrt}
    jacobians = _jacobians(equation, values, wrt, made)
    pairs = None
    if primitive in FOLDS:
        pairs = {p: _poisoned(equation, values, p) for p in _floating(values)}
    elif primitive in CUSTOM_DERIVATIVE or equation.is_atomic:
        pairs = _pairs_in_place(equation, values, results, made, jacobians)
    if pairs is not None:
        _mend(jacobians, pairs, equation, values)
    edges = {}
    for (k, p), matrix in jacobians.items():
        mask = connected.get((k, p), matrix != 0 if pairs is None else pairs[p])
        edges[k, p] = (*np.nonzero(mask), matrix[mask])
    return edges


def _elementwise(
    equation: Equation, values: Sequence[Any], results: Sequence[Any], p: int
) -> tuple[np.ndarray, ...]:
    # Each output element reads one element of the input: one tangent gives all derivatives.
    function = function_of(equation, values, [p], [0])
    _, (weights,) = jax.jvp(function, (values[p],), (jnp.ones_like(values[p]),))
    places = _places(values[p].shape, results[0].shape)
    return np.arange(places.size), places, np.asarray(weights, np.float64).ravel()


def _bilinear(
    equation: Equation, values: Sequence[Any], results: Sequence[Any], p: int
) -> tuple[np.ndarray, ...]:
    # The derivative by one factor is the element of the other that it meets. Its number is read
    # bit by bit: from the derivative where the other factor's elements are their own numbers.
    other = values[1 - p]
    numbers = np.arange(1, other.size + 1).reshape(other.shape)
    probe = [jnp.ones_like(value) for value in values]
    met = np.zeros((results[0].size, values[p].size), int)
    for bit in range(other.size.bit_length()):
        probe[1 - p] = jnp.asarray(numbers >> bit & 1, other.dtype)
        met += _jacobians(equation, probe, [p], [0])[0, p].astype(int) << bit
    o, i = np.nonzero(met)
    return o, i, np.asarray(other, np.float64).ravel()[met[o, i] - 1]


def function_of(
    equation: Equation, values: Sequence[Any], wrt: Sequence[int], made: Sequence[int]
) -> Callable[..., list[jax.Array]]:
    """Return the equation as a function of the inputs in ``wrt``, with the outputs in ``made``."""

    def function(*variables: jax.Array) -> list[jax.Array]:
        given = dict(zip(wrt, variables, strict=True))
        results = equation.bind(*(given.get(p, value) for p, value in enumerate(values)))
        return [results[k] for k in made]

    return function


def _jacobians(
    equation: Equation, values: Sequence[Any], wrt: Sequence[int], made: Sequence[int]
) -> dict[tuple[int, int], np.ndarray]:
    """Compute JAX's ∂(output k)/∂(input p), in float64, for k in ``made`` and p in ``wrt``."""
    function = function_of(equation, values, wrt, made)
    argnums, point = tuple(range(len(wrt))), [values[p] for p in wrt]
    refusals = ValueError, NotImplementedError
    try:
        jacobian = jax.jacrev(function, argnums)(*point)
    except refusals:
        try:
            jacobian = _one_by_one(function, *point)  # some rules cannot be mapped
        except refusals:
            jacobian = jax.jacfwd(function, argnums)(*point)  # a dynamic loop has no other
    matrices = {}
    for k, row in zip(made, jacobian, strict=True):
        for p, block in zip(wrt, row, strict=True):
            outer = block.shape[: block.ndim - values[p].ndim]
            matrix = np.array(block, np.float64)
            matrices[k, p] = matrix.reshape(math.prod(outer), values[p].size)
    return matrices


def _one_by_one(
    function: Callable[..., list[jax.Array]], *point: jax.Array
) -> list[tuple[jax.Array, ...]]:
    """Compute what ``jax.jacrev`` returns, without vmap."""
    results, pull = jax.vjp(function, *point)
    found = []
    for k, result in enumerate(results):

        def row(cotangent: jax.Array, k: int = k) -> tuple[jax.Array, ...]:
            return pull([cotangent if j == k else jnp.zeros_like(x) for j, x in enumerate(results)])

        units = jnp.eye(result.size, dtype=result.dtype).reshape(result.size, *result.shape)
        rows = jax.lax.map(row, units)
        found.append(tuple(x.reshape(*result.shape, *x.shape[1:]) for x in rows))
    return found


def _passing_nan(
    equation: Equation, values: Sequence[Any], results: Sequence[Any], made: Sequence[int]
) -> dict[tuple[int, int], np.ndarray]:
    """Tell, for each k in ``made`` and input p, whether a NaN at output o is pulled back to i."""
    function = function_of(equation, values, equation.wrt, made)
    point = [values[p] for p in equation.wrt]
    passed = {}
    for number, k in enumerate(made):
        rows: dict[int, list[np.ndarray]] = {p: [] for p in equation.wrt}
        for o in range(results[k].size):
            cotangents = [jnp.zeros_like(results[j]) for j in made]
            cotangents[number] = cotangents[number].ravel().at[o].set(jnp.nan)
            cotangents[number] = cotangents[number].reshape(results[k].shape)
            try:
                pulled = jax.vjp(function, *point)[1](cotangents)
            except (ValueError, NotImplementedError):  # such as a dynamic loop in one
                pulled = [jnp.full(x.shape, jnp.nan) for x in point]
            for p, x in zip(equation.wrt, pulled, strict=True):
                rows[p].append(np.asarray(x).ravel() != 0)
        for p in equation.wrt:
            shape = results[k].size, values[p].size
            passed[k, p] = np.array(rows[p], bool).reshape(shape)
    return passed


def _mend(
    jacobians: dict[tuple[int, int], np.ndarray],
    pairs: dict[int, np.ndarray],
    equation: Equation,
    values: Sequence[Any],
) -> None:
    """Ask again for each row with a NaN, with 1 for all that its output does not depend on."""
    doubtful = {
        (k, int(o))
        for (k, p), matrix in jacobians.items()
        for o in np.flatnonzero((np.isnan(matrix) & pairs[p]).any(axis=1))
    }
    for k, o in doubtful:
        alone = list(values)
        for p, mask in pairs.items():
            alone[p] = jnp.where(mask[o].reshape(alone[p].shape), alone[p], jnp.ones_like(alone[p]))
        for key, matrix in _jacobians(equation, alone, equation.wrt, [k]).items():
            jacobians[key][o] = matrix[o]


def _poisoned(equation: Equation, values: Sequence[Any], p: int) -> np.ndarray:
    """Return the pairs (o, i) where a NaN at input i is a NaN at output o; other numbers are 1."""
    floating = _floating(values)
    ones = [jnp.ones_like(x) if n in floating else x for n, x in enumerate(values)]
    shape, size = ones[p].shape, ones[p].size
    here = jnp.eye(size, dtype=bool).reshape(size, *shape)
    poisons = jnp.where(here, jnp.nan, ones[p]).astype(ones[p].dtype)
    (found,) = jax.vmap(function_of(equation, ones, [p], [0]))(poisons)
    return np.isnan(found).reshape(size, math.prod(found.shape[1:])).T


def _pairs_in_place(
    equation: Equation,
    values: Sequence[Any],
    results: Sequence[Any],
    made: Sequence[int],
    jacobians: dict[tuple[int, int], np.ndarray],
) -> dict[int, np.ndarray] | None:
    """Return the pairs at the same place, or None if value or derivative depends on others.

    To find out, all other elements are replaced by random numbers, one output element at a time.
    """
    shape, shapes = results[made[0]].shape, {p: values[p].shape for p in _floating(values)}
    fits = all(
        len(axes) in (0, len(shape)) and all(n in (1, m) for n, m in zip(axes, shape, strict=False))
        for axes in shapes.values()
    )
    if not fits or any(results[k].shape != shape for k in made):
        return None
    pairs = {
        p: _places(axes, shape)[:, None] == np.arange(math.prod(axes)) for p, axes in shapes.items()
    }
    if any(((m != 0) & ~np.isnan(m) & ~pairs[p]).any() for (_, p), m in jacobians.items()):
        return None
    random = np.random.default_rng(0)
    for o in 3 * [*range(math.prod(shape))]:
        changed = list(values)
        for p, axes in shapes.items():
            noise = jnp.asarray(random.uniform(-3, 3, axes), values[p].dtype)
            changed[p] = jnp.where(pairs[p][o].reshape(axes), values[p], noise)
        found = equation.bind(*changed)
        if not all(
            np.array_equal(results[k].ravel()[o], found[k].ravel()[o], equal_nan=True) for k in made
        ):
            return None
    return pairs


def _places(input_shape: Index, output_shape: Index) -> np.ndarray:
    """Return the input element at each output element's place; axes of size 1 are everywhere."""
    numbers = np.arange(math.prod(input_shape)).reshape(input_shape)
    return np.broadcast_to(numbers, output_shape).ravel()


def _floating(values: Sequence[Any]) -> list[int]:
    return [p for p, x in enumerate(values) if jnp.issubdtype(x.dtype, jnp.floating)]

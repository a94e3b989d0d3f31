"""The edges of one equation at a point: which elements it joins, and JAX's derivatives.

Which elements are joined is known of most families of primitives: of elementwise ones, of those
that move elements, by moving their numbers, of sums, windows and products, by what meets where all
other numbers are 1. Linear algebra is probed near the point. What a custom rule joins is read off
its jaxpr (``oracle.py``).

An array of complex numbers counts as one of real numbers that is twice as long: real and imaginary
parts in turn.
"""

import itertools
import math
from typing import NamedTuple

import jax
import numpy as np
from jax import lax

from . import in_numpy
from .in_numpy import names

CUSTOM = {"custom_jvp_call", "custom_vjp_call"}
ELEMENTWISE = names(
    "abs acos acosh add add_any asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
    "conj convert_element_type copy copy_p cos cosh digamma div erf erf_inv erfc exp exp2 expm1 "
    "floor igamma igammac imag integer_pow is_finite lgamma log log1p logistic max min mul name "
    "neg nextafter polygamma pow real reduce_precision regularized_incomplete_beta rem round rsqrt "
    "select_n sign sin sinh sqrt square sub tan tanh zeta complex optimization_barrier"
)
MOVEMENT = names(
    "reshape squeeze expand_dims transpose rev broadcast_in_dim tile pad slice concatenate stack "
    "split unstack dynamic_slice dynamic_update_slice gather scatter"
)
BILINEAR = {"dot_general", "conv_general_dilated"}
REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod"}
CUMULATIVE = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}
WINDOWS = {"reduce_window_sum", "reduce_window_max", "reduce_window_min"}
SCATTERS = {"scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max"}

PART_BY_PART = (
    names("add add_any sub neg conj copy copy_p convert_element_type select_n name")
    | {"optimization_barrier", "reduce_sum", "cumsum", "reduce_window_sum"}
    | {"scatter-add", "scatter-sub"}
    | MOVEMENT
)
"""A real part of the output depends on the real part of the input only, and so the imaginary."""


class Edges(NamedTuple):
    """From positions ``i`` of an input to positions ``o`` of an output.

    ``cut`` says that a selection passed the input over: its weight is 0, and 0 is what arrives
    there whatever arrives at the output, be it infinite.
    """

    o: np.ndarray
    i: np.ndarray
    weight: np.ndarray
    cut: np.ndarray


def local_edges(equation, values, results, wrt, made, rule=None):
    """The edges of an equation.

    Args:
        equation: the equation.
        values: its inputs.
        results: its outputs.
        wrt: the positions of the inputs whose edges are asked for.
        made: the positions of the outputs that have nodes.
        rule: of an equation that is a function with a derivative of its own, the masks of the
            edges that there are, and of those that are cut, by output and input.

    Returns:
        ``Edges`` by output and input.
    """
    name = equation.primitive.name
    if name in ELEMENTWISE:
        if name == "optimization_barrier":
            return {(p, p): elementwise(equation, values, results, p, p) for p in wrt}
        return {(0, p): elementwise(equation, values, results, p) for p in wrt}
    if name in MOVEMENT:
        found = {p: moved(equation, values, p) for p in wrt}
        return {(k, p): sources_of(found[p][k]) for p in wrt for k in made}
    if name in ("sort", "top_k"):
        return {(k, k): permuted(equation, values, results, k) for k in made if k in wrt}
    matrices = jacobians(equation, values, wrt, made)
    if rule is not None:
        masks = rule
    elif name in BILINEAR:
        masks = {(0, p): (bilinear_mask(equation, values, results, p), None) for p in wrt}
    elif name in REDUCTIONS | CUMULATIVE | WINDOWS | SCATTERS:
        masks = {(0, p): (in_parts(equation, values, results, p), None) for p in wrt}
    else:
        # Linear algebra, Fourier transforms: an edge that weighs 0 cannot be told from none, and
        # what JAX computes forward for a 0 may be a rounding error.
        masks = {key: (~negligible(matrix), None) for key, matrix in matrices.items()}
    edges = {}
    for key, matrix in matrices.items():
        mask, cut = masks[key]
        o, i = np.nonzero(mask)
        never = np.zeros(len(o), bool)
        edges[key] = Edges(o, i, matrix[o, i], never if cut is None else cut[o, i])
    return edges


def negligible(matrix):
    """Where derivatives are 0 next to the largest."""
    sizes = np.abs(matrix)
    return sizes <= 1e-16 * sizes.max(initial=0)


def bind(equation, values):
    """The outputs of an equation, also for values that are traced."""
    found = equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))
    return list(found) if equation.primitive.multiple_results else [found]


def function_of(equation, values, wrt, made):
    def function(*variables):
        given = dict(zip(wrt, variables, strict=True))
        results = bind(equation, [given.get(p, value) for p, value in enumerate(values)])
        return [results[k] for k in made]

    return function


def jacobians(equation, values, wrt, made):
    """JAX's derivative of each output by each input, in real numbers, as float64 matrices.

    A custom rule is asked for all floating inputs together, as it may want it so.
    """
    together = floating(values) if equation.primitive.name in CUSTOM else wrt
    function = function_of(equation, values, together, made)
    point = [values[p] for p in together]
    if equation.primitive.name == "custom_vjp_call":
        like = [np.zeros(v.aval.shape, v.aval.dtype) for v in (equation.outvars[k] for k in made)]
        pull = in_numpy.traced(lambda g: list(jax.vjp(function, *point)[1](g)), like)
        found = matrices(pull, like, range(len(made)))
        places = {(k, p): (together.index(p), m) for m, k in enumerate(made) for p in wrt}
        return {key: found[place].T for key, place in places.items()}
    like = [np.zeros_like(x) for x in point]
    push = in_numpy.traced(lambda tangents: jax.jvp(function, point, tangents)[1], like)
    found = matrices(push, like, [together.index(p) for p in wrt])
    return {(k, p): found[m, together.index(p)] for m, k in enumerate(made) for p in wrt}


def matrices(linear, like, numbers):
    """The matrices of a linear function of arrays ``like`` these, by output and input, in reals."""
    found, nothing = {}, linear(like)
    for n in numbers:
        images = [linear([*like[:n], unit, *like[n + 1 :]]) for unit in basis(like[n])]
        for m, zero in enumerate(nothing):
            rows = [real_parts(image[m]) for image in images]
            found[m, n] = np.array(rows).reshape(len(images), real_size(zero)).T
    return found


def places(input_shape, output_shape):
    """For each output element the input element at its place; axes of size 1 are everywhere."""
    numbers = np.arange(math.prod(input_shape)).reshape(input_shape)
    return np.broadcast_to(numbers, output_shape).ravel()


def elementwise(equation, values, results, p, k=0):
    name, x, out = equation.primitive.name, values[p], results[k]
    i = places(x.shape, out.shape)
    o = np.arange(i.size)
    if name == "select_n":
        chosen = np.broadcast_to(np.asarray(values[0], int), out.shape).ravel() == p - 1
        parts = np.arange(1 + is_complex(out))[:, None]
        o, i, chosen = (np.broadcast_to(c, (len(parts), len(o))) for c in (o, i, chosen))
        n = len(parts)
        o, i = n * o + parts, n * i + parts
        return Edges(o.ravel(), i.ravel(), chosen.ravel().astype(float), ~chosen.ravel())
    function = function_of(equation, values, [p], [k])
    edges = []
    for part, unit in enumerate([1, 1j] if is_complex(x) else [1]):
        unit = np.full_like(x, unit)
        (tangent,) = in_numpy.run(lambda t: jax.jvp(function, [x], [t])[1], unit)
        weights = real_parts(tangent).reshape(i.size, 1 + is_complex(out))
        for of in range(weights.shape[1]):
            if parts_meet(name, p, is_complex(x), is_complex(out), part, of):
                ins, outs = 1 + is_complex(x), 1 + is_complex(out)
                edges.append((outs * o + of, ins * i + part, weights[:, of]))
    o, i, weights = (np.concatenate(column) for column in zip(*edges, strict=True))
    cut = weights == 0 if name == "clamp" else np.zeros(len(o), bool)
    return Edges(o, i, weights, cut)


def parts_meet(name, p, from_complex, to_complex, part, of):
    """Whether part ``of`` of an output element may depend on a part of the input element."""
    match name:
        case "complex":
            return of == p
        case "real" | "imag":
            return part == (name == "imag")
        case "convert_element_type" if not from_complex:
            return of == 0
        case _ if name in PART_BY_PART and from_complex and to_complex:
            return part == of
    return True


def moved(equation, values, p):
    """For each output, in real numbers: 1 + the position in the input it was moved from, or 0."""
    others = [np.zeros_like(v) if is_real_or_complex(v) else v for v in values]
    n = np.arange(1, values[p].size + 1).reshape(values[p].shape)
    numbers = np.asarray(2 * n - 1 + 2j * n if is_complex(values[p]) else n, values[p].dtype)
    with_numbers = [numbers if q == p else v for q, v in enumerate(others)]
    found = []
    for pair in zip(*(in_numpy.bind(equation, v) for v in (with_numbers, others)), strict=True):
        with_, without = map(real_parts, pair)
        same = (with_ == without) | np.isnan(with_)
        found.append(np.where(same, 0, with_).astype(int))
    return found


def sources_of(numbers):
    o = np.flatnonzero(numbers)
    return Edges(o, numbers[o] - 1, np.ones(len(o)), np.zeros(len(o), bool))


def permuted(equation, values, results, k):
    """The edges of a sort or a top-k: from where it took each element."""
    params, shape = equation.params, values[k].shape
    if equation.primitive.name == "top_k":
        axis = params.get("axis", params.get("dimension", len(shape) - 1)) % len(shape)
        order = np.asarray(results[1])
    else:
        axis = params["dimension"]
        own = lax.broadcasted_iota(int, shape, axis)
        keys = {q: params[q] for q in ("dimension", "is_stable", "num_keys")}
        order = np.asarray(lax.sort((*values, own), **keys)[-1])
    numbers = np.arange(values[k].size).reshape(shape)
    i = np.take_along_axis(numbers, order, axis).ravel()
    return Edges(np.arange(len(i)), i, np.ones(len(i)), np.zeros(len(i), bool))


def in_parts(equation, values, results, p):
    """Which real numbers of an output depend on which of an input, of which elements do."""
    mask = meeting(equation, values, results, p)
    return expand(mask, equation.primitive.name in PART_BY_PART, values[p], results[0])


def expand(mask, part_by_part, value, result):
    ins, outs = 1 + is_complex(value), 1 + is_complex(result)
    block = np.eye(ins) if part_by_part and ins == outs else np.ones((outs, ins))
    return np.kron(mask, block).astype(bool)


def meeting(equation, values, results, p):
    """Which elements of the output combine which elements of the input, a mask."""
    name, params, x = equation.primitive.name, equation.params, values[p]
    shape, out_shape = x.shape, results[0].shape
    if name in REDUCTIONS:
        numbers = np.arange(math.prod(out_shape)).reshape(out_shape)
        numbers = np.broadcast_to(np.expand_dims(numbers, tuple(params["axes"])), shape).ravel()
        return np.arange(math.prod(out_shape))[:, None] == numbers
    units = np.eye(x.size).reshape(x.size, *shape)
    if name in CUMULATIVE:
        axis, flip = params["axis"] + 1, params["reverse"]
        units = np.flip(units, axis) if flip else units
        sums = np.cumsum(units, axis)
        sums = np.flip(sums, axis) if flip else sums
    elif name in WINDOWS:
        keys = names("window_dimensions window_strides padding base_dilation window_dilation")
        options = {key: params[key] for key in keys if key in params}
        sums = [lax.reduce_window(u, 0.0, lax.add, **options) for u in units]
    elif p == 0:  # the operand of a scatter
        return np.eye(x.size, dtype=bool)
    else:
        keys = names("dimension_numbers indices_are_sorted unique_indices mode")
        options = {key: params[key] for key in keys}
        empty = np.zeros(out_shape)
        sums = [lax.scatter_add(empty, values[1], u, **options) for u in units]
    return np.array(sums).reshape(x.size, math.prod(out_shape)).T != 0


def bilinear_mask(equation, values, results, p):
    """Which factors meet: where the products are, if all numbers but one are 1."""
    params = dict(equation.params, preferred_element_type=None)  # of real numbers, also of complex
    ones = [np.ones(value.shape) for value in values]
    units = np.eye(values[p].size).reshape(-1, *values[p].shape)
    products = [
        equation.primitive.bind(*ones[:p], unit, *ones[p + 1 :], **params) for unit in units
    ]
    mask = np.array(products).reshape(len(units), results[0].size).T != 0
    return expand(mask, False, values[p], results[0])


# Arrays as real numbers.


def is_complex(value):
    return jax.dtypes.issubdtype(value.dtype, np.complexfloating)


def is_real_or_complex(value):
    return jax.dtypes.issubdtype(value.dtype, np.inexact)


def floating(values):
    return [p for p, value in enumerate(values) if is_real_or_complex(value)]


def real_size(value):
    """How many nodes an array has."""
    return value.size * (1 + is_complex(value)) if is_real_or_complex(value) else 0


def real_parts(value):
    """The real numbers of an array, flat."""
    value = np.asarray(value)
    if np.iscomplexobj(value):
        value = np.stack([value.real, value.imag], -1)
    return value.astype(np.float64).ravel()


def basis(value):
    """For each node of an array the tangent that is 1 there."""
    units = [1, 1j] if is_complex(value) else [1]
    for position, unit in itertools.product(range(value.size), units):
        tangent = np.zeros(value.size, value.dtype)
        tangent[position] = unit
        yield tangent.reshape(value.shape)

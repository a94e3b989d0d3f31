"""Runs traced functions in NumPy, so that nothing is compiled.

Every random program has shapes of its own. To compile a sweep in a dozen semirings takes seconds,
to run it once in NumPy a fraction of one. What NumPy lacks, JAX computes.
"""

import jax
import numpy as np


def names(text):
    return frozenset(text.split())


CALLS = names(
    "jit closed_call eval_jaxpr call core_call remat2 checkpoint composite custom_vmap_call"
)
"""Equations that merely call a function."""

CALLS_FOR_VALUE = CALLS | names("custom_jvp_call custom_vjp_call custom_partitioning")
"""Those that do so if nobody asks for a derivative."""


def run(function, *args):
    """``function(*args)``; it is traced, as under ``jax.jit``."""
    return traced(function, *args)(*args)


def traced(function, *args):
    """The function as what ``jax.jit`` would make of it, equation by equation in NumPy."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    tree = jax.tree.structure(shapes)

    def equations(*args):
        with np.errstate(all="ignore"):
            found = evaluate(*opened(closed), [np.asarray(x) for x in jax.tree.leaves(args)])
        return jax.tree.unflatten(tree, found)

    return equations


def opened(jaxpr):
    """A jaxpr and the values of its constants; open and closed ones are one type in later JAX."""
    return getattr(jaxpr, "jaxpr", jaxpr), list(getattr(jaxpr, "consts", ()))


def called(equation):
    """The jaxpr that an equation calls, and its constants."""
    key = next(key for key in ("jaxpr", "call_jaxpr", "call") if key in equation.params)
    return opened(equation.params[key])


def scan_layout(equation):
    """How many constants, carried values and stacked inputs a scan has."""
    body, _ = opened(equation.params["jaxpr"])
    inputs = zip(equation.invars, body.invars, strict=True)
    outputs = zip(equation.outvars, body.outvars, strict=True)
    xs, ys = (sum(v.aval.ndim > w.aval.ndim for v, w in both) for both in (inputs, outputs))
    carry = len(equation.outvars) - ys
    return len(equation.invars) - carry - xs, carry, xs


def literal_value(atom):
    return np.asarray(atom.val, atom.aval.dtype)


def is_literal(atom):
    return hasattr(atom, "val")


def evaluate(jaxpr, constants, inputs):
    """The outputs of a jaxpr."""
    environment = dict(zip(jaxpr.constvars, map(array, constants), strict=True))
    environment.update(zip(jaxpr.invars, inputs, strict=True))

    def read(atom):
        return literal_value(atom) if is_literal(atom) else environment[atom]

    for equation in jaxpr.eqns:
        results = bind(equation, [read(atom) for atom in equation.invars])
        environment.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def bind(equation, values):
    """The outputs of an equation."""
    name, params = equation.primitive.name, equation.params
    if name in OPERATIONS:
        result = OPERATIONS[name](*values, **params)
        if result is not NotImplemented:
            return [array(result)]
    if name in CALLS_FOR_VALUE:
        return evaluate(*called(equation), values)
    if name == "cond":
        index, *operands = values
        branches = params["branches"]
        return evaluate(*opened(branches[min(max(int(index), 0), len(branches) - 1)]), operands)
    if name == "scan":
        return _scan(equation, values)
    if name == "while":
        return _while(params, values)
    found = equation.primitive.bind(*values, **equation.primitive.get_bind_params(params))
    return [*map(array, found)] if equation.primitive.multiple_results else [array(found)]


def _scan(equation, values):
    body, length = opened(equation.params["jaxpr"]), equation.params["length"]
    n, n_carry, _ = scan_layout(equation)
    fixed, carry, xs = values[:n], values[n : n + n_carry], values[n + n_carry :]
    ys = [np.zeros(v.aval.shape, v.aval.dtype) for v in equation.outvars[n_carry:]]
    for t in reversed(range(length)) if equation.params["reverse"] else range(length):
        found = evaluate(*body, [*fixed, *carry, *(x[t] for x in xs)])
        carry = found[:n_carry]
        for y, row in zip(ys, found[n_carry:], strict=True):
            y[t] = row
    return [*carry, *ys]


def _while(params, values):
    n, m = params["cond_nconsts"], params["body_nconsts"]
    test, body, carry = values[:n], values[n : n + m], values[n + m :]
    while evaluate(*opened(params["cond_jaxpr"]), [*test, *carry])[0]:
        carry = evaluate(*opened(params["body_jaxpr"]), [*body, *carry])
    return carry


def array(value):
    """As a NumPy array; random keys as they are."""
    return value if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended) else np.asarray(value)


def _broadcast_in_dim(x, *_, shape, broadcast_dimensions, **__):
    axes = [1] * len(shape)
    for n, axis in zip(x.shape, broadcast_dimensions, strict=True):
        axes[axis] = n
    return np.broadcast_to(x.reshape(axes), shape)


def _reshape(x, *_, new_sizes, dimensions, **__):
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


def _select_n(which, *cases):
    if which.dtype == bool:
        return np.where(which, cases[1], cases[0])
    return np.choose(np.broadcast_to(which, cases[0].shape), cases)


def _pad(x, fill, *, padding_config):
    shape = [
        max(low, 0) + max(high, 0) + n + max(n - 1, 0) * interior
        for n, (low, high, interior) in zip(x.shape, padding_config, strict=True)
    ]
    out = np.full(shape, fill, x.dtype)
    inside = tuple(
        slice(max(low, 0), max(low, 0) + n + max(n - 1, 0) * interior, interior + 1)
        for n, (low, _, interior) in zip(x.shape, padding_config, strict=True)
    )
    out[inside] = x
    kept = tuple(
        slice(max(-low, 0), m - max(-high, 0))
        for m, (low, high, _) in zip(shape, padding_config, strict=True)
    )
    return out[kept]


def _slice(x, *, start_indices, limit_indices, strides):
    steps = strides or [1] * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, steps))]


def _iota(*, dtype, shape, dimension, **_):
    return np.broadcast_to(
        _along(np.arange(shape[dimension], dtype=dtype), dimension, shape), shape
    )


def _along(x, axis, shape):
    return x.reshape([-1 if a == axis else 1 for a in range(len(shape))])


def _box(starts, sizes, shape):
    """A box that begins at indices, moved to lie within an array."""
    starts = [min(max(int(s), 0), n - m) for s, m, n in zip(starts, sizes, shape, strict=True)]
    return tuple(slice(s, s + m) for s, m in zip(starts, sizes, strict=True))


def _dynamic_slice(x, *starts, slice_sizes):
    return x[_box(starts, slice_sizes, x.shape)]


def _dynamic_update_slice(x, update, *starts):
    result = x.copy()
    result[_box(starts, update.shape, x.shape)] = update
    return result


def _reduce(fold, identity):
    def reduce(x, *, axes, **_):
        if identity is None and 0 in x.shape:
            return NotImplemented
        return fold.reduce(x, axis=tuple(axes), dtype=x.dtype)

    return reduce


def _convert(x, *, new_dtype, **_):
    is_complex = np.issubdtype(new_dtype, np.complexfloating)
    return (x if is_complex else x.real).astype(new_dtype)


def _real_only(function):
    def operation(*values, **_):
        if any(v.dtype.kind != "f" for v in values):
            return NotImplemented
        return function(*values)

    return operation


def _plain(function):
    return lambda *values, **_: function(*values)


def _ordered(function):
    """JAX orders complex numbers otherwise."""
    return lambda *v, **_: NotImplemented if v[0].dtype.kind == "c" else function(*v)


OPERATIONS = {
    "add": _plain(np.add),
    "add_any": _plain(np.add),
    "sub": _plain(np.subtract),
    "mul": _plain(np.multiply),
    "neg": _plain(np.negative),
    "abs": _plain(np.abs),
    "square": _plain(np.square),
    "div": _real_only(np.divide),
    "exp": _real_only(np.exp),
    "log": _real_only(np.log),
    "log1p": _real_only(np.log1p),
    "max": _ordered(np.maximum),
    "min": _ordered(np.minimum),
    "eq": _plain(np.equal),
    "ne": _plain(np.not_equal),
    "lt": _ordered(np.less),
    "le": _ordered(np.less_equal),
    "gt": _ordered(np.greater),
    "ge": _ordered(np.greater_equal),
    "and": _plain(np.bitwise_and),
    "or": _plain(np.bitwise_or),
    "not": _plain(np.invert),
    "is_finite": _plain(np.isfinite),
    "sign": _real_only(np.sign),
    "clamp": _real_only(lambda low, x, high: np.minimum(np.maximum(x, low), high)),
    "stop_gradient": _plain(lambda x: x),
    "copy": _plain(lambda x: x),
    "name": _plain(lambda x: x),
    "convert_element_type": _convert,
    "select_n": _select_n,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": lambda x, *, dimensions, **_: x.squeeze(tuple(dimensions)),
    "transpose": lambda x, *, permutation: x.transpose(permutation),
    "rev": lambda x, *, dimensions: np.flip(x, tuple(dimensions)),
    "pad": _pad,
    "slice": _slice,
    "iota": _iota,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "concatenate": lambda *values, dimension: np.concatenate(values, dimension),
    "stack": lambda *values, axis: np.stack(values, axis),
    "reduce_sum": _reduce(np.add, 0),
    "reduce_max": _reduce(np.maximum, None),
    "reduce_min": _reduce(np.minimum, None),
    "reduce_prod": _reduce(np.multiply, 1),
    "reduce_or": _reduce(np.logical_or, False),
    "reduce_and": _reduce(np.logical_and, True),
}

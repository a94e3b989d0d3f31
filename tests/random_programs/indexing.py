"""Operations that move elements: gathers and scatters, sorts, padding, shapes, empty arrays."""

import numpy as np

from .drawing import operation
from .elementwise import is_real


def at(axis, index):
    """An index into one axis."""
    return ", ".join([":"] * axis + [str(index)])


# Gather.


@operation("gather")
def take(draw, x):
    if not x.size or not x.shape:
        return None
    axis = draw.axis(x)
    n = x.shape[axis]
    count = draw.choose([(1,), (2,), (3,), (2, 2), (0,), ()])
    inside, outside = draw.indices(n, count), draw.indices(n, count, outside=True)
    return draw.choose(
        [
            f"{x}[{at(axis, inside)}]",
            f"jnp.take({x}, {outside}, axis={axis}, mode='fill', fill_value=0.5)",
            f"jnp.take({x}, {outside}, axis={axis}, mode='clip')",
            f"jnp.take({x}, {outside}, axis={axis}, mode='wrap')",
            f"{x}.at[{at(axis, outside)}].get(mode='fill', fill_value=-0.3)",
            f"{x}.at[{at(axis, outside)}].get(mode='clip')",
            f"{x}.at[{at(axis, inside)}].get(mode='promise_in_bounds')",
            f"{x}.at[{at(axis, f'jnp.argmax(abs({x}), axis={axis}).ravel()[:2] + 1')}]"
            ".get(mode='fill', fill_value=0.2)",
        ]
    )


@operation("gather")
def take_along(draw, x):
    if not x.size or not x.shape or not is_real(x):
        return None
    axis = draw.axis(x)
    mode = draw.choose(["'clip'", "'fill'", "'promise_in_bounds'"])
    return draw.choose(
        [
            f"jnp.take_along_axis({x}, jnp.argsort({x}, axis={axis}), axis={axis})",
            f"jnp.take_along_axis({x}, jnp.argmax({x}, axis={axis}, keepdims=True), "
            f"axis={axis}, mode={mode})",
            f"jnp.ravel({x})[jnp.argsort(-jnp.ravel({x}))[:2]]",
        ]
    )


@operation("gather")
def points(draw, x):
    """Whole points of a matrix, diagonals, windows."""
    if x.ndim != 2 or not x.size:
        return None
    count = draw.integer(1, 3)
    rows, columns = draw.indices(x.shape[0], count), draw.indices(x.shape[1], count, True)
    sizes = draw.integer(1, x.shape[0]), draw.integer(1, x.shape[1])
    mode = draw.choose(["clip", "fill"])
    starts = draw.indices(max(x.shape), (2, 2), outside=True)
    return draw.choose(
        [
            f"{x}.at[{rows}, {columns}].get(mode={mode!r}, fill_value=0.4)",
            f"jnp.diagonal({x})",
            f"{x}[jnp.triu_indices({x.shape[0]}, 0, {x.shape[1]})]",
            f"lax.gather({x}, {starts}, lax.GatherDimensionNumbers(offset_dims=(0, 2), "
            f"collapsed_slice_dims=(), start_index_map=(0, 1)), {sizes}, mode={mode!r})",
            f"lax.gather({x}, {starts}[:, :1], lax.GatherDimensionNumbers(offset_dims=(1,), "
            f"collapsed_slice_dims=(0,), start_index_map=(0,)), (1, {sizes[1]}), mode={mode!r})",
            f"jax.vmap(lambda row, i: row.at[i].get(mode={mode!r}, fill_value=0.1))"
            f"({x}, {draw.indices(x.shape[1], x.shape[0], True)})",
        ]
    )


# Scatter.


@operation("scatter")
def scatter_numbers(draw, x):
    """Numbers of the program's own into an array."""
    if not x.shape or not x.size:
        return None
    axis = draw.axis(x)
    count = draw.choose([1, 2, 3, 0])
    outside = draw.chance(0.5)
    indices = draw.indices(x.shape[axis], count, outside)
    modes = ["'drop'", "'clip'", "'fill'", *(["'promise_in_bounds'"] if not outside else [])]
    mode = draw.choose(modes)
    values = draw.numbers(()) if draw.chance(0.5) else draw.grid(())
    verbs = ["set", "add", "mul"] if x.is_complex else ["set", "add", "mul", "min", "max", "divide"]
    verb = draw.choose(verbs)
    if verb == "divide":
        values = draw.numbers(())
    return f"{x}.at[{at(axis, indices)}].{verb}({values}, mode={mode})"


@operation("scatter")
def scatter_arrays(draw, x, y):
    """Elements of another array into an array, sometimes to the same place, or outside."""
    if not (x.size and y.size and is_real(x, y)):
        return None
    count = draw.integer(1, min(3, y.size))
    outside = draw.chance(0.5)
    indices = draw.indices(x.size, count, outside)
    mode = draw.choose(["'drop'", "'clip'", *(["'promise_in_bounds'"] if not outside else [])])
    verb = draw.choose(["set", "add", "add", "subtract", "min", "max"])
    if draw.chance(0.2):
        n = min(count, x.size)
        indices = f"np.array({draw.rng.permutation(x.size)[:n].tolist()})"
        return f"jnp.ravel({x}).at[{indices}].mul(jnp.ravel({y})[:{n}], unique_indices=True)"
    return f"jnp.ravel({x}).at[{indices}].{verb}(jnp.ravel({y})[:{count}], mode={mode})"


@operation("scatter")
def scatter_rows(draw, x, y):
    if x.ndim != 2 or not x.size or y.size < x.shape[1] or not is_real(x, y):
        return None
    rows = draw.indices(x.shape[0], draw.integer(1, 2), outside=True)
    verb = draw.choose(["set", "add", "max", "min"])
    row = f"jnp.ravel({y})[:{x.shape[1]}]"
    return f"{x}.at[{rows}].{verb}({row}, mode={draw.choose(['drop', 'clip'])!r})"


@operation("scatter")
def segments(draw, x):
    if not x.size or not is_real(x):
        return None
    ids = draw.indices(3, x.size, outside=draw.chance(0.3))
    reduce = draw.choose(["sum", "max", "min"])
    found = f"jax.ops.segment_{reduce}(jnp.ravel({x}), {ids}, 3)"
    return found if reduce == "sum" else f"jnp.clip({found}, -4.0, 4.0)"


@operation("scatter")
def scatter_window(draw, x, y):
    """A window at a place that may lie partly outside."""
    if x.ndim != 1 or not x.size or not y.size or not is_real(x, y):
        return None
    n = draw.integer(1, min(2, x.size, y.size))
    start = draw.integer(-1, x.size)
    verb = draw.choose(["scatter", "scatter_add", "scatter_max"])
    mode = draw.choose(["clip", "drop"])
    return (
        f"lax.{verb}({x}, np.array([{start}]), jnp.ravel({y})[:{n}], lax.ScatterDimensionNumbers("
        "update_window_dims=(0,), inserted_window_dims=(), scatter_dims_to_operand_dims=(0,)), "
        f"mode={mode!r})"
    )


# Dynamic slices.


@operation("dynamic slice")
def dynamic_slice(draw, x):
    if not x.shape or not x.size:
        return None
    axis = draw.axis(x)
    size = draw.integer(1, x.shape[axis])
    shift = draw.integer(-2, 2)
    where = f"jnp.argmax(jnp.abs(jnp.ravel({x}))) + {shift}"
    sizes = tuple(draw.integer(1, n) for n in x.shape)
    starts = tuple(draw.integer(-1, n) for n in x.shape)
    return draw.choose(
        [
            f"lax.dynamic_slice_in_dim({x}, {where}, {size}, {axis})",
            f"lax.dynamic_slice({x}, {starts}, {sizes})",
            f"lax.dynamic_index_in_dim({x}, {where} % {x.shape[axis]}, {axis}, keepdims=False)",
        ]
    )


@operation("dynamic slice")
def dynamic_update(draw, x, y):
    if not x.shape or not x.size or not y.size or x.dtype != y.dtype:
        return None
    shift = draw.integer(-1, 2)
    where = f"jnp.argmin(jnp.abs(jnp.ravel({x}))) + {shift}"
    axis = draw.axis(x)
    n = draw.integer(1, min(x.size, y.size))
    options = [
        f"lax.dynamic_update_slice(jnp.ravel({x}), jnp.ravel({y})[:{n}], ({where},))",
        f"lax.dynamic_update_index_in_dim({x}, jnp.ravel({y})[0], {where}, {axis})"
        if x.ndim == 1
        else f"lax.dynamic_update_slice_in_dim({x}, 2 * {x}[:1, :1], {where}, {axis})"
        if x.ndim == 2
        else f"{x} * 0.7",
        f"lax.dynamic_update_slice({x}, {x} * 0.5, {(0,) * x.ndim})",
    ]
    return draw.choose(options)


# Sort.


@operation("sort")
def sort(draw, x):
    if not x.shape or not is_real(x) or (not x.size and draw.chance(0.7)):
        return None
    axis = draw.axis(x)
    k = draw.integer(1, max(1, x.shape[-1])) if x.size else 0
    coarse = f"jnp.round({x})"
    return draw.choose(
        [
            f"jnp.sort({x}, axis={axis})",
            f"jnp.sort({x}, axis={axis}, descending=True)",
            f"lax.sort({coarse} * 0.5, dimension={axis})",
            f"lax.top_k({x}, {k})[0]",
            f"lax.top_k({coarse}, {k})[0] * 0.3",
            f"lax.sort(({coarse}, {x}, -{x}), dimension={axis}, num_keys=2)[1:]",
            f"lax.sort(({coarse}, {x} * 0.5), dimension={axis}, num_keys=1)",
            f"lax.sort((({x} > 0).astype(int), {x}), dimension={axis}, num_keys=1)[1]",
            f"lax.top_k({x}, {k})[0] * {x}[..., lax.top_k({x}, {k})[1].ravel()[0]][..., None]"
            if k
            else f"jnp.sort({x})",
            f"jnp.median({x}, axis={axis})" if x.size else f"jnp.sort({x}, axis={axis})",
        ]
    )


@operation("sort")
def sort_together(draw, x, y):
    if x.shape != y.shape or not x.shape or not is_real(x, y):
        return None
    axis, keys = draw.axis(x), draw.integer(1, 3)
    stable = draw.chance(0.7)
    return (
        f"lax.sort((jnp.round({x}), {y}, {x}), dimension={axis}, num_keys={keys}, "
        f"is_stable={stable})[{draw.choose([':2', '1:', '::2'])}]"
    )


# Shapes.


@operation("padding")
def pad(draw, x):
    if not x.shape:
        return None
    low, high, interior = (
        [draw.integer(a, b) for _ in x.shape] for a, b in ((-1, 2), (-1, 1), (0, 1))
    )
    config = []
    for n, *three in zip(x.shape, low, high, interior, strict=True):
        size = three[0] + three[1] + n + max(0, n - 1) * three[2]
        config.append(tuple(three) if size >= 0 else (0, 0, three[2]))
    fill = draw.choose(["0.7", "0.0", f"jnp.sum({x})" if x.size else "0.1"])
    fill = f"jnp.asarray({fill}, {x}.dtype)"
    edge = draw.choose(["edge", "wrap", "reflect", "symmetric", "maximum"])
    options = [f"lax.pad({x}, {fill}, {tuple(config)})"] * 3
    if x.size and min(x.shape) > 1 and is_real(x) and x.ndim == 1:
        options.append(f"jnp.pad({x}, 1, mode={edge!r})")
    return draw.choose(options)


@operation("shapes")
def static_slice(draw, x):
    if not x.shape or not x.size:
        return None
    axis = draw.axis(x)
    n = x.shape[axis]
    start = draw.integer(0, n - 1)
    stop, step = draw.integer(start, n), draw.choose([1, 2, 3])
    return draw.choose(
        [
            f"{x}[{at(axis, f'{start}:{stop}:{step}')}]",
            f"{x}[{at(axis, start)}]",
            f"{x}[{at(axis, '::-1')}]",
            f"{x}[{at(axis, f'{n - 1}:{start}:-1')}]",
            f"jnp.roll({x}, {draw.integer(-2, 2)}, {axis})",
            f"lax.rev({x}, ({axis},))",
        ]
    )


@operation("shapes")
def reshape(draw, x):
    return draw.choose(
        [
            f"{x}.reshape(-1)",
            f"{x}.T",
            f"{x}[None]",
            f"{x}[..., None]",
            f"jnp.squeeze({x})",
            f"jnp.broadcast_to({x}, (2, *{x}.shape))",
            f"jnp.tile({x}, 2)",
            f"jnp.repeat({x}, 2, axis=-1)" if x.shape else f"jnp.full(2, {x})",
            f"lax.reshape({x}, ({x.size},), dimensions={(*range(x.ndim)[::-1],)})"
            if x.ndim > 1
            else f"{x}[None, ..., None]",
            f"lax.broadcast_in_dim({x}, {(*x.shape, 2)}, {(*range(x.ndim),)})",
            f"jnp.swapaxes({x}, 0, -1)" if x.shape else f"{x}[None]",
            f"jnp.tril({x})" if x.ndim == 2 else f"jnp.diag({x})" if x.ndim == 1 else f"{x} * 1",
        ]
    )


@operation("shapes")
def join(draw, x, y):
    if x.dtype != y.dtype:
        return None
    flat = f"jnp.ravel({x})", f"jnp.ravel({y})"
    options = [
        "jnp.concatenate([{}, {}])".format(*flat),
        "jnp.concatenate([{}, np.ones(1), {}, {}])".format(*flat, flat[0]),
    ]
    if x.size and y.size:
        options.append("jnp.stack([{0}[0], {1}[-1], {0}[-1]])".format(*flat))
    if x.shape == y.shape:
        options += [f"jnp.stack([{x}, {y}], -1)", f"jnp.stack([{x}, {y}, {x}])"]
    return draw.choose(options)


@operation("shapes")
def split(draw, x):
    if not x.shape or not x.size:
        return None
    axis = draw.axis(x)
    cut = draw.integer(0, x.shape[axis])
    return draw.choose(
        [
            f"jnp.split({x}, [{cut}], axis={axis})",
            f"jnp.array_split({x}, 2, axis={axis})",
            f"jnp.split({x}, [{cut}], axis={axis})[0]",
            f"jnp.unstack({x}, axis={axis})[0]",
            f"jnp.split({x}, [{cut}, {cut}], axis={axis})[2]",
        ]
    )


@operation("empty")
def empty(draw, x):
    """Arrays, axes and loops without elements, and those with one."""
    if not x.shape:
        return f"{x}.reshape(1, 1)"
    zero = np.zeros(0, int).tolist()
    axis = draw.axis(x)
    options = [
        f"{x}[:0]",
        f"jnp.sum({x}[:0], 0)",
        f"jnp.prod({x}[:0], 0)",
        f"jnp.concatenate([{x}[:0], {x}])",
        f"jnp.concatenate([{x}, {x}[:0]], 0)",
        f"jnp.take({x}, np.array({zero}, int), axis={axis})",
        f"{x}.at[np.array({zero}, int)].add(1.0)",
        f"lax.scan(lambda c, _: (jnp.sin(c), c), {x}, None, length=0)[0]",
        f"lax.scan(lambda c, s: (c * s, c), jnp.sum({x}), jnp.ravel({x})[:0])",
        f"lax.scan(lambda c, s: (c * s, c), {x}, jnp.stack([{x}]))",
        f"jnp.cumsum({x}[:0])",
        f"jnp.ravel({x})[:0] @ jnp.ravel({x})[:0] + jnp.sum({x})",
        f"jnp.zeros((2, 0)) @ {x}[:0]" if x.ndim < 3 else f"{x}[:, :0] + 0.0",
        f"jnp.sum({x}[:1], ())",
        f"lax.map(jnp.sin, {x}[:0])",
        f"jnp.sum({x}[:0] * jnp.sum({x}))",
    ]
    if is_real(x):
        options += [f"jnp.sort({x}[:1], axis=0)", f"jnp.max({x}[:1], axis=0)"]
        options += [f"jnp.max({x}[:0], axis=0, initial=0.5)", f"jax.nn.relu({x}[:0])"]
    return draw.choose(options)

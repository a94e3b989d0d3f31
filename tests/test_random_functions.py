"""Random programs in every semiring, reverse and forward, against all of their paths.

A program is drawn step by step: each step applies an operation to arrays that are already there, so
that subexpressions are shared and inputs used again. Wherever an operation needs numbers of its own
(weights, indices, a mask), they are drawn with it.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from .jacobians.oracle import ALL, check

MAX_PATHS = 1_500
MAX_SIZE = 12
LARGEST_VALUE = 5.0
"""Beyond it tanh and the like are flat but for rounding: whether their derivative is 0, and with it
the number of non-zero paths, would depend on how they are compiled."""

HALVES = [
    {name: ALL[name] for name in ("sum", "max", "entropy", "count", "reach")},
    {name: ALL[name] for name in ("sum", "abs sum", "min", "abs max", "top", "length")},
]
"""To compile in half the time, programs take turns between these."""

OPERATIONS = []


def operation(draw):
    """Declare an operation: ``draw(rng, *shapes)`` returns a function of arrays of these shapes.

    It returns None where it does not fit the shapes. How many arrays it takes is read off its
    signature.
    """
    arity = draw.__code__.co_argcount - 1
    OPERATIONS.append((draw, arity))
    return draw


def choose(rng, options):
    return options[rng.integers(len(options))]


def numbers(rng, shape):
    """Of mixed sign and not near 0."""
    return (rng.uniform(0.3, 1.6, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


def axis_of(rng, shape):
    return int(rng.integers(len(shape)))


# One array.


@operation
def unary(rng, shape):
    del shape
    return choose(
        rng,
        [
            jnp.sin,
            jnp.tanh,
            jnp.negative,
            jnp.square,
            jnp.abs,
            jax.nn.relu,
            jax.nn.gelu,
            jax.nn.silu,
            jax.nn.sigmoid,
            jax.nn.softplus,
            jax.nn.leaky_relu,
            lambda x: x * x,
            lambda x: x**3,
            lambda x: jnp.exp(-jnp.abs(x)),
            lambda x: 1 / (2 + x * x),
            lambda x: jnp.sqrt(1 + x**2),
            lambda x: jnp.log1p(x**2),
            lambda x: x + lax.stop_gradient(x),
            lambda x: jnp.clip(x, -0.5, 0.5),
            lambda x: jnp.round(x) * x,
            jax.jit(lambda x: jnp.cos(x) - x),
            jax.checkpoint(lambda x: jnp.sin(x) * x),
        ],
    )


@operation
def affine(rng, shape):
    scale, shift = numbers(rng, shape[-1:]), numbers(rng, ())
    return lambda x: x * scale + shift


@operation
def masked(rng, shape):
    mask = rng.random(shape) < 0.5
    return choose(
        rng,
        [
            lambda x: jnp.where(mask, x, 0.0),
            lambda x: jnp.where(x > 0, x, 0.2 * x),
            lambda x: jnp.where(mask, x, -x * x),
            lambda x: lax.select(mask, x, jnp.full_like(x, 2.0)),
            lambda x: x * mask,
        ],
    )


@operation
def reduction(rng, shape):
    if not shape:
        return None
    reduce = choose(rng, [jnp.sum, jnp.mean, jnp.max, jnp.min, jnp.prod, jax.nn.logsumexp, jnp.var])
    return functools.partial(reduce, axis=axis_of(rng, shape), keepdims=bool(rng.integers(2)))


@operation
def normalisation(rng, shape):
    if not shape:
        return None
    axis = axis_of(rng, shape)

    def layer_norm(x):
        centred = x - x.mean(axis, keepdims=True)
        return centred * lax.rsqrt(jnp.mean(centred**2, axis, keepdims=True) + 0.1)

    softmax = functools.partial(choose(rng, [jax.nn.softmax, jax.nn.log_softmax]), axis=axis)
    return choose(rng, [layer_norm, softmax, softmax])


@operation
def cumulative(rng, shape):
    if not shape:
        return None
    axis, reverse = axis_of(rng, shape), bool(rng.integers(2))
    fold = choose(rng, [lax.cumsum, lax.cumprod, lax.cummax, lax.cummin, lax.cumlogsumexp])
    return lambda x: fold(x, axis=axis, reverse=reverse)


@operation
def sorting(rng, shape):
    if not shape:
        return None
    axis = axis_of(rng, shape)
    k = int(rng.integers(1, shape[-1] + 1))
    return choose(
        rng,
        [
            lambda x: jnp.sort(x, axis=axis),
            lambda x: jnp.sort(x, axis=axis, descending=True),
            lambda x: lax.top_k(x, k)[0],
            lambda x: jnp.take_along_axis(x, jnp.argsort(x, axis=axis), axis=axis),
            lambda x: jnp.median(x, axis=axis),
        ],
    )


@operation
def indexing(rng, shape):
    if not shape:
        return None
    axis = axis_of(rng, shape)
    n = shape[axis]
    start = int(rng.integers(n))
    stop, step = int(rng.integers(start, n)) + 1, choose(rng, [1, 2])
    before = (slice(None),) * axis
    indices = rng.integers(-n, n, int(rng.integers(1, 4)))
    outside = np.array([0, n + 1])
    return choose(
        rng,
        [
            lambda x: x[(*before, slice(start, stop, step))],
            lambda x: x[(*before, start)],
            lambda x: x[(*before, slice(None, None, -1))],
            lambda x: x[(*before, indices)],
            lambda x: jnp.take(x, outside, axis=axis, mode="fill", fill_value=0.5),
            lambda x: jnp.take(x, outside, axis=axis, mode="clip"),
            lambda x: x[(*before, jnp.argmax(x, axis=axis).ravel()[:1])],
            lambda x: jnp.roll(x, 1, axis),
            lambda x: jnp.pad(x, 1, constant_values=0.7)[(*before, slice(start, None))],
            lambda x: x.at[(*before, start)].set(0.3),
            lambda x: x.at[(*before, indices)].multiply(1.5),
        ],
    )


@operation
def dynamic(rng, shape):
    if not shape:
        return None
    axis, size = axis_of(rng, shape), 1
    start = int(rng.integers(shape[axis]))
    ahead = int(rng.integers(-1, 3))

    def update(x):
        index = jnp.argmin(x.ravel()) % shape[axis]
        part = lax.dynamic_slice_in_dim(x, start, size, axis)
        return lax.dynamic_update_slice_in_dim(x, part * 2, index, axis)

    return choose(
        rng,
        [
            lambda x: lax.dynamic_slice_in_dim(
                x, jnp.argmax(x.ravel()) % shape[axis] + ahead, size, axis
            ),
            update,
        ],
    )


@operation
def reshaping(rng, shape):
    return choose(
        rng,
        [
            lambda x: x.reshape(-1),
            lambda x: x.T,
            lambda x: x[None],
            lambda x: x[..., None],
            lambda x: jnp.stack([x, -x], -1),
            lambda x: jnp.broadcast_to(x, (2, *shape)),
            lambda x: jnp.tile(x, 2),
            lambda x: jnp.repeat(x, 2, axis=-1) if shape else x,
            lambda x: jnp.concatenate([x.ravel(), x.ravel()[:1] * 2]),
            lambda x: sum(jnp.array_split(x.ravel(), 1)),
        ],
    )


@operation
def loop(rng, shape):
    steps, reverse = int(rng.integers(1, 4)), bool(rng.integers(2))
    scale = numbers(rng, (steps, *shape))
    body = choose(
        rng,
        [
            lambda c, s: (c * s, c + s),
            lambda c, s: (jnp.tanh(c) + s, s * c),
            lambda c, s: (jnp.where(s > 0, c, -c * s), jnp.max(c)),
        ],
    )

    def scan(x):
        carry, ys = lax.scan(body, x, scale, reverse=reverse)
        return carry + ys.sum()

    def over_rows(x):
        return lax.scan(lambda c, row: (0.5 * c * row + row, c), x[0], x, reverse=reverse)[1]

    def fori(x):
        return lax.fori_loop(0, steps, lambda i, c: c * scale[i] + x, x)

    return choose(rng, [scan, fori, over_rows] if shape else [scan, fori])


@operation
def branch(rng, shape):
    threshold, scale = rng.uniform(-1, 1), numbers(rng, shape)
    two = [lambda x: x * scale, lambda x: jnp.sin(x) * x]
    three = [*two, lambda x: jnp.ones_like(x)]
    index = int(rng.integers(-1, 4))
    return choose(
        rng,
        [
            lambda x: lax.cond(x.sum() > threshold, *two, x),
            lambda x: lax.switch(jnp.argmax(x.ravel()) % 3, three, x),
            lambda x: lax.switch(index, three, x),
        ],
    )


# Two arrays.


@operation
def binary(rng, left, right):
    del left, right
    return choose(
        rng,
        [
            operator.add,
            operator.sub,
            operator.mul,
            operator.mul,
            jnp.maximum,
            jnp.minimum,
            jnp.logaddexp,
            jnp.arctan2,
            lambda x, y: jnp.where(x > y, x, y * y),
            lambda x, y: x / (1 + y**2),
            lambda x, y: (1 + x**2) ** jnp.tanh(y),
            lambda x, y: jnp.clip(x, -jnp.abs(y), jnp.abs(y)),
            lambda x, y: x + y * x - y,
        ],
    )


@operation
def product(rng, left, right):
    if not left or not right:
        return choose(rng, [lambda x, y: x * y, lambda x, y: jnp.outer(x, y)])
    options = [
        lambda x, y: jnp.outer(x.ravel()[:3], y.ravel()[:2]),
        lambda x, y: jnp.einsum("i,j->", x.ravel()[:2], y.ravel()[:2]),
    ]
    if left[-1] == right[-1]:
        options += [lambda x, y: jnp.einsum("...i,...i->...", x, y), lambda x, y: x @ y.T] * 2
    if len(right) == 1 and left[-1] == right[0]:
        options += [operator.matmul] * 2
    return choose(rng, options)


@operation
def joining(rng, left, right):
    position = int(rng.integers(3))

    def update(x, y):
        return lax.dynamic_update_slice(x.ravel(), y.ravel()[:1], (position,))

    return choose(
        rng,
        [
            lambda x, y: jnp.concatenate([x.ravel(), y.ravel()]),
            lambda x, y: jnp.stack([x.ravel()[0], y.ravel()[-1], x.ravel()[-1]]),
            lambda x, y: x.ravel().at[np.array([0, 0])].add(y.ravel()[:1]),
            lambda x, y: (
                lax.sort((x.ravel()[:2], y.ravel()[-2:]), num_keys=1)[1]
                if np.prod(left) > 1 and np.prod(right) > 1
                else x.ravel()
            ),
            update,
        ],
    )


@operation
def mixing(rng, shape):
    if not shape:
        return None
    weights = numbers(rng, (shape[-1], int(rng.integers(1, 4))))
    weights[rng.random(weights.shape) < 0.2] = 0
    return lambda x: x @ weights


def draw_program(seed):
    """A function, its arguments, and the names of the operations in it."""
    rng = np.random.default_rng(seed)
    shapes = [choose(rng, [(3,), (2,), (2, 3), (1, 2), ()]) for _ in range(rng.integers(1, 4))]
    args = [numbers(rng, shape) for shape in shapes]
    known = [jnp.asarray(arg) for arg in args]
    steps = []
    wanted = int(rng.integers(3, 8))
    while len(steps) < wanted:
        draw, arity = choose(rng, OPERATIONS)
        # The newest half of the arrays and the inputs: deep programs that use things again.
        near = [*range(len(shapes)), *range(max(0, len(known) - 3), len(known))]
        positions = [int(choose(rng, near)) for _ in range(arity)]
        function = draw(rng, *(known[p].shape for p in positions))
        if function is None:
            continue
        try:
            out = function(*(known[p] for p in positions))
        except (TypeError, ValueError):  # shapes that do not broadcast
            continue
        if not 0 < out.size <= MAX_SIZE or jnp.max(jnp.abs(out)) > LARGEST_VALUE:
            continue
        known.append(out)
        steps.append((draw.__name__, function, positions))
    used = {p for *_, positions in steps for p in positions}
    loose = [p for p in range(len(shapes), len(known)) if p not in used]

    def program(*args):
        arrays = list(args)
        for _, function, positions in steps:
            arrays.append(function(*(arrays[p] for p in positions)))
        return [arrays[p] for p in loose]

    return program, args, [name for name, *_ in steps]


def check_program(seed, semirings):
    program, args, names = draw_program(seed)
    try:
        check(program, *args, semirings=semirings, limit=MAX_PATHS)
    except ValueError as error:
        if "more than limit" in str(error):
            pytest.skip("too many paths to follow")
        raise
    except AssertionError as error:
        error.add_note(f"the program: {', '.join(names)}")
        raise


@pytest.mark.parametrize("seed", range(8))
def test_random_program(seed):
    check_program(seed, HALVES[seed % 2])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_more_random_programs(seed):
    check_program(seed, ALL)

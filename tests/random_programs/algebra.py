"""Operations that combine elements: reductions, windows, convolutions, linear algebra, complex."""

from .drawing import operation
from .elementwise import divided, is_real


@operation("reduction")
def reduce(draw, x):
    if not x.shape or not x.size or not is_real(x):
        return None
    axis, keep = draw.axis(x), draw.chance(0.5)
    every = ["sum", "mean", "max", "min", "prod", "var"]
    name = draw.choose([*(f"jnp.{n}" for n in every), "jax.nn.logsumexp"])
    value = draw.choose([f"{x}", f"{x}", f"jnp.round({x})"])  # ties
    axis = draw.choose([axis, axis, None])
    return f"{name}({value}, axis={axis}, keepdims={keep})"


@operation("reduction")
def special_reduction(draw, x):
    if not x.shape or not x.size or not is_real(x):
        return None
    axis, mask = draw.axis(x), draw.mask(x.shape)
    return draw.choose(
        [
            f"jax.nn.softmax({x}, axis={axis})",
            f"jax.nn.log_softmax({x}, axis={axis})",
            f"jax.nn.softmax({x}, axis={axis}, where={mask})",
            f"jax.nn.standardize({x}, axis={axis}, epsilon=0.1)",
            f"jnp.sum({x}, where={mask})",
            f"jnp.max({x}, where={mask}, initial=-1.0)",
            f"jnp.prod(jnp.where({mask}, {x}, 0.0), axis={axis})",
            f"lax.reduce({x}, 0.0, lax.add, ({axis},))",
            f"lax.reduce({x}, -jnp.inf, lax.max, ({axis},))",
            f"lax.reduce({x}, 0.0, lambda a, b: a + b + 0.5 * a * b, ({axis},))",
            f"jnp.ptp({x}, axis={axis})",
            f"jnp.sum({x}, axis=())",
            f"jnp.average({x}, axis={axis}, weights=jnp.ones({x.shape[axis]}))",
            f"jnp.linalg.norm({x} + 2.0)",
            f"jnp.diff({x}, axis={axis})",
        ]
    )


@operation("cumulative")
def cumulative(draw, x):
    if not x.shape:
        return None
    fold = draw.choose(
        ["sum", "prod", "max", "min", "logsumexp"] if is_real(x) else ["sum", "prod"]
    )
    value = draw.choose([x, x, f"jnp.round({x})"]) if is_real(x) else x
    return f"lax.cum{fold}({value}, axis={draw.axis(x)}, reverse={draw.chance(0.5)})"


@operation("window")
def window(draw, x):
    if not x.shape or not x.size or not is_real(x):
        return None
    fold, start = draw.choose([("add", "0.0"), ("max", "-jnp.inf"), ("min", "jnp.inf")])
    sizes, strides, padding, base, dilation = [], [], [], [], []
    for n in x.shape:
        size, stride = draw.integer(1, 2), draw.integer(1, 2)
        spread = draw.choose([1, 1, 2])
        apart = draw.choose([1, 1, 2]) if fold == "add" or draw.chance(0.3) else 1
        low, high = draw.integer(0, 1), draw.integer(0, 1)
        if fold != "add":  # no window may consist of padding: its maximum would be infinite
            spread, low, high = 1, min(low, size - 1), min(high, size - 1)
            low, high = (low, high) if apart == 1 else (0, 0)
        reach = apart * (size - 1) + 1
        if (n - 1) * spread + 1 + low + high < reach:
            size, apart, low, high = 1, 1, 0, 0
        sizes.append(size)
        strides.append(stride)
        padding.append((low, high))
        base.append(spread)
        dilation.append(apart)
    value = x if draw.chance(0.7) else f"jnp.round({x})"
    return (
        f"lax.reduce_window({value}, {start}, lax.{fold}, {tuple(sizes)}, {tuple(strides)}, "
        f"{tuple(padding)}, {tuple(base)}, {tuple(dilation)})"
    )


def lhs_shapes(size):
    """Shapes [batch, channels, length] of an array of this size."""
    return {
        1: ["(1, 1, 1)"],
        2: ["(1, 1, 2)", "(1, 2, 1)", "(2, 1, 1)"],
        3: ["(1, 1, 3)"],
        4: ["(1, 1, 4)", "(1, 2, 2)", "(2, 1, 2)"],
        6: ["(1, 2, 3)", "(2, 1, 3)", "(1, 1, 6)", "(2, 3, 1)"],
    }.get(size, [])


def convolution(draw, x, kernel=None):
    """A convolution over one axis, of an array with another or with numbers."""
    shapes = lhs_shapes(x.size)
    if not shapes or not is_real(x):
        return None
    batch, channels, length = eval(draw.choose(shapes))
    groups = draw.choose([("feature", channels), ("batch", batch), ("feature", 1)])
    taps, apart, spread = draw.integer(1, 2), draw.choose([1, 2]), draw.choose([1, 1, 2])
    low, high = draw.integer(-1, 1), draw.integer(0, 1)
    padded = (length - 1) * spread + 1 + low + high
    if padded < apart * (taps - 1) + 1:
        taps, low, high = 1, 0, 0
    outs = groups[1] * draw.choose([1, 1, 2])
    ins = channels // groups[1] if groups[0] == "feature" else channels
    shape = outs, ins, taps
    if kernel is None:
        rhs = draw.numbers(shape)
    else:
        size = outs * ins * taps
        if kernel.size < size or not is_real(kernel):
            return None
        rhs = f"jnp.ravel({kernel})[:{size}].reshape{shape}"
    lhs = f"{x}.reshape({batch}, {channels}, {length})"
    spec = "('NCH', 'OIH', 'NCH')"
    if draw.chance(0.4):
        lhs, rhs, spec = (
            f"({lhs}).transpose(0, 2, 1)",
            f"jnp.transpose({rhs}, (2, 1, 0))",
            ("('NHC', 'HIO', 'NHC')"),
        )
    return (
        f"lax.conv_general_dilated({lhs}, {rhs}, ({draw.integer(1, 2)},), (({low}, {high}),), "
        f"lhs_dilation=({spread},), rhs_dilation=({apart},), dimension_numbers={spec}, "
        f"{groups[0]}_group_count={groups[1]})"
    )


@operation("convolution")
def convolve_numbers(draw, x):
    return convolution(draw, x)


@operation("convolution")
def convolve_arrays(draw, x, y):
    return convolution(draw, x, y)


@operation("convolution")
def convolve_image(draw, x):
    if x.shape not in ((2, 3), (3, 2), (2, 2)) or not is_real(x):
        return None
    rows, columns = x.shape
    padding = draw.choose(["'SAME'", "'VALID'", "((1, 0), (0, 1))"])
    image, sizes = f"{x}.reshape(1, 1, {rows}, {columns})", f"np.array([1, {rows - 1}], np.int32)"
    return draw.choose(
        [
            f"lax.conv_general_dilated({image}, {draw.numbers((1, 1, 2, 2))}, (1, 2), {padding})",
            f"lax.conv_general_dilated_patches({image}, (2, 1), (1, 1), {padding})",
            f"lax.ragged_dot({x}, {draw.grid((2, columns, 2))}, {sizes})",
            f"jnp.convolve({x}[0], {x}[:, 0], mode={draw.choose(['full', 'same', 'valid'])!r})",
        ]
    )


@operation("contraction")
def dot_general(draw, x, y):
    """Any pairing of axes of equal size, contracted or carried along."""
    if not is_real(x, y):
        return None
    free = [*range(y.ndim)]
    draw.rng.shuffle(free)
    contracted, batch = ([], []), ([], [])
    for axis in draw.rng.permutation(x.ndim).tolist():
        match = next((other for other in free if y.shape[other] == x.shape[axis]), None)
        role = draw.choose(["contracted", "contracted", "batch", "free"])
        if match is None or role == "free":
            continue
        free.remove(match)
        pair = contracted if role == "contracted" else batch
        pair[0].append(axis)
        pair[1].append(match)
    numbers = (contracted, batch)
    return f"lax.dot_general({x}, {y}, {numbers})"


@operation("contraction")
def product(draw, x, y):
    if not (x.size and y.size and is_real(x, y)):
        return None
    options = [
        f"jnp.outer(jnp.ravel({x})[:3], jnp.ravel({y})[:2])",
        f"jnp.einsum('i,j->', jnp.ravel({x})[:2], jnp.ravel({y})[:2])",
        f"jnp.kron(jnp.ravel({x})[:2], jnp.ravel({y})[:2])",
    ]
    if x.shape and y.shape and x.shape[-1] == y.shape[-1]:
        options += [
            f"jnp.einsum('...i,...i->...', {x}, {y})" if x.ndim == y.ndim else f"{x} @ {y}.T"
        ]
        options += [f"jnp.vecdot({x}, {y})", f"jnp.inner({x}, {y})"]
    if x.ndim == 2 and y.ndim == 2 and x.shape == y.shape:
        options += [f"jnp.einsum('ij,ij->ji', {x}, {y})", f"jnp.einsum('ij,kj->ki', {x}, {y})"]
        options += [f"fn.matrix_product({x}, {y})"]
    return draw.choose(options)


@operation("contraction")
def mix(draw, x):
    """With a matrix that has zeros in it."""
    if not x.shape or not is_real(x):
        return None
    shape = (x.shape[-1], draw.integer(1, 3))
    matrix = draw.numbers(shape) if draw.chance(0.5) else draw.grid(shape)
    return draw.choose(
        [
            f"{x} @ {matrix}",
            f"jnp.dot({x}, {matrix})",
            f"jnp.dot(jnp.ravel({x}), jnp.ravel({x}))",
            f"{x} @ {x}.T" if x.ndim < 3 else f"{x} @ {x}.mT",
        ]
    )


@operation("linear algebra")
def linear_algebra(draw, x):
    if x.size < 4 or not is_real(x):
        return None
    a = f"(0.3 * jnp.ravel({x})[:4].reshape(2, 2) + {draw.choose(['2.0', '1.3'])} * jnp.eye(2))"
    spd = f"({a} @ {a}.T + jnp.eye(2))"
    lower, transposed, unit = (draw.chance(0.5) for _ in range(3))
    b = draw.numbers(draw.choose([(2,), (2, 1)]))
    return draw.choose(
        [
            f"jnp.linalg.solve({a}, {b})",
            f"jnp.linalg.solve({a}, jnp.ravel({x})[2:4])",
            f"jnp.linalg.cholesky({spd})",
            f"jnp.linalg.cholesky({spd}, upper=True)",
            f"jnp.linalg.inv({a})",
            f"jnp.linalg.det({a})",
            f"jnp.linalg.slogdet({a})[1]",
            f"jax.scipy.linalg.solve_triangular({a}, {draw.numbers((2,))}, lower={lower}, "
            f"trans={int(transposed)}, unit_diagonal={unit})",
            f"lax.linalg.triangular_solve({a}, jnp.ravel({x})[:4].reshape(2, 2), "
            f"left_side={lower}, lower={transposed}, unit_diagonal={unit})",
            f"jnp.linalg.eigvalsh({a} + {a}.T + np.diag([0.0, 3.0]))",
            f"jax.scipy.linalg.cho_solve((jnp.linalg.cholesky({spd}), True), {draw.numbers((2,))})",
            f"jax.scipy.linalg.lu_factor({a})[0]",
            f"lax.linalg.cholesky({spd})",
            f"jnp.linalg.matrix_power({a}, 2)",
            f"jnp.linalg.qr({a})[1]",
            f"jnp.linalg.svd({a} + np.diag([0.0, 2.0]), compute_uv=False)",
        ]
    )


@operation("linear algebra")
def solve_arrays(draw, x, y):
    if x.size < 4 or y.size < 2 or not is_real(x, y):
        return None
    a = f"(0.3 * jnp.ravel({x})[:4].reshape(2, 2) + 2.0 * jnp.eye(2))"
    return draw.choose(
        [
            f"jnp.linalg.solve({a}, jnp.ravel({y})[:2])",
            f"lax.linalg.triangular_solve({a}, jnp.ravel({y})[:2].reshape(1, 2), lower=True)",
        ]
    )


TO_COMPLEX = """
lax.complex({x}, {x} * {x}) | {x} * (0.5 + 1j) | jnp.exp(1j * {x}) | {x}.astype(complex)
lax.complex({x}, 0.5 * jnp.ones({s})) | (1j + {x}) ** 2 | 1 / ({x} + 2j)
"""

COMPLEX = """
{x} * jnp.conj({x}) | jnp.abs({x} + 2) | jnp.real({x}) | jnp.imag({x}) | {x} ** 2 | {x} + 1j
-{x} | jnp.exp(0.3 * {x}) | jnp.sin(0.3 * {x}) | jnp.angle(3 + {x}) | jnp.conj({x})
jnp.square({x}) | jnp.where({m}, {x}, 0.5j) | jnp.sum({x}) | {x} / (3 + {x}) | jnp.sqrt(4 + {x})
jnp.log(4 + {x}) | jnp.tanh(0.2 * {x}) | jnp.ravel({x})[::-1] | {x} * {x} | jnp.prod({x})
{x} - jnp.conj({x}) | jnp.real({x}) * jnp.imag({x}) | lax.cumsum(jnp.ravel({x}))
{x}.real.astype(complex) * {x} | jnp.vdot({x}, {x}) | jnp.ravel({x}) @ jnp.ravel({x})
jnp.stack([{x}, jnp.conj({x})])
lax.scan(lambda c, r: (0.5 * c * r, c), jnp.sum({x}), jnp.ravel({x}))[0] | jnp.real({x} * 1j)
lax.cond(jnp.sum({x}).real > 0, jnp.conj, lambda z: z * 1j, {x}) | jnp.roll(jnp.ravel({x}), 1)
"""


@operation("complex")
def through_complex(draw, x):
    text = COMPLEX if x.is_complex else TO_COMPLEX
    return draw.choose(divided(text)).format(x=x, s=x.shape, m=draw.mask(x.shape))


@operation("complex")
def complex_pair(draw, x, y):
    if x.shape != y.shape or not (x.is_complex or y.is_complex):
        return None
    return draw.choose([f"{x} * {y}", f"{x} - {y}", f"jnp.ravel({x}) @ jnp.ravel({y})"])


@operation("complex")
def real_back(draw, x):
    return draw.choose([f"jnp.real({x})", f"jnp.imag({x})"]) if x.is_complex else None


@operation("fourier")
def fourier(draw, x):
    if not x.shape or not x.size or 4 in x.shape:  # of size 4, rounding decides what is 0
        return None
    axis = draw.axis(x)
    if x.is_complex:
        return draw.choose(
            [f"jnp.fft.fft({x}, axis={axis})", f"jnp.fft.ifft({x}, axis={axis}).real"]
        )
    return draw.choose(
        [
            f"jnp.fft.fft({x}, axis={axis})",
            f"jnp.real(jnp.fft.fft({x}, axis={axis}))",
            f"jnp.abs(jnp.fft.rfft({x}, axis={axis}) + 5)",
            f"jnp.fft.irfft(jnp.fft.rfft({x}, axis={axis}), {x.shape[axis]}, axis={axis})",
            f"jnp.fft.irfft({x}.astype(complex), 3, axis={axis})",
            f"jnp.fft.fftshift({x})",
        ]
    )

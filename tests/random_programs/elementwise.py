"""Operations on each element: what derivatives are like, ties and kinks, infinite derivatives."""

import numpy as np

from .drawing import operation

SMOOTH = """
jnp.sin({x}) | jnp.tanh({x}) | -{x} | jnp.square({x}) | {x} ** 3 | {x} * 0.5 | 2.0 - {x}
jnp.exp(-jnp.abs({x})) | 1 / (2 + {x} * {x}) | jnp.sqrt(1 + {x} ** 2) | jnp.log1p({x} ** 2)
jnp.expm1(0.5 * {x}) | jnp.exp2(0.5 * {x}) | jnp.cosh(0.5 * {x}) | jnp.arctan({x})
jnp.arcsinh({x}) | jnp.arctanh(0.1 * {x}) | jnp.arccosh(1.5 + {x} ** 2) | jnp.cbrt(7 + {x})
lax.rsqrt(2 + jnp.abs({x})) | lax.erf({x}) | lax.erfc({x}) | lax.lgamma(1.5 + {x} ** 2)
lax.digamma(2 + {x} ** 2) | lax.erf_inv(0.1 * {x}) | lax.integer_pow(2.5 + jnp.abs({x}), -2)
lax.bessel_i1e({x}) | jnp.sinc(0.3 + jnp.abs({x})) | jnp.arcsin(0.1 * {x}) | lax.tan(0.2 * {x})
jax.nn.gelu({x}) | jax.nn.silu({x}) | jax.nn.sigmoid({x}) | jax.nn.softplus({x}) | jax.nn.elu({x})
jax.nn.log_sigmoid({x}) | jax.nn.celu({x}) | jax.nn.mish({x}) | jnp.nan_to_num({x})
jax.nn.gelu({x}, approximate=False) | jnp.log(2 + jnp.abs({x}))
jax.scipy.special.xlogy({x}, 2.0) | jax.scipy.special.entr(1 + {x} ** 2)
lax.reduce_precision({x}, 11, 52)
lax.igamma(1.5 + {x} ** 2, 0.5 + {x} ** 2) | lax.polygamma(1.0, 2 + {x} ** 2)
lax.betainc(1.5, 2.0, jax.nn.sigmoid({x}))
"""

KINKED = """
jnp.abs({x}) | jnp.sign({x}) * {x} | jnp.floor({x}) + {x} | jnp.ceil({x}) * {x} | jnp.round({x})
jax.nn.relu({x}) | jax.nn.relu6({x}) | jax.nn.leaky_relu({x}) | jax.nn.hard_tanh({x})
jax.nn.hard_swish({x}) | jnp.maximum({x}, 0) | jnp.minimum(0.5, {x}) | jnp.clip({x}, -0.5, 0.5)
lax.clamp(-0.5, {x}, 0.5) | jnp.where({x} > 0, {x}, 0.0) | jnp.where({x} > 0, {x}, -{x})
jnp.where({x} > 0, {x}, {x}) | lax.rem({x}, 0.7) | {x} % 0.7 | jnp.maximum({x}, jnp.round({x}))
jnp.maximum({x}, {x}) | jnp.minimum({x}, -{x}) | 0.0 * {x} | {x} - {x} | jnp.fmod({x}, 1.0)
jnp.where({x} == 0, 1.0, {x}) | jnp.maximum(jnp.minimum({x}, 1.0), 1.0) | jnp.heaviside({x}, 0.5)
"""

INTEGERS = """
{x} + lax.stop_gradient({x}) | {x}.astype(int).astype(float) * {x} | {x} * jnp.sign({x})
{x} * lax.stop_gradient(jnp.max({x}, initial=0.3)) | {x} * ({x} > 0) | {x} + {x}.astype(int)
jax.nn.one_hot(jnp.argmax(jnp.ravel({x})), {n}) * jnp.ravel({x})
jnp.ravel({x})[jnp.argmin(jnp.abs(jnp.ravel({x}) - 0.3))] * {x}
jnp.where(jnp.argsort(jnp.ravel({x})) > 0, jnp.ravel({x}), 0.5)
{x} * jnp.arange({n}).reshape({s}) | {x} * lax.stop_gradient({x}).at[...].apply(jnp.sin)
lax.select_n((jnp.abs({x}) * 2 % 3).astype(np.int32), {x}, -{x}, {x} * {x})
"""

PAIRS = """
{x} + {y} | {x} - {y} | {x} * {y} | {x} * {y} | jnp.maximum({x}, {y}) | jnp.minimum({x}, {y})
jnp.logaddexp({x}, {y}) | jnp.arctan2({x}, 2 + {y} ** 2) | {x} / (1 + {y} ** 2)
(1 + {x} ** 2) ** jnp.tanh({y}) | jnp.clip({x}, -jnp.abs({y}), jnp.abs({y}))
{x} + {y} * {x} - {y} | jnp.where({x} > {y}, {x}, {y} * {y}) | jnp.where({x} > {y}, {x}, {y})
jnp.hypot(1 + {x}, {y}) | jnp.where({x} > 0, {x} * {y}, {y})
jnp.maximum(jnp.round({x}), jnp.round({y})) | {x} * lax.stop_gradient({y}) | jnp.fmin({x}, {y})
jax.nn.relu({x}) * {y} | {x} * jnp.round({y}) | jnp.power(1 + jnp.abs({x}), {y})
{x} % (1.5 + jnp.abs({y})) | jnp.logaddexp2({x}, {y})
"""

SAME = """
{x} + {x} | {x} * {x} | {x} - {x} | {x} / (0.5 + {x} * {x}) | jnp.arctan2({x}, 1 + {x})
{x} * {x} * {x} | jnp.maximum({x}, {x}) | jnp.where({x} > 0.2, {x}, {x})
lax.clamp({x}, {x}, {x}) | jnp.dot(jnp.ravel({x}), jnp.ravel({x}))
jnp.outer(jnp.ravel({x}), jnp.ravel({x})) | jnp.stack([{x}, {x}])
jnp.concatenate([jnp.ravel({x}), jnp.ravel({x})]) | lax.select({x} > 0, {x}, {x})
jnp.multiply({x}, {x}.T) @ jnp.ones({x}.shape[:1])
jnp.kron(jnp.ravel({x})[:2], jnp.ravel({x})[:2])
"""

INFINITE = """
jnp.sqrt(jax.nn.relu({x})) | jnp.sqrt(jnp.where({m}, {x} ** 2 + 0.1, 0.0))
jnp.sqrt(jnp.abs({x})) | jnp.sqrt(lax.clamp(0.0, {x}, 4.0))
jnp.sqrt(jnp.where({x} > 0, {x}, 0.0))
jnp.where({x} > 0, jnp.sqrt(jnp.where({x} > 0, {x}, 1.0)), 0.0) | jnp.linalg.norm({x} * {m})
jnp.sqrt(jnp.maximum({x}, 0.0)) | jnp.cbrt(jnp.where({m}, {x}, 0.0)) | jnp.sqrt(fn.rectified({x}))
jax.vmap(lambda v: lax.cond(v > 0, jnp.sqrt, lambda v: 3 * v, v))(jnp.ravel({x}))
"""


def divided(text):
    """Expressions, one a line or several divided by bars."""
    return [option.strip() for line in text.strip().splitlines() for option in line.split(" | ")]


def fill(draw, text, x, y=None):
    mask = draw.mask(x.shape)
    return draw.choose(divided(text)).format(x=x, y=y, n=x.size, s=x.shape, m=mask)


def is_real(*arrays):
    return not any(x.is_complex for x in arrays)


def broadcast(*shapes):
    """Whether shapes fit each other."""
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


@operation("elementwise")
def smooth(draw, x):
    return fill(draw, SMOOTH, x) if is_real(x) else None


@operation("elementwise")
def pair(draw, x, y):
    return fill(draw, PAIRS, x, y) if is_real(x, y) and broadcast(x.shape, y.shape) else None


@operation("elementwise")
def affine(draw, x):
    return f"{x} * {draw.numbers(x.shape[-1:])} + {draw.numbers(())}" if is_real(x) else None


@operation("ties and kinks")
def kinked(draw, x):
    return fill(draw, KINKED, x) if is_real(x) else None


@operation("ties and kinks")
def rounded_pair(draw, x, y):
    if not (is_real(x, y) and broadcast(x.shape, y.shape)):
        return None
    left, right = (f"jnp.round({array} * 2) / 2" for array in (x, y))
    options = [
        f"jnp.maximum({left}, {right}) * {x}",
        f"jnp.minimum({left}, {right})",
        f"jnp.where({left} > {right}, {x}, {y})",
    ]
    if x.shape == y.shape:
        options.append(f"lax.clamp(-jnp.abs({y}), {x}, jnp.abs({y}))")
    return draw.choose(options)


@operation("ties and kinks")
def masked(draw, x):
    mask = draw.mask(x.shape)
    return draw.choose(
        [
            f"jnp.where({mask}, {x}, 0.0)",
            f"jnp.where({mask}, {x}, -{x} * {x})",
            f"lax.select({mask}, {x}, jnp.full_like({x}, 2.0))"
            if x.shape
            else f"jnp.where({mask}, 2.0, {x})",
            f"{x} * {mask}",
            f"{x} * {draw.grid(x.shape)}",
            f"jnp.where({mask}, {x}, 0.0) * jnp.where({mask}, 0.5, {x})",
        ]
    )


@operation("integers")
def through_integers(draw, x):
    return fill(draw, INTEGERS, x) if is_real(x) and x.size else None


@operation("same twice")
def same(draw, x):
    fits = is_real(x) and x.size
    source = fill(draw, SAME, x) if fits else None
    square = x.ndim == 2 and x.shape[0] == x.shape[1]
    return source if fits and (".T" not in source or square) else None


@operation("infinite")
def infinite(draw, x):
    return fill(draw, INFINITE, x) if is_real(x) and x.shape and x.size else None

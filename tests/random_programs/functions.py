"""Functions with derivatives of their own, for random programs to call by name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@jax.custom_jvp
def cube(x):
    return x**3


@cube.defjvp
def _cube_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return cube(x), 3 * x * x * t


@jax.custom_jvp
def steps_as_line(x):
    """Rounds; its derivative is that of x, but where x > 1."""
    return jnp.round(x)


@steps_as_line.defjvp
def _steps_as_line_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return steps_as_line(x), jnp.where(x > 1, 0.0, t)


@jax.custom_jvp
def product_and_sine(x, y):
    return x * y, jnp.sin(y)


@product_and_sine.defjvp
def _product_and_sine_jvp(primals, tangents):
    (x, y), (s, t) = primals, tangents
    return product_and_sine(x, y), (s * y + x * t, jnp.cos(y) * t)


@jax.custom_jvp
def squashed(x):
    """Every element by the size of all."""
    return x / (1 + jnp.sum(x * x))


@squashed.defjvp
def _squashed_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    size = 1 + jnp.sum(x * x)
    return squashed(x), t / size - 2 * x * jnp.sum(x * t) / size**2


@jax.custom_jvp
def running(x):
    """Each element reads those before it."""
    return jnp.cumsum(jnp.ravel(x)) ** 2


@running.defjvp
def _running_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    sums = jnp.cumsum(jnp.ravel(x))
    return sums**2, 2 * sums * jnp.cumsum(jnp.ravel(t))


@jax.custom_jvp
def weighted(x):
    """A matrix product, the matrix of which has zeros."""
    return jnp.ravel(x)[:2] @ WEIGHTS


WEIGHTS = np.array([[0.0, 1.5, -0.5], [2.0, 0.0, 0.0]])


@weighted.defjvp
def _weighted_jvp(primals, tangents):
    return weighted(*primals), jnp.ravel(*tangents)[:2] @ WEIGHTS


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 2))
def power(n, x, shift):
    return x**n + shift


@power.defjvp
def _power_jvp(n, shift, primals, tangents):
    (x,), (t,) = primals, tangents
    return power(n, x, shift), n * x ** (n - 1) * t


@jax.custom_jvp
def soft_product(x, y):
    return jnp.tanh(x) * y


soft_product.defjvps(lambda t, out, x, y: (1 - jnp.tanh(x) ** 2) * y * t, None)


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scaled_gradient(x, scale):
    return jnp.sin(x)


scaled_gradient.defvjp(
    lambda x, scale: (jnp.sin(x), x), lambda scale, x, g: (scale * jnp.cos(x) * g,)
)


@jax.custom_vjp
def rectified(x):
    return jnp.maximum(x, 0.0)


rectified.defvjp(
    lambda x: (rectified(x), x > 0), lambda positive, g: (jnp.where(positive, g, 0.0),)
)


@jax.custom_vjp
def matrix_product(x, y):
    return x @ y.T


matrix_product.defvjp(
    lambda x, y: (x @ y.T, (x, y)), lambda residuals, g: (g @ residuals[1], g.T @ residuals[0])
)


@jax.custom_vjp
def neighbours(x):
    """Each element and the next."""
    return x * jnp.roll(x, -1)


neighbours.defvjp(
    lambda x: (neighbours(x), x),
    lambda x, g: (g * jnp.roll(x, -1) + jnp.roll(g * x, 1),),
)


@jax.custom_vjp
def product_and_sum(x, y):
    return x * y, jnp.sum(x)


product_and_sum.defvjp(
    lambda x, y: (product_and_sum(x, y), (x, y)),
    lambda residuals, g: (g[0] * residuals[1] + g[1], g[0] * residuals[0]),
)


@jax.custom_vjp
def gated(x, y):
    """A product whose second factor has no derivative."""
    return x * y


gated.defvjp(lambda x, y: (x * y, y), lambda y, g: (g * y, jnp.zeros_like(y)))


@jax.custom_vjp
def shifted(x, index):
    """``index`` is an integer."""
    return jnp.roll(x, index) * 2.0


shifted.defvjp(
    lambda x, index: (shifted(x, index), index),
    lambda index, g: (jnp.roll(2.0 * g, -index), None),
)


@jax.custom_vjp
def reflected(pair):
    """A pytree in, a pytree out; half of the derivatives are 0."""
    return {"sum": pair[0] + pair[1], "difference": pair[0] - pair[1]}


reflected.defvjp(
    lambda pair: (reflected(pair), None),
    lambda _, g: ((g["sum"] + g["difference"], g["sum"] - 0.0 * g["difference"]),),
)


@jax.custom_gradient
def halved(x):
    return jnp.cos(x), lambda g: 0.5 * g * jnp.sin(x)


@jax.jit
def wave(x):
    return jnp.cos(x) - x


@jax.jit
def both(x, y):
    return x + y, y


@jax.custom_batching.custom_vmap
def doubled(x):
    return 2.0 * jnp.sin(x)


@doubled.def_vmap
def _doubled_vmap(axis_size, in_batched, x):
    return doubled(x), True


def recurrence(scale):
    """The body of a scan."""

    def body(carry, row):
        return jnp.tanh(carry) * scale + row, carry * row

    return body


def running_product(pair, other):
    """Associative, for ``associative_scan``: of x → a·x + b."""
    return pair[0] * other[0], other[0] * pair[1] + other[1]


def until(limit, body, x):
    """A loop of an unknown number of steps."""
    return lax.while_loop(lambda s: s[0] < limit, lambda s: (s[0] + 1, body(s[1])), (0, x))[1]

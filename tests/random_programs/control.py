"""Operations with functions in them: loops, branches, calls, custom derivatives."""

import inspect

from .drawing import FAMILIES, Array, operation
from .elementwise import divided, is_real


@operation("scan")
def scan_numbers(draw, x):
    steps, reverse = draw.integer(1, 3), draw.chance(0.5)
    rows = draw.numbers((steps, *x.shape))
    body = draw.choose(
        [
            "lambda c, s: (c * s, c + s)",
            "lambda c, s: (jnp.sin(c) + s, s * c)",
            f"lambda c, s: (c * s, c * {x})",
            "lambda c, s: (s, c)",
            "lambda c, s: (c, c * c)",
            "lambda c, s: (c * s, s)",
            "jax.checkpoint(lambda c, s: (c * jnp.sin(c), c * s))",
            "lambda c, s: (c + s, checkpoint_name(c * c, 'in the loop'))",
        ]
    )
    which = draw.choose(["", "[0]", "[1]"])
    if x.is_complex:
        body = "lambda c, s: (c * s, c + s)"
    unroll = draw.choose(["", "", ", unroll=2"])
    return f"lax.scan({body}, {x}, {rows}, reverse={reverse}{unroll}){which}"


@operation("scan")
def scan_rows(draw, x):
    """Over an array that is the carry, or a constant of the body, too."""
    if not x.shape or not x.size or not is_real(x):
        return None
    reverse = draw.chance(0.5)
    return draw.choose(
        [
            f"lax.scan(lambda c, r: (0.5 * c * r + r, c), {x}[0], {x}, reverse={reverse})",
            f"lax.scan(lambda c, r: (c + jnp.sum({x}), c * r), jnp.zeros({x}.shape[1:]), {x}, "
            f"reverse={reverse})",
            f"lax.scan(lambda c, r: ((c[1], c[0] * r), c[0]), ({x}[0], {x}[-1]), {x}, "
            f"reverse={reverse})[1]",
            f"lax.scan(lambda c, r: (c, jnp.max(r)), None, {x}, reverse={reverse})[1]",
            f"lax.scan(lambda c, r: ((c[0] + 1, c[1] * jnp.where(c[0] > 1, r, 1.0)), r * c[0]), "
            f"(0, {x}[0]), {x}, reverse={reverse})[1]",
            f"lax.scan(fn.recurrence({x}[0]), {x}[0], {x}, reverse={reverse})",
            f"lax.map(lambda r: jnp.sin(r) * jnp.sum(r), {x})",
            f"lax.associative_scan(jnp.multiply, {x}, reverse={reverse})",
            f"lax.associative_scan(fn.running_product, ({x}, {x}), reverse={reverse})[1]",
        ]
    )


@operation("scan")
def scan_pair(draw, x, y):
    if not is_real(x, y) or not y.size or x.shape not in (y.shape[1:], y.shape):
        return None
    if x.shape == y.shape:
        y = f"jnp.stack([{y}, {x}])"
    reverse = draw.chance(0.5)
    return draw.choose(
        [
            f"lax.scan(lambda c, r: (c * r, jnp.maximum(c, r)), {x}, {y}, reverse={reverse})",
            f"lax.scan(lambda c, r: (jnp.where(r > 0, c, r), c - r), {x}, {y}, reverse={reverse})",
            f"lax.scan(lambda c, r: (fn.cube(c) * 0.2 + r, fn.halved(c)), {x}, {y}, "
            f"reverse={reverse})[1]",
        ]
    )


@operation("nested loops")
def nested(draw, x):
    shape = x.shape
    if not is_real(x):
        return None
    outer, inner = draw.numbers((2, *shape)), draw.numbers((2, *shape))
    reverse, other = draw.chance(0.5), draw.chance(0.5)
    scaled = draw.numbers(())
    return draw.choose(
        [
            f"lax.scan(lambda c, s: lax.scan(lambda d, t: (d * t + s, d), c, {inner}, "
            f"reverse={other}), {x}, {outer}, reverse={reverse})[0]",
            f"lax.scan(lambda c, s: (lax.scan(lambda d, t: (d * t, None), c, {inner}, "
            f"reverse={other})[0] + s * {x}, c), {x}, {outer}, reverse={reverse})[0]",
            f"lax.scan(lambda c, i: (lax.cond(i % 2 == 0, lambda c: c * {x}, jnp.sin, c), c), {x}, "
            f"np.arange(3), reverse={reverse})[0]",
            f"lax.scan(lambda c, i: (lax.switch(i, [jnp.sin, lambda c: c * {x}, jnp.ones_like], "
            f"c), c), {x}, np.array({draw.rng.integers(-1, 5, 3).tolist()}), reverse={reverse})[0]",
            f"lax.scan(lambda c, s: (lax.cond(jnp.sum(c) > {scaled}, lambda c: c * s, "
            f"lambda c: lax.cond(s.ravel()[0] > 0, jnp.sin, lambda c: s, c), c), c), {x}, {outer}, "
            f"reverse={reverse})[1]",
            f"lax.fori_loop(0, 2, lambda i, c: c * jnp.asarray({outer})[i] + {x}, {x})",
            f"lax.cond(jnp.sum({x}) > {scaled}, lambda c: lax.scan(lambda d, t: (d * t, d), c, "
            f"{inner})[0], lambda c: lax.fori_loop(0, 2, lambda i, d: d * c, c), {x})",
            f"lax.scan(lambda c, s: (jax.jit(lambda c: fn.wave(c) * s)(c), fn.wave(s)), {x}, "
            f"{outer}, reverse={reverse})[0]",
            f"lax.scan(lambda c, s: (c * lax.fori_loop(0, 2, lambda i, d: jnp.sin(d) * s, c), c), "
            f"{x}, {outer}, reverse={reverse})[0]",
        ]
    )


@operation("branches")
def branch(draw, x):
    if not x.size or not is_real(x):
        return None
    scale, threshold, index = draw.numbers(x.shape), draw.numbers(()), draw.integer(-1, 4)
    two = f"lambda v: v * {scale}, lambda v: jnp.sin(v) * v"
    return draw.choose(
        [
            f"lax.cond(jnp.sum({x}) > {threshold}, {two}, {x})",
            f"lax.switch(jnp.argmax(jnp.ravel({x})) % 3, [{two}, jnp.ones_like], {x})",
            f"lax.switch({index}, [{two}, jnp.zeros_like], {x})",
            f"lax.cond(jnp.sum({x}) > {threshold}, lambda v: {x} * v, lambda v: v, {x} * 0.5)",
            f"lax.cond(jnp.sum({x}) > {threshold}, lambda a, b: (a * b, b), "
            f"lambda a, b: (a, jnp.ones_like(b)), {x}, {x})",
            f"jax.vmap(lambda v: lax.cond(v > {threshold}, lambda v: v * v, lambda v: 3 * v, v))"
            f"(jnp.ravel({x}))",
            f"jax.vmap(lambda v: lax.switch((v > 0).astype(int) + (v > 1), [jnp.sin, "
            f"lambda v: v * v, jnp.ones_like], v))(jnp.ravel({x}))",
            f"lax.cond(jnp.sum({x}) > {threshold}, lambda v: jax.nn.relu(v), lambda v: {x}, {x})",
            f"lax.cond(jnp.sum({x}) > {threshold}, jax.jit(jnp.sin), fn.wave, {x})",
            f"jax.vmap(lambda v: lax.cond(jnp.sum({x}) > 0, jnp.sin, jnp.cos, v))(jnp.ravel({x}))",
        ]
    )


@operation("branches")
def branch_pair(draw, x, y):
    if not (x.size and y.size and is_real(x, y)) or x.shape != y.shape:
        return None
    return draw.choose(
        [
            f"lax.cond(jnp.sum({x}) > jnp.sum({y}), jnp.multiply, lambda a, b: b, {x}, {y})",
            f"lax.cond(jnp.sum({y}) > 0, lambda a: a * {y}, lambda a: a, {x})",
            f"jax.vmap(lambda a, b: lax.cond(a > b, lambda a, b: a * b, lambda a, b: a, a, b))"
            f"(jnp.ravel({x}), jnp.ravel({y}))",
        ]
    )


CALLS = """
fn.wave({x}) | fn.wave(fn.wave({x})) | fn.wave({x}) * fn.wave({x}) | fn.both({x}, {x})
fn.both({x}, 2.0) | jax.jit(lambda v: fn.wave(v) * v)({x})
jax.checkpoint(lambda v: jnp.sin(v) * v)({x})
jax.checkpoint(lambda v: fn.wave(jnp.sin(v)), policy=jax.checkpoint_policies.dots_saveable)({x})
jax.jit(lambda v: v)({x}) * {x} | jax.jit(lambda v, w: (v, v * w))({x}, {x})
jax.vmap(fn.wave)(jnp.ravel({x}))
jax.vmap(lambda a, b: a * jnp.sum(b), (0, None))(jnp.ravel({x}), {x})
lax.optimization_barrier(({x}, {x} * 2)) | jax.jvp(jnp.sin, ({x},), ({x} * 0.5,))
jax.grad(lambda v: jnp.sum(jnp.sin(v) * v))({x})
jax.vjp(lambda v: v * jnp.tanh(v), {x})[1](jnp.ones_like({x}))[0]
jax.linearize(jnp.sin, {x})[1]({x}) | jax.named_call(fn.wave, name='block')({x})
jax.vmap(jax.vmap(lambda v: v * v))({x}.reshape(-1, 1))
jax.grad(lambda v: jnp.sum(fn.straight_through(v) * v))({x})
jax.hessian(lambda v: v ** 3)(jnp.sum({x})) | fn.doubled({x})
jax.vmap(fn.doubled)(jnp.ravel({x})) | jnp.vectorize(lambda v: v * v + 1)({x})
fn.wave(jnp.ravel({x})[0]) * fn.wave({x}) | lax.stop_gradient(fn.wave({x})) * {x}
"""

ATOMIC = """
sj.atomic(jnp.tanh)({x}) | sj.atomic(lambda v: v * v)({x}) | sj.atomic(fn.wave)({x})
sj.atomic(fn.running)({x}) | sj.atomic(lambda v: jnp.where(v > 0, v, 0.0))({x})
sj.atomic(jax.nn.softmax)(jnp.ravel({x}))
sj.atomic(lambda v, w: (v * w, jnp.sin(w)))({x}, 0.5 * {x})
sj.atomic(lambda v: jnp.cumsum(jnp.ravel(v)) * 2)({x})
sj.atomic(lambda v, w: v * jnp.sum(w))({x}, {x})
sj.atomic(lambda v: jax.nn.relu(jnp.ravel(v)[::-1]))({x})
"""

CUSTOM = """
fn.cube({x} * 0.5) | fn.steps_as_line({x}) | fn.straight_through({x})
fn.scaled_gradient({x}, 0.5) | fn.rectified({x}) | fn.halved({x}) | fn.power(2, {x}, 0.5)
fn.power(3, 0.5 * {x}, -0.5) | fn.product_and_sine({x}, {x} * 0.5) | fn.soft_product({x}, 1.5)
fn.gated({x}, {x}) | fn.gated({x}, 0.5 * jnp.ones({s})) | jax.vmap(fn.rectified)(jnp.ravel({x}))
jax.vmap(fn.cube)(0.5 * jnp.ravel({x})) | jax.jit(fn.straight_through)({x}) * {x}
fn.cube(fn.rectified({x}) * 0.5) | jax.checkpoint(fn.halved)({x})
fn.product_and_sine({x}, {x})[0]
"""

MIXING = """
fn.squashed({x}) | fn.running({x}) | fn.weighted({x}) | fn.neighbours(jnp.ravel({x}))
fn.shifted(jnp.ravel({x}), 1) | fn.product_and_sum({x}, {x} * 0.5)
fn.product_and_sum({x}, {x})[0] | fn.product_and_sum({x}, 2.0 * jnp.ones({s}))[1]
jax.vmap(fn.squashed)({x}.reshape(-1, 1))
fn.matrix_product(jnp.ravel({x})[:2].reshape(1, 2), jnp.ravel({x})[-2:].reshape(1, 2))
fn.reflected(({x}, {x} * {x}))['difference']
(lambda d: (d['sum'], d['difference']))(fn.reflected(({x}, {x} * 0.5)))
jax.vmap(fn.running)({x}.reshape(1, -1)) | fn.squashed({x} * fn.squashed({x}))
fn.running(fn.rectified({x}))
fn.matrix_product({x}.reshape(1, -1), np.array([[0.0, 2.0], [1.5, 0.0]])[:, :{n}])
"""


@operation("calls")
def call(draw, x):
    return draw.choose(divided(CALLS)).format(x=x, s=x.shape) if x.size and is_real(x) else None


@operation("atomic")
def atomic(draw, x):
    return draw.choose(divided(ATOMIC)).format(x=x) if x.size and is_real(x) else None


@operation("custom, elementwise")
def custom(draw, x):
    if not is_real(x) or not x.size:
        return None
    return draw.choose(divided(CUSTOM)).format(x=x, s=x.shape)


@operation("custom, elementwise")
def custom_pair(draw, x, y):
    if x.shape != y.shape or not is_real(x, y):
        return None
    return draw.choose(
        [
            f"fn.product_and_sine({x}, {y})",
            f"fn.product_and_sine({x}, {y})[1]",
            f"fn.soft_product({x}, {y})",
            f"fn.gated({x}, {y})",
            f"lax.scan(lambda c, s: (fn.gated(c, s), fn.rectified(c)), {x}, "
            f"jnp.stack([{y}, {x}]))[1]",
        ]
    )


@operation("custom, mixing")
def mixing(draw, x):
    if not is_real(x) or x.size < 2:
        return None
    source = draw.choose(divided(MIXING)).format(x=x, s=x.shape, n=min(2, x.size))
    return source if "[:, :2]" not in source or x.size == 2 else None


@operation("custom, mixing")
def mixing_pair(draw, x, y):
    if x.shape != y.shape or not x.size or not is_real(x, y):
        return None
    options = [
        f"fn.product_and_sum({x}, {y})",
        f"fn.product_and_sum({x}, {y})[{draw.integer(0, 1)}]",
    ]
    options += [f"(lambda d: (d['sum'], d['difference']))(fn.reflected(({x}, {y})))"]
    if x.ndim == 2:
        options += [f"fn.matrix_product({x}, {y})"]
    return draw.choose(options)


@operation("while")
def while_loop(draw, x):
    if not x.size or not is_real(x):
        return None
    n = draw.integer(0, 3)
    return draw.choose(
        [
            f"fn.until({n}, lambda c: jnp.sin(c) * {x}, {x})",
            f"fn.until(jnp.argmax(jnp.ravel({x})), fn.wave, {x})",
            f"lax.fori_loop(0, jnp.argmax(jnp.ravel({x})) + {n}, lambda i, c: c * {x} + 0.1, {x})",
            f"lax.while_loop(lambda c: jnp.sum(abs(c)) > 0.5, lambda c: 0.5 * jnp.tanh(c), {x})",
            f"lax.scan(lambda c, s: (fn.until(2, lambda d: jnp.sin(d) * s, c), c), {x}, "
            f"{draw.numbers((2,))})[0]",
        ]
    )


@operation("nested")
def nested_operation(draw, x, y):
    """Any other operation in a function that is called, mapped, looped over or a branch."""
    family = draw.choose([name for name in FAMILIES if name not in ("nested", "while")])
    write = draw.choose(FAMILIES[family])
    inside = Array("u", x.shape, x.dtype)
    operands = [inside, draw.choose([inside, y])]
    draw.rng.shuffle(operands)
    arity = len(inspect.signature(write).parameters) - 1
    source = write(draw, *(operands if arity == 2 else [inside]))
    if source is None:
        return None
    function, stacked = f"lambda u: {source}", f"jnp.stack([{x}, -0.5 * {x}])"
    less = f"lambda u: jax.tree.map(lambda a: a * 0.5, {source})"
    return draw.choose(
        [
            f"jax.jit({function})({x})",
            f"jax.checkpoint({function})({x})",
            f"jax.vmap({function})({stacked})",
            f"jax.vmap({function})({stacked})",
            f"jax.vmap({function}, in_axes=-1, out_axes=-1)({stacked}.swapaxes(0, -1))"
            if x.ndim == 1
            else f"jax.vmap({function}, out_axes=-1)({stacked})",
            f"jax.vmap(jax.vmap({function}))({stacked}[None])",
            f"lax.map({function}, {stacked})",
            f"lax.scan(lambda c, u: (c, {source}), 0, {stacked}, reverse=True)[1]",
            f"lax.cond(jnp.sum(jnp.abs({x})) > 1.5, {function}, {less}, {x})",
            f"jax.vmap(lambda p, u: lax.cond(p > 0, {function}, {less}, u), (0, None))"
            f"(np.array([1.0, -1.0]), {x})",
            f"jax.vjp({function}, {x})[0]",
        ]
    )

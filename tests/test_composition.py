"""Semiring gradients under JAX's other transformations, in every precision, and in model libraries.

What has to be the same is compared with itself, computed plainly; derivatives of a statistic are
compared with finite differences in float64, low precision with the exact paths.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.semirings import Weighted
from semijax.testing import enumerate_paths

from .compilation import quick_jit
from .jacobians.oracle import ALL as ORACLE
from .jacobians.oracle import check


def is_nonlinear(equation):
    return equation.primitive.name in ("tanh", "sin", "exp", "mul")


REAL = {
    "sum": sj.SumProduct(),
    "abs sum": sj.AbsSumProduct(),
    "max": sj.MaxProduct(),
    "min": sj.MinProduct(),
    "abs max": sj.AbsMaxProduct(),
    "top": sj.TopK(2),
    "entropy": sj.Entropy(),
    "length": sj.PathLength(),
    "expectation": sj.Expectation(is_nonlinear),
}
ALL = {**REAL, "count": sj.PathCount(), "reach": sj.Reachability()}
FEW = {name: ALL[name] for name in ("sum", "max", "top", "entropy", "length", "reach")}
NATS = ("entropy", "length", "expectation", "count")


def numbers(shape, seed=0):
    """Of mixed sign, no two alike, none near 0."""
    n = int(np.prod(shape))
    values = np.random.default_rng([seed, n]).permutation(0.3 + np.arange(n) / max(n, 1))
    return (values * np.where(np.arange(n) % 3 == 1, -1, 1)).reshape(shape)


def assert_same(found, wanted, rtol=1e-5, atol=1e-6):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol), found, wanted)


def network(x):
    """Three numbers to one, through a product with itself, a matrix and a softmax."""
    hidden = jnp.tanh(jnp.asarray(numbers((2, 3)), x.dtype) @ x)
    return (jax.nn.softmax(hidden) * hidden).sum() + x[0] * x[1]


POINT = np.array([0.4, -0.7, 1.1], np.float32)
POINTS = numbers((2, 2, 3), 1).astype(np.float32)


@pytest.fixture(scope="module")
def plain():
    return sj.semiring_grad(network, FEW)


@pytest.fixture(scope="module")
def expected(plain):
    """The statistics at every one of ``POINTS``, one by one."""
    each = [quick_jit(plain)(point) for point in POINTS.reshape(4, 3)]
    return jax.tree.map(lambda *leaves: np.stack(leaves).reshape(2, 2, *leaves[0].shape), *each)


# Under other transformations.


def test_the_expected_values_are_those_of_the_paths(expected):
    paths = enumerate_paths(network, POINTS[0, 1])
    for i in range(3):
        weights = paths.weights(0, (i,))
        p = np.abs(weights) / np.abs(weights).sum()
        wanted = {
            "sum": weights.sum(),
            "max": weights.max(),
            "top": np.sort(np.abs(weights))[:-3:-1],
            "entropy": -(p * np.log(p)).sum(),
            "length": p @ [path.length for path in paths.from_source(0, (i,))],
        }
        for name, value in wanted.items():
            np.testing.assert_allclose(expected[name][0, 1, i], value, 1e-4, err_msg=name)


def zeros_like_result(f, x):
    return jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(f, x))


TRANSFORMED = {
    "vmap": lambda f: lambda xs: jax.vmap(f)(xs[0]),
    "nested vmap": lambda f: lambda xs: jax.vmap(jax.vmap(f))(xs),
    "vmap over other axes": lambda f: lambda xs: jax.vmap(f, in_axes=1, out_axes=0)(xs[0].T),
    "map": lambda f: lambda xs: lax.map(f, xs[0]),
    "scan": lambda f: lambda xs: lax.scan(lambda c, x: (c + 1, f(x)), 0, xs[0])[1],
    "while_loop": lambda f: (
        lambda xs: lax.while_loop(
            lambda c: c[0] < 2,
            lambda c: (c[0] + 1, f(xs[0, c[0]])),
            (0, zeros_like_result(f, xs[0, 0])),
        )[1]
    ),
    "cond": lambda f: (
        lambda xs: lax.cond(xs[0, 1, 0] > 9, lambda x: zeros_like_result(f, x), f, xs[0, 1])
    ),
    "checkpoint": lambda f: lambda xs: jax.checkpoint(f)(xs[0, 1]),
    "vmap of cond": lambda f: (
        lambda xs: jax.vmap(lambda x: lax.cond(x[0] < 9, f, lambda x: zeros_like_result(f, x), x))(
            xs[0]
        )
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformed(name, plain, expected):
    found = quick_jit(TRANSFORMED[name](plain))(POINTS)
    everything = found["sum"].ndim
    index = {3: (), 2: (0,), 1: (0, 1)}[everything]
    assert_same(found, {key: value[index] for key, value in expected.items()})


def test_transforming_the_function_before(expected):
    """The function may be transformed too: the sum over a batch has the paths of each."""
    chosen = {name: FEW[name] for name in ("sum", "max", "top", "entropy", "reach")}

    def total(xs):
        return jax.jit(jax.vmap(jax.checkpoint(network)))(xs).sum()

    found = quick_jit(sj.semiring_grad(total, chosen))(POINTS[0])
    assert_same(found, {name: expected[name][0] for name in chosen})


@pytest.mark.parametrize(
    "make",
    [
        sj.SumProduct,
        sj.AbsSumProduct,
        sj.MaxProduct,
        sj.MinProduct,
        sj.AbsMaxProduct,
        sj.Entropy,
        sj.PathLength,
        sj.PathCount,
        sj.Reachability,
        lambda: sj.TopK(2),
        lambda: sj.Expectation(is_nonlinear),
        lambda: (sj.TopK(2), (sj.Entropy(), sj.MaxProduct())),
    ],
)
def test_equal_semirings_compile_once(make):
    traced = 0

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(semiring, x):
        nonlocal traced
        traced += 1
        return sj.semiring_grad(lambda x: x * x, semiring)(x)

    first, second = make(), make()
    assert first is not second or isinstance(first, tuple)
    gradient(first, 2.0)
    gradient(second, 3.0)
    assert traced == 1
    if not isinstance(first, tuple):
        assert first == second and hash(first) == hash(second) and repr(first) == repr(second)


def test_different_semirings_are_different():
    assert len(set(ALL.values())) == len(ALL)
    assert sj.TopK(2) != sj.TopK(3)
    assert sj.Expectation(is_nonlinear) != sj.Expectation(len)
    gradient = jax.jit(lambda s, x: sj.semiring_grad(jnp.square, s)(x), static_argnums=0)
    assert gradient(sj.MaxProduct(), -2.0) == gradient(sj.MinProduct(), -2.0) == -4.0
    assert gradient(sj.AbsMaxProduct(), -2.0) == 4.0


def test_a_jitted_gradient_is_traced_once_per_shape():
    traced = 0

    def fun(x):
        nonlocal traced
        traced += 1
        return (x * x).sum()

    gradient = jax.jit(sj.semiring_grad(fun, {"max": sj.MaxProduct(), "top": sj.TopK(2)}))
    for shape in ((3,), (3,), (2,), (3,)):
        gradient(jnp.ones(shape))
    assert traced == 2


# Derivatives of statistics.


def linear(params, x):
    return jnp.tanh(params["w"] @ x + params["b"]) @ params["v"]


def attention(params, x):
    scores = (x @ params["q"]) @ (x @ params["k"]).T
    return (jax.nn.softmax(scores) @ x @ params["v"]).sum()


def layer_norm(params, x):
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 0.1)
    return ((normal * params["w"] + params["b"]) ** 2 @ params["v"]).sum()


def recurrent(params, x):
    def step(state, row):
        state = jnp.tanh(params["w"] @ state + row * params["u"])
        return state, state @ params["v"]

    state, outputs = lax.scan(step, jnp.asarray(params["v"]) * 0.5, x)
    return state.sum() + outputs @ x[:, 0]


def convolution(params, x):
    out = lax.conv_general_dilated(x[None, None], params["w"][:, None], (1,), "SAME")
    return (jnp.sin(out[0]) * params["v"][:, None]).sum()


def lookup(params, x):
    rows = params["table"][jnp.array([2, 0, 2])]
    return jnp.sin((rows * x[:, None]) @ params["v"]).prod()


def branching(params, x):
    y = lax.cond(x[0] > 0, lambda y: jnp.sin(y * params["v"]), jnp.cos, x * x)
    return (jnp.maximum(y, 0.2 * params["v"]) * jax.nn.gelu(x)).sum()


def cumulative(params, x):
    return (jnp.cumsum(jnp.cumprod(x * params["v"])) * jnp.sort(x)).sum()


SMALL = {"w": numbers((3, 2)), "b": numbers(3, 1), "v": numbers(3, 2)}
MODELS = {
    "linear": (linear, SMALL, numbers(2, 3)),
    "attention": (
        attention,
        {"q": numbers((2, 2)), "k": numbers((2, 2), 1), "v": numbers((2, 2), 2)},
        numbers((2, 2), 3) + 0.07,  # off a kink: without it x @ k has a 0
    ),
    "layer norm": (layer_norm, {**SMALL, "w": numbers(3, 5)}, numbers((2, 3), 3)),
    "recurrent": (
        recurrent,
        {"w": numbers((2, 2)), "u": numbers(2), "v": numbers(2, 1)},
        numbers((3, 2), 4),
    ),
    "convolution": (convolution, {"w": numbers((2, 3)), "v": numbers(2, 1)}, numbers(5, 2)),
    "lookup": (lookup, {"table": numbers((3, 2)), "v": numbers(2, 2)}, numbers(3, 3)),
    "branching": (branching, {"v": numbers(3, 2)}, numbers(3, 3)),
    "cumulative": (cumulative, {"v": numbers(4, 2)}, numbers(4, 3)),
}


def projections(fun, x):
    """A function of the parameters: for each semiring one number made of all it says about x."""

    def of(params):
        # √2 x: the product with itself is two edges of equal weight.
        found = sj.semiring_grad(lambda x: fun(params, x), REAL)(x)
        return {name: jnp.vdot(numbers(value.shape, 9), value) for name, value in found.items()}

    return of


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_of_statistics(name):
    fun, params, x = MODELS[name]
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, params)
        x = jnp.asarray(x)
        direction = jax.tree.map(lambda leaf: jnp.asarray(numbers(leaf.shape, 11)), params)
        of = projections(fun, x)

        def moved(step):
            return of(jax.tree.map(lambda p, d: p + step * d, params, direction))

        @quick_jit
        def derivatives(step):
            _, forward = jax.jvp(moved, (step,), (1.0,))
            return forward, jax.jacrev(of)(params)

        forward, by_parameter = derivatives(0.0)
        value, step = quick_jit(moved), 1e-6
        above, below = value(step), value(-step)
        for key in REAL:
            wanted = (above[key] - below[key]) / (2 * step)
            reverse = sum(
                jnp.vdot(d, g)
                for d, g in zip(
                    jax.tree.leaves(direction), jax.tree.leaves(by_parameter[key]), strict=True
                )
            )
            np.testing.assert_allclose(forward[key], wanted, 1e-5, 1e-7, err_msg=f"jvp of {key}")
            np.testing.assert_allclose(reverse, wanted, 1e-5, 1e-7, err_msg=f"grad of {key}")
        assert above["entropy"] != below["entropy"] or name == "cumulative"


def test_derivative_of_the_sum_is_the_hessian():
    hessian = jax.hessian(network)(POINT)
    for jacobian in (jax.jacfwd, jax.jacrev):
        found = quick_jit(jacobian(sj.semiring_grad(network, sj.SumProduct())))(POINT)
        np.testing.assert_allclose(found, hessian, 1e-4, 1e-5)


def test_second_derivatives_of_the_entropy():
    fun, params, x = MODELS["linear"]
    with jax.enable_x64(True):
        x = jnp.asarray(x)

        def total(v):
            point = {**params, "v": v}
            return sj.semiring_grad(lambda x: fun(point, x), sj.Entropy())(x).sum()

        v, step = jnp.asarray(params["v"]), 1e-6
        gradient = quick_jit(jax.grad(total))
        wanted = [(gradient(v + step * e) - gradient(v - step * e)) / (2 * step) for e in np.eye(3)]
        for hessian in (jax.jacfwd(jax.grad(total)), jax.jacrev(jax.jacrev(total))):
            np.testing.assert_allclose(quick_jit(hessian)(v), wanted, 1e-5, 1e-7)


def test_vmap_of_grad_of_jit():
    def total(x):
        found = jax.jit(sj.semiring_grad(network, REAL))(x)
        return sum(value.sum() for value in found.values())

    gradient = quick_jit(jax.grad(jax.checkpoint(total)))
    batched = quick_jit(jax.vmap(jax.grad(total)))(POINTS[0])
    for point, found in zip(POINTS[0], batched, strict=True):
        np.testing.assert_allclose(found, gradient(point), 1e-4, 1e-5)


def test_training_on_an_entropy():
    """Gradient descent spreads the paths of a linear function evenly."""

    def negative_entropy(w):
        return -sj.semiring_grad(lambda x: w @ jnp.broadcast_to(x, 3), sj.Entropy())(1.0)

    step = jax.jit(lambda w: w - 0.5 * jax.grad(negative_entropy)(w))
    w = jnp.array([2.0, 0.3, -0.7])
    for _ in range(60):
        w = step(w)
    np.testing.assert_allclose(-negative_entropy(w), np.log(3), rtol=1e-3)


@pytest.mark.parametrize("name", ["Entropy", "PathLength", "PathCount", "AbsSumProduct"])
def test_grad_of_vmap_is_the_mean_of_grads(name):
    """As where one trains on the mean entropy of a batch."""
    key = jax.random.key(5)
    weights, batch = 0.3 * jax.random.normal(key, (5, 5)), jax.random.normal(key, (7, 5))
    statistic = getattr(sj, name)()

    def mean(weights, batch):
        def of_one(x):
            return sj.semiring_grad(lambda x: (x + jnp.tanh(x @ weights)).sum(), statistic)(x).sum()

        return jax.vmap(of_one)(batch).mean()

    found = jax.grad(mean)(weights, batch)
    expected = sum(jax.grad(mean)(weights, x[None]) for x in batch) / len(batch)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert name == "PathCount" or jnp.abs(found).max() > 0


def test_zero_weights_have_finite_derivatives():
    """Dead units, unused inputs, absent paths: no NaN from a logarithm of 0."""

    def total(w):
        def fun(x):
            return (jax.nn.relu(w @ x) * x[:2]).sum() + jnp.where(x > 0, x, 0)[0] * w[0, 0]

        found = sj.semiring_grad(fun, {k: s for k, s in REAL.items() if k not in ("max", "min")})
        return sum(leaf.sum() for leaf in found(jnp.array([1.0, -2.0, 0.0])).values())

    gradient = quick_jit(jax.grad(total))
    for w in (numbers((2, 3)), np.zeros((2, 3)), -np.abs(numbers((2, 3)))):
        assert np.isfinite(gradient(jnp.asarray(w, jnp.float32))).all()


# Contractions of a large dynamic range.

WIDE = {
    "diagonal": (np.array([[1.0, 0.0], [0.0, 1e-30]]), [0.0, -120.0]),
    "diagonal, reversed": (np.array([[1e-30, 0.0], [0.0, 1.0]]), [0.0, -150.0]),
    "dense": (np.array([[0.5, 1.0, 0.0], [1.0, 1e-30, 0.0], [0.0, -1e-20, 2.0]]), [0, -60, -130]),
    "small against large": (np.array([[0.0, 1.0], [1.0, 1e-30]]), [0.0, -69.0]),
    "moderate": (np.array([[0.0, 1.0], [1.0, 1e-18]]), [0.0, -46.0]),
    "all far below": (np.array([[1e-30, 1e-34], [-1e-30, 1e-32]]), [-100.0, -190.0]),
    "an edge of weight 0": (np.array([[0.0, 1.0], [0.0, 1e-30]]), [-np.inf, -120.0]),
}


def exact_mass_and_entropy(weights, logs, entropies):
    """Row by row, in float64 and by logarithms: from the chain rule of entropy."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.log(np.abs(np.asarray(weights, np.float64))) + np.asarray(logs, np.float64)
        largest = terms.max(1, keepdims=True)
        mass = np.log(np.exp(terms - largest).sum(1)) + largest[:, 0]
        p = np.exp(terms - mass[:, None])
        surprisal = np.where(p > 0, -p * np.log(np.where(p > 0, p, 1)), 0)
    return mass, (p * entropies + surprisal).sum(1)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("sweep", ["reverse", "forward"])
def test_entropy_of_a_wide_contraction(name, sweep):
    weights, logs = WIDE[name]
    logs = np.array(logs, np.float64)
    entropies = np.linspace(0.2, 1.3, len(logs))
    matrix = jnp.asarray(weights, jnp.float32)
    entropy = sj.Entropy()

    def contracted(logs, entropies):
        elements = Weighted(logs, entropies)
        if sweep == "reverse":
            _, pull = sj.semiring_vjp(lambda x: x @ matrix, jnp.ones(len(logs)), semiring=entropy)
            return pull(elements)[0]
        point = (jnp.ones(len(logs)),)
        return sj.semiring_jvp(lambda x: matrix @ x, point, (elements,), semiring=entropy)[1]

    ordinary = np.zeros_like(logs)
    # In a batch, one row of which needs care and one does not.
    batch = np.stack([logs, ordinary, logs - 40, ordinary]).astype(np.float32)
    values = np.stack([entropies] * 4).astype(np.float32)
    found = quick_jit(jax.vmap(contracted))(batch, values)
    for row, log_mass, mean in zip(batch, *found, strict=True):
        mass, wanted = exact_mass_and_entropy(matrix, row, entropies)
        np.testing.assert_allclose(log_mass, mass, 1e-5, 1e-5)
        np.testing.assert_allclose(mean, wanted, 1e-4, 1e-5)
    alone = contracted(batch[0], values[0])
    assert_same(alone, Weighted(found.log_mass[0], found.mean[0]))


def wide_function(matrix, scales):
    def fun(params, x):
        hidden = x @ (matrix * params["w"])
        for scale in scales:
            hidden = hidden * scale
        return (hidden * params["v"] + hidden * hidden).sum()

    return fun


SCALES = {
    "1e-10": [[1.0, 1e-10]],
    "1e-18": [[1.0, 1e-18]],
    "1e-22": [[1.0, 1e-22]],
    "1e-28": [[1.0, 1e-28]],
    "1e-60": [[1.0, 1e-30], [1.0, 1e-30]],
}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("batched", [False, True], ids=["alone", "vmap"])
def test_derivatives_through_a_wide_contraction(name, batched):
    matrix = np.array([[0.0, 1.0], [1.0, 1e-30]], np.float32)
    params = {"w": np.array([[1.0, 0.7], [1.3, 1.0]]), "v": np.array([1.3, 0.6])}
    xs = np.array([[[1.0, 2.0]], [[0.3, 0.8]]])

    def gradient(dtype):
        scales = [np.asarray(s, dtype) for s in SCALES[name]]
        fun = wide_function(matrix.astype(dtype), scales)

        def total(params, x):
            semirings = {"entropy": sj.Entropy(), "length": sj.PathLength()}
            found = sj.semiring_grad(lambda x: fun(params, x), semirings)(x)
            return found["entropy"].sum() + 0.1 * found["length"].sum()

        typed = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        of = jax.value_and_grad(total)
        if batched:
            return quick_jit(jax.vmap(of, (None, 0)))(typed, jnp.asarray(xs, dtype))
        return quick_jit(of)(typed, jnp.asarray(xs[0], dtype))

    found = gradient(np.float32)
    with jax.enable_x64(True):
        wanted = gradient(np.float64)
    assert_same(found, wanted, 1e-3, 1e-4)


# Precision.


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_low_precision(dtype):
    """Accurate to the input's precision, against the same function in float32."""
    x = jnp.asarray(numbers((3, 2), 2), dtype)
    w, v = jnp.asarray(numbers((2, 4), 3), dtype), jnp.asarray(numbers(4, 4), dtype)

    def fun(x, w, v):
        hidden = jnp.tanh(x @ w)
        return (hidden @ v * jnp.maximum(x[:, 0], 0.1)).sum()

    found = quick_jit(sj.semiring_grad(fun, ALL, argnums=(0, 1, 2)))(x, w, v)
    wider = [leaf.astype(jnp.float32) for leaf in (x, w, v)]
    wanted = quick_jit(sj.semiring_grad(fun, ALL, argnums=(0, 1, 2)))(*wider)
    eps = float(jnp.finfo(dtype).eps)
    for name, leaves in found.items():
        kind = bool if name == "reach" else jnp.float32 if name in NATS else dtype
        for leaf, exact in zip(leaves, wanted[name], strict=True):
            assert leaf.dtype == kind, name
            if name in ("length", "expectation"):
                continue  # in low precision the program has more equations: conversions
            leaf = np.asarray(leaf, np.float64)
            np.testing.assert_allclose(leaf, exact, 8 * eps, 8 * eps, err_msg=name)


def test_sums_are_accumulated_in_float32():
    """4096 ones: in bfloat16 their sum would stop growing at 256."""
    n = 4096
    chosen = {name: s for name, s in ALL.items() if name != "top"}

    @quick_jit
    def statistics(x, weights):
        copies = sj.semiring_grad(
            lambda x: jnp.broadcast_to(x, n).astype(jnp.float32).sum(), chosen
        )
        product = sj.semiring_grad(lambda x: (weights @ x).astype(jnp.float32).sum(), chosen)
        return copies(x), product(x[None])

    for found in statistics(jnp.ones((), jnp.bfloat16), jnp.ones((n, 1), jnp.bfloat16)):
        assert found["sum"] == found["abs sum"] == n
        np.testing.assert_allclose(found["entropy"], np.log(n), rtol=1e-5)
        np.testing.assert_allclose(found["count"], np.log(n), rtol=1e-5)


def test_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(POINT, jnp.float64)
        found = quick_jit(sj.semiring_grad(network, FEW))(x)
        single = quick_jit(sj.semiring_grad(network, FEW))(jnp.asarray(POINT))
        wanted = enumerate_paths(network, x).fold(FEW)
    for name, value in found.items():
        assert value.dtype == (bool if name == "reach" else jnp.float64)
        assert single[name].dtype == (bool if name == "reach" else jnp.float32)
        np.testing.assert_allclose(value, wanted[name][0], 1e-10, 1e-12, err_msg=name)
        np.testing.assert_allclose(single[name], wanted[name][0], 1e-4, 1e-5, err_msg=name)


def mixed(inputs):
    x, y, z, n = inputs["half"], inputs["single"], inputs["double"], inputs["count"]
    product = (x.astype(jnp.float32) @ y) * z
    carry, ys = lax.scan(lambda c, row: (c * row + n, c), product.astype(jnp.float32)[0], y[:, 0])
    return carry * z.sum() + ys.astype(x.dtype).sum().astype(jnp.float32) + y.max()


@pytest.mark.parametrize("x64", [False, True])
def test_mixed_dtypes(x64):
    with jax.enable_x64(x64):
        inputs = {
            "half": jnp.asarray(numbers(2), jnp.bfloat16),
            "single": jnp.asarray(numbers((2, 2), 1), jnp.float32),
            "double": jnp.asarray(numbers(2, 2), jnp.float64 if x64 else jnp.float32),
        }

        def fun(inputs):
            return mixed({**inputs, "count": jnp.arange(3)[2]})

        chosen = {name: ALL[name] for name in ("sum", "max", "entropy", "expectation", "reach")}
        found = quick_jit(sj.semiring_grad(fun, chosen))(inputs)
        wanted = {key: tree[0] for key, tree in enumerate_paths(fun, inputs).fold(chosen).items()}
        for name, tree in found.items():
            for key, leaf in tree.items():
                given = inputs[key].dtype
                kind = jnp.promote_types(given, jnp.float32) if name in NATS else given
                assert leaf.dtype == (bool if name == "reach" else kind), (name, key)
                rtol = 2e-2 if given == jnp.bfloat16 else 1e-4
                leaf = np.asarray(leaf, np.float64)
                np.testing.assert_allclose(leaf, wanted[name][key], rtol, 1e-4, err_msg=name)
        gradient = jax.grad(fun)(inputs)
        for key, leaf in gradient.items():
            assert found["sum"][key].dtype == leaf.dtype


# Numbers that are none.

NAN = jnp.array([0.5, jnp.nan, -1.5])
FINE = jnp.array([0.7, -0.4, 1.2])
MATRIX = jnp.asarray(numbers((3, 3), 1), jnp.float32)

NUMBERS = {name: ORACLE[name] for name in ("sum", "max", "abs max", "top", "entropy", "count")}

WITH_NAN = {
    "product": (lambda x, y: (x * y).sum(), NAN, FINE),
    "matrix": (lambda w, x: jnp.tanh(w @ x), MATRIX, NAN),
    "matrix, deep": (lambda w, x: w @ (w @ x), MATRIX.at[1, 2].set(jnp.nan), FINE),
    "softmax": (lambda x: jax.nn.softmax(x) @ FINE, NAN),
    "layer norm": (lambda x: (x - x.mean()) * lax.rsqrt(x.var() + 0.1), NAN),
    "largest": (lambda x: jnp.max(x) * x, NAN),
    "sorted": (lambda x: jnp.sort(x) * x, NAN),
    "product of all": (lambda x: jnp.prod(x), NAN),
    "scatter": (lambda x, y: x.at[jnp.array([0, 0])].add(y[:2] * y[1:]) * FINE, FINE, NAN),
    "convolution": (lambda x, y: jnp.convolve(x, y, "same"), FINE, NAN),
    "cumulative": (lambda x: jnp.cumsum(x * x), NAN),
    "scan": (lambda x, y: lax.scan(lambda c, row: (c * row, c), y, x), NAN, FINE),
    "zero times NaN": (lambda x, y: (x * 0.0) * y, FINE, NAN),
    "into a dead unit": (lambda x, y: jax.nn.relu(x * y - 100 * FINE**2), FINE, NAN),
    "fft": (lambda x: jnp.fft.rfft(x * x).real, NAN),
}


@pytest.mark.parametrize("name", WITH_NAN)
def test_nan_is_nan(name):
    """Where the weight of a path is not a number, no statistic of the paths there is one."""
    fun, *args = WITH_NAN[name]
    if name == "fft":
        found = sj.semiring_grad(lambda x: fun(x).sum(), ALL)(*args)
        assert all(np.isnan(found[key][1]).all() for key in ALL if key != "reach")
        return
    # Forward, a dead unit does not select what arrives there; backward, NaN lies beyond it.
    forward = len(args) > 1 and name != "into a dead unit"
    check(fun, *args, semirings=NUMBERS, forward=forward)


@pytest.mark.parametrize("name", [name for name in ALL if name != "reach"])
def test_a_nan_cotangent_is_nan(name):
    semiring = ALL[name]
    _, pull = sj.semiring_vjp(lambda x: MATRIX @ x, FINE, semiring=semiring)
    (found,) = pull(semiring.lift(NAN))
    assert np.isnan(semiring.readout(found)).any(-1 if name == "top" else ()).all()


def test_a_parameter_that_is_nan_has_a_nan_derivative():
    def total(w, name):
        found = sj.semiring_grad(lambda x: jnp.tanh(w * x).sum(), REAL[name])(FINE)
        return found.sum()

    for name in REAL:
        if name not in ("length", "expectation"):
            assert np.isnan(jax.grad(total)(jnp.float32(jnp.nan), name)), name


def test_infinite_weights():
    def fun(x):
        return jnp.sqrt(x[0]) + 2 * x[1]

    found = sj.semiring_grad(fun, ALL)(jnp.array([0.0, 1.0]))
    for name in ("sum", "abs sum", "max", "min", "abs max"):
        np.testing.assert_array_equal(found[name], [np.inf, 2], name)
    np.testing.assert_array_equal(found["top"], [[np.inf, 0], [2, 0]])
    assert found["count"][0] == 0 and found["reach"].all()
    assert found["entropy"][1] == 0


def test_overflow():
    """A thousand doublings: the mass is infinite, its logarithm and everything in nats is not."""

    def fun(x):
        return lax.scan(lambda c, _: (c * 4.0 + c, None), x, None, length=1000)[0]

    found = quick_jit(sj.semiring_grad(fun, ALL))(1.0)
    for name in ("sum", "abs sum", "max", "abs max"):
        assert found[name] == np.inf, name
    np.testing.assert_allclose(found["count"], 1000 * np.log(2), rtol=1e-5)
    one = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)
    np.testing.assert_allclose(found["entropy"], 1000 * one, rtol=1e-4)
    np.testing.assert_allclose(found["length"], 1000 * (0.8 * 2 + 0.2), rtol=1e-4)
    assert found["top"][0] == np.inf


def test_underflow():
    """Five hundred halvings underflow; that is a number, not the absence of paths."""

    def fun(x):
        return lax.scan(lambda c, _: (c * 0.4 + c * 0.1, None), x, None, length=500)[0]

    found = quick_jit(sj.semiring_grad(fun, ALL))(1.0)
    assert found["max"] == found["abs sum"] == 0
    one = -0.8 * np.log(0.8) - 0.2 * np.log(0.2)
    np.testing.assert_allclose(found["entropy"], 500 * one, rtol=1e-4)
    np.testing.assert_allclose(found["count"], 500 * np.log(2), rtol=1e-5)
    assert found["reach"]


# Model libraries.

CHOSEN = {name: ALL[name] for name in ("sum", "max", "entropy", "count", "length")}


def check_model(fun, tree, x):
    """The paths from the parameters and from the input, and the gradient of each."""
    value, found = quick_jit(sj.semiring_value_and_grad(fun, CHOSEN, (0, 1)))(tree, x)
    np.testing.assert_allclose(value, fun(tree, x), rtol=1e-5)
    gradient = jax.grad(fun, (0, 1))(tree, x)
    assert jax.tree.structure(found["entropy"]) == jax.tree.structure(gradient)
    assert_same(found["sum"], gradient, 1e-4, 1e-5)
    wanted = enumerate_paths(fun, tree, x).fold(CHOSEN)
    for name, pair in found.items():
        assert_same(jax.tree.leaves(pair), jax.tree.leaves(wanted[name]), 1e-3, 1e-5)


def test_linen():
    nn = pytest.importorskip("flax.linen")

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.gelu(nn.Dense(3)(x)) + nn.LayerNorm()(x) @ jnp.ones((2, 3))
            return nn.Dense(1)(x).sum()

    x = jnp.asarray(numbers((1, 2), 4), jnp.float32)
    params = Block().init(jax.random.key(0), x)
    check_model(Block().apply, params, x)


def test_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Block(nnx.Module):
        def __init__(self, rngs):
            self.up = nnx.Linear(2, 3, rngs=rngs)
            self.drop = nnx.Dropout(0.5, deterministic=True)
            self.down = nnx.Linear(3, 1, rngs=rngs)

        def __call__(self, x):
            return self.down(self.drop(nnx.relu(self.up(x)))).sum()

    definition, params, rest = nnx.split(Block(nnx.Rngs(0)), nnx.Param, ...)

    def fun(params, x):
        return nnx.merge(definition, params, rest)(x)

    check_model(fun, params, jnp.asarray(numbers((2, 2), 4), jnp.float32))


def test_equinox():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(2, "scalar", 3, 2, key=jax.random.key(1))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def fun(params, x):
        return jax.vmap(eqx.combine(params, static))(x).sum()

    check_model(fun, params, jnp.asarray(numbers((2, 2), 4), jnp.float32))


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["scale", "shift"], meta_fields=["power"]
)
@dataclasses.dataclass
class Affine:
    scale: jax.Array
    shift: jax.Array
    power: int


def test_dataclass():
    tree = Affine(jnp.asarray(numbers(2), jnp.float32), jnp.float32(0.3), 2)
    check_model(lambda p, x: ((p.scale * x + p.shift) ** p.power).sum(), tree, FINE[:2])

"""The native kernels against the XLA form, on every instruction set that this processor has."""

import concurrent.futures
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from semijax import elements as el
from semijax import native

pytestmark = pytest.mark.skipif(native.target() is None, reason="no native kernels here")

SELECTING = [
    sj.AbsMaxProduct(),
    sj.MaxProduct(),
    sj.TopK(1),
    sj.TopK(3),
    sj.TopK(4),
    sj.TopK(6),
    sj.TopK(11),
    sj.TopK(17),
]
AVERAGING = [sj.PathCount(), sj.AbsSumProduct(), sj.PathLength(), sj.Entropy()]
FEW = [sj.AbsMaxProduct(), sj.MaxProduct(), sj.TopK(2), sj.TopK(6), *AVERAGING[:2], sj.Entropy()]


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def target(request):
    before = native.target()
    if not native.use(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    native.use(before)


LAYOUTS = [native.ColumnsFirst(*both) for both in itertools.product((False, True), repeat=2)]


def by_xla(semiring, *operands, operation="contract"):
    with native.off():
        return jax.jit(lambda *operands: getattr(semiring, operation)(*operands))(*operands)


def natively(semiring, *operands, operation="contract", layout=LAYOUTS[0]):
    def call(*operands):
        with native.laid_out(layout):
            return getattr(semiring, operation)(*operands)

    compiled = jax.jit(call).lower(*operands).compile()
    assert "semijax_" in compiled.as_text()
    return compiled(*operands)


def assert_same(semiring, got, want):
    if semiring in SELECTING:
        jax.tree.map(np.testing.assert_array_equal, got, want)
        return
    if isinstance(got, sj.semirings.Weighted):  # without mass the mean may be any number
        got, want = (x._replace(mean=semiring.readout(x)) for x in (got, want))
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, 1e-5, 1e-5), got, want)


def operands(semiring, shape, random, dtype=np.float32):
    """Weights of both signs, a fifth 0; elements of one path or two, a fifth of none."""
    batch, rows, depth, columns = shape
    weights = random.normal(size=(batch, rows, depth)).astype(dtype)
    weights[random.random(weights.shape) < 0.2] = 0
    paths = random.normal(size=(2, batch, depth, columns)).astype(dtype)
    one, other = semiring.lift(jnp.asarray(paths[0])), semiring.lift(jnp.asarray(paths[1]))
    elements = el.where(random.random(paths[0].shape) < 0.5, one, semiring.add(one, other))
    absent = random.random(paths[0].shape) < 0.2
    absent[:, :, :1] = True  # a column without any path
    return jnp.asarray(weights), el.where(absent, semiring.zero(absent.shape, dtype), elements)


SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (1, 17, 257, 16),
    (3, 5, 64, 65),
    (1, 130, 31, 33),
    (1, 40, 700, 3),
]


@pytest.mark.parametrize("semiring", SELECTING + AVERAGING, ids=repr)
def test_shapes(semiring):
    for seed, shape in enumerate(SHAPES):
        arguments = operands(semiring, shape, np.random.default_rng(seed))
        want = by_xla(semiring, *arguments)
        before = native.target()
        for name in ("avx512", "avx2", "baseline"):
            for layout in LAYOUTS if native.use(name) else ():
                assert_same(semiring, natively(semiring, *arguments, layout=layout), want)
        native.use(before)


@pytest.mark.slow
@pytest.mark.parametrize("semiring", SELECTING + AVERAGING, ids=repr)
@pytest.mark.parametrize("seed", range(12))
def test_more_shapes(semiring, seed, target):
    random = np.random.default_rng(seed)
    for dtype, x64 in ((np.float32, False), (np.float64, True)):
        shape = tuple(random.integers(1, high) for high in (4, 150, 1500, 200))
        with jax.enable_x64(x64):
            arguments = operands(semiring, shape, random, dtype)
            want = by_xla(semiring, *arguments)
            for layout in LAYOUTS:
                assert_same(semiring, natively(semiring, *arguments, layout=layout), want)


def some_elements(semiring, shape, seed, dtype=np.float32):
    _, elements = operands(semiring, (1, 1, *shape), np.random.default_rng(seed), dtype)
    return jax.tree.map(lambda leaf: leaf[0], elements)


SUMMING = [s for s in SELECTING if isinstance(s, sj.TopK)] + AVERAGING


@pytest.mark.parametrize("semiring", SUMMING, ids=repr)
def test_sums(semiring, target):
    elements = some_elements(semiring, (6, 14 * 9), 0)
    elements = el.reshape(elements, (6, 14 * 9), (6, 14, 9))
    for axes in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        summed = Sum(semiring, axes)
        want = by_xla(summed, elements, operation="sum")
        if el.size(summed.kept(elements)) >= 8:
            assert_same(semiring, natively(summed, elements, operation="sum"), want)
        # … and under vmap, over any axis.
        for axis in range(3):
            larger = jax.tree.map(lambda x, a=axis: jnp.stack([x, x], a), elements)
            got = jax.vmap(summed.sum, axis)(larger)
            assert_same(semiring, jax.tree.map(lambda x: x[1], got), want)


@pytest.mark.parametrize("semiring", [s for s in SUMMING if s not in AVERAGING[:2]], ids=repr)
def test_additions(semiring, target):
    a, b = (some_elements(semiring, (7, 5), seed) for seed in (0, 1))
    want = by_xla(semiring, a, b, operation="add")
    assert_same(semiring, natively(semiring, a, b, operation="add"), want)
    twice = jax.tree.map(lambda x: jnp.stack([x, x], 1), b)
    got = jax.vmap(semiring.add, (None, 1))(a, twice)
    assert_same(semiring, jax.tree.map(lambda x: x[1], got), want)


@dataclasses.dataclass(frozen=True)
class Sum:
    """⊕ over some axes, as an operation with elements only."""

    semiring: sj.Semiring
    axes: tuple[int, ...]

    def sum(self, elements):
        return self.semiring.sum(elements, self.axes)

    def kept(self, elements):
        shape = self.semiring.shape(elements)
        return [n for a, n in enumerate(shape) if a not in self.axes]


@pytest.mark.parametrize("semiring", FEW, ids=repr)
def test_numbers_that_are_not_finite(semiring, target):
    values = np.array([0, 1, -2, np.inf, -np.inf, np.nan, -0.0], np.float32)
    pairs = np.array(list(itertools.product(values, values)))
    # Each row has two of these weights, each column an element of two of these paths beside 1.
    weights = jnp.asarray(pairs)[None]
    first, second = (semiring.lift(jnp.asarray(p)) for p in pairs.T)
    column = semiring.add(first, second)
    ones = semiring.lift(jnp.ones(len(pairs)))
    for beside in (ones, semiring.zero((len(pairs),), jnp.float32)):
        elements = jax.tree.map(lambda a, b: jnp.stack([a, b])[None], column, beside)
        want = by_xla(semiring, weights, elements)
        assert_same(semiring, natively(semiring, weights, elements), want)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_every_narrow_weight(dtype, target):
    weights = jax.lax.bitcast_convert_type(jnp.arange(2**16, dtype=jnp.uint16), dtype)
    semiring = sj.MaxProduct()
    arguments = weights.reshape(1, -1, 1), semiring.lift(jnp.ones((1, 1, 1)))
    want = by_xla(semiring, *arguments)
    assert_same(semiring, natively(semiring, *arguments), want)


def test_narrow_weights_are_not_widened_in_memory():
    def fun(x, w):
        return jax.lax.dot(x, w, preferred_element_type=jnp.float32).sum()

    x, w = jnp.ones((8, 512), jnp.bfloat16), jnp.ones((512, 512), jnp.bfloat16)
    for semiring in FEW:
        sweep = sj.semiring_grad(fun, semiring)
        memory = jax.jit(sweep).lower(x, w).compile().memory_analysis()
        assert memory.temp_size_in_bytes < w.nbytes


@pytest.mark.parametrize("semiring", AVERAGING[1:], ids=repr)
@pytest.mark.parametrize("spread", [40.0, 85.0])
def test_masses_of_every_size(semiring, spread, target):
    """What is large on one side is small on the other; rows far apart; and units that grow."""
    random = np.random.default_rng(0)
    shape = (2, 9, 600, 20)
    weights, elements = operands(semiring, shape, random)
    (logs, *means), made = jax.tree.flatten(elements)
    fall = np.linspace(-spread, 0, shape[2])
    rows = np.linspace(-spread, spread, shape[1])[:, None]
    for direction in (1, -1):
        w = weights * np.exp(np.clip(fall[::direction] + rows, -85, 85))
        w = jnp.where(jnp.abs(w) < jnp.finfo(w.dtype).tiny, 0, w)
        elements = made.unflatten([logs - 2 * fall[::direction, None], *means])
        got = natively(semiring, w, elements)
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda x: x.astype(jnp.float64), (w, elements))
            want = by_xla(semiring, *wide)
            assert_same(semiring, got, want)


@pytest.mark.parametrize("semiring", FEW, ids=repr)
@pytest.mark.parametrize("axes", [(0, 1), (None, 1), (2, None)])
def test_vmap(semiring, axes):
    drawn = [operands(semiring, (2, 5, 11, 6), np.random.default_rng(i)) for i in range(3)]

    def chosen(i):
        """The i-th weights and elements; the first of what is not mapped."""
        return tuple(drawn[i if axis is not None else 0][j] for j, axis in enumerate(axes))

    def stacked(j, axis):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *(d[j] for d in drawn))

    mapped = [drawn[0][j] if axis is None else stacked(j, axis) for j, axis in enumerate(axes)]
    got = jax.vmap(semiring.contract, axes)(*mapped)
    for i in range(3):
        assert_same(semiring, jax.tree.map(lambda x, i=i: x[i], got), semiring.contract(*chosen(i)))


@pytest.mark.parametrize("axes", [(0, 1), (None, 1), (2, None)])
def test_vmap_over_nothing(axes):
    shapes = [(2, 5, 11), (2, 11, 6)]
    mapped = [
        jnp.ones(shape if axis is None else (*shape[:axis], 0, *shape[axis:]))
        for shape, axis in zip(shapes, axes, strict=True)
    ]
    assert jax.vmap(sj.AbsMaxProduct().contract, axes)(*mapped).shape == (0, 2, 5, 6)


def test_paths_where_row_and_column_have_some_but_not_together(target):
    lower = np.tril(np.ones((70, 70), np.float32))[None]
    for semiring in AVERAGING:
        absent = semiring.zero(lower.shape, np.float32)
        elements = el.where(lower > 0, semiring.lift(jnp.asarray(lower)), absent)
        for weights in (lower, lower.mT):
            want = by_xla(semiring, weights, elements)
            assert_same(semiring, natively(semiring, weights, elements), want)


def test_calls_from_many_threads():
    semiring = sj.MaxProduct()
    weights, elements = operands(semiring, (4, 300, 200, 100), np.random.default_rng(0))
    contract = jax.jit(semiring.contract)
    expected = contract(weights, elements)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(contract, weights, elements) for _ in range(64)]
        for call in calls:
            assert_same(semiring, call.result(), expected)


@pytest.mark.slow
def test_more_weights_than_an_int_counts():
    rows, depth = 2**16 + 1, 2**15
    weights = np.zeros((1, rows, depth), np.float16)
    weights[0, -1, -1] = 3
    found = jax.jit(sj.AbsMaxProduct().contract)(weights, jnp.ones((1, depth, 1)))
    np.testing.assert_array_equal(found.ravel(), [*[0] * (rows - 1), 3])

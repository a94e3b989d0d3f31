"""The transformations' interface: what goes in, what comes out, in which structure."""

import dataclasses
import functools
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from semijax.semirings import Interval, Weighted
from semijax.testing import enumerate_paths

ALL = {
    "sum": sj.SumProduct(),
    "abs sum": sj.AbsSumProduct(),
    "max": sj.MaxProduct(),
    "min": sj.MinProduct(),
    "abs max": sj.AbsMaxProduct(),
    "top": sj.TopK(2),
    "entropy": sj.Entropy(),
    "length": sj.PathLength(),
    "count": sj.PathCount(),
    "reach": sj.Reachability(),
}
NO_PATH = {
    "sum": 0,
    "abs sum": 0,
    "max": -np.inf,
    "min": np.inf,
    "abs max": 0,
    "top": [0, 0],
    "entropy": 0,
    "length": 0,
    "count": -np.inf,
    "reach": False,
}
Pair = namedtuple("Pair", "first second")


@functools.partial(jax.tree_util.register_dataclass, data_fields=["w", "b"], meta_fields=["act"])
@dataclasses.dataclass
class Layer:
    w: jax.Array
    b: jax.Array | None
    act: str


def figure_1(x, y):
    return jnp.exp(x) + (x - y) * y


def assert_same(found, wanted, rtol=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=rtol), found, wanted)


# Which arguments.


@pytest.mark.parametrize("argnums", [0, 1, -1, -2, (0,), (1, 0), (0, 1), (-1, 0), [1, 0], ()])
def test_argnums(argnums):
    found = sj.semiring_grad(figure_1, sj.MaxProduct(), argnums)(0.0, 3.0)
    both = (1.0 * 3.0, -3.0)
    if isinstance(argnums, int):
        assert jnp.shape(found) == () and found == both[argnums]
    else:
        assert isinstance(found, tuple)
        assert found == tuple(both[i] for i in argnums)


@pytest.mark.parametrize("argnums", [0, (0, 1), -1])
def test_the_sum_is_the_gradient(argnums):
    found = sj.semiring_value_and_grad(figure_1, sj.SumProduct(), argnums)(0.3, 3.0)
    assert_same(found, jax.value_and_grad(figure_1, argnums)(0.3, 3.0))


def test_other_arguments_are_passed_on_as_they_are():
    def fun(x, name, n, mask, *, power, table=None):
        assert name == "sine" and isinstance(n, int) and table is None
        return (jnp.sin(x) ** power)[mask].sum() * n if x.ndim else x

    mask = np.array([True, False, True])
    found = sj.semiring_grad(fun, sj.AbsMaxProduct())(jnp.zeros(3), "sine", 3, mask, power=1)
    np.testing.assert_allclose(found, [3, 0, 3])


def test_default_and_keyword_arguments():
    fun = lambda x, scale=2.0, *, shift=1.0: (x + shift) * scale  # noqa: E731
    gradient = sj.semiring_grad(fun, ALL)
    assert gradient(1.0)["max"] == 2
    assert gradient(1.0, 5.0, shift=3.0)["max"] == 5
    assert gradient(1.0, scale=4.0)["max"] == 4


@pytest.mark.parametrize("x", [2.0, np.float32(2), np.float64(2), np.array(2.0), jnp.float32(2)])
def test_every_kind_of_number(x):
    value, found = sj.semiring_value_and_grad(lambda x: x * x, sj.TopK(3))(x)
    assert value == 4 and found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [2, 2, 0])


def test_metadata_of_the_function_is_kept():
    assert sj.semiring_grad(figure_1, sj.SumProduct()).__name__ == "figure_1"
    assert sj.atomic(figure_1).__name__ == "figure_1"


# Pytrees.

TREES = {
    "dict": ({"a": 2.0, "b": 3.0}, lambda t: t["a"] * t["b"] * t["b"]),
    "list": ([2.0, (3.0,)], lambda t: t[0] * t[1][0] * t[1][0]),
    "named tuple": (Pair(2.0, 3.0), lambda t: t.first * t.second * t.second),
    "None": ({"a": 2.0, "b": (None, 3.0)}, lambda t: t["a"] * t["b"][1] * t["b"][1]),
    "dataclass": (Layer(2.0, 3.0, "tanh"), lambda t: t.w * t.b * t.b),
    "dataclass with None": ([Layer(2.0, None, "relu"), 3.0], lambda t: t[0].w * t[1] * t[1]),
}


@pytest.mark.parametrize("name", TREES)
def test_pytrees(name):
    tree, fun = TREES[name]
    two, three = jax.tree.leaves(tree)
    structure = jax.tree.structure(tree)
    found = sj.semiring_grad(fun, ALL)(tree)
    assert set(found) == set(ALL)
    weights = {"sum": [9, 12], "max": [9, 6], "top": [[9, 0], [6, 6]], "reach": [True, True]}
    weights["count"] = [0, np.log(2)]
    for key, (a, b) in weights.items():
        wanted = structure.unflatten([np.asarray(a), np.asarray(b)])
        assert_same(found[key], wanted)
    assert (two, three) == (2, 3)
    with_aux, aux = sj.semiring_grad(lambda t: (fun(t), t), ALL["sum"], has_aux=True)(tree)
    assert_same(aux, tree)
    assert_same(with_aux, found["sum"])


def test_an_argument_without_leaves():
    for empty in ({}, (), None, [None]):
        found = sj.semiring_grad(lambda t, x: x * x, (sj.SumProduct(), sj.TopK(2)))(empty, 3.0)
        assert found == (empty, empty)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_arrays_without_elements(shape):
    found = sj.semiring_grad(lambda x: (x * x).sum(), ALL)(jnp.ones(shape))
    for name, value in found.items():
        assert value.shape == (*shape, *np.shape(NO_PATH[name]))


def test_integer_leaves_of_other_arguments():
    batch = {"ids": jnp.array([1, 1]), "mask": jnp.array([True, False]), "n": 3}

    def fun(table, batch):
        return jnp.where(batch["mask"], table[batch["ids"]], 0).sum() * batch["n"]

    found = sj.semiring_grad(fun, ALL)(jnp.ones(2), batch)
    np.testing.assert_array_equal(found["sum"], [0, 3])
    np.testing.assert_array_equal(found["max"], [-np.inf, 3])
    np.testing.assert_array_equal(found["min"], [np.inf, 0])  # the branch not taken weighs 0
    np.testing.assert_array_equal(found["top"], [[0, 0], [3, 0]])
    np.testing.assert_array_equal(found["reach"], [False, True])


# Containers of semirings.

CONTAINERS = {
    "tuple": (sj.SumProduct(), sj.Entropy()),
    "list": [sj.MaxProduct(), sj.TopK(2), sj.PathCount()],
    "dict": ALL,
    "one": [sj.MaxProduct()],
    "nested": {"a": (sj.SumProduct(), [sj.TopK(3)]), "b": {"c": sj.Entropy()}},
    "named tuple": Pair(sj.MinProduct(), sj.Reachability()),
    "twice the same": (sj.TopK(2), sj.TopK(2)),
}


def is_semiring(x):
    return isinstance(x, sj.Semiring)


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_of_semirings(name):
    container = CONTAINERS[name]
    point = ({"x": jnp.array([0.5, -1.0])}, jnp.array(2.0))

    def fun(tree, y):
        return (tree["x"] * tree["x"] * y).sum() - y

    for options in ({}, {"raw": True}, {"argnums": (1, 0)}, {"argnums": 0, "aggregate": 0}):
        each = jax.tree.map(
            lambda s, options=options: sj.semiring_grad(fun, s, **options)(*point),
            container,
            is_leaf=is_semiring,
        )
        assert_same(sj.semiring_grad(fun, container, **options)(*point), each)
    value, found = sj.semiring_value_and_grad(fun, container)(*point)
    assert type(found) is type(container) and value == fun(*point)


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_in_both_sweeps(name):
    container = CONTAINERS[name]
    x = jnp.array([0.5, -1.0])

    def fun(x):
        return {"a": x * x, "b": (x.sum(),)}

    def lifted(s):
        return {"a": s.lift(jnp.array([1.0, -2.0])), "b": (s.one((), jnp.float32),)}

    elements = jax.tree.map(lifted, container, is_leaf=is_semiring)
    (found,) = sj.semiring_vjp(fun, x, semiring=container)[1](elements)
    each = jax.tree.map(
        lambda s: sj.semiring_vjp(fun, x, semiring=s)[1](lifted(s))[0],
        container,
        is_leaf=is_semiring,
    )
    assert_same(found, each)

    tangents = jax.tree.map(lambda s: s.lift(x), container, is_leaf=is_semiring)
    _, found = sj.semiring_jvp(fun, (x,), (tangents,), semiring=container)
    each = jax.tree.map(
        lambda s: sj.semiring_jvp(fun, (x,), (s.lift(x),), semiring=s)[1],
        container,
        is_leaf=is_semiring,
    )
    assert_same(found, each)


# Options.


def test_has_aux():
    def fun(x, y):
        return x * y, {"both": (x, y), "n": jnp.arange(2), "none": None}

    found, aux = sj.semiring_grad(fun, sj.MaxProduct(), 1, True)(2.0, 3.0)
    assert found == 2
    assert_same(aux, {"both": (2.0, 3.0), "n": np.arange(2), "none": None})
    (value, aux), found = sj.semiring_value_and_grad(fun, ALL, has_aux=True)(2.0, 3.0)
    assert value == 6 and found["max"] == 3 and aux["both"] == (2, 3)
    out, pull, aux = sj.semiring_vjp(fun, 2.0, 3.0, semiring=ALL["sum"], has_aux=True)
    assert out == 6 and pull() == (3, 2) and aux["both"] == (2, 3)
    ones = ALL["sum"].one((), jnp.float32)
    options = {"semiring": ALL["sum"], "has_aux": True}
    out, pushed, aux = sj.semiring_jvp(fun, (2.0, 3.0), (ones, None), **options)
    assert out == 6 and pushed == 3 and aux["both"] == (2, 3) and aux["none"] is None


def test_paths_to_the_auxiliary_value_do_not_count():
    found = sj.semiring_grad(lambda x: (x.sum(), (x, 5 * x)), ALL, has_aux=True)(jnp.ones(2))[0]
    np.testing.assert_array_equal(found["max"], [1, 1])
    np.testing.assert_array_equal(found["count"], [0, 0])


def test_raw_elements():
    x = jnp.array([1.0, -2.0])
    found = sj.semiring_grad(lambda x: (x * x * 3).sum(), ALL, raw=True)(x)
    assert isinstance(found["max"], Interval) and isinstance(found["entropy"], Weighted)
    np.testing.assert_allclose(found["max"].max, [3, -6])
    np.testing.assert_allclose(found["entropy"].log_mass, np.log([6, 12]), rtol=1e-6)
    read = sj.semiring_grad(lambda x: (x * x * 3).sum(), ALL)(x)
    assert_same({name: s.readout(found[name]) for name, s in ALL.items()}, read)
    half = sj.semiring_grad(lambda x: (x * x).sum(), ALL, raw=True)(x.astype(jnp.bfloat16))
    leaves = jax.tree.leaves(half)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32), jnp.dtype(bool)}


SQUARES = np.array([[[0.5, -1.0, 2.0]], [[0.7, 1.5, -0.3]]], np.float32)


def squares(x):
    return (x * x * jnp.array([1.0, 0.0, -2.0])).sum()


AXES = [0, -1, 2, (0, 2), (-1, 0), (0, 1, 2), [1], ()]


@pytest.mark.parametrize("axes", AXES)
def test_aggregate(axes):
    found = sj.semiring_grad(squares, ALL, aggregate=axes)(SQUARES)
    raw = sj.semiring_grad(squares, ALL, raw=True)(SQUARES)
    by_hand = sj.aggregate(raw, ALL, axes)
    assert_same(found, {name: s.readout(by_hand[name]) for name, s in ALL.items()})
    assert_same(sj.semiring_grad(squares, ALL, aggregate=axes, raw=True)(SQUARES), by_hand)

    # The paths from all the input elements that were aggregated.
    weights = {
        index: enumerate_paths(squares, SQUARES).weights(0, index) for index in np.ndindex(2, 1, 3)
    }
    gone = {a % 3 for a in ((axes,) if isinstance(axes, int) else axes)}
    kept = [a for a in range(3) if a not in gone]
    assert found["sum"].shape == tuple(SQUARES.shape[a] for a in kept)
    for index in np.ndindex(found["sum"].shape):
        here = np.concatenate(
            [w for at, w in weights.items() if tuple(at[a] for a in kept) == index]
        )
        mass = np.abs(here[here != 0])
        p = mass / mass.sum()
        wanted = {
            "sum": here.sum(),
            "abs sum": mass.sum(),
            "max": here.max(),
            "min": here.min(),
            "abs max": mass.max(initial=0),
            "top": [*np.sort(np.abs(here))[::-1], 0][:2],
            "entropy": -(p * np.log(p)).sum(),
            "count": np.log(len(mass)) if len(mass) else -np.inf,
            "reach": len(mass) > 0,
        }
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name][index], value, 1e-5, 1e-6, err_msg=name)


def test_aggregate_defaults_to_all_axes():
    top = sj.TopK(3)
    elements = top.lift(jnp.array([[1.0, 5.0], [-4.0, 2.0]]))
    np.testing.assert_array_equal(sj.aggregate(elements, top), [5, 4, 2])
    rows = top.readout(sj.aggregate(elements, top, -1))
    np.testing.assert_array_equal(rows, [[5, 1, 0], [4, 2, 0]])


def test_aggregate_of_pytrees():
    tree = {"a": jnp.array([[1.0, -2.0]]), "b": [jnp.array([3.0, 4.0, -5.0]), None]}
    fun = lambda t: (t["a"] ** 2).sum() + (t["b"][0] ** 2).sum()  # noqa: E731
    chosen = {"max": ALL["max"], "nested": (ALL["entropy"], ALL["top"])}
    raw = sj.semiring_grad(fun, chosen, raw=True)(tree)
    found = sj.aggregate(raw, chosen, -1)
    assert_same(found, sj.semiring_grad(fun, chosen, raw=True, aggregate=-1)(tree))
    np.testing.assert_allclose(found["max"]["a"].max, [2])
    np.testing.assert_allclose(found["max"]["b"][0], (8, -10))
    np.testing.assert_allclose(found["nested"][1]["b"][0], [10, 8])
    assert found["nested"][0]["a"].mean.shape == (1,) and found["nested"][0]["b"][1] is None


def test_aggregating_no_elements_is_no_path():
    for name, semiring in ALL.items():
        elements = semiring.one((2, 0), jnp.float32)
        found = semiring.readout(sj.aggregate(elements, semiring, 1))
        np.testing.assert_array_equal(found, [NO_PATH[name]] * 2, name)


# The sweeps.


def test_vjp_of_pytrees():
    def fun(x, tree):
        return {"a": x * tree["y"], "b": [x.sum(), tree["y"][::-1]]}, None

    x, tree = jnp.array([1.0, -2.0]), {"y": jnp.array([3.0, 0.5])}
    top = sj.TopK(2)
    out, pull = sj.semiring_vjp(fun, x, tree, semiring=top)
    assert_same(out, fun(x, tree))
    cotangents = (
        {"a": top.lift(jnp.array([1.0, -4.0])), "b": [top.lift(jnp.float32(2.5)), top.lift(x)]},
        None,
    )
    by_x, by_tree = pull(cotangents)
    np.testing.assert_allclose(by_x, [[3, 2.5], [2.5, 2]])
    np.testing.assert_allclose(by_tree["y"], [[2, 1], [8, 1]])
    by_x, by_tree = pull()
    np.testing.assert_allclose(by_x, [[3, 1], [1, 0.5]])
    assert jax.tree.structure(by_tree) == jax.tree.structure(tree)


def test_vjp_of_numbers_is_the_vjp():
    fun = lambda x, y: (jnp.outer(x, y), x.max())  # noqa: E731
    x, y = jnp.array([0.5, -1.0]), jnp.array([2.0, 3.0, -1.0])
    cotangents = (jnp.arange(6.0).reshape(2, 3), jnp.float32(-2))
    _, pull = sj.semiring_vjp(fun, x, y, semiring=sj.SumProduct())
    assert_same(pull(cotangents), jax.vjp(fun, x, y)[1](cotangents))


def test_vjp_with_an_output_without_nodes():
    fun = lambda x: (x * 2, jnp.argmax(x), x > 0)  # noqa: E731
    out, pull = sj.semiring_vjp(fun, jnp.array([1.0, 5.0]), semiring=ALL)
    assert out[1] == 1 and out[1].dtype == jnp.int32 and out[2].dtype == bool
    (found,) = pull()
    np.testing.assert_array_equal(found["sum"], [2, 2])


def test_an_output_that_is_an_input():
    (found,) = sj.semiring_vjp(lambda x: (x, x, 2 * x), 1.5, semiring=ALL)[1]()
    read = {name: s.readout(found[name]) for name, s in ALL.items()}
    assert read["sum"] == 4 and read["max"] == 2 and read["min"] == 1
    np.testing.assert_allclose(read["count"], np.log(3), rtol=1e-6)
    np.testing.assert_allclose(read["length"], 0.5, rtol=1e-6)  # two of length 0, one that weighs 2
    found = sj.semiring_grad(lambda x: x, ALL)(1.5)
    assert found["sum"] == found["max"] == 1 and found["length"] == found["count"] == 0
    np.testing.assert_array_equal(found["top"], [1, 0])
    out, pushed = sj.semiring_jvp(
        lambda x: (x, 3.0), (1.5,), (ALL["sum"].lift(jnp.ones(())),), semiring=ALL["sum"]
    )
    assert out == (1.5, 3.0) and pushed == (1, 0)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x, y: y.sum(),
        lambda x, y: 3.0,
        lambda x, y: jax.lax.stop_gradient(x).sum() * y[0],
        lambda x, y: jnp.sum(x > 0) * y[0],
        lambda x, y: x[2:].sum() + y[1],
        lambda x, y: jnp.floor(y[0]) + x[:0].sum(),
    ],
)
def test_an_input_without_a_path_reads_zero(fun):
    x, y = jnp.array([1.0, -2.0]), jnp.ones(2)
    value, (found, *_) = sj.semiring_value_and_grad(
        lambda *args: fun(*args) * 1.0, tuple(ALL.values())
    )(x, y)
    everything = sj.semiring_grad(lambda *args: fun(*args) * 1.0, ALL)(x, y)
    assert value.shape == () and found.shape == (2,)
    for name, value in everything.items():
        np.testing.assert_array_equal(value, [NO_PATH[name]] * 2, name)


def test_jvp_sources():
    fun = lambda x, tree: {"out": x * tree["y"], "x": x}  # noqa: E731
    x, tree = jnp.array([1.0, -2.0]), {"y": jnp.array([3.0, 0.5])}
    both = {name: (s.lift(x), {"y": s.lift(x)}) for name, s in ALL.items()}
    sources = [{name: pair[n] for name, pair in both.items()} for n in (0, 1)]

    def read(x_source, tree_source):
        out, found = sj.semiring_jvp(fun, (x, tree), (x_source, tree_source), semiring=ALL)
        assert_same(out, fun(x, tree))
        return {
            name: jax.tree.map(s.readout, found[name], is_leaf=lambda t: isinstance(t, tuple))
            for name, s in ALL.items()
        }

    found = read(*sources)
    np.testing.assert_allclose(found["max"]["out"], [3, 4])
    np.testing.assert_allclose(found["min"]["out"], [1, -1])
    np.testing.assert_allclose(found["sum"]["out"], [4, 3])
    np.testing.assert_allclose(found["top"]["out"], [[3, 1], [4, 1]])
    found = read(sources[0], None)
    np.testing.assert_allclose(found["max"]["out"], [3, -1])
    np.testing.assert_allclose(found["max"]["x"], x)
    found = read(None, sources[1])
    np.testing.assert_allclose(found["sum"]["out"], [1, 4])
    for name in ALL:
        np.testing.assert_array_equal(found[name]["x"], [NO_PATH[name]] * 2, name)
    found = read(None, None)
    for name in ALL:
        np.testing.assert_array_equal(found[name]["out"], [NO_PATH[name]] * 2, name)


def test_both_sweeps_agree():
    def fun(x, y):
        hidden = jnp.tanh(jnp.outer(x, y)) @ y
        return (jax.nn.softmax(hidden) * x).sum()

    x, y = jnp.array([0.4, -1.2]), jnp.array([0.3, 0.9, -0.7])
    backward = jax.jit(sj.semiring_grad(fun, ALL, (0, 1), aggregate=0))(x, y)

    def forward(x, y):
        def start(n):
            leaf = (x, y)[n]
            ones = {name: s.one(leaf.shape, leaf.dtype) for name, s in ALL.items()}
            return [ones if m == n else None for m in (0, 1)]

        found = [sj.semiring_jvp(fun, (x, y), start(n), semiring=ALL)[1] for n in (0, 1)]
        return {name: tuple(s.readout(f[name]) for f in found) for name, s in ALL.items()}

    assert_same(jax.jit(forward)(x, y), backward, 1e-4)


# Coarser graphs.


def test_atomic():
    def product(x, y):
        return x * y + x * y, (x - y, jnp.int32(3))

    def fun(wrap, x):
        both, (difference, n) = wrap(product)(x, y=2 * x)
        return both + difference * n

    fine, coarse = (
        sj.semiring_grad(functools.partial(fun, w), ALL)(3.0) for w in (lambda f: f, sj.atomic)
    )
    assert fine["sum"] == coarse["sum"] == jax.grad(functools.partial(fun, sj.atomic))(3.0)
    # The weights of x → product → sum: 12 directly and 12 by 2x; of the difference 3 and −6.
    np.testing.assert_allclose(coarse["count"], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(fine["count"], np.log(6), rtol=1e-6)
    np.testing.assert_allclose(coarse["top"], [12, 12])
    np.testing.assert_allclose(fine["top"], [6, 6])
    assert coarse["min"] == -6


def test_atomic_under_transformations():
    softmax = sj.atomic(jax.nn.softmax)
    x = jnp.array([[0.1, 0.5], [2.0, -1.0]])
    np.testing.assert_allclose(jax.jit(jax.vmap(softmax))(x), jax.nn.softmax(x), rtol=1e-6)
    gradient = lambda f: jax.grad(lambda x: (f(x) ** 2).sum())(x)  # noqa: E731
    np.testing.assert_allclose(gradient(softmax), gradient(jax.nn.softmax), rtol=1e-5)
    for f in (softmax, jax.jit(softmax), jax.checkpoint(softmax), sj.atomic(softmax)):
        found = sj.semiring_grad(lambda x, f=f: (f(x) * x[0]).sum(), ALL)(x)
        # From an element of the first row: its two uses, and its softmax has one edge to each.
        np.testing.assert_allclose(found["count"], [[np.log(4)] * 2, [np.log(2)] * 2], rtol=1e-6)


def test_gradients_of_gradients_are_functions_like_others():
    """A semiring gradient is a JAX function, and has paths of its own."""
    inner = sj.semiring_grad(lambda x: x * x * x, sj.SumProduct())
    value, found = sj.semiring_value_and_grad(inner, (sj.SumProduct(), sj.Reachability()))(2.0)
    assert value == 12 and found[0] == 12 and found[1]

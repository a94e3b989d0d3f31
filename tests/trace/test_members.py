"""A shard_map inside of a function: its paths are those of the function without it.

The mesh here has no devices: none are needed for the vmap that a shard_map stands for. On devices:
``tests/test_devices.py``.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

import semijax as sj

from ..jacobians.oracle import LIGHT, check, numbers

ONE = AbstractMesh((3,), ("d",), axis_types=(AxisType.Auto,))
TWO = AbstractMesh((2, 3), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
# Splitting an array and joining it are steps on the way.
SEMIRINGS = {name: s for name, s in LIGHT.items() if name != "length"}
ROWS, W, V = numbers((6, 2)), numbers((2, 3), 1), numbers((3, 2), 2)
SHIFT = [(0, 1), (1, 2)]


def mapped(body, ins, outs, mesh=ONE, **options):
    return lambda *args: jax.shard_map(body, mesh=mesh, in_specs=ins, out_specs=outs, **options)(
        *args
    )


def perceptron(x, w, v):
    return jnp.tanh(x @ w) @ v


def tensor_parallel(axis):
    return lambda x, w, v: lax.psum(perceptron(x, w, v), axis)


def recurrent(x):
    return lax.scan(lambda c, t: (jnp.sin(c) * t, c.sum()), x, jnp.arange(1.0, 3.0))


def ring(x):
    everyone = [(0, 1), (1, 2), (2, 0)]

    def step(c, _):
        return lax.ppermute(jnp.sin(c), "d", everyone) * lax.psum(c.sum(0), "d"), None

    return lax.scan(step, x, None, length=2)[0]


def custom(x):
    return jax.nn.relu(jax.nn.silu(x)) + jax.nn.softmax(x)


@jax.custom_vjp
def doubled_backward(x):
    return jnp.sin(x)


doubled_backward.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (2 * g * jnp.cos(x),))


@jax.checkpoint
def called(x):
    return x + jax.jit(lambda x: jnp.where(x > 0, x, 2 * x))(x)


def replicated(x):
    """Of every member the same, though JAX cannot see it."""
    everyone = lax.all_gather(x, "d", tiled=True)
    return everyone.mean(0) * everyone[1]


def both_kinds(x, n):
    return x * n, n + 1


def nested(x):
    inner = functools.partial(jax.shard_map, axis_names={"b"}, in_specs=P("b"), out_specs=P("b"))
    return inner(lambda x: x * lax.psum(x.sum(), "b"))(jnp.sin(x))


# Name: what is mapped, its specs, the mesh, the function without shard_map, its arguments.
CASES = {
    "data": (perceptron, (P("d"), P(), P()), P("d"), ONE, perceptron, (ROWS, W, V)),
    "tensor": (
        *(tensor_parallel("d"), (P(), P(None, "d"), P("d")), P(), ONE),
        *(perceptron, (ROWS, W, V)),
    ),
    "both": (
        *(tensor_parallel("b"), (P("a"), P(None, "b"), P("b", None)), P("a"), TWO),
        *(perceptron, (ROWS, W, V)),
    ),
    "one axis over two": (jnp.sin, P(("b", "a")), P(("b", "a")), TWO, jnp.sin, (ROWS,)),
    "scan": (
        *(recurrent, P("d"), (P("d"), P("d")), ONE),
        lambda x: (
            recurrent(x)[0],
            jnp.stack([jax.vmap(lambda x: recurrent(x)[1])(x.reshape(3, 2, 2))]).reshape(-1),
        ),
        (ROWS,),
    ),
    "custom_jvp": (custom, P("d"), P("d"), ONE, custom, (ROWS,)),
    "custom_vjp": (doubled_backward, P("d"), P("d"), ONE, doubled_backward, (ROWS,)),
    "called": (called, P("d"), P("d"), ONE, called, (ROWS,)),
    "index": (
        *(lambda x: x * lax.axis_index("d"), P("d"), P("d"), ONE),
        *(lambda x: x * jnp.repeat(jnp.arange(3), 2)[:, None], (ROWS,)),
    ),
    "pmean": (
        *(lambda x: x * lax.pmean(x.sum(0), "d"), P("d"), P("d"), ONE),
        *(lambda x: x * (x.sum(0) / 3), (ROWS,)),
    ),
    "pmax": (
        *(lambda x: x * lax.pmax(x.sum(0), "d"), P("d"), P("d"), ONE),
        *(lambda x: x * x.reshape(3, 2, 2).sum(1).max(0), (ROWS,)),
    ),
    "all_gather": (
        *(lambda x: x @ lax.all_gather(x, "d", tiled=True).T, P("d"), P("d"), ONE),
        *(lambda x: x @ x.T, (ROWS,)),
    ),
    "all_gather over two": (
        *(lambda x: x * lax.all_gather(x, ("a", "b"), axis=1).sum(1), P(("a", "b")), P(("a", "b"))),
        *(TWO, lambda x: x * x.sum(0), (ROWS,)),
    ),
    "ppermute": (
        *(lambda x: lax.ppermute(x * x, "d", SHIFT), P("d"), P("d"), ONE),
        *(lambda x: jnp.concatenate([jnp.zeros((2, 2)), (x * x)[:4]]), (ROWS,)),
    ),
    "psum_scatter": (
        *(lambda x: lax.psum_scatter(jnp.sin(x), "d", tiled=True), P(None, "d"), P("d"), ONE),
        *(lambda x: jnp.sin(x).sum(1, keepdims=True), (numbers((6, 3)),)),
    ),
    "all_to_all": (
        *(lambda x: lax.all_to_all(x * x, "d", 1, 0, tiled=True), P("d"), P(None, "d"), ONE),
        *(lambda x: x * x, (numbers((3, 3)),)),
    ),
    "integers": (
        both_kinds,
        (P("d"), P("d")),
        (P("d"), P("d")),
        ONE,
        both_kinds,
        (ROWS, ROWS[:, :1]),
    ),
    "in a loop": (
        *(ring, P("d"), P("d"), ONE),
        lambda x: lax.fori_loop(0, 2, lambda _, c: jnp.roll(jnp.sin(c), 2, 0) * c.sum(0), x),
        (ROWS,),
    ),
    "nested": (
        *(nested, P("a"), P("a"), TWO),
        lambda x: jnp.sin(x) * jnp.repeat(jnp.sin(x).reshape(2, 6).sum(1), 3)[:, None],
        (ROWS,),
    ),
}


def cases(check_vma):
    for name, (body, ins, outs, mesh, plain, args) in CASES.items():
        options = {"axis_names": {"a"}} if name == "nested" else {}
        fun = mapped(body, ins, outs, mesh, check_vma=check_vma, **options)
        yield name, fun, plain, args


@pytest.mark.parametrize("check_vma", [False, True])
def test_the_paths_are_those_without_it(check_vma):
    pairs = list(cases(check_vma))
    counts = [len(args) for *_, args in pairs]
    starts = np.cumsum([0, *counts])

    def all_of(which):
        def function(*args):
            return [
                pair[which](*args[start : start + n])
                for pair, start, n in zip(pairs, starts, counts, strict=False)
            ]

        return function

    arguments = [x for *_, args in pairs for x in args]
    check(all_of(1), *arguments, semirings=SEMIRINGS, reference=all_of(2), against_jax=False)


def test_what_all_devices_return_counts_once():
    fun = mapped(replicated, P("d"), P(), check_vma=False)
    plain = lambda x: x.mean(0) * x[1]  # noqa: E731
    found, expected = (
        sj.semiring_grad(lambda x, f=f: f(x).sum(), SEMIRINGS)(ROWS) for f in (fun, plain)
    )
    for name in SEMIRINGS:
        np.testing.assert_allclose(found[name], expected[name], 1e-5, err_msg=name)


def test_the_sum_is_the_gradient_of_the_function_without_it():
    for name, fun, plain, args in cases(True):
        wanted = jax.grad(lambda *x, f=plain: sum(y.sum() for y in jax.tree.leaves(f(*x))))(*args)
        total = lambda *x, f=fun: sum(y.sum() for y in jax.tree.leaves(f(*x)))  # noqa: E731
        found = sj.semiring_grad(total, sj.SumProduct())(*args)
        np.testing.assert_allclose(found, wanted, 1e-4, 1e-5, err_msg=name)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = x + nn.relu(nn.Dense(2, name=f"layer_{_}")(nn.LayerNorm()(x)))
        return nn.tanh(x)


@pytest.fixture(scope="module")
def networks():
    """A network under shard_map and without."""
    net = Net()
    variables = net.init(jax.random.key(0), ROWS)

    def plain(x):
        return jnp.sin(net.apply(variables, x)).sum()

    def sharded(x):
        return jnp.sin(mapped(lambda x: net.apply(variables, x), P("d"), P("d"))(x)).sum()

    return sharded, plain


def test_a_model_keeps_its_names_and_lines(networks):
    sharded, plain = (
        {(row.scope, row.source) for row in sj.explain(f)(ROWS) if row.scope} for f in networks
    )
    assert sharded == plain
    lines = {row.source for row in sj.explain(networks[0])(ROWS)}
    assert any("test_members" in line for line in lines)
    assert not any("members.py" in line.replace("test_members.py", "") for line in lines)


def test_sites_have_an_axis_for_the_devices(networks):
    names = ["*/layer_0", "*/layer_1"]
    found, expected = (sj.site_flow(f, sj.AbsSumProduct(), names)(ROWS) for f in networks)
    assert found.names == expected.names
    for name in expected.names:
        assert found[name].shape == (3, 2, 2)
        np.testing.assert_allclose(found[name].reshape(6, 2), expected[name], 1e-4)
    values, plain = (sj.site_values(f, names)(ROWS) for f in networks)
    for name in expected.names:
        np.testing.assert_allclose(values[name].reshape(6, 2), plain[name], 1e-5)
    without, expected = (sj.ablate(f, names[0])(ROWS) for f in networks)
    np.testing.assert_allclose(without, expected, 1e-5)


def test_flow_through_modules_and_branches(networks):
    found, expected = (sj.component_flow(f, sj.AbsMaxProduct())(ROWS) for f in networks)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], 1e-5)
    found, expected = (
        sj.branch_flow(f, sj.AbsSumProduct(), "*/LayerNorm_1:input")(ROWS) for f in networks
    )
    for name in expected:
        for branch in expected[name]:
            flow = np.asarray(found[name][branch]).ravel()
            np.testing.assert_allclose(flow, expected[name][branch], 1e-4)


def test_path_searches(networks):
    found, expected = (sj.top_paths(f, k=3)(ROWS) for f in networks)
    for path, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(path.weight, wanted.weight, 1e-5)
        assert path.nodes[0].index == wanted.nodes[0].index and path.verify() < 1e-5
    passed = [[node.scope for node in paths[0].nodes if node.scope] for paths in (found, expected)]
    assert passed[0] == passed[1]
    assert all("test_members" in node.source for node in found[0].nodes if node.name == "reshape")


@jax.custom_vjp
def summed(x):
    return lax.psum(x, "d")


summed.defvjp(lambda x: (summed(x), None), lambda _, g: (g,))

NOT_MAPPED = {
    "custom derivative": (lambda x: summed(jnp.sin(x)), r"exchanges data .*by psum"),
    "groups": (
        lambda x: lax.psum(x, "d", axis_index_groups=[[0, 1, 2]]),
        "axis_index_groups not supported",
    ),
}


@pytest.mark.parametrize("name", NOT_MAPPED)
def test_what_has_no_vmap_is_refused(name):
    body, reason = NOT_MAPPED[name]
    fun = mapped(body, P("d"), P("d"), check_vma=False)
    message = rf"vmap that it stands for.*test_members.*{reason}.*semijax\.atomic"
    for ask in (
        sj.semiring_grad(lambda x: fun(x).sum(), sj.Entropy()),
        lambda x: sj.semiring_jvp(fun, (x,), (x,), sj.SumProduct()),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(ask, ROWS)
    with pytest.raises(ValueError, match=message):
        sj.testing.enumerate_paths(fun, ROWS)


def test_what_has_no_vmap_is_no_obstacle_beside_the_way():
    def fun(x, y):
        return (x * lax.stop_gradient(mapped(summed, P("d"), P(), check_vma=False)(y))).sum()

    shapes = jax.eval_shape(sj.semiring_grad(fun, sj.MaxProduct()), ROWS[:2], ROWS)
    assert shapes.shape == (2, 2)


def test_a_conditional_whose_test_differs_is_a_selection():
    """As under vmap: the branch that a device did not take has edges of weight 0."""

    def body(x):
        return lax.cond(lax.axis_index("d") < 1, lambda x: 2.0 * x, lambda x: 3.0 * x, x)

    fun = mapped(body, P("d"), P("d"))
    found = sj.semiring_grad(lambda x: -fun(x).sum(), [sj.SumProduct(), sj.MaxProduct()])(ROWS)
    np.testing.assert_array_equal(found[0], -np.repeat([2, 3, 3], 2)[:, None] * np.ones(2))
    np.testing.assert_array_equal(found[1], np.zeros((6, 2)))

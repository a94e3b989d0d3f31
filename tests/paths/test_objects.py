"""Paths as objects: what they know, how they read, and what they have in common."""

import dataclasses
import json
import math
import os
import pickle

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pandas
import pytest
from flax import linen as nn
from jax import lax

import semijax as sj

from .oracle import place


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm(name="norm")(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(h)
        return x + nn.Dense(x.shape[-1], name="down")(nn.gelu(nn.Dense(8, name="up")(x)))


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = Block(name=f"block_{i}")(x)
        return nn.Dense(2, name="head")(x.mean(0))[0]


@pytest.fixture(scope="module")
def model():
    x = jax.random.normal(jax.random.key(0), (3, 4))
    params = Model().init(jax.random.key(1), x)
    return (lambda x: Model().apply(params, x)), x


def chain(x):
    with jax.named_scope("first"):
        y = jnp.sin(x[1]) * 3
    with jax.named_scope("second"):
        return -(y**2)


X = jnp.array([0.3, 0.5])


def test_what_a_path_knows():
    (path,) = sj.top_paths(chain)(X)
    names = [node.name for node in path.nodes]
    assert names == ["[0][1]", "slice[0]", "squeeze", "sin", "mul", "integer_pow", "neg"]
    y = 3 * math.sin(0.5)
    values = [0.5, 0.5, 0.5, y / 3, y, y**2, -(y**2)]
    np.testing.assert_allclose([node.value for node in path.nodes], values, 1e-6)
    weights = [1, 1, math.cos(0.5), 3, 2 * y, -1]
    np.testing.assert_allclose([edge.weight for edge in path.edges], weights, 1e-6)
    assert path.weight == pytest.approx(math.prod(weights)) and path.length == 6
    assert path.sign == -1
    assert path.log_abs_weight == pytest.approx(math.log(-math.prod(weights)))
    assert path.nodes[3].scope == "first" and path.nodes[5].scope == "second"
    assert "test_objects.py" in path.nodes[3].source and "(chain)" in path.nodes[3].source
    assert path.nodes[0].shape == (2,) and path.nodes[0].dtype == "float32"
    assert path.verify() < 1e-6
    with pytest.raises(dataclasses.FrozenInstanceError):
        path.nodes = ()


def test_a_weight_of_zero():
    (path,) = sj.top_paths(lambda x: jax.nn.relu(-x))(1.0)
    assert path.weight == 0 and path.sign == 0 and path.log_abs_weight == -math.inf
    assert path.verify() == 0


def test_told_by_modules(model):
    fun, x = model
    path = sj.top_paths(fun, through="*/attention/key")(x)[0]
    story = path.collapse()
    told = [stage.scope for stage in story]
    assert told[:3] == ["", "Model/block_0/norm", "Model/block_0/attention/key"]
    assert told[-2:] == ["Model/head", "Model"]
    assert sum(len(stage.nodes) for stage in story) == len(path.nodes)
    assert math.prod(stage.weight for stage in story) == pytest.approx(path.weight)
    assert repr(story) == " → ".join(map(str, story))
    assert str(story[0]) == f"[0]{list(path.nodes[0].index)}"
    blocks = [stage.scope for stage in path.collapse(depth=2)]
    assert blocks == ["", "Model/block_0", "Model/block_1", "Model", "Model/head", "Model"]
    with pytest.raises(ValueError, match="depth must be an integer of at least 1, got 0"):
        path.collapse(depth=0)


def test_a_residual_connection_is_told():
    def residual(x):
        y = jnp.exp(x)
        with jax.named_scope("block"):
            with jax.named_scope("inner"):
                h = jnp.sin(y) * 2
            return y + h

    strong, weak = sj.top_paths(residual, 2)(jnp.log(1.3))
    assert str(strong.collapse()[-1]) == "block (skips inner)" and strong.length == 2
    assert strong.collapse()[-1].around == (("block/inner",),)
    assert [str(stage) for stage in weak.collapse()[1:]] == ["exp", "block/inner", "block"]


def test_residual_connections_of_a_block_are_both_told(model):
    fun, x = model
    told = {edge.around for path in sj.top_paths(fun, 500)(x) for edge in path.edges}
    blocks = [f"Model/block_{i}/" for i in range(2)]
    first = {(block + "norm", block + "attention") for block in blocks}
    second = {(block + "up", block + "down") for block in blocks}
    assert told == {()} | first | second

    def biased(x):  # no residual connection
        with jax.named_scope("dense"):
            return jnp.sum(x @ jnp.ones((2, 3)) + x[0])

    assert {edge.around for path in sj.top_paths(biased, 99)(X) for edge in path.edges} == {()}


def test_components_are_counted(model):
    fun, x = model
    (path,) = sj.top_paths(fun)(x)
    counts = path.components()
    assert sum(counts.values()) == path.length
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    by_hand = {}
    for node in path.nodes[1:]:
        module = "/".join(node.scope.split("/")[:2])
        by_hand[module] = by_hand.get(module, 0) + 1
    assert path.components(depth=2) == by_hand


def test_json_says_it_all(model):
    fun, x = model
    for path in sj.top_paths(fun, 3)(x):
        again = sj.Path.from_json(path.to_json())
        assert again == path and again.nodes == path.nodes and repr(again) == repr(path)
        assert again.verify(fun, x) < 1e-5
        with pytest.raises(ValueError, match="verified with its function"):
            again.verify()
    infinite = sj.top_paths(lambda x: x + jnp.inf)(1.0)[0]
    assert sj.Path.from_json(infinite.to_json()) == infinite
    strict = json.loads(infinite.to_json(), parse_constant=lambda _: pytest.fail("not JSON"))
    assert strict["argnums"] == [0]
    for text in ('{"nodes": []}', "[1]", '{"nodes": [{"name": 1}], "edges": [], "argnums": [0]}'):
        with pytest.raises(ValueError, match="no path that to_json wrote"):
            sj.Path.from_json(text)


def test_verify_sees_what_is_wrong(model):
    fun, x = model
    (path,) = sj.top_paths(fun)(x)
    assert path.verify() < 1e-5
    first, *rest = path.edges
    doubled = dataclasses.replace(first, weight=2 * first.weight)
    assert dataclasses.replace(path, edges=(doubled, *rest)).verify() == pytest.approx(0.5)
    turned = dataclasses.replace(first, weight=-first.weight)
    assert dataclasses.replace(path, edges=(turned, *rest)).verify() == pytest.approx(2)
    with pytest.raises(ValueError, match="has no such path"):
        path.verify(lambda x: jnp.sum(jnp.cos(x)), x)


def test_verify_sees_what_is_no_path():
    def function(x):
        return jnp.sin(x[0]) * jnp.cos(x[1]) * jnp.cos(x[0])

    def other(x):
        return jnp.sin(x[1]) * jnp.cos(x[1]) * jnp.cos(x[0])

    one, two, _ = sorted(sj.top_paths(function, 3)(X), key=lambda path: path.length)
    assert one.verify() < 1e-6 and two.verify() < 1e-6
    parts = [dict(nodes=one.nodes[:3] + two.nodes[3:], edges=one.edges[:2] + two.edges[2:])]
    parts.append(dict(nodes=two.nodes[:-1], edges=two.edges[:-1]))
    elsewhere = dataclasses.replace(two.nodes[0], index=(1,))
    parts.append(dict(nodes=(elsewhere, *two.nodes[1:])))
    unknown = dataclasses.replace(two.nodes[0].array, name="[3]")
    parts.append(dict(nodes=(dataclasses.replace(two.nodes[0], array=unknown), *two.nodes[1:])))
    for fields in parts:
        with pytest.raises(ValueError, match=r"no such path|No path starts from \[3\]"):
            dataclasses.replace(two, **fields).verify()
    through_sine = next(p for p in sj.top_paths(function, 3)(X) if "sin" in p.nodes[3].name)
    assert through_sine.verify(other, X) == math.inf


def test_what_jax_differentiates_forward_only_verifies():
    """JAX has no transpose of a window with dilation, but a tangent."""

    def pooled(x):
        least = lax.reduce_window(
            jnp.sin(x), jnp.inf, lax.min, (2,), (1,), "VALID", window_dilation=(2,)
        )
        return jnp.sum(least)

    x = jnp.array([0.3, -0.8, 1.1, 0.2, -0.4])
    with pytest.raises(NotImplementedError):
        jax.grad(pooled)(x)
    for weighting in (sj.Derivative(), sj.Contrast(x[::-1] + 0.5)):
        (path,) = sj.top_paths(pooled, weighting=weighting)(x)
        assert path.weight != 0 and path.verify() < 1e-5


def test_paths_of_every_kind_of_node_verify():
    def function(x):
        def body(carry, row):
            carry = lax.cond(row > 0, jnp.sin, lambda c: c * row, carry)
            return carry, jax.nn.silu(carry)

        carry, ys = lax.scan(body, x[0], x)
        return carry + jax.nn.softmax(ys)[jnp.argmin(x)] * jnp.sort(x)[0]

    for path in sj.top_paths(function, 12)(jnp.array([0.7, -1.2, 0.4])):
        assert path.verify() < 1e-5


def test_networkx(model):
    fun, x = model
    (path,) = sj.top_paths(fun)(x)
    graph = path.to_networkx()
    assert networkx.is_directed_acyclic_graph(graph)
    assert len(graph) == len(path.nodes)
    assert (
        graph.nodes[0]["variable"] == "[0]" and graph.edges[0, 1]["weight"] == path.edges[0].weight
    )
    assert math.prod(w for *_, w in graph.edges(data="weight")) == pytest.approx(path.weight)


def test_repr_is_one_line_and_html_is_escaped(model):
    fun, x = model
    paths = sj.top_paths(fun, 2)(x)
    assert repr(paths[0]).startswith(f"Path(weight={paths[0].weight:.4g}, ")
    assert "\n" not in repr(paths[0]) and len(repr(paths[0])) < 400
    assert repr(paths).splitlines()[1] == f"2. {paths[1]!r}"
    many = sj.top_paths(fun, 50)(x)
    assert len(repr(many).splitlines()) == 21 and repr(many).endswith("… and 30 more")
    assert "30 more" in many._repr_html_() and "more" not in many[:20]._repr_html_()

    def named(x):
        with jax.named_scope("<b>&"):
            return jnp.sin(x)

    (path,) = sj.top_paths(named)(1.0)
    assert "<b>" not in path._repr_html_() and "&lt;b&gt;&amp;" in path._repr_html_()
    # The line is the object's whole, and shown without the folders that are this machine's.
    where = path.nodes[-1].source.partition(" ")[0]
    assert os.path.isabs(where) and where not in path._repr_html_()
    assert os.path.relpath(where) in path._repr_html_()


def test_component_counts_are_means_over_paths_and_examples():
    def examples():
        for x in (X, 2 * X):
            yield sj.top_paths(lambda x: jnp.sum(jnp.sin(x) + jnp.cos(x) * 2), 4)(x)

    table = sj.component_counts([*examples()], groups=lambda node: node.primitive)
    assert isinstance(table, pandas.DataFrame)
    assert list(table) == ["source", "component", "edges", "share", "stderr", "paths", "examples"]
    by_name = table.set_index("component")
    shares = []
    for x in (X, 2 * X):
        sines, cosines = np.abs(np.cos(x)).sum(), 2 * np.abs(np.sin(x)).sum()
        shares.append(sines / (sines + cosines))
    assert by_name.loc["sin", "edges"] == pytest.approx(np.mean(shares), rel=1e-5)
    stderr = np.std(shares, ddof=1) / math.sqrt(2)
    assert by_name.loc["sin", "stderr"] == pytest.approx(stderr, rel=1e-4)
    assert by_name.loc["reduce_sum", "edges"] == pytest.approx(1)
    assert set(table["paths"]) == {8} and set(table["examples"]) == {2}
    assert table["share"].sum() == pytest.approx(1)

    same = sj.component_counts([*examples()], groups=lambda node: node.primitive, weighted=False)
    assert same.set_index("component").loc["sin", "edges"] == pytest.approx(0.5)


def test_component_counts_by_module_and_by_parameter(model):
    _, x = model
    params = Model().init(jax.random.key(1), x)
    paths = sj.top_paths(lambda params: Model().apply(params, x), 40)(params)
    table = sj.component_counts(paths, depth=2, sources={"kernels": "*kernel*", "biases": "*bias*"})
    assert set(table["source"]) <= {"kernels", "biases", "(rest)"} and "kernels" in set(
        table["source"]
    )
    assert "Model/head" in set(table["component"])
    grouped = sj.component_counts(paths, groups={"attention": "*/attention"})
    assert set(grouped["component"]) <= {"attention", "(rest)"}


@pytest.mark.parametrize("weight", [math.inf, -math.inf, math.nan])
def test_component_counts_in_proportion_to_no_number(weight):
    (path,) = sj.top_paths(chain)(X)
    edge = dataclasses.replace(path.edges[2], weight=weight)
    other = dataclasses.replace(path, edges=(*path.edges[:2], edge, *path.edges[3:]))
    with pytest.raises(ValueError, match=r"one of these weighs (-?inf|nan).*weighted=False"):
        sj.component_counts([path, other])
    assert len(sj.component_counts([path, other], weighted=False))


def test_component_counts_of_nothing_and_of_something_else():
    assert len(sj.component_counts([])) == 0
    assert len(sj.component_counts([[], []])) == 0
    zero = sj.top_paths(lambda x: jnp.sum(jax.nn.relu(x)), 2)(-jnp.ones(2))
    assert sj.component_counts(zero)["edges"].tolist() == [zero[0].length]
    with pytest.raises(TypeError, match="list of Path"):
        sj.component_counts([[1.0]])
    with pytest.raises(TypeError, match="mapping from names to globs"):
        sj.component_counts(zero, groups="*")


def test_without_pandas(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (row,) = sj.component_counts(sj.top_paths(jnp.sin)(1.0))
    assert row["edges"] == 1 and row["component"] == ""


def test_paths_are_shared_and_compared_by_what_they_are(model):
    fun, x = model
    one, other = sj.top_paths(fun, 5)(x), sj.top_paths(fun, 5)(x)
    assert one == other and len({hash(path) for path in one}) == 5
    again = pickle.loads(pickle.dumps(one))
    assert again == one and isinstance(again, sj.Paths) and again[0].fun is None
    assert len({place(path) for path in one}) == 5


def test_a_path_through_a_step_verifies():
    (path,) = sj.top_paths(lambda x: jnp.round(x) * 2)(1.3)
    assert path.weight == 0 and path.verify() == 0


def test_a_residual_connection_may_be_scaled():
    """PyTorch adds a + 1 · b."""

    def block(x):
        with jax.named_scope("block"):
            with jax.named_scope("mlp"):
                y = jnp.tanh(x)
            return (y + 0.5 * x).sum()

    best = sj.top_paths(block, 2)(jnp.ones(1))
    assert {path.collapse()[-1].skips_text for path in best} == {"", " (skips mlp)"}

"""Paths from intermediate arrays, and through them: sources and ways that have names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.testing import enumerate_paths

TABLE = jax.random.normal(jax.random.key(0), (9, 3))
W = jax.random.normal(jax.random.key(1), (3, 3, 3))
WORDS = jnp.array([1, 5, 2])


def layer(x, w):
    with jax.named_scope("layer"):
        with jax.named_scope("mlp"):
            y = jnp.tanh(x @ w)
        return sj.tap(x + y, "stream")


def after(h):
    for w in W:
        h = layer(h, w)
    return jnp.sin(h).sum()


def logit(words):
    """A model of integers."""
    with jax.named_scope("embed"):
        h = TABLE[words]
    return after(h)


def looped(words):
    with jax.named_scope("embed"):
        h = TABLE[words]
    return jnp.sin(lax.scan(lambda h, w: (layer(h, w), None), h, W)[0]).sum()


def places(paths):
    return [[(node.index, node.primitive) for node in path.nodes[1:]] for path in paths]


@pytest.mark.parametrize("by", ["abs", "max", "min"])
@pytest.mark.parametrize("fun", [logit, looped])
def test_the_best_paths_of_integers(fun, by):
    found = sj.top_paths(fun, 12, by=by, source="embed")(WORDS)
    wanted = sj.top_paths(after, 12, by=by)(TABLE[WORDS])
    assert places(found) == places(wanted)
    np.testing.assert_allclose([p.weight for p in found], [p.weight for p in wanted], 1e-5)
    for path, same in zip(found, wanted, strict=True):
        first = path.nodes[0]
        assert (first.variable, first.scope, first.primitive) == ("embed", "embed", "")
        assert first.index == same.nodes[0].index and first.value == same.nodes[0].value
        assert str(path.collapse()).startswith(f"embed{list(first.index)} → layer")
    assert found[0].argnums == () and found[0].sites == ("embed",)
    again = sj.Path.from_json(found[0].to_json())
    assert again == found[0] and again.verify(fun, WORDS) < 1e-5 and found[3].verify() < 1e-5
    shorter = lambda words: after(sj.tap(TABLE[words], "embed"))  # noqa: E731
    elsewhere = next(path for path in found if path.nodes[0].index[0] > 0)
    with pytest.raises(ValueError, match="No path starts from embed"):
        elsewhere.verify(shorter, WORDS[:1])


def test_samples_and_traces_of_integers():
    samples = sj.sample_paths(logit, 40, source="embed")(jax.random.key(0), WORDS)
    wanted = sj.sample_paths(after, 40)(jax.random.key(0), TABLE[WORDS])
    assert places(samples) == places(wanted)
    trace = sj.trace_gradient(logit, source=("embed", (2, 1)))(WORDS)
    by_hand = sj.trace_gradient(after, source=(0, (2, 1)))(TABLE[WORDS])
    assert places([trace]) == places([by_hand]) and trace.nodes[0].index == (2, 1)
    with pytest.raises(ValueError, match="source 'embed' has 9 with a path"):
        sj.trace_gradient(logit, source="embed")(WORDS)


def test_graphs_of_integers():
    graph = sj.gradient_graph(logit, level="scope", source="embed", share=1.0)(WORDS)
    wanted = sj.gradient_graph(after, level="scope", share=1.0)(TABLE[WORDS])
    assert [node.name for node in graph.nodes] == ["embed", *(n.name for n in wanted.nodes[1:])]
    assert [edge.share for edge in graph.edges] == [edge.share for edge in wanted.edges]
    small = lambda x: sj.tap(x * 2, "a") ** 2  # noqa: E731
    nodes = sj.gradient_graph(small, source="a")(3.0).nodes
    assert [node.name for node in nodes] == ["a", "integer_pow"]
    for source in [(0, 1), jnp.array([False, True])]:
        one = sj.gradient_graph(lambda x: jnp.sin(x).sum(), source=source)(jnp.ones(2))
        assert [node.name for node in one.nodes] == ["[0][1]", "sin[1]", "reduce_sum"]
        flow = sj.gradient_graph(lambda x: jnp.sin(x).sum(), level="scope", source=source)
        assert [edge.weight for edge in flow(jnp.ones(2)).edges] == [pytest.approx(np.cos(1))]


def test_from_one_source_through_another():
    fun = lambda x: (jnp.sin(sj.tap(x * 2, "a")) * sj.tap(x * 3, "b")).sum()  # noqa: E731
    paths = sj.top_paths(fun, 9, source=["a", "b"])(jnp.ones(2))
    assert [path.nodes[0].variable for path in paths].count("a") == 2 and len(paths) == 4
    behind = lambda x: jnp.sin(sj.tap(jnp.cos(sj.tap(x, "a")), "b"))  # noqa: E731
    (long, short) = sorted(sj.top_paths(behind, 9, source=["a", "b"])(0.3), key=lambda p: -p.length)
    assert long.length == short.length + 2 and long.nodes[0].variable == "a"
    assert long.verify() < 1e-6 and short.verify() < 1e-6
    graph = sj.gradient_graph(behind, source=["a", "b"])(0.3)
    assert [node.name for node in graph.nodes] == ["a", "cos", "b", "sin"]


def test_each_iteration_is_another_module():
    best = sj.top_paths(looped, 5, source="embed")(WORDS)
    told = [stage.scope for stage in best[0].collapse()]
    layers = [f"layer[{n}]" for n in range(3)]
    assert list(dict.fromkeys(name.removesuffix("/mlp") for name in told)) == ["", *layers]
    assert {node.iteration for node in best[0].nodes if "layer[1]" in node.scope} == {(1,)}
    around = [edge.around for path in best for edge in path.edges if edge.around]
    assert all(name.startswith("layer[") and name.endswith("/mlp") for (name,) in around)
    counts = sj.component_counts(best, depth=1)
    assert set(layers) <= set(counts["component"])
    grouped = sj.component_counts(best, groups={"mlp": "layer/mlp", "second": "layer[1]"})
    assert set(grouped["component"]) <= {"mlp", "second", "(rest)"}


def passing(paths, of):
    return [path for path in paths if any(of(node) for node in path.nodes)]


def through(fun, pattern, *args, **options):
    return sj.top_paths(fun, 5000, through=pattern, **options)(*args)


def test_through_an_array_by_its_name():
    fun = lambda h: after(h[:1])  # noqa: E731
    h = TABLE[:1]
    everything = sj.top_paths(fun, 5000)(h)
    streams = [n.variable for n in everything[0].nodes if n.primitive == "name"]
    assert len(streams) == 3
    for pattern, variable in (("layer/stream#2", streams[1]), ("layer/stream#3", streams[2])):
        assert len(through(fun, pattern, h)) == len(everything)
        assert all(variable in [n.variable for n in p.nodes] for p in through(fun, pattern, h))
    assert len(through(fun, "stream", h)) == len(everything)
    tanhs = {n.variable for path in everything for n in path.nodes if n.primitive == "tanh"}
    assert len(tanhs) == 3
    for n, variable in enumerate(sorted(tanhs, key=lambda name: int(name[1:])), start=1):
        wanted = passing(everything, lambda node, v=variable: node.variable == v)
        found = through(fun, f"layer/mlp/tanh#{n}", h)
        assert places(found) == places(wanted) and 0 < len(found) < len(everything)
    assert len(through(fun, "*/tanh", h)) == len(
        passing(everything, lambda n: n.primitive == "tanh")
    )


def test_through_one_iteration():
    looped_after = lambda h: jnp.sin(lax.scan(lambda h, w: (layer(h, w), None), h[:1], W)[0]).sum()  # noqa: E731
    h = TABLE[:1]
    everything = sj.top_paths(looped_after, 5000)(h)
    assert len(everything) == len(enumerate_paths(looped_after, h))
    for pattern in ("layer[1]/mlp", "*[1]/mlp", "layer[1]/*"):
        wanted = passing(everything, lambda node: node.scope == "layer[1]/mlp")
        assert places(through(looped_after, pattern, h)) == places(wanted)
    in_any = passing(everything, lambda node: node.scope.endswith("/mlp"))
    assert places(through(looped_after, "layer/mlp", h)) == places(in_any)
    sampled = sj.sample_paths(looped_after, 9, through="layer[2]/mlp")(jax.random.key(0), h)
    assert all("layer[2]/mlp" in path.components() for path in sampled)
    with pytest.raises(ValueError, match=r"No scope matches 'layer\[7\]'"):
        through(looped_after, "layer[7]", h)


def test_through_where_it_starts():
    assert len(through(logit, "embed", WORDS, source="embed")) == len(
        sj.top_paths(logit, 5000, source="embed")(WORDS)
    )


def test_what_is_on_no_way():
    with pytest.raises(ValueError, match=r"No scope or site matches 'layers'.*'layer'"):
        through(logit, "layers", WORDS, source="embed")
    with pytest.raises(TypeError, match="scope or site is chosen by its name"):
        through(logit, 3, WORDS, source="embed")
    with pytest.raises(ValueError, match=r"None of its modules has a name.*semijax.scopes"):
        through(lambda x: jnp.sin(x), "layer", 1.0)
    with pytest.raises(TypeError, match=r"got int32.*give its name as source"):
        sj.top_paths(logit)(WORDS)
    found = sj.top_paths(logit, source="layer/mlp/tanh#3", through="layer/mlp/tanh#1")(WORDS)
    assert not found and "from 'layer/mlp/tanh#3' through 'layer/mlp/tanh#1'" in repr(found)


def test_a_source_in_a_branch_that_was_not_taken():
    def fun(x):
        return lax.cond(x > 0, lambda x: sj.tap(x * 2, "up"), lambda x: sj.tap(x * 3, "down"), x)

    (path,) = sj.top_paths(fun, source="up")(1.0)
    assert path.length == 0 and path.nodes[0].variable == "up" and path.weight == 1
    assert not sj.top_paths(fun, source="down")(1.0)

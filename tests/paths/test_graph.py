"""The graph drawn: all its nodes and edges, or what flows between modules."""

import collections
import json
import os
import re
import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.testing import enumerate_paths
from semijax.testing.unrolling import UnrolledGraph

X = jnp.array([0.7, -1.2, 0.4])


def figure_1(x, y):
    return jnp.exp(x) + (x - y) * y


def looped(x):
    def body(carry, row):
        return jnp.tanh(carry) * row, carry + row

    carry, ys = lax.scan(body, 1.0, x)
    return carry + ys @ jnp.sort(ys)[1:2].repeat(3) + 0.0 * x[0]


def test_the_graph_of_figure_1():
    graph = sj.gradient_graph(figure_1, argnums=(0, 1))(0.0, 3.0)
    edges = {(graph.nodes[e.tail].name, graph.nodes[e.head].name): e.weight for e in graph.edges}
    assert edges == {
        ("[0]", "exp"): 1.0,
        ("[0]", "sub"): 1.0,
        ("[1]", "sub"): -1.0,
        ("sub", "mul"): 3.0,
        ("[1]", "mul"): -3.0,
        ("exp", "add"): 1.0,
        ("mul", "add"): 1.0,
    }
    assert graph.nodes[2].fields["value"] in (1.0, -3.0)


@pytest.mark.parametrize("fun", [looped, lambda x: jnp.sum(x * x), lambda x: jax.nn.softmax(x)[0]])
def test_every_node_and_edge_on_a_path_is_there(fun):
    graph = sj.gradient_graph(fun)(X)
    paths = enumerate_paths(fun, X)
    assert len(graph.edges) == len({edge for path in paths for edge in path.edges})
    unrolled = UnrolledGraph(fun, (X,), None)
    visited = {unrolled.tails[e] for p in paths for e in p.edges} | {
        unrolled.heads[e] for p in paths for e in p.edges
    }
    assert len(graph.nodes) == len(visited)
    # The sum over its paths, along the nodes in their order, is the gradient.
    toward = np.zeros(len(graph.nodes))
    toward[-1] = 1
    for edge in sorted(graph.edges, key=lambda e: -e.tail):
        assert edge.tail < edge.head
        toward[edge.tail] += edge.weight * toward[edge.head]
    np.testing.assert_allclose(toward[:3], jax.grad(fun)(X), 1e-5, 1e-6)


def test_formats():
    graph = sj.gradient_graph(figure_1, argnums=(0, 1))(0.0, 3.0)
    nx = graph.to_networkx()
    assert nx.number_of_nodes() == 6 and nx.number_of_edges() == 7
    assert networkx.is_directed_acyclic_graph(nx)
    assert nx.nodes[0]["variable"] == "[0]"
    content = json.loads(graph.to_json())
    assert len(content["nodes"]) == 6 and content["edges"][0].keys() >= {"tail", "head", "weight"}
    dot = graph.to_dot()
    assert dot.startswith("digraph {") and dot.count("->") == 7 and dot.count("{") == dot.count("}")
    assert re.search(r'label="sub"', dot) and re.search(r'label="-3"', dot)
    page = graph.to_html()
    assert page.startswith("<!doctype html>") and "http" not in page.replace(
        "http://www.w3.org", ""
    )
    svg = ET.fromstring(re.search(r"<svg.*</svg>", page, re.DOTALL)[0])
    assert len(svg.findall(".//{*}rect")) == 6 and len(svg.findall(".//{*}path")) == 7
    assert "7 edges" in repr(graph)
    where = nx.nodes[5]["source"]
    assert os.path.isabs(where) and where not in page and os.path.relpath(where) in page


def test_parallel_edges_are_two():
    graph = sj.gradient_graph(lambda x: x * x)(3.0)
    assert [edge.weight for edge in graph.edges] == [3.0, 3.0]
    assert graph.to_networkx().number_of_edges(0, 1) == 2


def modular(x, w):
    with jax.named_scope("left"):
        a = jnp.sin(x @ w)
    with jax.named_scope("right"):
        b = jnp.cos(x * 2)
        with jax.named_scope("inner"):
            b = b * a
    with jax.named_scope("top"):
        return jnp.sum(a * b)


W = jnp.array([[0.5, -1.0, 0.3], [1.5, 0.2, -0.7], [-0.4, 0.9, 1.1]])


@pytest.mark.parametrize("depth", [None, 1])
def test_shares_of_the_mass_between_modules(depth):
    graph = sj.gradient_graph(modular, argnums=(0, 1), level="scope", depth=depth, share=1.0)(X, W)
    unrolled = UnrolledGraph(modular, (X, W), None)

    def module(node):  # the scope of the equation that made it
        made = np.flatnonzero(unrolled.heads == node)
        if not len(made):
            return unrolled.labels[node][0]
        scope = unrolled.equations[unrolled.equation_of[made[0]]].scope
        return "/".join(scope.split("/")[:depth]) or "(outside)"

    mass, total = collections.Counter(), 0.0
    for path in enumerate_paths(modular, X, W):
        total += abs(path.weight)
        for edge in path.edges:
            tail, head = module(unrolled.tails[edge]), module(unrolled.heads[edge])
            if tail != head:
                mass[tail, head] += abs(path.weight)
    names = [node.name for node in graph.nodes]
    shares = {(names[e.tail], names[e.head]): e.share for e in graph.edges}
    assert shares.keys() == mass.keys()
    for pair, share in shares.items():
        assert share == pytest.approx(mass[pair] / total, rel=1e-5)
    weights = {(names[e.tail], names[e.head]): e.weight for e in graph.edges}
    for pair, weight in weights.items():
        assert weight == pytest.approx(mass[pair], rel=1e-5)


def test_other_flows_between_modules():
    options = {"argnums": (0, 1), "level": "scope", "share": 1.0}
    paths = enumerate_paths(modular, X, W)
    best = max(abs(path.weight) for path in paths)
    strongest = sj.gradient_graph(modular, semiring=sj.AbsMaxProduct(), **options)(X, W)
    assert max(edge.weight for edge in strongest.edges) == pytest.approx(best, rel=1e-5)
    (out,) = {e.head for e in strongest.edges} - {e.tail for e in strongest.edges}
    assert strongest.nodes[out].name == "top"
    counts = sj.gradient_graph(modular, semiring=sj.PathCount(), **options)(X, W)
    into = [e.weight for e in counts.edges if counts.nodes[e.head].name == "top"]
    assert np.exp(into).sum() == pytest.approx(len(paths), rel=1e-4)


def test_deep_models_have_flows():
    def deep(x):
        def body(carry, _):
            with jax.named_scope("loop"):
                return carry + carry, None

        carry, _ = lax.scan(body, x, None, 1100)
        with jax.named_scope("end"):
            return jnp.sin(carry)

    for semiring in (None, sj.Entropy(), sj.PathCount()):
        options = {"level": "scope", "semiring": semiring, "iterations": False}
        graph = sj.gradient_graph(deep, **options)(0.0)
        assert [node.name for node in graph.nodes] == ["[0]", "loop", "end"]
        weight = np.inf if semiring is None else 1100 * np.log(2)
        assert [edge.weight for edge in graph.edges] == pytest.approx([weight] * 2)
        assert [edge.share for edge in graph.edges] == pytest.approx([1, 1])
        label = "100.0%" if semiring is None else f"{weight:.3g} (100.0%)"
        assert [edge.label for edge in graph.edges] == [label] * 2
        assert f'label="{label}"' in graph.to_dot() and label in graph.to_html()


def test_a_mass_is_drawn_as_a_share():
    """The number itself is as large as the model is deep."""

    def large(x, w):
        return 1e20 * modular(x, w)

    graph = sj.gradient_graph(large, argnums=(0, 1), level="scope", share=1.0)(X, W)
    drawn = graph.to_dot() + graph.to_html()
    assert max(edge.weight for edge in graph.edges) > 1e16 and "e+" not in drawn
    edge = json.loads(graph.to_json())["edges"][0]
    assert edge["label"] == f"{edge['share']:.1%}"


def test_there_are_no_shares_of_what_is_not_a_number():
    def guarded(x):
        with jax.named_scope("root"):
            y = jnp.sqrt(x)
        with jax.named_scope("end"):
            return jnp.sum(y * jnp.array([1.0, 2.0, 0.0]))

    for x in (jnp.zeros(3), jnp.array([1.0, -1.0, 1.0])):
        with pytest.raises(FloatingPointError, match=r"that of 'sqrt' at .* in scope 'root'"):
            sj.gradient_graph(guarded, level="scope")(x)


def test_a_gradient_of_no_mass_has_no_flow():
    graph = sj.gradient_graph(lambda x: jnp.sum(x * 0.0), level="scope")(X)
    assert graph.edges == () and json.loads(graph.to_json())["edges"] == []
    scanned = sj.gradient_graph(
        lambda x: lax.scan(lambda c, r: (c * r, c), 1.0, x)[1].sum(), level="scope"
    )(X)
    assert [node.name for node in scanned.nodes] == ["[0]", "(outside)"]


def test_only_the_largest_are_shown():
    everything = sj.gradient_graph(modular, argnums=(0, 1), level="scope", share=1.0)(X, W)
    some = sj.gradient_graph(modular, argnums=(0, 1), level="scope", share=0.6)(X, W)
    shares = sorted((edge.share for edge in everything.edges), reverse=True)
    shown = sorted((edge.share for edge in some.edges), reverse=True)
    assert shown == pytest.approx(shares[: len(shown)], rel=1e-9) and len(shown) < len(shares)
    assert sum(shown) >= 0.6 * sum(shares) > sum(shown[:-1])


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"more than max_edges=100 edges.*level='scope'"):
        sj.gradient_graph(lambda w: jnp.sum(w @ w), max_edges=100)(jnp.ones((9, 9)))
    with pytest.raises(ValueError, match="level must be 'element' or 'scope', got 'layer'"):
        sj.gradient_graph(jnp.sum, level="layer")
    with pytest.raises(ValueError, match=r"share must be a number in \(0, 1\], got 0"):
        sj.gradient_graph(jnp.sum, level="scope", share=0)
    with pytest.raises(TypeError, match="one semiring's numbers"):
        sj.gradient_graph(jnp.sum, level="scope", semiring=(sj.MaxProduct(), sj.PathCount()))
    nothing = sj.gradient_graph(lambda x: jnp.sum(lax.stop_gradient(x)))(X)
    assert nothing.nodes == () and "<svg" in nothing.to_html()


def test_each_visit_to_a_module_is_a_node():
    """Of a block that is used again, and of residual sums of the same name."""
    w = jnp.array([[0.5, -1.0], [1.5, 0.2]])

    def shared(x):
        for _ in range(3):
            with jax.named_scope("block"):
                with jax.named_scope("attn"):
                    h = jnp.tanh(x @ w)
                x = x + h
                with jax.named_scope("mlp"):
                    h = jnp.sin(x @ w)
                x = x + h
        return x.sum()

    graph = sj.gradient_graph(shared, level="scope", share=1.0)(jnp.ones(2))
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names) == 14
    assert names[:6] == [
        "[0]",
        *("block/attn (1)", "block + attn (1)", "block/mlp (1)", "block + mlp (1)"),
        "block/attn (2)",
    ]
    assert all(edge.tail < edge.head and edge.share <= 1 + 1e-9 for edge in graph.edges)


def test_sources_in_a_loop_are_a_node_in_each_iteration():
    def loop(x):
        def body(carry, row):
            with jax.named_scope("cell"):
                h = sj.tap(jnp.tanh(carry * row), "h")
            return h + carry, None

        return lax.scan(body, 1.0, x)[0]

    graph = sj.gradient_graph(loop, source="h", level="scope", share=1.0)(jnp.ones(3))
    names = [node.name for node in graph.nodes]
    assert {"cell/h[0]", "cell/h[1]", "cell/h[2]"} <= set(names)
    assert all(edge.tail < edge.head for edge in graph.edges)


def test_saved(tmp_path):
    graph = sj.gradient_graph(figure_1, argnums=(0, 1))(0.0, 3.0)
    for ending, text in (("html", "<svg"), ("dot", "digraph"), ("json", '"nodes"')):
        graph.save(tmp_path / f"graph.{ending}")
        assert text in (tmp_path / f"graph.{ending}").read_text()
    with pytest.raises(ValueError, match=r"\.html, \.dot, \.json"):
        graph.save(tmp_path / "graph.png")

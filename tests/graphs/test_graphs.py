"""Weighted graphs as functions: all their paths, one by one, and the influence of their nodes."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

import semijax as sj
from semijax.graphs import AttributionGraph, WeightedGraph

SEMIRINGS = {
    "sum": sj.SumProduct(),
    "mass": sj.AbsSumProduct(),
    "max": sj.MaxProduct(),
    "entropy": sj.Entropy(),
    "count": sj.PathCount(),
}


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def random_graph(seed, n=9, p=0.4):
    """A graph whose nodes are named in no order, some joined by two edges."""
    rng = np.random.default_rng(seed)
    graph = networkx.MultiDiGraph()
    names = [f"n{k}" for k in rng.permutation(n)]
    graph.add_nodes_from(rng.permutation(names).tolist())
    for a, b in itertools.combinations(names, 2):
        for _ in range(int(rng.random() < p) + int(rng.random() < 0.1)):
            graph.add_edge(a, b, weight=round(rng.normal(), 2))
    return graph, names[-1]


def all_paths(graph, target):
    """From each node, the names on every path to a node, with the weight."""

    def onward(names, weight):
        if names[-1] == target:
            yield names, weight
        for _, following, data in graph.out_edges(names[-1], data=True):
            yield from onward([*names, following], weight * data["weight"])

    return {node: [*onward([node], 1.0)] for node in graph.nodes}


@pytest.mark.parametrize("seed", range(8))
def test_every_path_of_the_graph_is_one_of_the_function(seed):
    graph, target = random_graph(seed)
    weighted = WeightedGraph.from_networkx(graph)
    found = sj.semiring_grad(weighted.function(target), SEMIRINGS)(jnp.ones(len(graph)))
    paths = all_paths(graph, target)
    for n, node in enumerate(weighted.nodes):
        weights = [weight for _, weight in paths[node]]
        if not weights:
            assert found["max"][n] == -math.inf
            continue
        sizes = np.abs(weights)
        assert found["sum"][n] == pytest.approx(math.fsum(weights), abs=1e-12)
        assert found["mass"][n] == pytest.approx(sizes.sum())
        assert found["max"][n] == pytest.approx(max(weights))
        assert math.exp(found["count"][n]) == pytest.approx(sum(sizes > 0))
        shares = sizes[sizes > 0] / sizes.sum()
        assert found["entropy"][n] == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_best_paths_have_the_names_of_their_nodes(seed):
    graph, target = random_graph(seed)
    weighted = WeightedGraph.from_networkx(graph)
    everything = [path for own in all_paths(graph, target).values() for path in own]
    everything.sort(key=lambda path: -abs(path[1]))
    found = sj.top_paths(weighted.function(target), 20)(jnp.ones(len(graph)))
    wanted = [weight for _, weight in everything[:20]]
    np.testing.assert_allclose([abs(path.weight) for path in found], np.abs(wanted))
    named = {(*names, round(weight, 9)) for names, weight in everything}
    assert {(*weighted.along(path), round(path.weight, 9)) for path in found} <= named


def test_from_and_to():
    graph, target = random_graph(1)
    weighted = WeightedGraph.from_networkx(graph)
    again = WeightedGraph.from_networkx(weighted.to_networkx())
    assert again.nodes == weighted.nodes
    np.testing.assert_array_equal(np.sort(again.weights), np.sort(weighted.weights))
    matrix = np.zeros((len(graph),) * 2)
    np.add.at(matrix, (weighted.targets, weighted.sources), weighted.weights)
    ones = jnp.ones(len(graph))
    by_names = sj.graph_function(graph, target)
    by_numbers = sj.graph_function(matrix, weighted.nodes.index(target))
    assert by_names(ones) == pytest.approx(by_numbers(ones))
    several = weighted.function({target: 2.0, weighted.nodes[0]: -1.0})
    assert several(ones) == pytest.approx(
        2 * by_names(ones) - sj.graph_function(graph, weighted.nodes[0])(ones)
    )


def test_integers_are_put_in_as_numbers():
    f = sj.graph_function(np.array([[0, 0], [0.5, 0]]), 1)
    assert float(f(np.array([1, 0]))) == 0.5
    assert float(sj.graph_function(np.array([[0, 0], [3, 0]]), 1)(jnp.ones(2))) == 4


def test_a_graph_without_edges():
    f = WeightedGraph(("a", "b"), [], [], np.zeros(0)).function("b")
    np.testing.assert_array_equal(jax.grad(f)(jnp.ones(2)), [0, 1])


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: sj.graph_function(np.array([[0.0, 1], [1, 0]]), 0), ValueError, "cycle"),
        (lambda: sj.graph_function(np.eye(2), 0), ValueError, "cycle"),
        (lambda: sj.graph_function(np.ones((2, 3)), 0), ValueError, "square"),
        (lambda: sj.graph_function(np.zeros((2, 2)), 2), ValueError, "no node 2"),
        (lambda: WeightedGraph("aa", [0], [1], np.ones(1)), ValueError, "same name"),
        (lambda: WeightedGraph("ab", [0], [2], np.ones(1)), ValueError, "does not exist"),
        (lambda: WeightedGraph("ab", [0, 0], [1], np.ones(1)), ValueError, "one length"),
        (lambda: WeightedGraph("ab", [0], [1], np.ones(1, int)), TypeError, "floating"),
        (lambda: WeightedGraph("ab", [0.5], [1], np.ones(1)), TypeError, "integers"),
        (lambda: sj.graph_function(np.zeros((2, 2)), 0)(jnp.ones(3)), ValueError, "each of 2"),
        (lambda: sj.graph_function(networkx.DiGraph([(1, 2)]), 2), ValueError, "no 'weight'"),
        (lambda: sj.graph_function(networkx.Graph([(1, 2)]), 2), ValueError, "not directed"),
        (lambda: sj.graph_function(np.tri(2, k=-1) * 1j, 0), TypeError, "floating"),
        (lambda: WeightedGraph.from_matrix(np.zeros((2, 2)), "abc"), ValueError, "3 nodes"),
    ],
)
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()


def attribution(seed=0):
    """A file as circuit-tracer writes it: features in two layers, errors, tokens, logits."""
    rng = np.random.default_rng(seed)
    kinds = {"E": "embedding", "0": "cross layer transcoder", "1": "mlp reconstruction error"}
    kinds |= {"2": "cross layer transcoder", "3": "logit"}
    nodes = [
        {"node_id": f"{layer}_{k}_{k % 3}", "layer": layer, "ctx_idx": k % 3, "feature": k}
        | {"feature_type": kind, "token_prob": [0.7, 0.2, 0.05][k] if kind == "logit" else 0.0}
        for layer, kind in kinds.items()
        for k in range(3)
    ]
    links = [
        {"source": a["node_id"], "target": b["node_id"], "weight": float(rng.normal())}
        for a, b in itertools.combinations(nodes, 2)
        if a["layer"] != b["layer"] and rng.random() < 0.7 and b["layer"] not in ("E", "1")
    ]
    metadata = {"slug": "a-graph", "prompt_tokens": ["a", "b", "c"], "schema_version": 1}
    content = {"metadata": metadata, "qParams": {"pinnedIds": []}, "nodes": nodes, "links": links}
    return json.dumps(content), nodes, links


@pytest.mark.parametrize("seed", range(3))
def test_influence_is_what_circuit_tracer_computes(seed):
    text, nodes, links = attribution(seed)
    found = AttributionGraph.from_json(text).influence()
    number = {node["node_id"]: n for n, node in enumerate(nodes)}
    matrix = np.zeros((len(nodes),) * 2)
    for link in links:
        matrix[number[link["target"]], number[link["source"]]] = abs(link["weight"])
    matrix /= np.maximum(matrix.sum(1, keepdims=True), 1e-10)
    current = np.array([node["token_prob"] for node in nodes]) @ matrix
    wanted = np.zeros(len(nodes))
    while current.any():
        wanted += current
        current = current @ matrix
    assert [*found] == [node["node_id"] for node in nodes]
    np.testing.assert_allclose([*found.values()], wanted, atol=1e-12)


def test_written_and_read_again(tmp_path):
    text, *_ = attribution()
    graph = AttributionGraph.from_json(text)
    (tmp_path / "graph.json").write_text(graph.to_json())
    again = AttributionGraph.load(tmp_path / "graph.json")
    assert json.loads(again.to_json()) == json.loads(text)
    assert graph.logits == {"3_0_0": 0.7, "3_1_1": 0.2, "3_2_2": 0.05}
    best = sj.top_paths(graph.graph.function("3_0_0"), 3)(jnp.ones(len(graph.graph.nodes)))
    assert all(graph.graph.along(path)[-1] == "3_0_0" for path in best)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[]", "no attribution graph"),
        ('{"nodes": [{}], "links": [], "metadata": {}}', "no attribution graph"),
        ('{"nodes": [], "links": [], "metadata": {"schema_version": 9}}', "version is 9"),
    ],
)
def test_files_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        AttributionGraph.from_json(text)

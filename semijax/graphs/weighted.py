"""A weighted graph as a function, so that every semiring and every path search works on it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax.paths.path import Path
from semijax.trace import scope_names

BLOCK = 65_536
"""The number of edges that are followed at once."""

GATHER = jax.lax.GatherDimensionNumbers((), (0,), (0,))
SCATTER = jax.lax.ScatterDimensionNumbers((), (0,), (0,))
"""How an array of nodes is read and added to at indices of shape ``[edges, 1]``."""


@dataclasses.dataclass(frozen=True, eq=False)
class WeightedGraph:
    """A directed graph without cycles, whose edges have weights.

    Attributes:
        nodes: their names, each once.
        sources, targets: the number of the node that each edge leaves, and of the one it leads to;
            integers of shape ``[edges]``. Two edges may join the same nodes.
        weights: floating point numbers of shape ``[edges]``.

    Raises:
        TypeError: if the weights are not real numbers.
        ValueError: if a name occurs twice, the arrays differ in length, an edge leads nowhere, or
            there is a cycle.

    Example:
        >>> import numpy as np, semijax as sj
        >>> edges = np.array([0, 0, 1]), np.array([1, 2, 2])
        >>> graph = sj.graphs.WeightedGraph(("a", "b", "c"), *edges, np.array([2.0, 5.0, 3.0]))
        >>> best = sj.top_paths(graph.function("c"))(np.array([1.0, 0.0, 0.0]))
        >>> graph.along(best[0]), best[0].weight
        (['a', 'b', 'c'], 6.0)
    """

    nodes: tuple[Hashable, ...]
    sources: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        for name in ("sources", "targets", "weights"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        ends, shape = (self.sources, self.targets), self.weights.shape
        if not np.issubdtype(self.weights.dtype, np.floating):
            raise TypeError(f"weights must be floating point numbers, got {self.weights.dtype}.")
        if len(shape) != 1 or any(end.shape != shape for end in ends):
            raise ValueError(
                "sources, targets and weights must be arrays of one length, got shapes "
                f"{[x.shape for x in (*ends, self.weights)]}."
            )
        for name, end in zip(("sources", "targets"), ends, strict=True):
            if not np.issubdtype(end.dtype, np.integer) and end.size:
                raise TypeError(f"{name} must be integers, the numbers of nodes; got {end.dtype}.")
            object.__setattr__(self, name, end.astype(int))
        if len(set(self.nodes)) < len(self.nodes):
            raise ValueError("Two nodes have the same name.")
        if shape[0] and not all(0 <= end.min() <= end.max() < len(self.nodes) for end in ends):
            raise ValueError("An edge refers to a node that does not exist.")
        _ = self.depths  # there is no cycle

    @classmethod
    def from_edges(
        cls, nodes: Sequence[Hashable], edges: Sequence[tuple[Hashable, Hashable, float]]
    ) -> WeightedGraph:
        """Build the graph from edges, given by the names of their nodes: from, to, and weight.

        Raises:
            KeyError: if there is no such node.
            TypeError, ValueError: as ``WeightedGraph``.
        """
        number = {node: n for n, node in enumerate(nodes)}
        sources = np.array([number[source] for source, _, _ in edges], int)
        targets = np.array([number[target] for _, target, _ in edges], int)
        return cls(tuple(nodes), sources, targets, np.array([w for *_, w in edges], float))

    @classmethod
    def from_networkx(cls, graph: Any, weight: str = "weight") -> WeightedGraph:
        """Build the graph from a ``networkx.DiGraph`` or ``MultiDiGraph``.

        Args:
            graph: the graph.
            weight: the edges' attribute.

        Raises:
            ValueError: if the graph is not directed, or an edge has no such attribute; and as
                ``WeightedGraph``.
        """
        if not graph.is_directed():
            raise ValueError("The graph is not directed: its edges have no direction to follow.")
        edges = [(a, b, data.get(weight)) for a, b, data in graph.edges(data=True)]
        if any(w is None for *_, w in edges):
            raise ValueError(f"An edge has no {weight!r}.")
        return cls.from_edges(tuple(graph.nodes), edges)

    @classmethod
    def from_matrix(cls, matrix: Any, nodes: Sequence[Hashable] | None = None) -> WeightedGraph:
        """Build the graph from a matrix whose element [i, j] is the weight of the edge from j to i.

        Where it is 0 there is no edge. Nodes are numbers if they have no names.

        Raises:
            ValueError: if it is not square, or its rows are not as many as the nodes; and as
                ``WeightedGraph``.
        """
        matrix = np.asarray(matrix)
        if np.issubdtype(matrix.dtype, np.integer):
            matrix = matrix.astype(float)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix must be square, got shape {matrix.shape}.")
        names = tuple(range(len(matrix)) if nodes is None else nodes)
        if len(names) != len(matrix):
            raise ValueError(f"matrix has {len(matrix)} rows, and there are {len(names)} nodes.")
        targets, sources = np.nonzero(matrix)
        return cls(names, sources, targets, matrix[targets, sources])

    def to_networkx(self) -> Any:
        """Return a ``networkx.MultiDiGraph`` whose edges have the attribute ``weight``.

        Raises:
            ImportError: if networkx is not installed.
        """
        import networkx

        graph = networkx.MultiDiGraph()
        graph.add_nodes_from(self.nodes)
        for edge in zip(self.sources, self.targets, self.weights.tolist(), strict=True):
            source, target, weight = edge
            graph.add_edge(self.nodes[source], self.nodes[target], weight=weight)
        return graph

    @functools.cached_property
    def depths(self) -> np.ndarray:
        """The number of edges on the longest path to each node."""
        depths = np.zeros(len(self.nodes), int)
        waiting = np.bincount(self.targets, minlength=len(depths))
        order = np.argsort(self.sources, kind="stable")
        first = np.searchsorted(self.sources[order], np.arange(len(depths) + 1))
        ready, done = np.flatnonzero(waiting == 0), 0
        while len(ready):  # all nodes of one depth
            done += len(ready)
            spans = [order[first[n] : first[n + 1]] for n in ready.tolist()]
            leaving = self.targets[np.concatenate(spans)] if spans else self.targets[:0]
            reached, count = np.unique(leaving, return_counts=True)
            waiting[reached] -= count
            depths[reached] = depths[ready[0]] + 1
            ready = reached[waiting[reached] == 0]
        if done < len(depths):
            cycle = scope_names.listed(str(self.nodes[n]) for n in np.flatnonzero(waiting > 0)[:5])
            raise ValueError(f"There is a cycle, in or before {cycle}.")
        return depths

    def function(self, target: Any) -> Callable[[Any], jax.Array]:
        """Return the graph as a function, whose paths are the graph's.

        The value of a node is the sum of what arrives along its edges and of its own input.

        Args:
            target: the node where paths end, by name; or from names to weights, for several.

        Returns:
            A function of the nodes' inputs, an array of shape ``[nodes]``, where paths start. It
            returns the value at the target, in the array's dtype. Its gradient is the sum over the
            paths from each node to the target.

        Raises:
            ValueError: if there is no such node.
        """
        wanted = target if isinstance(target, Mapping) else {target: 1.0}
        number = {node: n for n, node in enumerate(self.nodes)}
        for node in wanted:
            if node not in number:
                raise ValueError(f"The graph has no node {node!r}.")
        ends = np.array([number[node] for node in wanted], int)
        shares = np.array([*wanted.values()], float)
        blocks = self._blocks()

        def value(inputs: Any) -> jax.Array:
            state = jnp.asarray(inputs)
            if not jnp.issubdtype(state.dtype, jnp.inexact):
                state = state.astype(float)
            if state.shape != (len(self.nodes),):
                raise ValueError(
                    f"Expected a number for each of {len(self.nodes)} nodes, got shape "
                    f"{state.shape}."
                )
            # Not jnp's indexing, whose checks of indices would be most of the time of a search.
            for sources, targets, weights in blocks:
                read = jax.lax.gather(state, sources, GATHER, (1,), mode="promise_in_bounds")
                along = read * jnp.asarray(weights, state.dtype)
                state = jax.lax.scatter_add(state, targets, along, SCATTER, mode="drop")
            if isinstance(target, Mapping):
                return state[ends] @ jnp.asarray(shares, state.dtype)
            return state[ends[0]]

        return value

    def _blocks(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return the edges in blocks of one size, each edge after all those to the node it leaves.

        So only one block is compiled. What fills a block up leads to no node.
        """
        order = np.lexsort((self.targets, self.depths[self.targets]))
        depths = self.depths[self.targets[order]]
        layers = np.split(order, np.flatnonzero(np.diff(depths)) + 1) if len(order) else []
        size = min(BLOCK, 1 << max((len(edges) - 1).bit_length() for edges in layers or [[0]]))
        found = []
        for edges in layers:
            for begin in range(0, len(edges), size):
                block = edges[begin : begin + size]
                rest = (0, size - len(block))
                ends = self.sources[block], self.targets[block]
                sources, targets = np.pad(ends[0], rest), np.pad(ends[1], rest)
                targets[len(block) :] = len(self.nodes)
                rows = sources[:, None], targets[:, None]
                found.append((*rows, np.pad(self.weights[block], rest)))
        return found

    def along(self, path: Path) -> list[Hashable]:
        """Return the names of the nodes on a path of ``function``, in order."""
        steps = [node for node in path.nodes if node.primitive in ("", "scatter-add")]
        numbers = [node.index[0] for node in steps]
        changed = [n for n, before in zip(numbers, [None, *numbers], strict=False) if n != before]
        return [self.nodes[n] for n in changed]


def graph_function(graph: Any, target: Any) -> Callable[[Any], jax.Array]:
    """Turn a weighted graph into a function that every semiring and path search works on.

    Args:
        graph: a ``graphs.WeightedGraph``; a ``networkx.DiGraph`` whose edges have ``weight``; or a
            matrix whose element [i, j] is the weight of the edge from node j to node i, 0 for none.
        target: where paths end, see ``WeightedGraph.function``.

    Returns:
        The function; see ``WeightedGraph.function``.

    Raises:
        TypeError, ValueError: as ``WeightedGraph``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = sj.graph_function(jnp.array([[0.0, 0, 0], [2, 0, 0], [5, 3, 0]]), 2)
        >>> print(sj.semiring_grad(f, sj.SumProduct())(jnp.ones(3)))
        [11.  3.  1.]
    """
    if not isinstance(graph, WeightedGraph):
        has_edges = hasattr(graph, "edges") and hasattr(graph, "nodes")
        make = WeightedGraph.from_networkx if has_edges else WeightedGraph.from_matrix
        graph = make(graph)
    return graph.function(target)

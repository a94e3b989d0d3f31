"""Pictures of the computation graph: every node of a small function, or the modules of any."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from semijax import checks, page, tables
from semijax.paths import drawing
from semijax.paths.backpointers import bundles
from semijax.paths.call import Call
from semijax.paths.crossings import Crossings, group_nodes, largest
from semijax.paths.labels import Labels
from semijax.paths.run import Array
from semijax.paths.scores import MASS, STRONGEST, Scores
from semijax.paths.search import where_infinite
from semijax.paths.visits import name_visits
from semijax.semirings import AbsSumProduct, Product, Semiring, as_semiring
from semijax.sites.program import Argnums
from semijax.trace import scope_names
from semijax.weighting import DERIVATIVE, Derivative, Weighting, check_weighting

Position = tuple[Array, int]
"""A node, by the array in which it was made and its position there."""


@dataclasses.dataclass(frozen=True)
class GraphNode:
    """A node of the picture: an element of an array, or a module.

    Attributes:
        name: what it is called.
        fields: what else is known about it: for an element, what a ``Node`` of a path knows.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> graph = sj.gradient_graph(lambda x: jnp.exp(x) + 3 * x)(0.0)
        >>> [node.name for node in graph.nodes]
        ['[0]', 'exp', 'mul', 'add']
    """

    name: str
    fields: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class GraphEdge:
    """An edge of the picture.

    Attributes:
        tail, head: the numbers of its nodes.
        weight: what it weighs, by default the local derivative; between modules, what flows.
        label: the text beside it: the weight; between modules, with the share. The mass itself,
            which grows exponentially with depth, says nothing: only its share is written.
        share: between modules, the mass that crosses over that of all paths: how often a path
            crosses here, on average.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> graph = sj.gradient_graph(lambda x: jnp.exp(x) + 3 * x)(0.0)
        >>> for edge in graph.edges:
        ...     print(graph.nodes[edge.tail].name, "→", graph.nodes[edge.head].name, edge.weight)
        [0] → exp 1.0
        [0] → mul 3.0
        exp → add 1.0
        mul → add 1.0
    """

    tail: int
    head: int
    weight: float
    label: str
    share: float | None = None


@dataclasses.dataclass(frozen=True)
class GradientGraph:
    """A computation graph with its local derivatives, or the flow between modules. Immutable.

    Attributes:
        title: what it shows.
        nodes: in the order in which they were computed.
        edges: in the order of their heads; between two nodes there may be several.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> graph = sj.gradient_graph(lambda x: jnp.exp(x) + 3 * x)(0.0)
        >>> graph.title, len(graph.nodes), len(graph.edges)
        ('<lambda>: local derivatives', 4, 4)
        >>> graph.save("graph.html")  # doctest: +SKIP
    """

    title: str
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]

    def __repr__(self) -> str:
        return f"GradientGraph({self.title}: {len(self.nodes)} nodes, {len(self.edges)} edges)"

    def to_networkx(self) -> Any:
        """Return a ``networkx.MultiDiGraph`` with the fields of nodes and edges as attributes.

        Raises:
            ImportError: if networkx is not installed.
        """
        import networkx

        graph = networkx.MultiDiGraph(title=self.title)
        for number, node in enumerate(self.nodes):
            graph.add_node(number, name=node.name, **node.fields)
        for edge in self.edges:
            graph.add_edge(
                edge.tail, edge.head, weight=edge.weight, label=edge.label, share=edge.share
            )
        return graph

    def to_dot(self) -> str:
        """Return the graph as text in Graphviz's language; no program is needed to write it."""
        return drawing.dot(self.title, [node.name for node in self.nodes], self.edges)

    def to_json(self) -> str:
        """Return the graph as JSON.

        ``{"title", "nodes": [{"name", …}], "edges": [{"tail", "head", "weight", "label",
        "share"}]}``; what JSON has no number for, such as an infinite mass, is a string.
        """
        nodes = [{"name": node.name, **node.fields} for node in self.nodes]
        edges = [vars(edge) for edge in self.edges]
        content = {"title": self.title, "nodes": nodes, "edges": edges}
        return json.dumps(page.finite(content))

    def to_html(self) -> str:
        """Return one self-contained file with the graph drawn; hover over a node for details."""
        return page.document(self.title, f"<h3>{page.text(self.title)}</h3>{self._repr_html_()}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to a file that ends in ``.html``, ``.dot`` or ``.json``.

        Raises:
            ValueError: if it ends in something else.
        """
        page.save(path, {".html": self.to_html, ".dot": self.to_dot, ".json": self.to_json})

    def _repr_html_(self) -> str:
        names = [node.name for node in self.nodes]
        return drawing.svg(names, [_hint(node) for node in self.nodes], self.edges)


def _hint(node: GraphNode) -> str:
    known = {key: value for key, value in node.fields.items() if value}
    if "source" in known:
        known["source"] = tables.line_text(known["source"])
    return "\n".join([node.name, *(f"{key}: {value}" for key, value in known.items())])


def gradient_graph(
    fun: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    source: Any = None,
    traced: Argnums = None,
    level: str = "element",
    depth: int | None = None,
    iterations: bool = True,
    semiring: Any = None,
    share: float = 0.95,
    max_edges: int = 2000,
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., GradientGraph]:
    """Return the computation graph of ``fun`` with labelled edges, for drawing.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        argnums: the positional argument(s) where paths start.
        source: where they start in place of these, see ``top_paths``.
        traced: as for ``top_paths``.
        level: ``"element"``: every node and edge that is on a path, with local derivatives as
            labels (Du et al. 2023, Fig. 1b), for small functions. ``"scope"``: a node for each
            module and each array where paths start, for models of any size; an edge leads from
            where an array is made to where it is read.
        depth: modules are told apart by this many names of their scope, from the outside; by all
            names by default.
        iterations: whether a module that a loop runs is another node in each iteration.
        semiring: between modules, the semiring of the flow. The flow is the ⊕ over all paths from
            the arguments to the output that take an edge from the one module to the other, read out
            as a number. By default it is the mass, ``AbsSumProduct``; of the mass, only shares are
            drawn.
        share: between modules, show the largest edges that together carry this much of the mass
            that crosses from module to module, a number in (0, 1].
        max_edges: between elements, the most edges there may be.
        weighting: what the edges weigh, see ``semiring_grad``.

    Returns:
        A function with the arguments of ``fun`` that returns a ``GradientGraph``.

    Raises:
        ValueError: if there are more edges than ``max_edges``, or an option is invalid.
        FloatingPointError: between modules, where a local derivative on the way is infinite or not
            a number: there are no shares then.
        TypeError, jax.errors.ConcretizationTypeError: as ``top_paths``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x, y: jnp.exp(x) + (x - y) * y
        >>> graph = sj.gradient_graph(f, argnums=(0, 1))(0.0, 3.0)
        >>> for edge in graph.edges:
        ...     print(graph.nodes[edge.tail].name, "→", graph.nodes[edge.head].name, edge.weight)
        [0] → exp 1.0
        [0] → sub 1.0
        [1] → sub -1.0
        [1] → mul -3.0
        sub → mul 3.0
        exp → add 1.0
        mul → add 1.0
    """
    checks.check_callable(fun)
    checks.check_depth(depth)
    if level not in ("element", "scope"):
        raise ValueError(f"level must be 'element' or 'scope', got {level!r}.")
    checks.check_share(share)
    check_weighting(weighting)
    checked = AbsSumProduct() if semiring is None else as_semiring(semiring)
    if isinstance(checked, Product):
        raise TypeError("gradient_graph labels its edges with one semiring's numbers, not several.")

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))
    def graph(*args: Any, **kwargs: Any) -> GradientGraph:
        where = argnums, source, None, traced
        call = Call(fun, args, kwargs, *where, caller="gradient_graph", weighting=weighting)
        name = getattr(fun, "__name__", type(fun).__name__)
        if level == "element":
            weigh = (
                "local derivatives"
                if isinstance(weighting, Derivative)
                else f"weights of {weighting}"
            )
            return GradientGraph(f"{name}: {weigh}", *_elements(call, name, max_edges))
        title = f"{name}: {checked} between modules, {share:.0%} of the mass"
        return GradientGraph(title, *_modules(call, depth, iterations, checked, share))

    return graph


def _elements(
    call: Call, name: str, max_edges: int
) -> tuple[tuple[GraphNode, ...], tuple[GraphEdge, ...]]:
    if call.end is None:
        return (), ()
    scores = Scores(call.run, call.end, STRONGEST)

    def on_a_path(array: Array, index: np.ndarray) -> np.ndarray:
        return index[scores.at(array, index) != -np.inf]

    # A node may be found in several arrays: in those that a loop reads row by row, or writes.
    made_at: dict[Array, dict[int, Position]] = collections.defaultdict(dict)
    for array, positions in call.sources.items():
        begins = array.positions if positions is None else positions
        for position in on_a_path(array, begins).tolist():
            made_at[array][position] = array, position
    found: list[tuple[Position, Position, float]] = []
    for array in call.run.arrays:
        index = np.array([*made_at[array]], int)
        for bundle in bundles(scores, array, index) if len(index) else ():
            edges, target = bundle.edges, bundle.target
            there = np.isin(edges.other, on_a_path(target, np.unique(edges.other)))
            if len(found) + there.sum() > max_edges:
                raise ValueError(
                    f"{name} has more than max_edges={max_edges} edges on paths, too many to look "
                    "at. Make its arrays smaller, allow more, or draw its modules with "
                    "level='scope'."
                )
            for owner, other, weight in zip(*(column[there] for column in edges), strict=True):
                tail = made_at[array][int(index[owner])]
                silent = bundle.step.equation is None
                node = tail if silent else (target, int(other))
                head = made_at[target].setdefault(int(other), node)
                if not silent:
                    found.append((tail, head, float(weight)))
    everything = {position for of_array in made_at.values() for position in of_array.values()}
    ordered = sorted(everything, key=lambda position: (position[0].number, position[1]))
    number = {position: n for n, position in enumerate(ordered)}
    labels = Labels(call)
    nodes = [
        labels.nodes(array, np.array([p]), start=array in call.sources)[0] for array, p in ordered
    ]
    edges = [
        GraphEdge(number[tail], number[head], weight, f"{weight:.3g}")
        for tail, head, weight in found
    ]
    return (
        tuple(GraphNode(node.name, node.to_dict()) for node in nodes),
        tuple(sorted(edges, key=lambda edge: (edge.head, edge.tail))),
    )


def _modules(
    call: Call, depth: int | None, iterations: bool, semiring: Semiring, share: float
) -> tuple[tuple[GraphNode, ...], tuple[GraphEdge, ...]]:
    run, end = call.run, call.end
    if end is None:
        return (), ()

    def module(scope: str) -> str:
        known = scope if iterations else scope_names.without_iterations(scope)
        return scope_names.component(known, depth)

    visits = name_visits(run, call.names, module, apart=iterations)
    names = list(dict.fromkeys(visits.values()))
    number = {name: n for n, name in enumerate(names)}
    groups = group_nodes(run, lambda array: number[visits[array]])
    crossings = Crossings(run, call.sources, end, groups)
    mass = crossings.flow(AbsSumProduct())
    if not mass.log_size() < math.inf:
        raise FloatingPointError(where_infinite(Scores(run, end, MASS)))
    shares = mass.shares(mass.crossing)
    flow = mass if semiring == mass.semiring else crossings.flow(semiring)
    shown = largest(shares, share)
    pairs, weights = mass.pairs[shown], flow.numbers(flow.crossing)[shown]
    nodes = {int(n): m for m, n in enumerate(np.unique(pairs))}

    def label(weight: float, share: float) -> str:
        text = f"{share:.1%}"
        return text if flow is mass else f"{weight:.3g} ({text})"

    edges = [
        GraphEdge(nodes[tail], nodes[head], weight, label(weight, own), own)
        for (tail, head), weight, own in zip(
            pairs.tolist(), weights.tolist(), shares[shown].tolist(), strict=True
        )
    ]
    return (
        tuple(GraphNode(names[n], {}) for n in nodes),
        tuple(sorted(edges, key=lambda edge: (edge.head, edge.tail))),
    )

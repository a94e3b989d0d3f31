"""A path as an object: its nodes and edges, and the ways to read it."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from semijax import scopes
from semijax.paths import page
from semijax.paths.recompute import Hop, recompute

Index = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Node:
    """One element of one array that the function computed.

    Attributes:
        variable: the array: for an argument its place among the arguments, as in ``"[0]['w']"``;
            for any other a name, ``"v"`` and a number that counts the arrays on paths.
        index: the element's index in the array; of a complex number, the last index is 0 for its
            real and 1 for its imaginary part.
        value: what it was.
        shape, dtype: the array's.
        primitive: what made it; for a called function that is one node, the function's name; ``""``
            for an argument.
        scope: the modules in which, joined by ``/``.
        source: the user's line, ``file:line (function)``.
        iteration: the iterations of the loops that it was made in, from the outside in.
    """

    variable: str
    index: Index
    value: float
    shape: tuple[int, ...]
    dtype: str
    primitive: str = ""
    scope: str = ""
    source: str = ""
    iteration: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The argument or the primitive, and the index."""
        return (self.primitive or self.variable) + brackets(self.index)


@dataclasses.dataclass(frozen=True)
class Edge:
    """An edge of a path: one equation, from one of its inputs to one of its outputs.

    Attributes:
        weight: the local derivative.
        equation: the number of the equation's step in the run of the function.
        input, output: the positions of the two arrays in the equation: ``x * x`` has two edges from
            x, which differ in this.
        start: where in its input it starts: the index of the node it leaves, but for a loop, which
            reads an array row by row, and writes one.
        skip: whether it is a residual connection: it adds what came around a module to what was
            made inside.
    """

    weight: float
    equation: int
    input: int
    output: int
    start: Index
    skip: bool = False


@dataclasses.dataclass(frozen=True)
class Stage:
    """Consecutive nodes of a path in one module.

    Attributes:
        scope: the module; ``""`` outside of all.
        nodes: the nodes.
        edges: those that lead to them.
    """

    scope: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def weight(self) -> float:
        """The product of the edges' weights."""
        return math.prod((edge.weight for edge in self.edges), start=1.0)

    @property
    def skip(self) -> bool:
        """Whether the path came here around the inside of the module: a residual connection."""
        return bool(self.edges) and self.edges[0].skip

    def __str__(self) -> str:
        if not self.scope:
            names = [node.name for node in self.nodes]
            return " → ".join(names if len(names) <= 4 else [*names[:2], "…", names[-1]])
        return self.scope + " (skip)" * self.skip + brackets(self.nodes[-1].index)


class Story(tuple[Stage, ...]):
    """A path as a person tells it: the stages it went through, in order. An immutable sequence."""

    __slots__ = ()

    def __repr__(self) -> str:
        return " → ".join(map(str, self))


@dataclasses.dataclass(frozen=True)
class Model:
    """The call that paths were found in: ``fun(*args, **kwargs)``."""

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclasses.dataclass(frozen=True, repr=False)
class Path:
    """One path from an element of an argument to the output. Immutable.

    Attributes:
        nodes: from the argument's element to the output, both included.
        edges: those between them; one less.
        argnums: the positions of the arguments that the function was differentiated by.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    argnums: tuple[int, ...]
    model: Model | None = dataclasses.field(default=None, compare=False)

    @property
    def weight(self) -> float:
        """The product of the edges' weights, in float64; ``log_abs_weight`` never underflows."""
        return math.prod((edge.weight for edge in self.edges), start=1.0)

    @property
    def sign(self) -> int:
        """That of the weight: −1, 0 or 1."""
        if any(edge.weight == 0 for edge in self.edges):
            return 0
        return -1 if sum(edge.weight < 0 for edge in self.edges) % 2 else 1

    @property
    def log_abs_weight(self) -> float:
        """The logarithm of |weight|, in nats; −∞ for a weight of 0."""
        if self.sign == 0:
            return -math.inf
        return math.fsum(math.log(abs(edge.weight)) for edge in self.edges)

    @property
    def length(self) -> int:
        """The number of edges."""
        return len(self.edges)

    def verify(self, fun: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> float:
        """Compute the weights again, another way; return the relative error of their product.

        The function runs anew, and each weight comes from ``jax.vjp`` of its equation alone.

        Args:
            fun: the function; by default the one that the path was found in, with the arguments it
                was found with. A path that was read from JSON does not know them.
            *args: the function's arguments.
            **kwargs: its keyword arguments.

        Returns:
            |weight − product| / |weight|; 0 where both are 0.

        Raises:
            ValueError: if no function is known, or it has no such path.
        """
        model = self.model if fun is None else Model(fun, args, kwargs)
        if model is None:
            raise ValueError(
                "A path that was read from JSON is verified with its function: verify(fun, *args)."
            )
        hops = [
            Hop(edge.equation, node.primitive, edge.input, edge.output, edge.start, node.index)
            for edge, node in zip(self.edges, self.nodes[1:], strict=True)
        ]
        weights = recompute(model.fun, model.args, model.kwargs, self.argnums, hops)
        again = Path(
            self.nodes,
            tuple(
                dataclasses.replace(e, weight=w) for e, w in zip(self.edges, weights, strict=True)
            ),
            self.argnums,
        )
        if self.sign == 0 or again.sign == 0:
            return 0.0 if self.sign == again.sign else math.inf
        ratio = math.exp(again.log_abs_weight - self.log_abs_weight)
        return abs(ratio * self.sign * again.sign - 1)

    def collapse(self, depth: int | None = None) -> Story:
        """The path as a person tells it: consecutive nodes of one module become one stage.

        Args:
            depth: how many names of a scope, from the outside, tell a module from another; all of
                them by default.

        Returns:
            An immutable sequence of ``Stage``, which prints as
            ``[0][3, 5] → encoder/layer_0[3, 7] → … → head``, each with the index at which the path
            leaves it. The argument that the path starts in is a stage of its own.
        """
        check_depth(depth)
        first, *rest = self.nodes
        stages = [Stage("", (first,), ())]
        steps = zip(rest, self.edges, strict=True)
        for scope, group in itertools.groupby(steps, lambda s: scopes.shorten(s[0].scope, depth)):
            nodes, edges = zip(*group, strict=True)
            stages.append(Stage(scope, nodes, edges))
        return Story(stages)

    def components(self, depth: int | None = None) -> dict[str, int]:
        """How many of the path's edges lie in each module: what it matters to the path.

        An edge lies where the node it leads to was made; every edge counts once.

        Args:
            depth: as for ``collapse``.

        Returns:
            From the module's name, ``""`` outside of all, to the number; the largest first.

        Source: DuSell's gradient tracing.
        """
        check_depth(depth)
        counts = collections.Counter(scopes.shorten(n.scope, depth) for n in self.nodes[1:])
        return dict(counts.most_common())

    def to_json(self) -> str:
        """The path as JSON text, without the function it was found in."""
        nodes = [vars(node) | {"value": _json_number(node.value)} for node in self.nodes]
        edges = [vars(edge) | {"weight": _json_number(edge.weight)} for edge in self.edges]
        return json.dumps({"nodes": nodes, "edges": edges, "argnums": self.argnums})

    @classmethod
    def from_json(cls, text: str) -> Path:
        """The path that ``to_json`` wrote.

        Raises:
            ValueError: if the text is something else.
        """
        try:
            content = json.loads(text)
            nodes = tuple(_node(node) for node in content["nodes"])
            edges = tuple(_edge(edge) for edge in content["edges"])
            return cls(nodes, edges, tuple(content["argnums"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"This is no path that to_json wrote: {error}") from error

    def to_networkx(self) -> Any:
        """A ``networkx.DiGraph``, whose nodes and edges have the fields of these as attributes.

        The nodes are numbered along the path.

        Raises:
            ImportError: if networkx is not installed.
        """
        import networkx

        graph = networkx.DiGraph(weight=self.weight)
        for number, node in enumerate(self.nodes):
            graph.add_node(number, name=node.name, **vars(node))
        for number, edge in enumerate(self.edges):
            graph.add_edge(number, number + 1, **vars(edge))
        return graph

    def __repr__(self) -> str:
        stages = [str(stage) for stage in self.collapse()]
        if len(stages) > 7:
            stages[3:-3] = ["…"]
        edges = f"{self.length} edge{'s' * (self.length != 1)}"
        return f"Path(weight={self.weight:.4g}, {edges}: {' → '.join(stages)})"

    def _repr_html_(self) -> str:
        return _table([self])


class Paths(list[Path]):
    """A list of paths, best first; prints one per line, or why there are none.

    Attributes:
        explanation: what was looked for.
    """

    def __init__(self, paths: Iterable[Path] = (), explanation: str = "") -> None:
        super().__init__(paths)
        self.explanation = explanation

    def __repr__(self) -> str:
        if not self:
            return f"[]  # {self.explanation}" if self.explanation else "[]"
        return "\n".join(f"{number}. {path!r}" for number, path in enumerate(self, start=1))

    def _repr_html_(self) -> str:
        return _table(self) if self else f"<p>{page.text(self.explanation)}</p>"


def check_depth(depth: int | None) -> None:
    """Raise unless it is None or a positive integer."""
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool) or depth < 1):
        raise ValueError(f"depth must be None or an integer of at least 1, got {depth!r}.")


def brackets(index: Index) -> str:
    """An index as it is written, nothing for that of a scalar."""
    return f"[{', '.join(map(str, index))}]" if index else ""


def _node(fields: dict[str, Any]) -> Node:
    indices = {name: tuple(fields[name]) for name in ("index", "shape", "iteration")}
    converted: dict[str, Any] = fields | indices | {"value": float(fields["value"])}
    return Node(**converted)


def _edge(fields: dict[str, Any]) -> Edge:
    converted = {"start": tuple(fields["start"]), "weight": float(fields["weight"])}
    return Edge(**fields | converted)


def _json_number(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def _table(paths: Sequence[Path]) -> str:
    largest = max(path.log_abs_weight for path in paths)
    rows = [
        [
            page.text(number),
            page.text(f"{path.weight:.4g}")
            + page.bar(math.exp(path.log_abs_weight - largest) if path.sign else 0, path.sign),
            page.text(path.length),
            page.details(repr(path.collapse()), page.table(_HEADS, _steps(path))),
        ]
        for number, path in enumerate(paths, start=1)
    ]
    caption = (
        "Paths. Weight: the product of the local derivatives; its bar: |weight| over the largest "
        "here, red if positive, blue if negative."
    )
    return page.table(["", "weight", "edges", "path"], rows, caption)


_HEADS = ["node", "value", "local derivative", "scope", "line"]


def _steps(path: Path) -> list[list[str]]:
    return [
        [
            page.text(cell)
            for cell in (
                node.name,
                f"{node.value:.4g}",
                "" if edge is None else f"{edge.weight:.4g}",
                node.scope,
                node.source,
            )
        ]
        for node, edge in zip(path.nodes, (None, *path.edges), strict=True)
    ]

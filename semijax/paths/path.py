"""A path as an object: its nodes and edges, and the ways to read it."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from semijax import checks, page, tables
from semijax.paths.scores import LARGEST_LOG
from semijax.paths.verify import Hop, recompute
from semijax.trace import scope_names
from semijax.weighting import DERIVATIVE, Weighting

if TYPE_CHECKING:
    from semijax.pictures import Picture

Index = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """An array that the function computed, or an argument.

    Attributes:
        name: for an array where the path starts, the argument's place, as in ``"[0]['w']"``, or the
            site's name; for any other array, ``"v"`` and a number that counts the arrays on paths.
        shape, dtype: the array's; the parts of a complex number are a last axis of the shape.
        primitive: the primitive that made it, or the name of a called function that is one
            equation; ``""`` where the path starts, since none of its edges leads there.
        scope: the modules it was made in, joined by ``/``, each with its iteration if it lies in a
            loop: ``"layers[3]/attention"``.
        source: the user's line, ``file:line (function)``.
        iteration: the iterations of the loops that it was made in, from the outside in.
        axes: what its axes are known to be, such as ``"token"`` and ``"head"``, see ``top_paths``;
            None for one of which nothing is known.
        loops: the same of the loops that it was made in: what their iterations count.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> (path,) = sj.top_paths(lambda x: jnp.sum(x**2))(jnp.array([1.0, -4.0]))
        >>> array = path.nodes[1].array
        >>> array.primitive, array.shape, array.dtype
        ('integer_pow', (2,), 'float32')
    """

    name: str
    shape: Index
    dtype: str
    primitive: str = ""
    scope: str = ""
    source: str = ""
    iteration: Index = ()
    axes: tuple[str | None, ...] = ()
    loops: tuple[str | None, ...] = ()

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One element of one array, with the attributes of its ``Variable`` too.

    Attributes:
        array: the array, a ``Variable``.
        index: the element's index in the array; of a complex number, the last index is 0 for its
            real and 1 for its imaginary part.
        value: its value.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> (path,) = sj.top_paths(lambda x: jnp.sum(x**2))(jnp.array([1.0, -4.0]))
        >>> node = path.nodes[1]
        >>> node.primitive, node.index, node.value
        ('integer_pow', (1,), 16.0)
    """

    array: Variable
    index: Index
    value: float

    @property
    def variable(self) -> str:
        """The array's name."""
        return self.array.name

    @property
    def shape(self) -> Index:
        """The array's shape."""
        return self.array.shape

    @property
    def dtype(self) -> str:
        """The array's dtype."""
        return self.array.dtype

    @property
    def primitive(self) -> str:
        """The primitive or called function that made the array; ``""`` where the path starts."""
        return self.array.primitive

    @property
    def scope(self) -> str:
        """The modules it was made in."""
        return self.array.scope

    @property
    def source(self) -> str:
        """The user's line that made it."""
        return self.array.source

    @property
    def iteration(self) -> Index:
        """The iterations of the loops it was made in."""
        return self.array.iteration

    def along(self, axis: str) -> int | None:
        """Return the index along the first axis of a name such as ``"token"``; None without one.

        Where no axis has the name, return the iteration of a loop over one.
        """
        names = (*self.array.axes, *self.array.loops)
        places = (*self.index[: len(self.array.axes)], *self.iteration)
        return places[names.index(axis)] if axis in names else None

    @property
    def name(self) -> str:
        """The primitive, or at a path's start the array and the iteration; and the index."""
        start = self.variable + brackets(self.iteration)
        return (self.primitive or start) + brackets(self.index)

    def to_dict(self) -> dict[str, Any]:
        """Return all that the node knows, by name."""
        own = {"index": self.index, "value": self.value, "variable": self.variable}
        array = dataclasses.asdict(self.array)
        del array["name"]
        return own | array


@dataclasses.dataclass(frozen=True, slots=True)
class Edge:
    """An edge of a path: one equation, from one of its inputs to one of its outputs.

    Attributes:
        weight: the local derivative, or what another weighting says.
        equation: the number of the equation's step in the run of the function.
        input, output: the positions of the two arrays in the equation: ``x * x`` has two edges from
            x, which differ in this.
        start: the index in its input where it starts. This is the index of the node it leaves,
            except at a loop, which reads and writes arrays row by row.
        around: of a residual connection the modules that it leads around; otherwise none.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> (path,) = sj.top_paths(lambda x: jnp.sum(x**2))(jnp.array([1.0, -4.0]))
        >>> [edge.weight for edge in path.edges]
        [-8.0, 1.0]
    """

    weight: float
    equation: int
    input: int
    output: int
    start: Index
    around: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Stage:
    """Consecutive nodes of a path in one module.

    Attributes:
        scope: the module; ``""`` outside all.
        nodes: the nodes.
        edges: those that lead to them.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> def model(x):
        ...     with jax.named_scope("up"):
        ...         x = jnp.tanh(3 * x)
        ...     with jax.named_scope("down"):
        ...         return jnp.sum(2 * x)
        >>> (path,) = sj.top_paths(model)(jnp.zeros(2))
        >>> [(stage.scope, len(stage.nodes)) for stage in path.collapse()]
        [('', 1), ('up', 2), ('down', 2)]
    """

    scope: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def weight(self) -> float:
        """The product of the edges' weights."""
        return math.prod((edge.weight for edge in self.edges), start=1.0)

    @property
    def around(self) -> tuple[tuple[str, ...], ...]:
        """The modules that the path went around, by one residual connection after another."""
        return tuple(dict.fromkeys(edge.around for edge in self.edges if edge.around))

    @property
    def skips_text(self) -> str:
        """The text for what it went around: ``" (skips mlp)"``, or nothing."""
        around = "; ".join(scope_names.relative(names, self.scope) for names in self.around)
        return f" (skips {around})" if around else ""

    def __str__(self) -> str:
        if not self.scope:
            names = [node.name for node in self.nodes]
            return " → ".join(names if len(names) <= 4 else [*names[:2], "…", names[-1]])
        return self.scope + self.skips_text + brackets(self.nodes[-1].index)


class Story(tuple[Stage, ...]):
    """A path as a person tells it: the stages it went through, in order. An immutable sequence.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> def model(x):
        ...     with jax.named_scope("up"):
        ...         x = x + jnp.tanh(3 * x)
        ...     with jax.named_scope("down"):
        ...         return jnp.sum(2 * x)
        >>> (path,) = sj.top_paths(model)(jnp.zeros(2))
        >>> print(path.collapse())
        [0][0] → up[0] → down
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return " → ".join(map(str, self))


@dataclasses.dataclass(frozen=True, repr=False)
class Path:
    """One path from its start to the output. Immutable.

    Attributes:
        nodes: from the first element to the output, both included.
        edges: those between them; one fewer.
        argnums: the positions of the arguments where paths started; none if they started at sites.
        sites: the names of the arrays where they started, if these were named.
        fun: the function with its arguments, which ``verify`` calls again; None if it was read from
            JSON, or pickled.
        carried: what the path carries at its start, if the weighting defines it: the difference
            between the two runs there, or the value there.
        whole: what all paths contribute together: the difference of the two outputs, or the output.
        weighting: what its edges weigh; None if it was read from JSON, or pickled.
        story: the labels of the story whose best path it is, see ``top_paths``; None without one.
        level: the kind of these labels, such as ``("module", "token")``; None if a function gives
            the labels, or there is no story.
        together: the statistic of all paths that tell this story.
        semiring: the semiring that it is the statistic of, as text.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x, y: jnp.exp(x) + (x - y) * y
        >>> (path,) = sj.top_paths(f)(0.0, 3.0)
        >>> print(path)
        Path(weight=3, 3 edges: [0] → sub → mul → add)
        >>> path.weight, len(path.edges), path.verify()
        (3.0, 3, 0.0)
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    argnums: tuple[int, ...]
    sites: tuple[str, ...] = ()
    fun: functools.partial[Any] | None = dataclasses.field(default=None, compare=False)
    carried: float | None = None
    whole: float | None = None
    weighting: Weighting | None = dataclasses.field(default=None, compare=False)
    story: tuple[Any, ...] | None = dataclasses.field(default=None, compare=False)
    level: tuple[str | int, ...] | None = dataclasses.field(default=None, compare=False)
    together: Any = dataclasses.field(default=None, compare=False)
    semiring: str = dataclasses.field(default="", compare=False)

    @property
    def contribution(self) -> float:
        """The path's contribution to the output: what it carries at the start times its weight.

        Together all paths contribute ``whole``, less what no path carries, see ``residuals``. The
        weight itself, if the path carries nothing.
        """
        if self.carried is None:
            return self.weight
        return self.weight * self.carried if self.carried else 0.0

    @property
    def log_abs_contribution(self) -> float:
        """The logarithm of ``|contribution|``, in nats; −∞ for a contribution of 0."""
        if self.carried is None:
            return self.log_abs_weight
        return self.log_abs_weight + math.log(abs(self.carried)) if self.carried else -math.inf

    @property
    def contribution_text(self) -> str:
        """The contribution, and its share of the whole: ``"+0.31 of 1.42, 22%"``."""
        return _part_text(self.contribution, self.whole)

    @property
    def together_text(self) -> str:
        """The statistic of all paths that tell its story, as text: ``"mass 0.31"``.

        A sum of contributions comes with its share of the whole. Empty if there is no statistic.
        """
        if self.story is None or self.together is None:
            return ""
        if self.adds_up:
            return _part_text(self.together, self.whole)
        name = "mass" if self.is_mass else self.semiring
        named = self.together if isinstance(self.together, dict) else {name: self.together}
        numbers = {key: each for key, each in named.items() if isinstance(each, float)}
        return ", ".join(f"{key} {number:.4g}" for key, number in numbers.items())

    @property
    def adds_up(self) -> bool:
        """True if ``together`` is the sum of what all paths of a story contribute."""
        return self.semiring == "SumProduct()" and isinstance(self.together, float)

    @property
    def is_mass(self) -> bool:
        """True if ``together`` is the mass of all paths of a story."""
        return self.semiring == "AbsSumProduct()" and isinstance(self.together, float)

    @property
    def weight(self) -> float:
        """The product of the edges' weights, in float64; ``log_abs_weight`` never underflows.

        The weight is 0 if any of them is 0, even if others are infinite.
        """
        product = math.prod((edge.weight for edge in self.edges), start=1.0) if self.sign else 0.0
        if product and math.isfinite(product):
            return product
        # On the way it may have been too large, or too small, though in the end it is neither.
        log = self.log_abs_weight
        return self.sign * (math.exp(log) if log < LARGEST_LOG else math.inf)

    @property
    def sign(self) -> int:
        """The sign of the weight: −1, 0 or 1."""
        if any(edge.weight == 0 for edge in self.edges):
            return 0
        return -1 if sum(edge.weight < 0 for edge in self.edges) % 2 else 1

    @property
    def log_abs_weight(self) -> float:
        """The logarithm of ``|weight|``, in nats; −∞ for a weight of 0."""
        if self.sign == 0:
            return -math.inf
        return math.fsum(math.log(abs(edge.weight)) for edge in self.edges)

    @property
    def weight_text(self) -> str:
        """The weight to four digits; as an exp if it is too small or too large for a number."""
        if self.sign and not 0 < abs(self.weight) < math.inf:
            return f"{'-' * (self.sign < 0)}exp({self.log_abs_weight:.4f})"
        return f"{self.weight:.4g}"

    @property
    def length(self) -> int:
        """The number of edges."""
        return len(self.edges)

    def verify(self, fun: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> float:
        """Compute the weights again in another way; return the relative error of their product.

        The function runs again, and each weight comes from ``jax.vjp`` of its equation alone. A
        weight that is an average comes from an adaptive quadrature of that derivative.

        Args:
            fun: the function; by default the one that the path was found in, with the arguments it
                was found with. A path that was read from JSON does not know them.
            *args: the function's arguments.
            **kwargs: its keyword arguments.

        Returns:
            ``|weight − product| / |weight|``; 0 where both are 0.

        Raises:
            ValueError: if no function is known, or it has no such path.
        """
        call = self.fun if fun is None else functools.partial(fun, *args, **kwargs)
        weighting = self.weighting
        if weighting is None and self.carried is None:
            weighting = DERIVATIVE
        if weighting is None:
            raise ValueError(
                "A path that was read from JSON does not know its weighting: "
                "set it with dataclasses.replace(path, weighting=…)."
            )
        if call is None:
            raise ValueError(
                "A path that was read from JSON is verified with its function: verify(fun, *args)."
            )
        hops = [
            Hop(edge.equation, node.primitive, edge.input, edge.output, edge.start, node.index)
            for edge, node in zip(self.edges, self.nodes[1:], strict=True)
        ]
        first = self.nodes[0]
        start = first.variable, first.iteration, first.index
        weights = recompute(call, weighting, self.argnums, self.sites, start, hops)
        pairs = zip(self.edges, weights, strict=True)
        edges = tuple(dataclasses.replace(edge, weight=weight) for edge, weight in pairs)
        again = dataclasses.replace(self, edges=edges)
        if self.sign == 0 or again.sign == 0:
            return 0.0 if self.sign == again.sign else math.inf
        ratio = math.exp(min(again.log_abs_weight - self.log_abs_weight, 700))
        return abs(ratio * self.sign * again.sign - 1)

    def collapse(self, depth: int | None = None) -> Story:
        """Return the path as a person tells it: consecutive nodes of one module become one stage.

        Args:
            depth: how many names of a scope, from the outside, tell a module from another; all of
                them by default.

        Returns:
            An immutable sequence of ``Stage``, which prints as
            ``[0][3, 5] → encoder/layer_0[3, 7] → … → head``, each with the index at which the path
            leaves it. The array that the path starts in is a stage of its own. A module that a loop
            runs is a different one in each iteration.
        """
        checks.check_depth(depth)
        first, *rest = self.nodes
        stages = [Stage("", (first,), ())]
        steps = zip(rest, self.edges, strict=True)
        for scope, group in itertools.groupby(
            steps, lambda s: scope_names.shorten(s[0].scope, depth)
        ):
            nodes, edges = zip(*group, strict=True)
            stages.append(Stage(scope, nodes, edges))
        return Story(stages)

    def tell(self, tokens: Sequence[str] | None = None, depth: int | None = None) -> str:
        """Return the path in words: what it contributes, and its ``route``.

        Args:
            tokens: as for ``route``.
            depth: as for ``route``.

        Returns:
            One line, such as ``+0.31 of 1.42, 22%: 'keys' → layer_0/attention, head 3 → 'are' →
            past layer_1 … layer_5 → head``. For a story, what all of its paths have together comes
            first, and the path it was found by at the end.

        Raises:
            ValueError: if there are fewer texts than tokens.
        """
        route = self.route(tokens, depth)
        if not self.together_text:
            return f"{self.contribution_text}: {route}"
        return f"{self.together_text}: {route} (best path {self.contribution:+.4g})"

    def route(self, tokens: Sequence[str] | None = None, depth: int | None = None) -> str:
        """Return the modules, heads and tokens that the path passes, in words.

        Args:
            tokens: the texts of the tokens; by default their numbers. A text that occurs twice is
                followed by the number.
            depth: as for ``collapse``; by default that of a story's ``level``.

        Returns:
            One line, such as ``'keys' → layer_0/attention, head 3 → 'are' → past layer_1 … layer_5
            → head``. Tokens are named where the path reaches them, layers where it enters one of
            their modules; modules that it only bypasses follow "past". For a story, only what its
            paths have in common is named: no head, unless heads belong to its ``level``.

        Raises:
            ValueError: if there are fewer texts than tokens.
        """
        level = ("module", "token", "head") if self.level is None else self.level
        depth = self._told_depth(depth)
        axes = [each for each in level if isinstance(each, str) and each not in ("module", "token")]
        last, parts = None, []
        first = self.nodes[0]
        start = first.name if self.level is None else first.variable + brackets(first.iteration)
        told = self if self.level is None else self._without_skips_inside(depth)
        for names, stages in _told_names(told.collapse(depth), start):
            nodes = [node for stage in stages for node in stage.nodes]
            known = [names] if self._tells_modules else []
            for axis in axes:
                places = dict.fromkeys(node.along(axis) for node in nodes)
                known += [f"{axis} {place}" for place in places if place is not None]
            if stages[0].scope or nodes[0].along("token") is None or parts:
                text = ", ".join(filter(None, known))
                parts += [text] if text else []
            for token in (node.along("token") for node in nodes if "token" in level):
                if token is not None and token != last:
                    parts.append(_token_text(token, tokens))
                    last = token
        return " → ".join(parts)

    @property
    def skips(self) -> tuple[bool, ...]:
        """Whether each edge is a residual connection around modules.

        Of a story's best path, only around modules that its ``level`` tells apart: all of its paths
        go around these.
        """
        if not self._tells_modules:
            return (False,) * len(self.edges)
        told = self if self.level is None else self._without_skips_inside(self._told_depth(None))
        return tuple(bool(edge.around) for edge in told.edges)

    @property
    def _tells_modules(self) -> bool:
        """True if a story tells modules apart; a path without a level does."""
        return self.level is None or "module" in self.level or bool(self._depths)

    @property
    def _depths(self) -> list[int]:
        """How many names of a scope a story tells, from the outside, where its level says so."""
        return [each for each in self.level or () if isinstance(each, int)]

    def _told_depth(self, depth: int | None) -> int | None:
        """Return a depth no deeper than a story's level: below, its paths may differ."""
        if not self._depths or "module" in (self.level or ()):
            return depth
        deepest = max(self._depths)
        return deepest if depth is None else min(deepest, depth)

    def _without_skips_inside(self, depth: int | None) -> Path:
        """Return the path without what it goes around in a module that a story tells as one."""

        def around(edge: Edge, node: Node) -> tuple[str, ...]:
            own = scope_names.shorten(node.scope, depth)
            return tuple(each for each in edge.around if scope_names.shorten(each, depth) != own)

        pairs = zip(self.edges, self.nodes[1:], strict=True)
        edges = (dataclasses.replace(edge, around=around(edge, node)) for edge, node in pairs)
        return dataclasses.replace(self, edges=tuple(edges))

    def components(self, depth: int | None = None) -> dict[str, int]:
        """Count the path's edges in each module, a measure of how much the module matters to it.

        An edge lies where the node it leads to was made; every edge counts once.

        Args:
            depth: as for ``collapse``.

        Returns:
            From the module's name, ``""`` outside all, to the number; the largest first.

        Source: DuSell's gradient tracing.
        """
        checks.check_depth(depth)
        counts = collections.Counter(scope_names.shorten(n.scope, depth) for n in self.nodes[1:])
        return dict(counts.most_common())

    def to_json(self) -> str:
        """Return the path as JSON text, without the function it was found in.

        A story's labels become text if JSON does not have them.
        """
        number = {array: n for n, array in enumerate(dict.fromkeys(n.array for n in self.nodes))}
        content = {
            "arrays": [dataclasses.asdict(array) for array in number],
            "nodes": [[number[n.array], n.index, n.value] for n in self.nodes],
            "edges": [dataclasses.asdict(edge) for edge in self.edges],
            "argnums": self.argnums,
            "sites": self.sites,
            "carried": self.carried,
            "whole": self.whole,
            "story": self.story and [_plain(label) for label in self.story],
            "level": self.level,
            "together": _plain(self.together),
            "semiring": self.semiring,
        }
        return json.dumps(page.finite(content))

    @classmethod
    def from_json(cls, text: str) -> Path:
        """Read the path that ``to_json`` wrote.

        Raises:
            ValueError: if the text is something else.
        """
        try:
            content = json.loads(text)
            tuples = {
                "shape": tuple,
                "iteration": tuple,
                "start": tuple,
                "around": tuple,
                "axes": tuple,
                "loops": tuple,
                "weight": float,
            }

            def typed(fields: dict[str, Any]) -> Any:
                return {key: tuples.get(key, lambda x: x)(x) for key, x in fields.items()}

            arrays = [Variable(**typed(array)) for array in content["arrays"]]
            nodes = tuple(Node(arrays[n], tuple(i), float(v)) for n, i, v in content["nodes"])
            edges = tuple(Edge(**typed(edge)) for edge in content["edges"])
            carried, whole = (
                None if content[name] is None else float(content[name])
                for name in ("carried", "whole")
            )
            begin = tuple(content["argnums"]), tuple(content["sites"])
            story = content.get("story")
            told = None if story is None else tuple(map(_hashable, story))
            level, semiring = content.get("level"), content.get("semiring", "")
            return cls(
                *(nodes, edges, *begin),
                carried=carried,
                whole=whole,
                story=told,
                level=None if level is None else tuple(level),
                together=_number(content.get("together")),
                semiring=semiring,
            )
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(f"This is no path that to_json wrote: {error}") from error

    def __reduce__(self) -> Any:
        return Path.from_json, (self.to_json(),)

    def to_networkx(self) -> Any:
        """Return a ``networkx.DiGraph`` with the fields of nodes and edges as attributes.

        The nodes are numbered along the path.

        Raises:
            ImportError: if networkx is not installed.
        """
        import networkx

        graph = networkx.DiGraph(weight=self.weight)
        for number, node in enumerate(self.nodes):
            graph.add_node(number, name=node.name, **node.to_dict())
        for number, edge in enumerate(self.edges):
            graph.add_edge(number, number + 1, **dataclasses.asdict(edge))
        return graph

    def __repr__(self) -> str:
        stages = [str(stage) for stage in self.collapse()]
        if len(stages) > 7:
            stages[3:-3] = ["…"]
        edges = f"{self.length} edge{'s' * (self.length != 1)}"
        amount = f"weight={self.weight_text}"
        if self.carried is not None:
            amount = f"carries {self.contribution_text}; {amount}"
        return f"Path({amount}, {edges}: {' → '.join(stages)})"

    def _repr_html_(self) -> str:
        return _table([self])


class Paths(list[Path]):
    """A list of paths that prints one per line, or says why there are none.

    Attributes:
        explanation: what was looked for.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x, y: jnp.exp(x) + (x - y) * y
        >>> paths = sj.top_paths(f, k=2)(0.0, 3.0)
        >>> [path.weight for path in paths]
        [3.0, 1.0]
        >>> print(sj.top_paths(lambda x: jnp.zeros(()))(1.0))
        []  # no path leads from the arguments to the output
    """

    def __init__(self, paths: Iterable[Path] = (), explanation: str = "") -> None:
        super().__init__(paths)
        self.explanation = explanation

    @overload
    def __getitem__(self, index: SupportsIndex) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> Paths: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Paths(found, self.explanation) if isinstance(index, slice) else found

    def tell(self, tokens: Sequence[str] | None = None, depth: int | None = None) -> str:
        """Return the paths in words, one per line, see ``Path.tell``.

        The last line says what several stories carry together, see ``total_text``.
        """
        lines = (path.tell(tokens, depth) for path in self)
        numbered = (f"{number}. {line}" for number, line in enumerate(lines, start=1))
        return "\n".join([*numbered, *filter(None, [self.total_text])])

    @property
    def total_text(self) -> str:
        """The sum of what several stories carry: ``"These 20 stories together: +0.8 of 1, 80%"``.

        Empty unless each is the sum of all its paths, see ``Path.adds_up``, and the whole is known.
        """
        if len(self) < 2 or not all(path.adds_up and path.whole is not None for path in self):
            return ""
        total = math.fsum(path.together for path in self)
        return f"These {len(self)} stories together: {_part_text(total, self[0].whole)}"

    def by_size(self) -> Paths:
        """Return the same stories, ordered by what all paths of each carry, the largest first.

        ``top_paths`` orders stories by their best path. A story that it did not find may carry more
        than one that it found: in many weak paths. The last line of ``tell`` says how much of the
        whole the stories found carry.

        Raises:
            ValueError: if there are paths without a sum or a mass of all paths of their story:
                without ``distinct=``, or with another ``semiring`` than ``SumProduct`` and
                ``AbsSumProduct``.
        """
        if not all(path.adds_up or path.is_mass for path in self):
            raise ValueError(
                "by_size orders stories by the sum or the mass of all paths of each: ask top_paths "
                "for distinct=… with semiring=SumProduct() or AbsSumProduct()."
            )
        ordered = sorted(self, key=lambda path: -abs(path.together))
        return Paths(ordered, self.explanation)

    def plot(self, tokens: Sequence[str] | None = None, **options: Any) -> Picture:
        """Draw the paths over the grid of layers and tokens.

        Stories are drawn with the sums of all their paths, if they were searched for with
        ``semiring=SumProduct()``; else by their best paths.

        Args:
            tokens: the tokens' texts; by default their numbers.
            **options: those of ``pictures.path_grid``; ``layers``, where modules have no numbers.

        Raises:
            TypeError, ValueError: as ``pictures.path_grid``.
        """
        from semijax.pictures import path_grid  # it knows paths

        return path_grid(self, tokens=tokens, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the paths to a file.

        Args:
            path: ends in ``.html``, one page that needs no other file; in ``.txt``, as ``tell``
                tells them; or in ``.json``, a list of what ``Path.from_json`` reads.

        Raises:
            ValueError: if it ends in something else.
        """
        formats = {
            ".html": lambda: page.document("Paths", self._html(len(self))),
            ".txt": lambda: self.tell() + "\n",
            ".json": lambda: f"[{', '.join(path.to_json() for path in self)}]",
        }
        page.save(path, formats)

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each path, best first.

        Its columns are ``weight``, ``contribution``, ``log_abs_weight``, ``length``, ``start`` and
        ``index``, the array and the element where it starts, ``modules``, and, where paths are the
        best of their story, ``story`` and ``together``.

        Raises:
            ImportError: if pandas is not installed.
        """
        import pandas

        rows = [
            {
                "weight": path.weight,
                "contribution": path.contribution,
                "log_abs_weight": path.log_abs_weight,
                "length": path.length,
                "start": path.nodes[0].variable,
                "index": path.nodes[0].index,
                "modules": tuple(stage.scope for stage in path.collapse() if stage.scope),
            }
            | ({} if path.story is None else {"story": path.story, "together": path.together})
            for path in self
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        if not self:
            return f"[]  # {self.explanation}" if self.explanation else "[]"
        texts = [path.tell() if path.together_text else repr(path) for path in self[:SHOWN]]
        shown = [f"{number}. {text}" for number, text in enumerate(texts, start=1)]
        return "\n".join([*shown, *self._more(SHOWN), *filter(None, [self.total_text])])

    def _repr_html_(self) -> str:
        return self._html(SHOWN)

    def _html(self, shown: int) -> str:
        if not self:
            return f"<p>{page.text(self.explanation)}</p>"
        lines = filter(None, [*self._more(shown), self.total_text])
        return _table(self[:shown]) + "".join(f"<p>{page.text(line)}</p>" for line in lines)

    def _more(self, shown: int) -> list[str]:
        return [f"… and {len(self) - shown} more"] if len(self) > shown else []


SHOWN = 20
"""The number of paths that are printed."""


def _part_text(part: float, whole: float | None) -> str:
    """Return a part of a whole, and its share: ``"+0.31 of 1.42, 22%"``."""
    if whole is None:
        return f"{part:+.4g}"
    if not whole:
        return f"{part:+.4g} of {whole:.4g}"
    share = part / whole
    text = f"{share:.0%}" if abs(share) >= 0.01 or not share else f"{100 * share:.1g}%"
    return f"{part:+.4g} of {whole:.4g}, {text}"


def _plain(content: Any) -> Any:
    """Return containers that JSON has as they are, and anything else as text."""
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(each) for each in content]
    if hasattr(content, "tolist"):
        return content.tolist()
    return content if content is None or isinstance(content, (str, int, float)) else str(content)


def _number(content: Any) -> Any:
    """Return a statistic as it was before ``page.finite`` replaced infinities and NaN by text."""
    if isinstance(content, dict):
        return {key: _number(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_number(each) for each in content]
    return float(content) if content in ("inf", "-inf", "nan") else content


def _hashable(label: Any) -> Any:
    return tuple(map(_hashable, label)) if isinstance(label, list) else label


def _is_bypassed(before: Stage, stage: Stage, after: Stage | None) -> bool:
    """Tell whether a path only goes around what is in a stage's module, and enters none of it."""
    inside = any(scope_names.is_within(s.scope, stage.scope) for s in (before, after) if s)
    return bool(stage.scope) and not inside and all(edge.around for edge in stage.edges)


def _told_names(stages: Story, start: str) -> list[tuple[str, list[Stage]]]:
    """Name the stages, the first one so; those that only go around modules are taken as one."""
    scopes = list(dict.fromkeys(stage.scope for stage in stages if stage.scope))
    short = scope_names.without_common(scopes) if len(scopes) > 1 else scopes
    name_of = dict(zip(scopes, short, strict=True))
    layers, layer = [*scope_names.numbered(short).values()], None
    bypassed = [False] + [
        _is_bypassed(before, stage, after) and bool(name_of[stage.scope])
        for before, stage, after in zip(stages, stages[1:], [*stages[2:], None], strict=False)
    ]
    found: list[tuple[str, list[Stage]]] = []
    pairs = zip(bypassed, stages, strict=True)
    for past, group in itertools.groupby(pairs, lambda pair: pair[0]):
        own = [stage for _, stage in group]
        if past and len(own) > 1:
            found.append((f"past {name_of[own[0].scope]} … {name_of[own[-1].scope]}", own))
            layer = None
            continue
        for stage in own:
            name = name_of[stage.scope] if stage.scope else "" if found else start
            of = next((each for each in layers if scope_names.is_within(name, each)), None)
            inner = name[len(of) + 1 :] if of and of == layer else ""
            layer = of
            text = f"past {name}" if past else (inner or name) + stage.skips_text
            found.append((text.strip(), [stage]))
    return found


def _token_text(token: int, tokens: Sequence[str] | None) -> str:
    if tokens is None:
        return f"token {token}"
    if token >= len(tokens):
        raise ValueError(f"tokens has {len(tokens)} texts, and a path passes token {token}.")
    text = str(tokens[token])
    again = sum(str(each) == text for each in tokens) > 1
    return f"{text!r} (token {token})" if again else repr(text)


def brackets(index: Index) -> str:
    """Return an index as it is written; nothing for that of a scalar."""
    return f"[{', '.join(map(str, index))}]" if index else ""


def _table(paths: Sequence[Path]) -> str:
    largest = max(path.log_abs_contribution for path in paths)
    carry = any(path.carried is not None for path in paths)
    stories = any(path.together_text for path in paths)

    def bar(path: Path) -> str:
        log, sign = path.log_abs_contribution, path.sign * (-1 if (path.carried or 1) < 0 else 1)
        return page.bar(math.exp(log - largest) if log > -math.inf else 0, sign)

    def amounts(path: Path) -> list[str]:
        texts = [path.contribution_text, path.weight_text] if carry else [path.weight_text]
        first, *rest = map(page.text, texts)
        whole = [page.text(path.together_text)] if stories else []
        return [*whole, first + bar(path), *rest]

    rows = [
        [
            page.text(number),
            *amounts(path),
            page.text(path.length),
            page.details(repr(path.collapse()), page.table(_HEADS, _steps(path))),
        ]
        for number, path in enumerate(paths, start=1)
    ]
    what = "contribution" if carry else "weight"
    caption = (
        f"Paths. Weight: the product of the edges'; the bar: |{what}| over the largest here, red "
        "if positive, blue if negative."
    )
    heads = ["contribution", "weight"] if carry else ["weight"]
    heads = ["all paths of the story", *heads] if stories else heads
    path = "best path" if stories else "path"
    return page.table(["", *heads, "edges", path], rows, caption)


_HEADS = ["node", "value", "weight", "scope", "line"]


def _steps(path: Path) -> list[list[str]]:
    return [
        [
            page.text(cell)
            for cell in (
                node.name,
                f"{node.value:.4g}",
                "" if edge is None else f"{edge.weight:.4g}",
                node.scope,
                tables.line_text(node.source),
            )
        ]
        for node, edge in zip(path.nodes, (None, *path.edges), strict=True)
    ]

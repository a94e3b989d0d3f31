"""All paths of a small function, by brute force: the oracle of the tests, and a teaching tool.

Nothing here is clever, and no rule is shared with the sweep that it checks. The program runs once
on concrete numbers (``unrolling``); each equation adds its edges, weighted with JAX's derivatives
of that equation alone (``edges``); here the paths are followed, all of them, from the inputs to the
outputs, and a semiring is folded over them as its definition says.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import elements as el
from semijax.semirings import Semiring, as_semiring
from semijax.testing.edges import Index
from semijax.testing.unrolling import Source, UnrolledGraph
from semijax.weighting import DERIVATIVE, Weighting, check_weighting


@dataclasses.dataclass(frozen=True)
class EnumeratedPath:
    """One path from an input element to an output element.

    Attributes:
        source: where it starts: the leaf of the arguments, as in ``"[0]['w']"``, and the index
            in that leaf.
        target: where it ends: the leaf of the output (``""`` if the output is one array), and the
            index in that leaf.
        weights: the local derivative of each edge.
        selected: for each edge, False where its derivative is 0 because something else was
            selected: by ``where``, by a maximum.
        nodes: where each edge leads: the name of the primitive that makes the node, and its index
            in that primitive's output.
        edges: the number of each edge in the graph.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> paths = sj.testing.enumerate_paths(lambda x: jnp.exp(x) + 3 * x, 0.0)
        >>> for path in paths:
        ...     print(path.source, path.primitives, path.weight)
        ('[0]', ()) ('exp', 'add') 1.0
        ('[0]', ()) ('mul', 'add') 3.0
    """

    source: tuple[str, Index]
    target: tuple[str, Index]
    weights: tuple[float, ...]
    selected: tuple[bool, ...]
    nodes: tuple[tuple[str, Index], ...]
    edges: tuple[int, ...]

    @property
    def weight(self) -> float:
        """The product of ``weights``; 1 where there are none, in an output that is an input.

        It is multiplied from the output on, as in backpropagation: an edge that was not selected
        turns what arrives from there to 0, be it infinite or NaN.
        """
        product = 1.0
        for weight, selected in zip(reversed(self.weights), reversed(self.selected), strict=True):
            product = product * weight if selected else 0.0
        return product

    @property
    def primitives(self) -> tuple[str, ...]:
        """The name of each edge's primitive."""
        return tuple(name for name, _ in self.nodes)

    @property
    def length(self) -> int:
        """The number of edges."""
        return len(self.edges)

    def __repr__(self) -> str:
        steps = [_show(*self.source)]
        for node, weight in zip(self.nodes, self.weights, strict=True):
            steps.append(f"{_show(*node)} ({weight:.4g})")
        target = _show("output" + self.target[0], self.target[1])
        ending = "" if target == "output" else f" = {target}"
        return f"{' → '.join(steps)}{ending}: {self.weight:.4g}"


class Paths(Sequence[EnumeratedPath]):
    """All paths of a function, ordered by input element, then by length. Immutable.

    Made by ``enumerate_paths``. A sequence of ``EnumeratedPath``, with the numbers also at hand as
    arrays: ``weights`` and ``fold``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> paths = sj.testing.enumerate_paths(lambda x: jnp.exp(x) + 3 * x, 0.0)
        >>> paths.weights(0)
        array([1., 3.])
        >>> print(paths.fold(sj.MaxProduct()))
        (Array(3., dtype=float32),)
    """

    def __init__(self, graph: UnrolledGraph, paths: Sequence[EnumeratedPath]) -> None:
        self._graph = graph
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> EnumeratedPath: ...
    @overload
    def __getitem__(self, index: slice) -> Paths: ...
    def __getitem__(self, index: int | slice) -> EnumeratedPath | Paths:
        found = self._paths[index]
        return found if isinstance(found, EnumeratedPath) else Paths(self._graph, found)

    def __repr__(self) -> str:
        shown = [f"  {path!r}" for path in self[:10]]
        if len(self) > 10:
            shown.append(f"  … and {len(self) - 10} more")
        return "\n".join([f"{len(self)} path{'s' * (len(self) != 1)}", *shown])

    def from_source(self, leaf: str | int, index: Index = ()) -> Paths:
        """Return the paths that start at one input element.

        Args:
            leaf: the leaf of the arguments, as in ``EnumeratedPath.source``: ``"[0]['w']"``. The
                number ``0`` is short for ``"[0]"``.
            index: the index of the element in the leaf; non-negative.

        Raises:
            KeyError: if the leaf or the element is not among the inputs.
        """
        name = f"[{leaf}]" if isinstance(leaf, int) else leaf
        shapes = {source.name: source.nodes.shape for source in self._graph.sources}
        if name not in shapes:
            raise KeyError(f"no input is called {name!r}; there are: {', '.join(shapes)}")
        if index not in np.ndindex(shapes[name]):
            raise KeyError(f"input {name} has shape {shapes[name]} and no element {index}")
        return Paths(self._graph, [path for path in self if path.source == (name, index)])

    def weights(self, leaf: str | int, index: Index = ()) -> np.ndarray:
        """Return the weights of the paths that start at one input element, as a float64 array.

        The arguments are those of ``from_source``.
        """
        return np.array([path.weight for path in self.from_source(leaf, index)], np.float64)

    def fold(self, semiring: Any) -> Any:
        """Compute ⊕ over the paths of each input element of ⊗ over the lifted edges of the path.

        This is the definition that a semiring gradient computes in one sweep. Where the output has
        several elements, the paths to all of them are combined.

        Args:
            semiring: a ``Semiring``, or a tuple, list or dict of semirings.

        Returns:
            The statistics, ``semiring.readout`` of an array of elements for each leaf, with the
            pytree structure of the differentiated arguments (``None`` in place of arrays that are
            not floating), in at least float32. For a container of semirings, a container of those.
        """
        if isinstance(semiring, (tuple, list, dict)):
            return jax.tree.map(self.fold, semiring, is_leaf=lambda s: isinstance(s, Semiring))
        semiring = as_semiring(semiring)
        graph = self._graph
        dtypes = [el.accumulation_dtype(source.dtype) for source in graph.sources]
        dtype = jnp.result_type(jnp.float32, *dtypes)
        lifted = _lift(graph, semiring, dtype)
        selected = np.append(graph.selected, True)
        longest = max((path.length for path in self), default=0)
        paths: dict[tuple[str, Index], list[EnumeratedPath]] = collections.defaultdict(list)
        for path in self:
            paths[path.source].append(path)

        def fold_source(source: Source) -> Any:
            parts = [semiring.zero((0,), dtype)]
            for index in np.ndindex(source.nodes.shape):
                # Sizes are rounded up to powers of two, so that few different ones are compiled.
                # The last edge is 1̄: what the −1 of the padding points at. From the output on.
                here = paths[source.name, index]
                edges = np.full((_power_of_two_above(longest), _power_of_two_above(len(here))), -1)
                for number, path in enumerate(here):
                    edges[: path.length, number] = path.edges[::-1]
                rows = edges, selected[edges]
                together = _combine(semiring, dtype, lifted, rows, len(here))
                carried = graph.carried.get(source.name)
                if carried is not None:
                    weights = jnp.full((1,), carried[index], semiring.dtype(together))
                    together = semiring.scale_selected(weights, weights != 0, together)
                parts.append(together)
            elements = el.map_leaves(lambda *leaves: jnp.asarray(np.concatenate(leaves)), *parts)
            return semiring.readout(el.reshape(elements, (source.nodes.size,), source.nodes.shape))

        return graph.like_arguments({source.name: fold_source(source) for source in graph.sources})


def enumerate_paths(
    fun: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    limit: int = 100_000,
    weighting: Weighting = DERIVATIVE,
) -> Paths:
    """List all paths of a function at a point, one by one.

    A node is one element of one array of the program ``jax.make_jaxpr(fun)(*args)``. An edge joins
    an element that an equation reads to an element that it makes; its weight is the local
    derivative. A path leads from an input element to an output element along the edges, and its
    weight is the product of theirs. The sum of the weights over the paths is the derivative (Bauer
    1974); other statistics of the same paths are what semirings compute (Du et al. 2023).

    The function of the paper's Figure 1, which has two paths from each of its inputs:

    >>> import jax.numpy as jnp
    >>> from semijax.testing import enumerate_paths
    >>> paths = enumerate_paths(lambda x, y: jnp.exp(x) + (x - y) * y, 0.0, 3.0)
    >>> paths
    4 paths
      [0] → exp (1) → add (1): 1
      [0] → sub (1) → mul (3) → add (1): 3
      [1] → mul (-3) → add (1): -3
      [1] → sub (-1) → mul (3) → add (1): -3
    >>> float(paths.weights(0).sum())  # the derivative with respect to x: eˣ + y
    4.0
    >>> float(paths.weights(0).max())  # the strongest path from x, through the product
    3.0
    >>> paths[1].primitives
    ('sub', 'mul', 'add')

    The program is taken as it is written: ``x * x`` has two edges from x, ``x ** 2`` one. Functions
    under ``jax.jit``, ``jax.checkpoint`` and the like are inlined; loops are unrolled; a ``cond``
    is the branch that was taken. A function with a custom derivative is one node, and so is one
    under ``semijax.atomic``; ``stop_gradient`` cuts. An edge of weight 0 is an edge (a dead ReLU,
    the loser of a maximum); between elements that don't depend on each other there is none (a
    slice, padding). Elements of a function that is one node are joined where a path inside it joins
    them: inside an atomic function as written, or inside what pulls cotangents back through a
    custom derivative. For a primitive that nothing is known about (linear algebra), a derivative of
    exactly 0 counts as no edge. There, and where a function that is one node mixes elements, an
    input that is not finite may make all of the equation's derivatives NaN; elsewhere it affects
    only the weights of its own edges.

    Args:
        fun: a function of arrays and pytrees of arrays that returns the same.
        *args: the point. Arrays of integers and booleans have no nodes.
        argnums: which arguments paths start from. All by default.
        limit: how many paths there may be.
        weighting: what the edges weigh, see ``semiring_grad``. Derivatives come from JAX, without
            any rule of this package; other weights, from the weighting itself.

    Returns:
        The paths, an immutable sequence of ``EnumeratedPath``.

    Raises:
        ValueError: if there are more than ``limit`` paths (they are counted before any is
            followed), or if an equation is too large for this.
        TypeError: if a path leads through complex numbers, or an argument in ``argnums`` is not
            floating.
    """
    graph = UnrolledGraph(fun, args, argnums, check_weighting(weighting))
    name = getattr(fun, "__name__", repr(fun))
    ways = _count_paths(graph)
    total = sum(ways[: graph.source_count])
    if total > limit:
        raise ValueError(
            f"{name} has {total} paths, more than limit={limit}. Enumeration is for small "
            "functions: make the arrays smaller, choose fewer inputs with argnums, raise the "
            "limit, or compute a statistic of the paths without following them, with "
            "semijax.semiring_grad."
        )
    return Paths(graph, _follow(graph, ways))


def _count_paths(graph: UnrolledGraph) -> list[int]:
    """Count the paths from each node to the outputs, as exact integers."""
    ways = [0] * len(graph.labels)
    for *_, node in graph.outputs:
        ways[node] += 1
    for tail, head in zip(graph.tails[::-1].tolist(), graph.heads[::-1].tolist(), strict=True):
        ways[tail] += ways[head]
    return ways


def _follow(graph: UnrolledGraph, ways: Sequence[int]) -> list[EnumeratedPath]:
    """Follow all paths from each source, an edge at a time, where an output lies ahead."""
    heads, weights = graph.heads.tolist(), graph.weights.tolist()
    selected = graph.selected.tolist()
    leaving: list[list[int]] = [[] for _ in ways]
    for edge, tail in enumerate(graph.tails.tolist()):
        if ways[heads[edge]]:
            leaving[tail].append(edge)
    targets: list[list[tuple[str, Index]]] = [[] for _ in ways]
    for name, index, node in graph.outputs:
        targets[node].append((name, index))

    found = []
    for source in range(graph.source_count):
        begun: list[tuple[int, tuple[int, ...]]] = [(source, ())]
        while begun:
            for node, edges in begun:
                steps = tuple(weights[edge] for edge in edges)
                kept = tuple(selected[edge] for edge in edges)
                nodes = tuple(graph.labels[heads[edge]] for edge in edges)
                for target in targets[node]:
                    path = EnumeratedPath(graph.labels[source], target, steps, kept, nodes, edges)
                    found.append(path)
            begun = [
                (heads[edge], (*edges, edge)) for node, edges in begun for edge in leaving[node]
            ]
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _combine(semiring: Semiring, dtype: Any, lifted: Any, rows: Any, count: Any) -> Any:
    """Compute ⊗ along each path, a column of ``rows``; then ⊕ of the first ``count`` paths.

    A row holds the numbers of edges, and whether they were selected.
    """
    edges, _ = rows
    dead = jnp.zeros(edges.shape[1:], dtype)
    zero = semiring.zero(edges.shape[1:], dtype)
    one = el.cast_like(semiring.one(edges.shape[1:], dtype), zero)

    def follow(products: Any, row: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        edge, selected = row
        factors = el.map_leaves(lambda leaf: leaf[edge], lifted)
        annihilated = semiring.scale_selected(dead, selected, products)
        products = el.where(selected, semiring.mul(products, factors), annihilated)
        return el.cast_like(products, zero), None

    def join(sums: Any, distance: jax.Array) -> tuple[Any, None]:
        others = el.map_leaves(lambda leaf: jnp.roll(leaf, -distance, 0), sums)
        return el.cast_like(semiring.add(sums, others), zero), None

    products, _ = lax.scan(follow, one, rows)
    products = el.where(jnp.arange(edges.shape[1]) < count, products, zero)
    # Each adds its neighbour, then the one at distance 2, 4, 8, …, around a circle.
    sums, _ = lax.scan(join, products, 1 << np.arange(edges.shape[1].bit_length() - 1))
    return el.map_leaves(lambda leaf: leaf[:1], sums)


def _lift(graph: UnrolledGraph, semiring: Semiring, dtype: Any) -> Any:
    """Return the elements of all edges, then 1̄; their number is a power of two."""
    edges = len(graph.weights)
    weights = np.ones(_power_of_two_above(edges))
    weights[:edges] = graph.weights
    lifted = semiring.one(weights.shape, dtype)
    at = [semiring.at(equation) for equation in graph.equations]
    for specialised in set(at):
        mask = np.zeros(weights.shape, bool)
        mask[:edges] = [at[number] == specialised for number in graph.equation_of]
        elements = el.cast_like(specialised.lift(jnp.asarray(weights, dtype)), lifted)
        lifted = el.where(jnp.asarray(mask), elements, lifted)
    return lifted


def _power_of_two_above(n: int) -> int:
    return 1 << n.bit_length()


def _show(name: str, index: Index) -> str:
    return f"{name}[{', '.join(map(str, index))}]" if index else name

"""All paths of a small function, by brute force: the oracle of the tests, and a teaching tool.

Nothing here is clever, and nothing is shared with the sweep that it checks. The program runs once
on concrete numbers; each equation adds its edges to one long list, weighted with JAX's own Jacobian
of that equation alone; then the paths are followed, all of them, from the inputs to the outputs.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import keystr, tree_flatten_with_path

from semijax import _compat
from semijax import elements as el
from semijax.semirings import Semiring, as_semiring

Index = tuple[int, ...]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAX_EDGES_PER_EQUATION = 2**24
"""Pairs of one equation's input and output elements above which the function is not small."""

CUSTOM_DERIVATIVE = _names("custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr")
"""Equations that are a function with a derivative of its author's: one node."""

ELEMENTWISE = _names(
    "abs acos acosh add add_any asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
    "convert_element_type copy copy_p cos cosh digamma div erf erf_inv erfc exp exp2 expm1 floor "
    "igamma igamma_grad_a igammac integer_pow lgamma log log1p logistic max min mul neg nextafter "
    "polygamma pow random_gamma_grad reduce_precision regularized_incomplete_beta rem round rsqrt "
    "select_n sign sin sinh sqrt square sub tan tanh zeta"
)
"""An output element depends on the input elements at its place, whatever their values."""

BILINEAR = _names("dot_general conv_general_dilated")
"""An output element is a sum of products; which factors meet does not depend on their values."""

FOLDS = _names(
    "reduce_max reduce_min reduce_prod reduce_sum cummax cummin cumprod cumsum cumlogsumexp "
    "reduce_window_max reduce_window_min reduce_window_sum "
    "scatter-mul scatter-min scatter-max"
)
"""An output element combines several input elements, the losers of a maximum among them."""


@dataclasses.dataclass(frozen=True, eq=False)
class EnumeratedEquation:
    """The equation an edge belongs to, as ``Semiring.at`` sees it.

    Attributes:
        primitive: the JAX primitive.
        params: its parameters.
        scope: the ``jax.named_scope`` path around it, ``""`` at the top.
        source: always ``""``; the enumeration does not look up source lines.
    """

    primitive: Any
    params: Mapping[str, Any]
    scope: str
    source: str = ""


@dataclasses.dataclass(frozen=True)
class EnumeratedPath:
    """One path from an input element to an output element.

    Attributes:
        source: where it starts: the leaf of the arguments, as in ``"[0]['w']"``, and the index
            in that leaf.
        target: where it ends: the leaf of the output (``""`` if the output is one array), and the
            index in that leaf.
        weight: the product of ``weights``; 1 where there are none, in an output that is an input.
        weights: the local derivative of each edge.
        nodes: where each edge leads: the name of the primitive that makes the node, and its index
            in that primitive's output.
    """

    source: tuple[str, Index]
    target: tuple[str, Index]
    weight: float
    weights: tuple[float, ...]
    nodes: tuple[tuple[str, Index], ...]

    @property
    def primitives(self) -> tuple[str, ...]:
        """The name of each edge's primitive."""
        return tuple(name for name, _ in self.nodes)

    @property
    def length(self) -> int:
        """The number of edges."""
        return len(self.weights)

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
    """

    def __init__(self, graph: _Graph, table: _Table) -> None:
        self._graph = graph
        self._table = table

    def __len__(self) -> int:
        return len(self._table.sources)

    @overload
    def __getitem__(self, index: int) -> EnumeratedPath: ...
    @overload
    def __getitem__(self, index: slice) -> Paths: ...
    def __getitem__(self, index: int | slice) -> EnumeratedPath | Paths:
        if isinstance(index, slice):
            return Paths(self._graph, self._table.rows(index))
        edges = self._table.edges[index]
        edges = edges[edges >= 0]
        weights = tuple(self._graph.weights[edges].tolist())
        return EnumeratedPath(
            source=self._graph.locate(int(self._table.sources[index])),
            target=self._graph.locate_output(int(self._table.targets[index])),
            weight=math.prod(weights),
            weights=weights,
            nodes=tuple(self._graph.locate(int(head)) for head in self._graph.heads[edges]),
        )

    def __repr__(self) -> str:
        shown = [f"  {path!r}" for path in self[:10]]
        if len(self) > 10:
            shown.append(f"  … and {len(self) - 10} more")
        return "\n".join([f"{len(self)} path{'s' * (len(self) != 1)}", *shown])

    def from_source(self, leaf: str | int, index: Index = ()) -> Paths:
        """The paths that start at one input element.

        Args:
            leaf: the leaf of the arguments, as in ``EnumeratedPath.source``: ``"[0]['w']"``. The
                number ``0`` is short for ``"[0]"``.
            index: the index of the element in the leaf; non-negative.

        Raises:
            KeyError: if the leaf or the element is not among the inputs.
        """
        node = self._graph.source_node(f"[{leaf}]" if isinstance(leaf, int) else leaf, index)
        return Paths(self._graph, self._table.rows(self._table.sources == node))

    def weights(self, leaf: str | int, index: Index = ()) -> np.ndarray:
        """The weights of the paths that start at one input element, as a float64 array.

        The arguments are those of ``from_source``.
        """
        return self.from_source(leaf, index)._weights()

    def fold(self, semiring: Any) -> Any:
        """⊕ over the paths of each input element of ⊗ over the lifted edges of the path.

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
        graph, table = self._graph, self._table
        dtype = jnp.result_type(jnp.float32, *[leaf.dtype for leaf in graph.sources])
        # All sizes are rounded up to powers of two, so that few different ones are compiled. The
        # last edge is 1̄ and the last path is 0̄: what the −1 of the padding points at.
        count, longest = len(self), table.edges.shape[1]
        edges = np.full((_power_of_two_above(longest), _power_of_two_above(count)), -1)
        edges[:longest, :count] = table.edges.T

        # Neighbours of the same input element are added, then neighbours at distance 2, 4, 8, …
        owner, begins, sizes = np.unique(table.sources, return_index=True, return_counts=True)
        place = np.arange(count) - np.repeat(begins, sizes)
        room = np.repeat(sizes, sizes) - place
        partners = np.full((edges.shape[1].bit_length(), edges.shape[1]), -1)
        for level, row in enumerate(partners):
            pairs = np.flatnonzero((place % (2 << level) == 0) & (room > 1 << level))
            row[pairs] = pairs + (1 << level)

        lifted = _lift(graph, semiring, dtype)
        products = _combine(
            semiring, dtype, lifted, edges, partners, np.arange(edges.shape[1]) < count
        )
        row = np.full(graph.source_count, -1)
        row[owner] = begins
        leaves = []
        for leaf in graph.sources:
            rows = row[leaf.first : leaf.first + math.prod(leaf.shape)].reshape(leaf.shape)
            elements = el.map_leaves(lambda x, rows=rows: jnp.asarray(x)[rows], products)
            leaves.append(semiring.readout(elements))
        return graph.unflatten(leaves)

    def _weights(self) -> np.ndarray:
        return np.append(self._graph.weights, 1.0)[self._table.edges].prod(axis=1)


def enumerate_paths(
    fun: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    limit: int = 100_000,
) -> Paths:
    """All paths of a function at a point, one by one.

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
    under ``jax.jit``, ``jax.checkpoint`` and the like are inlined; loops are unrolled; of a
    ``cond``, there is the branch that was taken. A function with a custom derivative is one node,
    and so is one under ``semijax.atomic``; ``stop_gradient`` cuts. An edge of weight 0 is an edge
    (a dead ReLU, the loser of a maximum); between elements that don't depend on each other there is
    none (a slice, padding). Where the two cannot be told apart (linear algebra, custom derivatives
    that mix elements), a derivative of exactly 0 counts as no edge.

    Args:
        fun: a function of arrays and pytrees of arrays that returns the same.
        *args: the point. Arrays of integers and booleans have no nodes.
        argnums: which arguments paths start from. All by default.
        limit: how many paths there may be.

    Returns:
        The paths, an immutable sequence of ``EnumeratedPath``.

    Raises:
        ValueError: if there are more than ``limit`` paths (they are counted before any is
            followed), or if an equation is too large for this.
        TypeError: if a path leads through complex numbers, or an argument in ``argnums`` is not
            floating.
    """
    graph = _Graph(fun, args, argnums)
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


class _Traced(NamedTuple):
    """A value of the running program, and the node of each of its elements (−1: a constant)."""

    value: Any
    nodes: np.ndarray


class _Leaf(NamedTuple):
    """An input array: its name and where its nodes begin."""

    name: str
    first: int
    shape: Index
    dtype: Any


class _Edges(NamedTuple):
    """The edges of one equation."""

    tails: np.ndarray
    heads: np.ndarray
    weights: np.ndarray
    equation: int


class _Graph:
    """The nodes and edges of a function at a point. Edges lead from smaller to larger numbers."""

    def __init__(self, fun: Callable[..., Any], args: tuple, argnums: Any) -> None:
        self.sources: list[_Leaf] = []
        self.equations: list[EnumeratedEquation] = []
        self._firsts: list[int] = []  # of each array that has nodes: the first node, …
        self._arrays: list[tuple[str, Index]] = []  # … what made it, and its shape
        self._size = 0
        self._bundles: list[_Edges] = []

        chosen = _chosen_arguments(args, argnums)
        leaves, self._structure = tree_flatten_with_path(args)
        inputs, self._is_source = [], []
        for path, leaf in leaves:
            value = jnp.asarray(leaf)
            floating = jnp.issubdtype(value.dtype, jnp.floating)
            if not floating and argnums is not None and path[0].idx in chosen:
                raise TypeError(
                    f"paths start from real floating point arrays; argument {keystr(path)} has "
                    f"dtype {value.dtype}"
                )
            if floating and path[0].idx in chosen:
                self.sources.append(_Leaf(keystr(path), self._size, value.shape, value.dtype))
                inputs.append(_Traced(value, self._new_nodes(keystr(path), value.shape)))
            else:
                inputs.append(_constant(value))
            self._is_source.append(floating and path[0].idx in chosen)
        self.source_count = self._size
        self._argnums = argnums

        closed, shapes = jax.make_jaxpr(fun, return_shape=True)(*args)
        outputs = self._run(closed, inputs, "")
        names = [keystr(path) for path, _ in tree_flatten_with_path(shapes)[0]]
        self._outputs = [
            (name, tuple(index), node)
            for name, output in zip(names, outputs, strict=True)
            for index, node in zip(
                np.ndindex(output.nodes.shape), output.nodes.ravel().tolist(), strict=True
            )
            if node >= 0
        ]
        self.output_nodes = np.array([node for *_, node in self._outputs], int)
        self.node_count = self._size
        bundles = self._bundles
        self.tails = np.concatenate([np.zeros(0, int), *(b.tails for b in bundles)])
        self.heads = np.concatenate([np.zeros(0, int), *(b.heads for b in bundles)])
        self.weights = np.concatenate([np.zeros(0), *(b.weights for b in bundles)])
        self.equation_of = np.concatenate(
            [np.zeros(0, int), *(np.full(len(b.tails), b.equation) for b in bundles)]
        )

    # What the nodes are called.

    def locate(self, node: int) -> tuple[str, Index]:
        """What made the node, and its index there."""
        array = bisect.bisect_right(self._firsts, node) - 1
        name, shape = self._arrays[array]
        index = np.unravel_index(node - self._firsts[array], shape) if shape else ()
        return name, tuple(int(i) for i in index)

    def locate_output(self, number: int) -> tuple[str, Index]:
        """The leaf and the index of one of the outputs."""
        name, index, _ = self._outputs[number]
        return name, index

    def source_node(self, name: str, index: Index) -> int:
        """The node of an input element."""
        for leaf in self.sources:
            if leaf.name == name:
                inside = len(index) == len(leaf.shape) and all(
                    0 <= i < n for i, n in zip(index, leaf.shape, strict=True)
                )
                if not inside:
                    raise KeyError(f"input {name} has shape {leaf.shape} and no element {index}")
                return leaf.first + (int(np.ravel_multi_index(index, leaf.shape)) if index else 0)
        names = ", ".join(leaf.name for leaf in self.sources)
        raise KeyError(f"no input is called {name!r}; there are: {names}")

    def unflatten(self, leaves: list[Any]) -> Any:
        """A list with an entry per input array, as the arguments it was asked for."""
        remaining = iter(leaves)
        everything = [next(remaining) if is_source else None for is_source in self._is_source]
        arguments = jax.tree.unflatten(self._structure, everything)
        if self._argnums is None:
            return arguments
        if isinstance(self._argnums, int):
            return arguments[self._argnums]
        return tuple(arguments[i] for i in self._argnums)

    # How the program runs.

    def _run(self, jaxpr: Any, inputs: Sequence[_Traced], scope: str) -> list[_Traced]:
        inner, constants = _compat.open_jaxpr(jaxpr)
        environment = dict(zip(inner.constvars, map(_constant, constants), strict=True))
        environment.update(zip(inner.invars, inputs, strict=True))

        def read(atom: Any) -> _Traced:
            return _literal(atom) if isinstance(atom, _compat.Literal) else environment[atom]

        for equation in inner.eqns:
            here = "/".join(s for s in (scope, str(equation.source_info.name_stack)) if s)
            outputs = self._step(equation, [read(atom) for atom in equation.invars], here)
            environment.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in inner.outvars]

    def _step(self, equation: Any, inputs: list[_Traced], scope: str) -> list[_Traced]:
        name = equation.primitive.name
        called = _compat.called_jaxpr(equation)
        if called is not None:
            return self._run(called, inputs, scope)
        if name == "cond":
            branches = equation.params["branches"]
            taken = min(max(int(inputs[0].value), 0), len(branches) - 1)
            return self._run(branches[taken], inputs[1:], scope)
        if name == "while":
            return self._while(equation.params, inputs, scope)
        if name == "scan":
            return self._scan(equation, inputs, scope)
        return self._node(equation, inputs, scope)

    def _while(self, params: Any, inputs: list[_Traced], scope: str) -> list[_Traced]:
        of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
        cond_constants = inputs[:of_cond]
        body_constants = inputs[of_cond : of_cond + of_body]
        carry = inputs[of_cond + of_body :]

        def goes_on() -> bool:
            known = [_constant(x.value) for x in (*cond_constants, *carry)]
            return bool(self._run(params["cond_jaxpr"], known, scope)[0].value)

        while goes_on():
            carry = self._run(params["body_jaxpr"], [*body_constants, *carry], scope)
        return carry

    def _scan(self, equation: Any, inputs: list[_Traced], scope: str) -> list[_Traced]:
        body, length = equation.params["jaxpr"], equation.params["length"]
        # What is stacked has one axis more outside of the body than inside; the carry has not.
        n_carry = sum(
            len(out.aval.shape) == len(aval.shape)
            for out, aval in zip(equation.outvars, body.out_avals, strict=True)
        )
        n_xs = sum(
            len(x.aval.shape) != len(aval.shape)
            for x, aval in zip(equation.invars, body.in_avals, strict=True)
        )
        n_constants = len(inputs) - n_carry - n_xs
        constants, carry = inputs[:n_constants], inputs[n_constants : n_constants + n_carry]
        xs = inputs[n_constants + n_carry :]
        rows: list[list[_Traced]] = [[] for _ in range(length)]
        for i in reversed(range(length)) if equation.params["reverse"] else range(length):
            row = [_Traced(x.value[i], x.nodes[i]) for x in xs]
            outputs = self._run(body, [*constants, *carry, *row], scope)
            carry, rows[i] = outputs[:n_carry], outputs[n_carry:]
        ys = [
            _Traced(jnp.stack([y.value for y in column]), np.stack([y.nodes for y in column]))
            for column in zip(*rows, strict=True)
        ]
        if length == 0:
            ys = [
                _constant(jnp.zeros(y.aval.shape, y.aval.dtype)) for y in equation.outvars[n_carry:]
            ]
        return [*carry, *ys]

    def _node(self, equation: Any, inputs: list[_Traced], scope: str) -> list[_Traced]:
        name = equation.primitive.name
        values = [x.value for x in inputs]
        results = _compat.bind(equation, *values)
        live = [p for p, x in enumerate(inputs) if (x.nodes >= 0).any()]
        if not live or name == "stop_gradient":
            return [_constant(value) for value in results]
        for value in results:
            if jnp.issubdtype(value.dtype, jnp.complexfloating):
                raise TypeError(
                    f"the equation {name!r} makes complex numbers of shape {value.shape}; paths "
                    "are enumerated through real arrays only. Put semijax.atomic around the part "
                    "of the function that is complex inside and real outside."
                )
        made = [k for k, value in enumerate(results) if jnp.issubdtype(value.dtype, jnp.floating)]
        for k in made:
            for p in live:
                pairs = results[k].size * inputs[p].nodes.size
                if pairs > MAX_EDGES_PER_EQUATION:
                    raise ValueError(
                        f"the equation {name!r} may have {pairs} edges, more than the "
                        f"{MAX_EDGES_PER_EQUATION} that are possible here. Enumeration is for "
                        "small functions: make the arrays smaller."
                    )
        jacobians = _jacobians(equation, values, live, made)
        structure = _structure(equation, values, live, made, jacobians)
        self.equations.append(EnumeratedEquation(equation.primitive, equation.params, scope))

        outputs = [_constant(value) for value in results]
        for k in made:
            shape = results[k].shape
            label = (
                equation.params["name"].removeprefix(_compat.ATOMIC)
                if _compat.is_atomic(equation)
                else name
            )
            nodes = self._new_nodes(label, shape).ravel()
            reached = np.zeros(nodes.shape, bool)
            for p in live:
                tails = inputs[p].nodes.ravel()
                o, i = np.nonzero(structure[k, p] & (tails >= 0))
                weights = jacobians[k, p][o, i]
                self._bundles.append(_Edges(tails[i], nodes[o], weights, len(self.equations) - 1))
                reached[o] = True
            outputs[k] = _Traced(results[k], np.where(reached, nodes, -1).reshape(shape))
        return outputs

    def _new_nodes(self, name: str, shape: Index) -> np.ndarray:
        size = math.prod(shape)
        nodes = np.arange(self._size, self._size + size).reshape(shape)
        if size:
            self._firsts.append(self._size)
            self._arrays.append((name, shape))
        self._size += size
        return nodes


# The local Jacobian of one equation: JAX's derivative, and which of its zeros are edges.


def _jacobians(
    equation: Any, values: Sequence[Any], live: Sequence[int], made: Sequence[int]
) -> dict[tuple[int, int], np.ndarray]:
    """∂(output k)/∂(input p) as a float64 matrix, for each k in ``made`` and p in ``live``."""

    def outputs(*variables: jax.Array) -> list[jax.Array]:
        inputs = list(values)
        for p, variable in zip(live, variables, strict=True):
            inputs[p] = variable
        results = _compat.bind(equation, *inputs)
        return [results[k] for k in made]

    argnums = tuple(range(len(live)))
    point = [values[p] for p in live]
    try:
        jacobian = jax.jacrev(outputs, argnums)(*point)
    except ValueError:  # a dynamic loop in an atomic function has a forward derivative only
        jacobian = jax.jacfwd(outputs, argnums)(*point)
    matrices = {}
    for k, row in zip(made, jacobian, strict=True):
        for p, block in zip(live, row, strict=True):
            size = np.size(values[p])
            rows = block.size // size if size else 0
            matrices[k, p] = np.asarray(block, np.float64).reshape(rows, size)
    return matrices


def _structure(
    equation: Any,
    values: Sequence[Any],
    live: Sequence[int],
    made: Sequence[int],
    jacobians: Mapping[tuple[int, int], np.ndarray],
) -> Mapping[tuple[int, int], np.ndarray]:
    """Which entries of the Jacobians are edges, as boolean matrices."""
    name = equation.primitive.name
    nonzero = {key: matrix != 0 for key, matrix in jacobians.items()}
    if name in ELEMENTWISE:
        shape = np.broadcast_shapes(*(np.shape(value) for value in values))
        return {(k, p): _aligned(np.shape(values[p]), shape) for k, p in nonzero}
    if name in BILINEAR:
        # The derivative by one factor is the other: all ones, it shows which ones meet.
        ones = [jnp.ones_like(value) for value in values]
        return {key: m != 0 for key, m in _jacobians(equation, ones, live, made).items()}
    if name in FOLDS:
        return {(k, p): nonzero[k, p] | _poisoned(equation, values, k, p) for k, p in nonzero}
    if name in CUSTOM_DERIVATIVE or _compat.is_atomic(equation):
        aligned = _elementwise_structure(equation, values, live, made)
        if aligned and not any((nonzero[key] & ~aligned[key]).any() for key in nonzero):
            return aligned
    return nonzero


def _aligned(input_shape: Index, output_shape: Index) -> np.ndarray:
    """The pairs (o, i) at the same place; an input's axes of size 1 are at every place."""
    size = math.prod(input_shape)
    place = np.arange(size).reshape(input_shape)
    return np.broadcast_to(place, output_shape).reshape(-1, 1) == np.arange(size)


def _poisoned(equation: Any, values: Sequence[Any], k: int, p: int) -> np.ndarray:
    """The pairs (o, i) where a NaN at input i is a NaN at output o; other numbers are 1."""
    ones = [jnp.ones_like(x) if _is_float(x) else x for x in values]
    shape, size = np.shape(ones[p]), np.size(ones[p])
    poisons = jnp.where(jnp.eye(size, dtype=bool).reshape(size, *shape), jnp.nan, ones[p])

    def output(poisoned: jax.Array) -> jax.Array:
        return _compat.bind(equation, *[*ones[:p], poisoned, *ones[p + 1 :]])[k]

    found = jnp.isnan(jax.vmap(output)(poisons.astype(ones[p].dtype)))
    return np.asarray(found).reshape(size, -1).T


def _elementwise_structure(
    equation: Any, values: Sequence[Any], live: Sequence[int], made: Sequence[int]
) -> dict[tuple[int, int], np.ndarray] | None:
    """The aligned pairs, if each output element depends on the input elements at its place only.

    To find out, all other elements are replaced by random numbers, one output element at a time.
    """
    results = _compat.bind(equation, *values)
    shape = results[made[0]].shape if made else ()
    floats = [p for p, value in enumerate(values) if _is_float(value)]
    same_rank = all(np.ndim(values[p]) in (0, len(shape)) for p in floats)
    broadcast = all(
        n in (1, m) for p in floats for n, m in zip(np.shape(values[p]), shape, strict=False)
    )
    if not (same_rank and broadcast and all(results[k].shape == shape for k in made)):
        return None
    aligned = {p: _aligned(np.shape(values[p]), shape) for p in floats}
    random = np.random.default_rng(0)
    for _ in range(3):
        for o in range(math.prod(shape)):
            changed = list(values)
            for p in floats:
                noise = jnp.asarray(random.uniform(-3, 3, np.shape(values[p])), values[p].dtype)
                changed[p] = jnp.where(aligned[p][o].reshape(noise.shape), values[p], noise)
            probed = _compat.bind(equation, *changed)
            for k in made:
                before, after = results[k].ravel()[o], probed[k].ravel()[o]
                if not jnp.array_equal(before, after, equal_nan=True):
                    return None
    return {(k, p): aligned[p] for k in made for p in live}


# The paths of the graph.


class _Table(NamedTuple):
    """A row per path: the node it starts from, the output it ends in, its edges, then −1."""

    sources: np.ndarray
    targets: np.ndarray
    edges: np.ndarray

    def rows(self, selection: Any) -> _Table:
        return _Table(*(column[selection] for column in self))


def _count_paths(graph: _Graph) -> list[int]:
    """For each node, the number of paths from it to the outputs, as exact integers."""
    ways = [0] * graph.node_count
    for node in graph.output_nodes.tolist():
        ways[node] += 1
    order = np.argsort(-graph.heads, kind="stable")
    tails, heads = graph.tails[order].tolist(), graph.heads[order].tolist()
    for tail, head in zip(tails, heads, strict=True):
        ways[tail] += ways[head]
    return ways


def _follow(graph: _Graph, ways: Sequence[int]) -> _Table:
    """Follow all paths at once, an edge at a time."""
    leads_on = np.array([n > 0 for n in ways], bool)
    useful = np.flatnonzero(leads_on[graph.heads])
    useful = useful[np.argsort(graph.tails[useful], kind="stable")]
    edge_fan = _Fan(graph.tails[useful], useful, graph.node_count)
    outputs = np.argsort(graph.output_nodes, kind="stable")
    output_fan = _Fan(graph.output_nodes[outputs], outputs, graph.node_count)

    nodes = starts = np.flatnonzero(leads_on[: graph.source_count])
    history: list[tuple[np.ndarray, np.ndarray]] = []  # of each edge: the row before it, the edge
    finished = []
    while nodes.size:
        rows, targets = output_fan(nodes)
        edges = np.full((len(rows), len(history)), -1)
        for column in reversed(range(len(history))):
            parents, taken = history[column]
            edges[:, column], rows = taken[rows], parents[rows]
        finished.append(_Table(starts[rows], targets, edges))
        parents, taken = edge_fan(nodes)
        history.append((parents, taken))
        nodes = graph.heads[taken]

    longest = max((t.edges.shape[1] for t in finished if len(t.sources)), default=0)
    padded = [
        np.pad(t.edges, ((0, 0), (0, longest - t.edges.shape[1])), constant_values=-1)
        for t in finished
        if len(t.sources)
    ]
    empty = np.zeros(0, int)
    table = _Table(
        np.concatenate([empty, *(t.sources for t in finished)]),
        np.concatenate([empty, *(t.targets for t in finished)]),
        np.concatenate([np.zeros((0, longest), int), *padded]),
    )
    return table.rows(np.argsort(table.sources, kind="stable"))


class _Fan:
    """What leaves each node: edges, or outputs."""

    def __init__(self, nodes: np.ndarray, items: np.ndarray, node_count: int) -> None:
        """``nodes`` is sorted; ``items[j]`` leaves ``nodes[j]``."""
        self._items = items
        self._count = np.bincount(nodes, minlength=node_count)
        self._first = np.cumsum(self._count) - self._count

    def __call__(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For all that leaves the given nodes: which of them it leaves, and what it is."""
        count = self._count[nodes]
        rows = np.repeat(np.arange(len(nodes)), count)
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return rows, self._items[self._first[nodes][rows] + within]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _combine(
    semiring: Semiring, dtype: Any, lifted: Any, edges: Any, partners: Any, is_path: Any
) -> Any:
    """⊗ along each path, then ⊕ of each path and its partner, level by level."""
    zero = semiring.zero(is_path.shape, dtype)
    one = el.cast_like(semiring.one(is_path.shape, dtype), zero)

    def follow(products: Any, column: jax.Array) -> tuple[Any, None]:
        factor = el.map_leaves(lambda leaf: leaf[column], lifted)
        return el.cast_like(semiring.mul(products, factor), zero), None

    def join(products: Any, partner: jax.Array) -> tuple[Any, None]:
        other = el.map_leaves(lambda leaf: leaf[partner], products)
        return el.cast_like(semiring.add(products, other), zero), None

    products, _ = lax.scan(follow, one, edges)
    products, _ = lax.scan(join, el.where(is_path, products, zero), partners)
    return products


def _lift(graph: _Graph, semiring: Semiring, dtype: Any) -> Any:
    """The elements of all edges, then 1̄; their number is a power of two."""
    count = _power_of_two_above(len(graph.weights))
    weights = np.ones(count)
    weights[: len(graph.weights)] = graph.weights
    lifts: dict[Semiring, list[int]] = {}
    for number, equation in enumerate(graph.equations):
        lifts.setdefault(semiring.at(equation), []).append(number)
    lifted = semiring.one((count,), dtype)
    for at_equation, numbers in lifts.items():
        mask = np.zeros(count, bool)
        mask[: len(graph.weights)] = np.isin(graph.equation_of, numbers)
        edges = el.cast_like(at_equation.lift(jnp.asarray(weights, dtype)), lifted)
        lifted = el.where(jnp.asarray(mask), edges, lifted)
    return lifted


# Small helpers.


def _constant(value: Any) -> _Traced:
    return _Traced(value, np.full(np.shape(value), -1))


def _literal(atom: Any) -> _Traced:
    return _constant(np.asarray(atom.val, atom.aval.dtype))


def _is_float(value: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)


def _chosen_arguments(args: tuple, argnums: int | Sequence[int] | None) -> set[int]:
    if argnums is None:
        return set(range(len(args)))
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise ValueError(f"argnums={argnums} is out of range for {len(args)} arguments")
    return {number % len(args) for number in numbers}


def _power_of_two_above(n: int) -> int:
    return 1 << n.bit_length()


def _show(name: str, index: Index) -> str:
    return f"{name}[{', '.join(map(str, index))}]" if index else name

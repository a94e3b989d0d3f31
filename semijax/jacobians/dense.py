"""The exact rule for whatever JAX can differentiate: a Jacobian computed in blocks of rows."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import checks
from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians.base import LocalJacobian, accumulated
from semijax.jacobians.diagonal import Diagonal
from semijax.jacobians.edges import NO_EDGES, Edges, joined
from semijax.jacobians.line import Line
from semijax.jacobians.pullback import Derivative, Pullback
from semijax.semirings.base import Semiring
from semijax.semirings.blocks import BLOCK_BYTES
from semijax.semirings.real import SumProduct
from semijax.trace import compat
from semijax.trace.graph import Equation

_BUDGET = contextvars.ContextVar("dense_budget", default=2**36)


@contextlib.contextmanager
def dense_budget(size: int) -> Iterator[None]:
    """Allow, within this context, dense local Jacobians of up to ``size`` bytes each.

    A dense Jacobian is never held as a whole but computed in blocks of 16 MiB; its size says
    how long that takes. The default, 64 GiB, takes on the order of a minute.

    Args:
        size: bytes, at the precision of the primal values; an integer of at least 1.

    Raises:
        ValueError: if it is not.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> spectrum = lambda x: jnp.abs(jnp.fft.rfft(x)).sum()
        >>> with sj.dense_budget(2**40):
        ...     g = sj.semiring_grad(spectrum, sj.Entropy())(jnp.ones(8))
    """
    token = _BUDGET.set(checks.check_positive("size", size))
    try:
        yield
    finally:
        _BUDGET.reset(token)


@dataclasses.dataclass(frozen=True)
class Dense(LocalJacobian):
    """A Jacobian in which every output of a batch element may read all of its inputs.

    Attributes:
        derivative: that of the output with respect to the input.
        in_batch, out_batch: the axes of each side that are carried along, in the same order.
        present: mask of shape [outputs, inputs] within a batch element of the edges that are there
            whatever they weigh; by default those that JAX's derivative connects.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.fft.rfft(x).real[1]  # no rule of its own
        >>> [(row.kind, row.edges) for row in sj.explain(f)(jnp.ones(4)) if row.primitive == "fft"]
        [('Dense', 24)]
    """

    derivative: Derivative
    in_batch: tuple[int, ...]
    out_batch: tuple[int, ...]
    present: jax.Array | None = None

    kind: ClassVar[str] = "Dense"

    def __post_init__(self) -> None:
        size = self.edges * self.derivative.x.dtype.itemsize
        if size > _BUDGET.get():
            equation = self.derivative.equation
            raise ValueError(
                f"The dense local Jacobian of primitive '{equation.name}' from shape "
                f"{self.in_shape} to {self.out_shape} has {size:,} bytes, more than the budget of "
                f"{_BUDGET.get():,}; {equation.where()}. Either give the primitive a "
                "structured one with semijax.register_jacobian, or allow more with "
                "semijax.dense_budget(bytes)."
            )

    @property
    def in_shape(self) -> Shape:
        """The input's shape."""
        return self.derivative.x.shape

    @property
    def out_shape(self) -> Shape:
        """The output's shape."""
        return self.derivative.out.shape

    @property
    def edges(self) -> int:
        batch = el.size([self.in_shape[a] for a in self.in_batch])
        return el.size(self.in_shape) * el.size(self.out_shape) // max(1, batch)

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        g = _matrix(cotangent, self.out_shape, self.out_batch)
        pulled = self._collect(semiring, g) if self._by_rows() else self._spread(semiring, g)
        return _unmatrix(pulled, self.in_shape, self.in_batch)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        t = _matrix(tangent, self.in_shape, self.in_batch)
        pushed = self._spread(semiring, t) if self._by_rows() else self._collect(semiring, t)
        return _unmatrix(pushed, self.out_shape, self.out_batch)

    def leaving(self, index: np.ndarray) -> Edges:
        sides = (self.in_shape, self.in_batch), (self.out_shape, self.out_batch)
        return self._edges(index, *sides, are_lines=not self._by_rows())

    def entering(self, index: np.ndarray) -> Edges:
        sides = (self.out_shape, self.out_batch), (self.in_shape, self.in_batch)
        return self._edges(index, *sides, are_lines=self._by_rows())

    def _edges(self, index: np.ndarray, here: Any, there: Any, *, are_lines: bool) -> Edges:
        nodes, others = (_matrix(np.arange(el.size(s[0])).reshape(s[0]), *s) for s in (here, there))
        batch, node = np.divmod(np.argsort(nodes.ravel())[index], max(1, nodes.shape[1]))
        lines = np.unique(node) if are_lines else np.arange(self._sizes()[0])
        block = self._block(SumProduct())
        parts = [NO_EDGES]
        for start in range(0, len(lines), block):
            asked = lines[start : start + block]
            weights, present = (np.asarray(x) for x in self._lines(jnp.asarray(asked))[:2])
            if are_lines:
                mine = np.flatnonzero(np.isin(node, asked))
                at = np.searchsorted(asked, node[mine]), batch[mine]
                owner, other = np.nonzero(present[at])
                weight, owner = weights[at][owner, other], mine[owner]
            else:
                other, owner = np.nonzero(present[:, batch, node])
                weight, other = weights[:, batch, node][other, owner], other + start
            parts.append(Edges(owner, others[batch[owner], other], weight.astype(np.float64)))
        return joined(parts)

    # The Jacobian of one batch element is computed line by line: its rows, one per output, by
    # vector-Jacobian products, or its columns, one per input, by Jacobian-vector products.

    def _collect(self, semiring: Semiring, elements: Elements) -> Elements:
        """Map [batch, lines] to [batch, others] by ⊕ over the lines."""
        lines, others, batch = self._sizes()
        block = self._block(semiring)
        zero = semiring.zero((batch, others), semiring.dtype(elements))

        def step(total: Elements, start: Any) -> tuple[Elements, None]:
            index = start + jnp.arange(block)
            g = el.take(el.transpose(elements, (1, 0)), jnp.minimum(index, lines - 1))
            terms = self._terms(semiring, index, g, (0, 1))
            return el.cast_like(semiring.add(total, semiring.sum(terms, (0,))), zero), None

        return self._over_blocks(block, step, zero)[0]

    def _spread(self, semiring: Semiring, elements: Elements) -> Elements:
        """Map [batch, others] to [batch, lines] by ⊕ over the others, line by line."""
        lines, _, batch = self._sizes()
        block = self._block(semiring)

        def step(carry: None, start: Any) -> tuple[None, Elements]:
            terms = self._terms(semiring, start + jnp.arange(block), elements, (1, 2))
            return carry, semiring.sum(terms, (2,))

        _, blocks = self._over_blocks(block, step, None)
        n = jax.tree.leaves(blocks)[0].shape[:2]
        stacked = el.reshape(blocks, (*n, batch), (n[0] * n[1], batch))
        return el.transpose(el.map_leaves(lambda leaf: leaf[:lines], stacked), (1, 0))

    def _terms(
        self, semiring: Semiring, index: jax.Array, elements: Elements, dimensions: tuple[int, ...]
    ) -> Elements:
        """Return these lines' edges, [block, batch, others], each ⊗ the elements at one end."""
        tells_zero = not semiring.zero_weight_is_no_path
        weights, present, selected = self._lines(index, tells_zero)
        elements = el.broadcast_in_dim(elements, weights.shape, dimensions)
        if selected is None:
            terms = semiring.scale(weights, elements)
        else:
            terms = semiring.scale_selected(weights, selected, elements)
        return el.where(present, terms, semiring.zero(weights.shape, weights.dtype))

    def _lines(self, index: jax.Array, tells_zero: bool = True) -> Lines:
        """Compute the edges of these lines; past the last there are none."""
        if self._by_rows():
            near, far = self.derivative.out, self.derivative.x
            near_batch, far_batch, along = self.out_batch, self.in_batch, self.derivative.pull
        else:
            near, far = self.derivative.x, self.derivative.out
            near_batch, far_batch, along = self.in_batch, self.out_batch, self.derivative.push

        def lines_of(function: Any, starts: jax.Array) -> jax.Array:
            found = _each(function, starts)
            return jax.vmap(lambda line: _matrix(line, far.shape, far_batch))(found)

        basis = self._basis(index, near, near_batch)
        weights = accumulated(lines_of(along, basis))
        selected = None
        if tells_zero and self.derivative.selects:
            selected = lines_of(along, jnp.where(basis > 0, jnp.nan, basis)) != 0
            selected |= weights != 0  # a rule may handle NaN
        if self.present is not None:
            mask = self.present if self._by_rows() else self.present.T
            mask = mask.at[index].get(mode="fill", fill_value=False)
            return Lines(weights, jnp.broadcast_to(mask[:, None], weights.shape), selected)
        if tells_zero:
            connected = self.derivative.connections(of_outputs=self._by_rows())
            if connected is not None:
                return Lines(weights, lines_of(connected, basis > 0), selected)
        return Lines(weights, weights != 0, None)

    def _basis(self, index: jax.Array, like: Any, batch: tuple[int, ...]) -> jax.Array:
        """Return an array like ``like`` per line: in each batch element 1 at the line, else 0."""
        sizes = _matrix_shape(like.shape, batch)
        hot = jax.nn.one_hot(index, sizes[1], dtype=like.dtype)
        return jax.vmap(lambda row: _unmatrix(jnp.broadcast_to(row, sizes), like.shape, batch))(hot)

    def _by_rows(self) -> bool:
        return self._is_by_rows

    @functools.cached_property
    def _is_by_rows(self) -> bool:
        rows = _matrix_shape(self.out_shape, self.out_batch)[1]
        columns = _matrix_shape(self.in_shape, self.in_batch)[1]
        if rows <= columns:
            return True
        try:
            jax.eval_shape(self.derivative.push, self.derivative.x)
        except Exception:  # some loops and callbacks, for instance, have no transpose
            return True
        return False

    def _sizes(self) -> tuple[int, int, int]:
        batch, rows = _matrix_shape(self.out_shape, self.out_batch)
        _, columns = _matrix_shape(self.in_shape, self.in_batch)
        return (rows, columns, batch) if self._by_rows() else (columns, rows, batch)

    def _block(self, semiring: Semiring) -> int:
        lines, others, batch = self._sizes()
        line = max(1, others * batch) * semiring.bytes_per_element(jnp.float32)
        return max(1, min(lines, BLOCK_BYTES // line))

    def _over_blocks(self, block: int, step: Any, state: Any) -> tuple[Any, Any]:
        starts = jnp.arange(0, self._sizes()[0], block)
        if len(starts) == 1:
            state, out = step(state, 0)
            return state, el.map_leaves(lambda leaf: leaf[None], out)
        return lax.scan(step, state, starts)


class Lines(NamedTuple):
    """Some rows, or columns, of a Jacobian: arrays of shape [lines, batch, others].

    Attributes:
        weights: those of the edges.
        present: mask of the edges that are there.
        selected: mask of the edges that are not 0 because of a selection; None for all.
    """

    weights: jax.Array
    present: jax.Array
    selected: jax.Array | None


def _each(function: Any, lines: jax.Array) -> jax.Array:
    """Map a function over these lines: all at once, or one by one if it cannot be batched."""
    try:
        return jax.vmap(function)(lines)
    except Exception:  # whatever JAX raises where there is no batching rule
        return lax.map(function, lines)


def dense_jacobian(
    equation: Equation, *values: Any, line: Line | None = None
) -> dict[tuple[int, int], LocalJacobian]:
    """Compute ∂o/∂i by JAX's own derivative, for every input and output that it connects.

    If a line is given, one that ends at the values, ∂o/∂i is averaged along it.

    A function that turns out to work element by element gets its diagonal, zeros included.

    Raises:
        NotImplementedError: where JAX has no derivative, or one that is not linear; where the
            function has side effects, or exchanges anything with other members of an axis that is
            mapped outside.
        ValueError: where the Jacobian is larger than ``dense_budget`` allows.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> from semijax.trace.graph import trace
        >>> x = jnp.arange(3.0)
        >>> graph, _ = trace(jnp.sin, x)
        >>> table = sj.jacobians.dense_jacobian(graph.equations[0], x)
        >>> {ends: jacobian.kind for ends, jacobian in table.items()}  # it works element by element
        {(0, 0): 'Diagonal'}
    """
    pullback = Pullback(equation, values, line)
    _check_can_repeat(equation, pullback.program)
    return {
        pair: _dense_or_diagonal(Dense(derivative, *derivative.batch_axes()))
        for pair, derivative in pullback.derivatives().items()
    }


def _check_can_repeat(equation: Equation, pullback: Any) -> None:
    """Refuse a function whose edges cannot be found by running it repeatedly, by itself."""
    if equation.has_effects:
        raise NotImplementedError(
            f"'{equation.name}' is one equation, whose derivative is computed by running it many "
            f"times, and it has side effects; {equation.where()}. Leave them out, or do without "
            "the custom derivative or semijax.atomic."
        )
    if exchanged := dict(compat.collectives(pullback)):
        raise NotImplementedError(
            f"'{equation.name}' is one equation, and exchanges data with other members of an axis "
            f"that is mapped outside (by {', '.join(exchanged)}): its Jacobian within one member "
            f"is not all of it; {equation.where()}. Map the axis inside of the function that is "
            "differentiated, or do without the custom derivative or semijax.atomic."
        )


def _dense_or_diagonal(jacobian: Dense) -> LocalJacobian:
    shape, derivative = jacobian.in_shape, jacobian.derivative
    elementwise = tuple(range(len(shape)))
    if not (jacobian.out_shape == shape and jacobian.in_batch == jacobian.out_batch == elementwise):
        return jacobian
    weights, selected = derivative.diagonal(), None
    if derivative.selects:
        nothing = jnp.full(shape, jnp.nan, derivative.out.dtype)
        selected = (weights != 0) | (derivative.pull(nothing) != 0)
    return Diagonal(weights, shape, shape, selected=selected)


def _matrix_shape(shape: Shape, batch: tuple[int, ...]) -> tuple[int, int]:
    carried = el.size([shape[a] for a in batch])
    return carried, el.size([n for a, n in enumerate(shape) if a not in batch])


def _matrix(elements: Elements, shape: Shape, batch: tuple[int, ...]) -> Elements:
    """Reshape to [batch, others]."""
    order = _order(shape, batch)
    moved = el.transpose(elements, order)
    return el.reshape(moved, tuple(shape[a] for a in order), _matrix_shape(shape, batch))


def _unmatrix(elements: Elements, shape: Shape, batch: tuple[int, ...]) -> Elements:
    """Reshape from [batch, others]."""
    order = _order(shape, batch)
    moved = el.reshape(elements, _matrix_shape(shape, batch), tuple(shape[a] for a in order))
    return el.transpose(moved, tuple(np.argsort(order)))


def _order(shape: Shape, batch: tuple[int, ...]) -> tuple[int, ...]:
    return (*batch, *(a for a in range(len(shape)) if a not in batch))

"""The exact rule for whatever JAX can differentiate: a Jacobian computed in blocks of rows."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians.axis_labels import batch_axes, called
from semijax.jacobians.base import LocalJacobian, accumulated, declare, no_derivative
from semijax.jacobians.complex import as_complex, as_real, is_complex
from semijax.jacobians.diagonal import Diagonal
from semijax.jacobians.edges import NO_EDGES, Edges, joined
from semijax.semirings.base import Semiring
from semijax.semirings.blocks import BLOCK_BYTES
from semijax.semirings.real import SumProduct
from semijax.trace.graph import Equation

_BUDGET = contextvars.ContextVar("dense_budget", default=2**36)


@contextlib.contextmanager
def dense_budget(size: int) -> Iterator[None]:
    """Within this context, allow dense local Jacobians of up to ``size`` bytes each.

    A dense Jacobian is never held as a whole, it is computed in blocks of 16 MiB; its size says
    how long that takes. The default, 64 GiB, is of the order of a minute.

    Args:
        size: bytes, at the precision of the primal values.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> spectrum = lambda x: jnp.abs(jnp.fft.rfft(x)).sum()
        >>> with sj.dense_budget(2**40):
        ...     g = sj.semiring_grad(spectrum, sj.Entropy())(jnp.ones(8))
    """
    token = _BUDGET.set(size)
    try:
        yield
    finally:
        _BUDGET.reset(token)


class Function:
    """One output of an equation as a function of one input, both in real numbers.

    All inputs that paths come through are differentiated together, as JAX would: some of its rules
    do not know how to do with less.

    Attributes:
        equation: the equation.
        x: the input's primal value.
        out: the output's shape and dtype.
    """

    def __init__(self, equation: Equation, values: Sequence[Any], i: int, o: int) -> None:
        self.equation = equation
        self._at = equation.wrt.index(i)
        self._primals = [as_real(jnp.asarray(values[j])) for j in equation.wrt]

        def call(*primals: jax.Array) -> jax.Array:
            full = list(values)
            for j, primal in zip(equation.wrt, primals, strict=True):
                full[j] = as_complex(primal) if is_complex(equation.inputs[j]) else primal
            return as_real(equation.bind(*full)[o])

        self._call = call
        self._x64 = jax.dtypes.canonicalize_dtype(jnp.float64) == jnp.float64
        self.x = self._primals[self._at]
        self.out = jax.eval_shape(call, *self._primals)

    def pullback(self, x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The output, and the vector-Jacobian product."""
        primals = [*self._primals]
        primals[self._at] = x
        with jax.enable_x64(self._x64):  # as its author's rules were meant to run
            out, pull = jax.vjp(self._call, *primals)
            return out, pull(cotangent)[self._at]

    def pushforward(self, tangent: jax.Array) -> jax.Array:
        """The Jacobian-vector product."""
        tangents = [jnp.zeros_like(primal) for primal in self._primals]
        tangents[self._at] = tangent
        with jax.enable_x64(self._x64):
            return jax.jvp(self._call, tuple(self._primals), tuple(tangents))[1]


@dataclasses.dataclass(frozen=True)
class Dense(LocalJacobian):
    """Every output of a batch element may read every input of it; an exact 0 is no edge.

    Attributes:
        function: from the input to the output.
        in_batch, out_batch: the axes of each side that are carried along, in the same order.
        present: mask of shape [outputs, inputs] within a batch element of the edges that are there
            whatever they weigh; by default those that do not weigh 0.
    """

    function: Function
    in_batch: tuple[int, ...]
    out_batch: tuple[int, ...]
    present: jax.Array | None = None

    kind: ClassVar[str] = "Dense"

    def __post_init__(self) -> None:
        size = self.edges * self.function.x.dtype.itemsize
        if size > _BUDGET.get():
            raise ValueError(
                f"The dense local Jacobian of primitive '{self.function.equation.name}' from shape "
                f"{self.in_shape} to {self.out_shape} has {size:,} bytes, more than the budget of "
                f"{_BUDGET.get():,}; {self.function.equation.where()}. Either give the primitive a "
                "structured one with semijax.register_jacobian, or allow more with "
                "semijax.dense_budget(bytes)."
            )

    @property
    def in_shape(self) -> Shape:
        """The input's shape."""
        return self.function.x.shape

    @property
    def out_shape(self) -> Shape:
        """The output's shape."""
        return self.function.out.shape

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
            weights, present = (np.asarray(x) for x in self._lines(jnp.asarray(asked)))
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
        """From [batch, lines] to [batch, others]: ⊕ over the lines."""
        lines, others, batch = self._sizes()
        block = self._block(semiring)
        zero = semiring.zero((batch, others), semiring.dtype(elements))

        def step(total: Elements, start: Any) -> tuple[Elements, None]:
            index = start + jnp.arange(block)
            weights, present = self._lines(index)
            g = el.take(el.transpose(elements, (1, 0)), jnp.minimum(index, lines - 1))
            terms = self._terms(semiring, weights, present, g, (0, 1))
            return el.cast_like(semiring.add(total, semiring.sum(terms, (0,))), zero), None

        return self._over_blocks(block, step, zero)[0]

    def _spread(self, semiring: Semiring, elements: Elements) -> Elements:
        """From [batch, others] to [batch, lines]: ⊕ over the others, line by line."""
        lines, _, batch = self._sizes()
        block = self._block(semiring)

        def step(carry: None, start: Any) -> tuple[None, Elements]:
            weights, present = self._lines(start + jnp.arange(block))
            terms = self._terms(semiring, weights, present, elements, (1, 2))
            return carry, semiring.sum(terms, (2,))

        _, blocks = self._over_blocks(block, step, None)
        n = jax.tree.leaves(blocks)[0].shape[:2]
        stacked = el.reshape(blocks, (*n, batch), (n[0] * n[1], batch))
        return el.transpose(el.map_leaves(lambda leaf: leaf[:lines], stacked), (1, 0))

    def _terms(
        self,
        semiring: Semiring,
        weights: jax.Array,
        present: jax.Array,
        elements: Elements,
        dimensions: tuple[int, ...],
    ) -> Elements:
        terms = semiring.scale(weights, el.broadcast_in_dim(elements, weights.shape, dimensions))
        return el.where(present, terms, semiring.zero(weights.shape, weights.dtype))

    def _lines(self, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Weights and presence of these lines, both [block, batch, others]; none past the last."""
        if self._by_rows():
            basis = self._basis(index, self.function.out, self.out_batch)
            found = jax.vmap(lambda row: self.function.pullback(self.function.x, row)[1])(basis)
            shape, batch = self.in_shape, self.in_batch
        else:
            basis = self._basis(index, self.function.x, self.in_batch)
            found = jax.vmap(self.function.pushforward)(basis)
            shape, batch = self.out_shape, self.out_batch
        weights = jax.vmap(lambda line: _matrix(line, shape, batch))(accumulated(found))
        if self.present is None:
            return weights, weights != 0
        mask = self.present if self._by_rows() else self.present.T
        mask = mask.at[index].get(mode="fill", fill_value=False)
        return weights, jnp.broadcast_to(mask[:, None], weights.shape)

    def _basis(self, index: jax.Array, like: Any, batch: tuple[int, ...]) -> jax.Array:
        """For every line an array like ``like``: in each batch element 1 at the line, else 0."""
        sizes = _matrix_shape(like.shape, batch)
        hot = jax.nn.one_hot(index, sizes[1], dtype=like.dtype)
        return jax.vmap(lambda row: _unmatrix(jnp.broadcast_to(row, sizes), like.shape, batch))(hot)

    def _by_rows(self) -> bool:
        rows = _matrix_shape(self.out_shape, self.out_batch)[1]
        columns = _matrix_shape(self.in_shape, self.in_batch)[1]
        if rows <= columns:
            return True
        try:
            jax.eval_shape(self.function.pushforward, self.function.x)
        except Exception:  # a custom_vjp has no forward mode
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


declare("custom_jvp_call", "custom_vjp_call", axes=called("call_jaxpr"))


def dense_jacobian(equation: Equation, *values: Any) -> dict[tuple[int, int], LocalJacobian]:
    """∂o/∂i by JAX's own derivative, for every input and output.

    A function that turns out to work element by element gets its diagonal, zeros included.

    Raises:
        NotImplementedError: where JAX has no derivative.
        ValueError: where the Jacobian is larger than ``dense_budget`` allows.
    """
    entries = {}
    for i in equation.wrt:
        for o, output in enumerate(equation.outputs):
            if output.differentiable:
                try:
                    function = Function(equation, values, i, o)
                    batch = batch_axes(function.pullback, function.x, function.out)
                except Exception as error:  # whatever JAX raises where it has no derivative
                    raise no_derivative(equation, error) from error
                if function.x.size and function.out.size:
                    entries[i, o] = _dense_or_diagonal(Dense(function, *batch))
    return entries


def _dense_or_diagonal(jacobian: Dense) -> LocalJacobian:
    shape = jacobian.in_shape
    elementwise = tuple(range(len(shape)))
    if not (jacobian.out_shape == shape and jacobian.in_batch == jacobian.out_batch == elementwise):
        return jacobian
    weights = jacobian._lines(jnp.zeros(1, int))[0][0]
    return Diagonal(_unmatrix(weights, shape, elementwise), shape, shape)


def _matrix_shape(shape: Shape, batch: tuple[int, ...]) -> tuple[int, int]:
    carried = el.size([shape[a] for a in batch])
    return carried, el.size([n for a, n in enumerate(shape) if a not in batch])


def _matrix(elements: Elements, shape: Shape, batch: tuple[int, ...]) -> Elements:
    """To [batch, others]."""
    order = _order(shape, batch)
    moved = el.transpose(elements, order)
    return el.reshape(moved, tuple(shape[a] for a in order), _matrix_shape(shape, batch))


def _unmatrix(elements: Elements, shape: Shape, batch: tuple[int, ...]) -> Elements:
    """From [batch, others]."""
    order = _order(shape, batch)
    moved = el.reshape(elements, _matrix_shape(shape, batch), tuple(shape[a] for a in order))
    return el.transpose(moved, tuple(np.argsort(order)))


def _order(shape: Shape, batch: tuple[int, ...]) -> tuple[int, ...]:
    return (*batch, *(a for a in range(len(shape)) if a not in batch))

"""The base class of semirings: what one must define, and what follows from that.

A commutative semiring (K, ⊕, ⊗, 0̄, 1̄): ⊕ and ⊗ are associative and commutative, ⊗ distributes over
⊕, 0̄ is the identity of ⊕ and annihilates, 1̄ is the identity of ⊗. Because ⊗ distributes, the
⊕ over all paths of the ⊗ along each path can be computed in one sweep over the graph (Mohri 2002;
for backpropagation: Du et al. 2023, §3).

A subclass defines ``zero, one, lift, add, mul`` and, if the number to report is not the element
itself, ``readout``. Everything else has a default that works for any semiring. A subclass overrides
an operation to be faster, never to mean something else; and it overrides what tables, shares and
pictures ask for (``units``, ``best``, ``log_size``, ``size_of``) where the default does not fit the
number that it reads.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import lax

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.semirings.blocks import BLOCK, BLOCK_BYTES, fold

Names = str | tuple[str, ...]
"""The names of mapped axes."""


class Semiring:
    """Base class of all semirings. Subclasses are frozen dataclasses: hashable, static under jit.

    The *elements* of an array of shape ``S`` are any pytree of arrays of shape ``S + trailing``,
    the same ``trailing`` for every ``S``. Weights always come as floating point arrays of at least
    float32, except ``contract``'s. Tables and legends call a semiring ``str(semiring)``.

    Example:
        The strongest path, in logarithms:

        >>> import dataclasses, jax.numpy as jnp, semijax as sj
        >>> @dataclasses.dataclass(frozen=True)
        ... class LogAbsMax(sj.Semiring):
        ...     units, size_of = "nats", "the strongest path's |weight|"
        ...     def zero(self, shape, dtype): return jnp.full(shape, -jnp.inf, dtype)
        ...     def one(self, shape, dtype): return jnp.zeros(shape, dtype)
        ...     def lift(self, weights): return jnp.log(jnp.abs(weights))
        ...     def add(self, a, b): return jnp.maximum(a, b)
        ...     def mul(self, a, b): return a + b
        ...     def log_size(self, elements): return elements
        >>> print(sj.semiring_grad(lambda x: x * x, LogAbsMax())(3.0).round(4))
        1.0986
    """

    units: ClassVar[str | None] = None
    """The unit of the ``readout``: ``"weight"`` (reported in the input's dtype), ``"nats"``, … ."""

    additive: ClassVar[bool] = False
    """True if ⊕ adds up what the paths have, as a linear map does; see ``by_operation``."""

    zero_weight_is_no_path: ClassVar[bool] = False
    """True if lift(0) is 0̄: a path of weight 0 is then as good as none.

    Set it where that holds, to be faster. It does not hold for the signed maximum: a path of weight
    0 is larger than one of weight −3.
    """

    best: ClassVar[Literal["size", "largest", "smallest"]] = "size"
    """The winning element, by the largest ``log_size``, or by the largest or smallest number read.

    Set it where numbers have signs that matter, as for a signed maximum.
    """

    size_of: ClassVar[str | None] = None
    """The name of what ``log_size`` measures, for legends; None for ``readout``'s absolute value.

    Set it together with ``log_size``.
    """

    # What a subclass must define.

    def zero(self, shape: Shape, dtype: Any) -> Elements:
        """Return 0̄, "no path", for ``shape``; ``dtype`` is floating, at least float32."""
        raise NotImplementedError(f"{type(self).__name__} must define zero(shape, dtype)")

    def one(self, shape: Shape, dtype: Any) -> Elements:
        """Return 1̄, "the empty path", for an array of ``shape``."""
        raise NotImplementedError(f"{type(self).__name__} must define one(shape, dtype)")

    def lift(self, weights: jax.Array) -> Elements:
        """Return the elements of paths of a single edge with these local derivatives."""
        raise NotImplementedError(f"{type(self).__name__} must define lift(weights)")

    def add(self, a: Elements, b: Elements) -> Elements:
        """Compute ⊕, elementwise: the paths of ``a`` and the paths of ``b``."""
        raise NotImplementedError(f"{type(self).__name__} must define add(a, b)")

    def mul(self, a: Elements, b: Elements) -> Elements:
        """Compute ⊗, elementwise: every path of ``a`` followed by every path of ``b``."""
        raise NotImplementedError(f"{type(self).__name__} must define mul(a, b)")

    def readout(self, elements: Elements) -> Any:
        """Return the statistic to report, an array or pytree of arrays; the elements by default."""
        return elements

    # What shares, winners and pictures ask for.

    def log_size(self, elements: Elements) -> jax.Array:
        """Return the logarithm of the elements' size, the quantity that shares divide; −∞ for 0̄.

        By default the size is the absolute value of the number that ``readout`` returns. Override
        it, and set ``size_of``, where that number is already a logarithm, cannot be shared out
        (such as the mean length of paths), or overflows though the elements do not.

        Returns:
            An array of the shape that these are the elements of.

        Raises:
            TypeError: where the semiring does not read one real number per element, or reads it in
                nats.
        """
        numbers = self.readout(elements)
        one_each = hasattr(numbers, "dtype") and numbers.shape == self.shape(elements)
        if self.units == "nats" or not one_each or numbers.dtype == bool:
            raise TypeError(
                f"{type(self).__name__} has no shares: they are of weights, masses and numbers of "
                "paths. AbsSumProduct() gives the shares of the mass; a semiring of your own has "
                "shares if it reads one real number per element, or defines log_size."
            )
        none = self.is_zero(elements) | (numbers == 0)
        return jnp.where(none, -jnp.inf, jnp.log(jnp.abs(jnp.where(none, 1, numbers))))

    def is_zero(self, elements: Elements) -> jax.Array:
        """Tell where elements are 0̄, "no path": where they equal ``zero``.

        Override it where some of the numbers of 0̄ mean nothing.
        """
        return self._each_number(jnp.equal, elements, self.zero((), self.dtype(elements)))

    def __str__(self) -> str:
        return re.sub(r" at 0x[0-9a-f]+", "", repr(self))  # the same in every process

    # What follows; override for speed.

    def at(self, equation: Any) -> Semiring:
        """Return the semiring for edges of ``equation``: itself, unless a lift depends on it."""
        del equation
        return self

    def settle(self, elements: Elements) -> Elements:
        """Return what comes out of an equation in the form in which ⊕ combines it with others."""
        return elements

    def by_operation(self, absent: bool = False) -> Semiring:
        """Return the statistic with whole equations as edges: ⊕ only where branches of arrays meet.

        Inside an equation contributions are added, as in an ordinary pullback. Where ⊕ adds, that
        makes no difference.

        Args:
            absent: whether to look for arrays that no path leads on from, see
                ``OperationGranularity``.

        Raises:
            TypeError: where no such statistic is defined.
        """
        if self.additive:
            return self
        raise TypeError(
            f"{type(self).__name__} is defined on paths through single elements only: it has no "
            "granularity 'op'."
        )

    def scale(self, weights: jax.Array, elements: Elements) -> Elements:
        """Compute ``lift(weights) ⊗ elements``; both have the same shape."""
        return self.mul(self.lift(weights), elements)

    def scale_selected(
        self, weights: jax.Array, selected: jax.Array, elements: Elements
    ) -> Elements:
        """Apply ``scale``, but let nothing infinite, nor NaN, pass an edge that was not selected.

        The branch that ``where`` did not take is an edge of weight 0, as is what a clamp cut off,
        and 0 · ∞ is not a number. JAX's transpose selects instead: 0 goes on, whatever arrives. It
        is the same here: across such an edge, what is not finite becomes what a finite element
        becomes. 0̄ stays 0̄, for the edge is still an edge.

        By default 1̄ replaces an element with a number that is not finite, unless it is 0̄. Override
        it where infinite numbers in elements other than 0̄ mean something: those of ``TopK`` tell
        how many paths there are.

        Args:
            weights: array of the elements' shape, 0 where not selected.
            selected: booleans of the same shape.
            elements: elements.
        """
        kept, other = selected, self.zero
        if not self.zero_weight_is_no_path:
            kept = selected | self._each_number(_is_finite, elements) | self.is_zero(elements)
            other = self.one
        instead = el.cast_like(other((), self.dtype(elements)), elements)
        return self.scale(weights, el.where(kept, elements, instead))

    def pass_through(self, elements: Elements) -> Elements:
        """Apply an edge of weight 1: ``lift(1) ⊗ elements`` (no change where lift(1) is 1̄)."""
        return self.scale(jnp.ones(self.shape(elements), self.dtype(elements)), elements)

    def sum(self, elements: Elements, axes: tuple[int, ...]) -> Elements:
        """Compute ⊕ over ``axes`` (non-negative, leading only) by halving: ⌈log₂ n⌉ additions."""
        for axis in sorted(axes, reverse=True):
            elements = self._sum_axis(elements, axis)
        return elements

    def contract(self, weights: jax.Array, elements: Elements) -> Elements:
        """Compute the semiring's batched matrix product: ⊕ₖ lift(weights[b,m,k]) ⊗ elements[b,k,n].

        Args:
            weights: array of shape ``[B, M, K]``; may be narrower than float32.
            elements: elements of shape ``[B, K, N]``.

        Returns:
            Elements of shape ``[B, M, N]``.
        """
        batch, rows, depth = weights.shape
        columns = self.shape(elements)[2]
        dtype = self.dtype(elements)
        zero = self.zero((batch, rows, columns), dtype)
        row_bytes = batch * rows * columns * self.bytes_per_element(dtype)
        block = max(1, min(BLOCK, BLOCK_BYTES // max(1, row_bytes)))

        def term(start: Any, size: int) -> Elements:
            shape = (batch, rows, size, columns)
            w = lax.dynamic_slice_in_dim(weights, start, size, 2).astype(dtype)
            g = el.slice_axis(elements, start, size, 1)
            products = self.scale(
                jnp.broadcast_to(w[..., None], shape), el.broadcast_in_dim(g, shape, (0, 2, 3))
            )
            return self.sum(products, (2,))

        return fold(depth, term, self.add, zero, block)

    def all_reduce(self, elements: Elements, names: Names) -> Elements:
        """Compute ⊕ of the elements that the members of named axes have, as ``psum`` does for +.

        By default each member adds up its share of the elements, and all gather the sums: as many
        bytes are sent as by XLA's own all-reduce.

        Args:
            elements: those of one member, of the same shape in all of them.
            names: the names of mesh axes, or of one.
        """
        shape, members = self.shape(elements), lax.axis_size(names)
        size = el.size(shape)
        missing = [(0, -size % members, 0)]
        zero = self.zero((), self.dtype(elements))
        padded = el.pad(el.reshape(elements, shape, (size,)), zero, missing)
        share = -(-size // members)
        shares = el.reshape(padded, (share * members,), (members, share))

        def exchange(leaf: jax.Array) -> jax.Array:
            return lax.all_to_all(leaf, names, 0, 0, tiled=True)

        def gather(leaf: jax.Array) -> jax.Array:
            return lax.all_gather(leaf, names, tiled=True)

        own = self.sum(el.map_leaves(exchange, shares), (0,))
        found = el.slice_axis(el.map_leaves(gather, own), 0, size, 0)
        return el.reshape(found, (size,), shape)

    def segment_sum(self, elements: Elements, segments: jax.Array, count: int) -> Elements:
        """Compute ⊕ of the elements that go to the same segment, like ``jax.ops.segment_sum``.

        Args:
            elements: elements of shape ``[N]``.
            segments: integers of shape ``[N]``; those outside ``[0, count)`` are dropped.
            count: the number of segments.

        Returns:
            Elements of shape ``[count]``, 0̄ where a segment is empty.
        """
        n = segments.shape[0]
        zero = self.zero((count,), self.dtype(elements))
        if n == 0 or count == 0:
            return zero
        order = jnp.argsort(segments)
        segments, elements = segments[order], el.take(elements, order)
        begins = jnp.concatenate([jnp.ones(1, bool), segments[1:] != segments[:-1]])
        ends = jnp.concatenate([begins[1:], jnp.ones(1, bool)])

        def combine(left: Any, right: Any) -> Any:
            (a, a_begins), (b, b_begins) = left, right
            return el.where(b_begins, b, self.add(a, b)), a_begins | b_begins

        sums, _ = lax.associative_scan(combine, (elements, begins))
        kept = ends & (segments >= 0) & (segments < count)
        target = jnp.where(kept, segments, count)
        return el.map_leaves(lambda z, s: z.at[target].set(s, mode="drop"), zero, sums)

    # Helpers.

    def shape(self, elements: Elements) -> Shape:
        """Return the shape of the array that these are the elements of."""
        leaf, scalar = jax.tree.leaves(elements)[0], jax.tree.leaves(self.element_type())[0]
        return leaf.shape[: leaf.ndim - scalar.ndim]

    def _each_number(self, holds: Callable[..., jax.Array], *elements: Elements) -> jax.Array:
        """Tell where something holds for all numbers of an element."""
        axes = len(self.shape(elements[0]))
        found = jax.tree.leaves(el.map_leaves(holds, *elements))
        return functools.reduce(
            jnp.logical_and, [leaf.all(tuple(range(axes, leaf.ndim))) for leaf in found]
        )

    def _sum_axis(self, elements: Elements, axis: int) -> Elements:
        n = self.shape(elements)[axis]
        if n == 0:
            leading = self.shape(elements)
            return self.zero(leading[:axis] + leading[axis + 1 :], self.dtype(elements))
        while n > 1:
            half = n // 2
            low, high, rest = (
                el.map_leaves(
                    lambda leaf, a=a, b=b: lax.slice_in_dim(leaf, a, b, axis=axis), elements
                )
                for a, b in ((0, half), (half, 2 * half), (2 * half, n))
            )
            elements = self.add(low, high)
            if n % 2:
                elements = el.concatenate([elements, rest], axis)
            n = half + n % 2
        return el.map_leaves(lambda leaf: leaf.squeeze(axis), elements)

    def dtype(self, elements: Elements) -> Any:
        """Return the floating dtype that these elements are carried in."""
        floats = [
            x.dtype for x in jax.tree.leaves(elements) if jnp.issubdtype(x.dtype, jnp.floating)
        ]
        return jnp.result_type(jnp.float32, *floats)

    def element_type(self, dtype: Any = jnp.float32) -> Elements:
        """Return the shapes and dtypes of the elements of one node, carried in ``dtype``."""
        return _element_type(self, jnp.dtype(dtype), jax.dtypes.canonicalize_dtype(jnp.int64))

    def bytes_per_element(self, dtype: Any) -> int:
        """Return how many bytes the elements of one node take."""
        leaves = jax.tree.leaves(self.element_type(dtype))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _is_finite(leaf: jax.Array) -> jax.Array:
    inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return jnp.isfinite(leaf) if inexact else jnp.ones(leaf.shape, bool)


@functools.cache
def _element_type(semiring: Semiring, dtype: Any, integers: Any) -> Elements:
    del integers  # whether 64 bits are enabled may change what ``zero`` makes
    return jax.eval_shape(lambda: semiring.zero((), dtype))

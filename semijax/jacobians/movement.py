"""Primitives that move elements: every output element reads at most one input element, weight 1."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians import axis_labels
from semijax.jacobians.along_axis import AlongAxis, averaged_order
from semijax.jacobians.base import EVERY, FIRST, LocalJacobian, arrays, rule_for
from semijax.jacobians.compiled import compiled_on_numbers
from semijax.jacobians.diagonal import Diagonal, Transposed, scaled_by
from semijax.jacobians.edges import Edges, at_most_one, numbers, ravel, unravel
from semijax.jacobians.line import Line
from semijax.jacobians.pins import Pins, pinned
from semijax.semirings.base import Semiring
from semijax.trace.graph import Equation


@arrays("source", "weights", "selected")
@dataclasses.dataclass(frozen=True)
class Movement(LocalJacobian):
    """An edge from i to o where ``source[o]`` is i's position in the flattened input.

    Attributes:
        source: integers of shape ``out_shape``; those outside the input stand for no edge.
        in_shape: the input's shape.
        out_shape: the output's shape.
        weights: ∂o/∂i = w[o], an array of shape ``out_shape``; 1 by default.
        selected: mask of shape ``out_shape``, as for ``Diagonal``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> twice = sj.jacobians.Movement(jnp.array([0, 2, 2]), in_shape=(3,), out_shape=(3,))
        >>> print(twice.pull(sj.SumProduct(), jnp.ones(3)))
        [1. 0. 2.]
    """

    source: jax.Array
    in_shape: Shape
    out_shape: Shape
    weights: jax.Array | None = None
    selected: jax.Array | None = None

    kind: ClassVar[str] = "Movement"

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        n = el.size(self.in_shape)
        flat = el.reshape(self._scale(semiring, cotangent), self.out_shape, (self.source.size,))
        summed = semiring.segment_sum(flat, self.source.ravel(), n)
        return el.reshape(summed, (n,), self.in_shape)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        n = el.size(self.in_shape)
        zero = semiring.zero(self.out_shape, semiring.dtype(tangent))
        if n == 0 or self.source.size == 0:
            return zero
        moved = el.take(el.reshape(tangent, self.in_shape, (n,)), self.source)
        inside = (self.source >= 0) & (self.source < n)
        return el.where(inside, self._scale(semiring, moved), zero)

    def leaving(self, index: np.ndarray) -> Edges:
        asked = np.full(el.size(self.in_shape) + 1, -1)  # the last for what is outside
        asked[index] = np.arange(len(index))
        source = np.asarray(self.source).ravel()
        inside = (source >= 0) & (source < len(asked) - 1)
        owner = asked[np.where(inside, source, -1)]
        outputs = np.flatnonzero(owner >= 0)
        weight = np.ones(len(outputs)) if self.weights is None else numbers(self.weights, outputs)
        return Edges(owner[outputs], outputs, weight)

    def entering(self, index: np.ndarray) -> Edges:
        source = np.asarray(self.source).ravel()[index].astype(int)
        weight = None if self.weights is None else numbers(self.weights, index)
        return at_most_one(source, weight, (source >= 0) & (source < el.size(self.in_shape)))

    def _scale(self, semiring: Semiring, elements: Elements) -> Elements:
        return scaled_by(semiring, self.weights, self.selected, elements)


@arrays()
@dataclasses.dataclass(frozen=True)
class Permutation(LocalJacobian):
    """A bijection: the input reversed along ``flipped``, transposed by ``axes``, reshaped.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> reverse = sj.jacobians.Permutation((3,), (3,), flipped=(0,))
        >>> print(reverse.pull(sj.SumProduct(), jnp.array([1.0, 2.0, 3.0])))
        [3. 2. 1.]
    """

    in_shape: Shape
    out_shape: Shape
    axes: tuple[int, ...] | None = None
    flipped: tuple[int, ...] = ()

    kind: ClassVar[str] = "Movement"

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        axes = self._axes()
        transposed = tuple(self.in_shape[a] for a in axes)
        moved = el.reshape(semiring.pass_through(cotangent), self.out_shape, transposed)
        return el.flip(el.transpose(moved, tuple(np.argsort(axes))), self.flipped)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        axes = self._axes()
        transposed = tuple(self.in_shape[a] for a in axes)
        moved = el.transpose(el.flip(semiring.pass_through(tangent), self.flipped), axes)
        return el.reshape(moved, transposed, self.out_shape)

    def leaving(self, index: np.ndarray) -> Edges:
        axes = self._axes()
        indices = self._flip(unravel(index, self.in_shape))
        moved = [indices[a] for a in axes]
        transposed = tuple(self.in_shape[a] for a in axes)
        return at_most_one(ravel(moved, transposed, index), None)

    def entering(self, index: np.ndarray) -> Edges:
        axes = self._axes()
        moved = unravel(index, tuple(self.in_shape[a] for a in axes))
        indices = self._flip([moved[position] for position in np.argsort(axes)])
        return at_most_one(ravel(indices, self.in_shape, index), None)

    def restricted(self, pins: Pins) -> tuple[Permutation, Pins] | None:
        axes = self._axes()
        transposed = tuple(self.in_shape[a] for a in axes)
        same = axis_labels.unchanged_axes(transposed, self.out_shape)
        own: list[int | None] = [None] * len(axes)
        for outer, pin in enumerate(pins):
            if pin is not None:
                if outer not in same:
                    return None
                axis = axes[same[outer]]
                own[axis] = self.in_shape[axis] - 1 - pin if axis in self.flipped else pin
        shapes = pinned(self.in_shape, own), pinned(self.out_shape, pins)
        return dataclasses.replace(self, in_shape=shapes[0], out_shape=shapes[1]), tuple(own)

    def _flip(self, indices: list[np.ndarray]) -> list[np.ndarray]:
        return [self.in_shape[a] - 1 - i if a in self.flipped else i for a, i in enumerate(indices)]

    def _axes(self) -> tuple[int, ...]:
        return tuple(range(len(self.in_shape))) if self.axes is None else self.axes


@arrays()
@dataclasses.dataclass(frozen=True)
class Padding(LocalJacobian):
    """The input, with size-1 axes added where its rank is less, and padded: a box in the output.

    Attributes:
        padding: (low, high, interior) for every axis of the output, as for ``jax.lax.pad``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> jacobian = sj.jacobians.Padding((2,), (5,), padding=((1, 2, 0),))
        >>> print(jacobian.push(sj.SumProduct(), jnp.array([5.0, 7.0])))
        [0. 5. 7. 0. 0.]
    """

    in_shape: Shape
    out_shape: Shape
    padding: tuple[tuple[int, int, int], ...]

    kind: ClassVar[str] = "Movement"

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        zero = semiring.zero((), semiring.dtype(cotangent))
        box = el.unpad(semiring.pass_through(cotangent), zero, self.padding, self._box())
        return el.reshape(box, self._box(), self.in_shape)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        zero = semiring.zero((), semiring.dtype(tangent))
        box = el.reshape(semiring.pass_through(tangent), self.in_shape, self._box())
        return el.pad(box, zero, self.padding)

    def leaving(self, index: np.ndarray) -> Edges:
        box = zip(unravel(index, self._box()), self.padding, strict=True)
        moved = [low + i * (interior + 1) for i, (low, _, interior) in box]
        return _inside(moved, self.out_shape, index)

    def entering(self, index: np.ndarray) -> Edges:
        whole = zip(unravel(index, self.out_shape), self.padding, strict=True)
        steps = [np.divmod(o - low, interior + 1) for o, (low, _, interior) in whole]
        exact = np.all([rest == 0 for _, rest in steps], 0)
        return _inside([i for i, _ in steps], self._box(), index, exact)

    def _box(self) -> Shape:
        if len(self.in_shape) == len(self.out_shape):
            return self.in_shape
        return tuple(
            n - low - high for n, (low, high, _) in zip(self.out_shape, self.padding, strict=True)
        )


@arrays("starts")
@dataclasses.dataclass(frozen=True)
class DynamicSlice(LocalJacobian):
    """A box of the input, at indices that are known only when the program runs.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> jacobian = sj.jacobians.DynamicSlice(starts=(1,), in_shape=(4,), out_shape=(2,))
        >>> print(jacobian.pull(sj.SumProduct(), jnp.array([5.0, 7.0])))
        [0. 5. 7. 0.]
    """

    starts: tuple[Any, ...]
    in_shape: Shape
    out_shape: Shape

    kind: ClassVar[str] = "Movement"

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        zero = semiring.zero(self.in_shape, semiring.dtype(cotangent))
        box = el.cast_like(semiring.pass_through(cotangent), zero)
        return el.dynamic_update_slice(zero, box, self.starts)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        return el.dynamic_slice(semiring.pass_through(tangent), self.starts, self.out_shape)

    def leaving(self, index: np.ndarray) -> Edges:
        return self._moved(index, self.in_shape, self.out_shape, -1)

    def entering(self, index: np.ndarray) -> Edges:
        return self._moved(index, self.out_shape, self.in_shape, 1)

    def _moved(self, index: np.ndarray, old: Shape, new: Shape, sign: int) -> Edges:
        starts = [sign * int(start) for start in self.starts]
        moved = [i + start for i, start in zip(unravel(index, old), starts, strict=True)]
        return _inside(moved, new, index)


def _inside(
    indices: list[np.ndarray], shape: Shape, nodes: np.ndarray, present: Any = True
) -> Edges:
    """Return an edge of weight 1 to these indices, where they are in an array of this shape."""
    present = np.broadcast_to(present, nodes.shape)
    for i, n in zip(indices, shape, strict=True):
        present = present & (i >= 0) & (i < n)
    kept = [np.where(present, i, 0) for i in indices]
    return at_most_one(ravel(kept, shape, nodes) if present.any() else nodes, None, present)


def positions(shape: Shape) -> jax.Array:
    """Return every element's position in the flattened array, an integer array of ``shape``."""
    n = el.size(shape)
    dtype = jax.dtypes.canonicalize_dtype(jnp.int64)
    if n > jnp.iinfo(dtype).max:
        raise ValueError(
            f"An array of shape {shape} has more elements than {dtype} can count; "
            "enable 64-bit integers with jax.config.update('jax_enable_x64', True)."
        )
    return jnp.arange(n, dtype=jnp.int32 if n <= jnp.iinfo(jnp.int32).max else dtype).reshape(shape)


@rule_for("reshape", axes=axis_labels.reshaped, same_for_both_parts=True, linear_in=EVERY)
def reshape_jacobian(equation: Equation, x: Any, *_: Any) -> list[LocalJacobian]:
    """Keep the elements in the same order, or in that of the permuted ``dimensions``."""
    axes = equation.params["dimensions"]
    return [Permutation(x.shape, equation.outputs[0].shape, axes and tuple(axes))]


@rule_for("squeeze", axes=axis_labels.squeezed, same_for_both_parts=True, linear_in=EVERY)
def squeeze_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Keep the elements in the same order."""
    return [Permutation(x.shape, equation.outputs[0].shape)]


@rule_for("transpose", axes=axis_labels.transposed, same_for_both_parts=True, linear_in=EVERY)
def transpose_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Permute the axes: o[i[permutation]] = i."""
    axes = tuple(equation.params["permutation"])
    return [Permutation(x.shape, equation.outputs[0].shape, axes)]


@rule_for(
    "rev", axes=axis_labels.mixing_along("dimensions"), same_for_both_parts=True, linear_in=EVERY
)
def rev_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Reverse the dimensions."""
    flipped = tuple(equation.params["dimensions"])
    return [Permutation(x.shape, x.shape, flipped=flipped)]


@rule_for("broadcast_in_dim", axes=axis_labels.broadcast, same_for_both_parts=True, linear_in=EVERY)
def broadcast_in_dim_jacobian(equation: Equation, x: Any, *_: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1 where o is a copy of i."""
    dimensions = tuple(equation.params["broadcast_dimensions"])
    return [Diagonal(None, x.shape, equation.outputs[0].shape, dimensions)]


@rule_for("tile", same_for_both_parts=True, linear_in=EVERY)
def tile_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1 where o is a copy of i."""
    out = equation.outputs[0].shape
    return [Movement(jnp.tile(positions(x.shape), equation.params["reps"]), x.shape, out)]


def _padded_axes(equation: Equation) -> set[int]:
    return {a for a, config in enumerate(equation.params["padding_config"]) if any(config)}


@rule_for(
    "pad",
    axes=axis_labels.mixing(_padded_axes),
    same_for_both_parts=True,
    linear_in=slice(0, 2),
)
def pad_jacobian(equation: Equation, x: Any, fill: Any) -> list[LocalJacobian]:
    """Place the operand as a box in the output; all other elements read the padding value."""
    padding = tuple(map(tuple, equation.params["padding_config"]))
    out = equation.outputs[0].shape
    outside = jax.lax.pad(jnp.zeros(x.shape, bool), jnp.ones((), bool), padding)
    return [Padding(x.shape, out, padding), Diagonal(None, (), out, present=outside)]


@rule_for(
    "slice",
    axes=axis_labels.mixing_where_resized(0),
    same_for_both_parts=True,
    linear_in=FIRST,
)
def slice_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Read the output as a box of the input: the transpose of padding."""
    out = equation.outputs[0].shape
    starts, strides = equation.params["start_indices"], equation.params["strides"]

    def padding(start: int, stride: int, size: int, whole: int) -> tuple[int, int, int]:
        span = max(0, (size - 1) * stride + 1)
        return start, whole - start - span, stride - 1

    config = tuple(map(padding, starts, strides or (1,) * x.ndim, out, x.shape))
    return [Transposed(Padding(out, x.shape, config))]


@rule_for(
    "concatenate",
    axes=axis_labels.mixing_along("dimension"),
    same_for_both_parts=True,
    linear_in=EVERY,
)
def concatenate_jacobian(equation: Equation, *values: Any) -> list[LocalJacobian]:
    """Place every input as a box in the output."""
    axis = equation.params["dimension"]
    return _boxes(axis, equation.outputs[0].shape, [v.shape for v in values])


@rule_for("stack", axes=axis_labels.stacked, same_for_both_parts=True, linear_in=EVERY)
def stack_jacobian(equation: Equation, *values: Any) -> list[LocalJacobian]:
    """Place every input as a box of size 1 in the output."""
    return _boxes(equation.params["axis"], equation.outputs[0].shape, [v.shape for v in values])


@rule_for("split", axes=axis_labels.mixing_along("axis"), same_for_both_parts=True, linear_in=EVERY)
def split_jacobian(equation: Equation, x: Any) -> dict[tuple[int, int], LocalJacobian]:
    """Read every output as a box of the input."""
    boxes = _boxes(equation.params["axis"], x.shape, [v.shape for v in equation.outputs])
    return {(0, o): Transposed(box) for o, box in enumerate(boxes)}


@rule_for("unstack", axes=axis_labels.unstacked, same_for_both_parts=True, linear_in=EVERY)
def unstack_jacobian(equation: Equation, x: Any) -> dict[tuple[int, int], LocalJacobian]:
    """Read every output as a box of size 1 of the input."""
    boxes = _boxes(equation.params["axis"], x.shape, [v.shape for v in equation.outputs])
    return {(0, o): Transposed(box) for o, box in enumerate(boxes)}


def _boxes(axis: int, whole: Shape, parts: list[Shape]) -> list[LocalJacobian]:
    """Lay the parts one behind the other along an axis of the whole."""
    boxes: list[LocalJacobian] = []
    start = 0
    for part in parts:
        stop = start + (part[axis] if len(part) == len(whole) else 1)
        along = (start, whole[axis] - stop, 0)
        padding = tuple(along if a == axis else (0, 0, 0) for a in range(len(whole)))
        boxes.append(Padding(part, whole, padding))
        start = stop
    return boxes


@rule_for(
    "dynamic_slice",
    axes=axis_labels.mixing_where_resized(0),
    same_for_both_parts=True,
    linear_in=FIRST,
)
def dynamic_slice_jacobian(equation: Equation, x: Any, *starts: Any) -> list[LocalJacobian]:
    """Read the output as a box of the input."""
    out = equation.outputs[0].shape
    return [DynamicSlice(_clamped(starts, x.shape, out), x.shape, out)]


@rule_for(
    "dynamic_update_slice",
    axes=axis_labels.mixing_where_resized(0, 1),
    same_for_both_parts=True,
    linear_in=slice(0, 2),
)
def dynamic_update_slice_jacobian(
    equation: Equation, x: Any, update: Any, *starts: Any
) -> list[LocalJacobian]:
    """Place the update as a box in the output; what it overwrites has no edge."""
    starts = _clamped(starts, x.shape, update.shape)
    ones = jnp.ones(x.shape, bool)
    kept = jax.lax.dynamic_update_slice(ones, jnp.zeros(update.shape, bool), starts)
    return [
        Diagonal(None, x.shape, x.shape, present=kept),
        Transposed(DynamicSlice(starts, x.shape, update.shape)),
    ]


def _clamped(starts: tuple[Any, ...], whole: Shape, box: Shape) -> tuple[jax.Array, ...]:
    """Return the indices the primitive uses: a box that would stick out is moved inside.

    ``jax.lax``'s functions, unlike the primitive, would count negative indices from the end.
    """
    limits = [n - m for n, m in zip(whole, box, strict=True)]
    return tuple(jnp.clip(start, 0, limit) for start, limit in zip(starts, limits, strict=True))


@rule_for("gather", axes=axis_labels.gathered, same_for_both_parts=True, linear_in=FIRST)
def gather_jacobian(equation: Equation, x: Any, indices: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1 where o was read from i; no edge where an index out of bounds was filled.

    Nor is there one where an index promised to be in bounds is not: JAX's gradient drops it.
    """
    params = equation.params
    mode = params["mode"]
    if mode == jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS:
        mode = jax.lax.GatherScatterMode.FILL_OR_DROP
    source = jax.lax.gather(
        positions(x.shape),
        indices,
        params["dimension_numbers"],
        params["slice_sizes"],
        mode=mode,
        fill_value=-1,
    )
    return [Movement(source, x.shape, source.shape)]


@compiled_on_numbers
def averaged_sort(equation: Equation, line: Line) -> dict[tuple[int, int], LocalJacobian] | None:
    """Return ∂o/∂i, the share of the line on which i is the o-th; other operands move alike.

    Where the first key has no derivative, or is not the only one, the order is that of the point.
    """
    if 0 not in line.moving or equation.params["num_keys"] > 1:
        return None
    axis, shape = equation.params["dimension"], equation.outputs[0].shape
    weights = averaged_order(line, axis)
    entry = AlongAxis(weights, shape, shape, axis, weights > 0)
    return {(k, k): entry for k in range(len(line.values))}


@rule_for("sort", axes=axis_labels.mixing_along("dimension"), average=averaged_sort)
def sort_jacobian(equation: Equation, *values: Any) -> dict[tuple[int, int], LocalJacobian]:
    """Move every operand by the same permutation, which leaves equal keys as JAX does."""
    shape = values[0].shape
    params = equation.params
    *_, source = jax.lax.sort(
        (*values, positions(shape)),
        dimension=params["dimension"],
        is_stable=params["is_stable"],
        num_keys=params["num_keys"],
    )
    return {(k, k): Movement(source, shape, shape) for k in range(len(values))}


@compiled_on_numbers
def averaged_top_k(equation: Equation, line: Line) -> dict[tuple[int, int], LocalJacobian]:
    """Return ∂o/∂i, the share of the line on which i is the o-th largest."""
    x, out = line.values[0], equation.outputs[0].shape
    axis = _axis_of_top_k(equation) % x.ndim
    weights = averaged_order(line, axis, largest=out[axis])
    return {(0, 0): AlongAxis(weights, x.shape, out, axis, weights > 0)}


@rule_for("top_k", "approx_top_k", average=averaged_top_k)
def top_k_jacobian(equation: Equation, x: Any) -> dict[tuple[int, int], LocalJacobian]:
    """Return ∂o/∂i = 1 where o was read from i."""
    _, indices = equation.bind(x)
    source = jnp.take_along_axis(positions(x.shape), indices, _axis_of_top_k(equation))
    return {(0, 0): Movement(source, x.shape, source.shape)}


def _axis_of_top_k(equation: Equation) -> int:
    return equation.params.get("axis", equation.params.get("reduction_dimension", -1))

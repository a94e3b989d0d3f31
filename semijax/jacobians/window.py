"""Convolutions and pooling: one sparse map per tap of the window."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians.base import (
    EVERY,
    FIRST,
    LocalJacobian,
    accumulated,
    arrays,
    declare,
    rule_for,
)
from semijax.jacobians.compiled import compiled_on_numbers
from semijax.jacobians.einsum import einsum
from semijax.jacobians.line import Line, shares_of_largest
from semijax.jacobians.movement import positions
from semijax.jacobians.reduction import sign_of_extremum
from semijax.semirings.base import Semiring
from semijax.trace.graph import Equation

MATRICES = "bmk,bkn->bmn"
"""The contraction of weights and elements, a matrix each for every group."""

PATCHES_BYTES = 2**26
"""The size up to which all that a convolution's taps read is stored for one contraction."""


class Axes(NamedTuple):
    """The numbers of axes before and after the windowed ones."""

    before: int
    after: int = 0

    def config(self, padding: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
        """Extend the padding of the windowed axes to all axes."""
        none = (0, 0, 0)
        return ((none,) * self.before) + tuple(padding) + ((none,) * self.after)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The place of a window: output o and tap k read padded position ``o·stride + k·dilation``.

    All tuples are over the windowed axes, which come last.

    Attributes:
        in_shape, out_shape: the sizes of the two sides.
        window: the sizes of the window; its product is the number of taps.
        strides: steps of the window in the padded input.
        dilation: distances between the taps.
        padding: (low, high, interior), what the input is padded with.
    """

    in_shape: Shape
    out_shape: Shape
    window: Shape
    strides: Shape
    dilation: Shape
    padding: tuple[tuple[int, int, int], ...]

    @property
    def taps(self) -> int:
        """The number of positions in the window."""
        return el.size(self.window)

    @property
    def padded_shape(self) -> Shape:
        """The sizes of the padded input, never less than any tap reaches."""
        spans = zip(self.in_shape, self.padding, strict=True)
        return tuple(
            max(0, low + high + n + max(0, n - 1) * inner) for n, (low, high, inner) in spans
        )

    def pad(self, elements: Elements, zero: Elements, lead: int) -> Elements:
        """Map the input's elements to those of the padded input; ``lead`` axes come before."""
        return el.pad(elements, zero, ((0, 0, 0),) * lead + self.padding)

    def unpad(self, elements: Elements, zero: Elements, lead: Shape) -> Elements:
        """Map the padded input's elements to the input's."""
        padding = ((0, 0, 0),) * len(lead) + self.padding
        return el.unpad(elements, zero, padding, (*lead, *self.in_shape))

    def read(self, padded: Elements, tap: Any, lead: Shape) -> Elements:
        """Return what every output reads at this tap."""
        box = el.dynamic_slice(padded, self._starts(tap, lead), self._box(lead))
        none = jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), box)
        return el.unpad(box, none, self._steps(lead), (*lead, *self.out_shape))

    def accumulate(
        self, semiring: Semiring, padded: Elements, parts: Elements, tap: Any, lead: Shape
    ) -> Elements:
        """Add (⊕) what comes from every output at this tap to where it was read."""
        starts = self._starts(tap, lead)
        zero = semiring.zero((), semiring.dtype(parts))
        parts = el.pad(parts, zero, self._steps(lead))
        box = semiring.add(el.dynamic_slice(padded, starts, self._box(lead)), parts)
        return el.dynamic_update_slice(padded, el.cast_like(box, padded), starts)

    def patches(self, elements: Elements, zero: Elements, axes: Axes) -> Elements:
        """Return what outputs read, tap by tap: the windowed axes become ``[taps, *out_shape]``.

        Padding is 0̄.
        """
        padded = el.pad(elements, zero, axes.config(self.padding))
        first, steps = (0,) * len(self.window), self.strides
        return self._stacked(padded, axes, first, 1, self.out_shape, steps)

    def readers(self, elements: Elements, zero: Elements, axes: Axes) -> Elements:
        """Return what reads every input: the windowed axes become ``[taps, *in_shape]``.

        The outputs lie ``stride`` apart in the padded input; between them, and outside, is 0̄.
        """
        margins, first = [], []
        for axis, (low, _, inner) in enumerate(self.padding):
            reach = (self.window[axis] - 1) * self.dilation[axis]
            last = low + (self.in_shape[axis] - 1) * (inner + 1)
            before = max(0, reach - low)
            after = max(0, last - (self.out_shape[axis] - 1) * self.strides[axis])
            margins.append((before, after, self.strides[axis] - 1))
            first.append(before + low)
        spread = el.pad(elements, zero, axes.config(margins))
        steps = tuple(inner + 1 for _, _, inner in self.padding)
        return self._stacked(spread, axes, first, -1, self.in_shape, steps)

    def _stacked(
        self,
        elements: Elements,
        axes: Axes,
        first: Sequence[int],
        sign: int,
        shape: Shape,
        steps: Shape,
    ) -> Elements:
        """Stack, for every tap k, the box of a shape that begins at ``first ± k · dilation``."""

        def at(tap: tuple[int, ...], leaf: jax.Array) -> jax.Array:
            box = [slice(None)] * axes.before
            for k, start, d, n, step in zip(tap, first, self.dilation, shape, steps, strict=True):
                begin = start + sign * k * d
                box.append(slice(begin, begin + (n - 1) * step + 1, step))
            return leaf[tuple(box)]

        taps = [*np.ndindex(self.window)]
        place = axes.before + (len(shape) if axes.after else 0)
        return el.map_leaves(lambda leaf: jnp.stack([at(k, leaf) for k in taps], place), elements)

    def over_taps(self, step: Callable[[Any, Any], Any], state: Any) -> Any:
        """Run ``step(state, tap)`` for every tap."""
        if self.taps == 1:
            return step(state, 0)
        return lax.scan(lambda s, tap: (step(s, tap), None), state, jnp.arange(self.taps))[0]

    def _starts(self, tap: Any, lead: Shape) -> tuple[Any, ...]:
        index = jnp.unravel_index(tap, self.window) if self.window else ()
        offsets = [i * d for i, d in zip(index, self.dilation, strict=True)]
        return (*(0,) * len(lead), *offsets)

    def _box(self, lead: Shape) -> Shape:
        spans = zip(self.out_shape, self.strides, strict=True)
        return (*lead, *[(n - 1) * step + 1 for n, step in spans])

    def _steps(self, lead: Shape) -> tuple[tuple[int, int, int], ...]:
        return ((0, 0, 0),) * len(lead) + tuple((0, 0, step - 1) for step in self.strides)


@arrays("selected", "weights")
@dataclasses.dataclass(frozen=True)
class Pooling(LocalJacobian):
    """A Jacobian in which every output reads the elements in its window.

    Attributes:
        geometry: the window, over all axes.
        selected: for max and min pooling the position in the input that each output takes its value
            from: that edge weighs 1, the others in the window 0. None where all weigh 1.
        weights: array of shape ``[taps, *out_shape]`` of what they weigh otherwise; an edge of
            weight 0 is not selected.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> pooled = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (2,), "valid")
        >>> f = lambda x: pooled(x).sum()
        >>> [row.kind for row in sj.explain(f)(jnp.ones(4)) if row.primitive == "reduce_window_max"]
        ['Window']
        >>> print(sj.semiring_grad(f, sj.SumProduct())(jnp.array([1.0, 3.0, 2.0, 0.0])))
        [0. 1. 1. 0.]
    """

    geometry: Geometry
    selected: jax.Array | None = None
    weights: jax.Array | None = None

    kind: ClassVar[str] = "Window"

    @property
    def in_shape(self) -> Shape:
        """The operand's shape."""
        return self.geometry.in_shape

    @property
    def out_shape(self) -> Shape:
        """The pooled shape."""
        return self.geometry.out_shape

    @property
    def edges(self) -> int:
        return self.geometry.taps * el.size(self.out_shape)

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        dtype = semiring.dtype(cotangent)
        if 0 in self.out_shape:
            return semiring.zero(self.in_shape, dtype)

        def step(padded: Elements, tap: Any) -> Elements:
            parts = self._scale(semiring, cotangent, tap)
            return self.geometry.accumulate(semiring, padded, parts, tap, ())

        state = semiring.zero(self.geometry.padded_shape, dtype)
        pulled = self.geometry.over_taps(step, state)
        return self.geometry.unpad(pulled, semiring.zero((), dtype), ())

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        dtype = semiring.dtype(tangent)
        zero = semiring.zero(self.out_shape, dtype)
        if 0 in self.out_shape:
            return zero
        padded = self.geometry.pad(tangent, semiring.zero((), dtype), 0)

        def step(pushed: Elements, tap: Any) -> Elements:
            parts = self._scale(semiring, self.geometry.read(padded, tap, ()), tap)
            return el.cast_like(semiring.add(pushed, parts), zero)

        return self.geometry.over_taps(step, zero)

    def _scale(self, semiring: Semiring, elements: Elements, tap: Any) -> Elements:
        if self.weights is not None:
            weights = self.weights[tap].astype(semiring.dtype(elements))
            return semiring.scale_selected(weights, weights != 0, elements)
        if self.selected is None:
            return semiring.pass_through(elements)
        padded = self.geometry.pad(positions(self.in_shape), jnp.asarray(-1, jnp.int32), 0)
        chosen = self.geometry.read(padded, tap, ()) == self.selected
        weights = chosen.astype(semiring.dtype(elements))
        return semiring.scale_selected(weights, chosen, elements)


@arrays("weights")
@dataclasses.dataclass(frozen=True)
class Convolution(LocalJacobian):
    """A contraction per tap of the window.

    ``o[g, o, n, y] = Σ_{c, k} lhs[g, c, n, y·s + k·d] rhs[g, o, c, k]``

    Attributes:
        weights: the other operand: rhs for the edges from lhs, lhs for those from rhs; of the
            shape that ``axes`` refers to.
        from_lhs: which of the two operands the edges start from.
        geometry: the window, over the spatial axes.
        layouts: of lhs, rhs and out: how each becomes ``[groups, channels, …, *spatial]``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> blur = jnp.array([1.0, 2.0, 1.0])
        >>> f = lambda x: jnp.convolve(x, blur, mode="valid").sum()
        >>> "Convolution" in [row.kind for row in sj.explain(f)(jnp.ones(5))]
        True
        >>> print(sj.semiring_grad(f, sj.AbsMaxProduct())(jnp.ones(5)))
        [1. 2. 2. 2. 1.]
    """

    weights: jax.Array
    from_lhs: bool
    geometry: Geometry
    layouts: tuple[Layout, Layout, Layout]

    kind: ClassVar[str] = "Convolution"

    @property
    def in_shape(self) -> Shape:
        """The shape of the operand the edges start from."""
        return self.layouts[0 if self.from_lhs else 1].shape

    @property
    def out_shape(self) -> Shape:
        """The shape of the convolution."""
        return self.layouts[2].shape

    @property
    def edges(self) -> int:
        _, channels = self.layouts[0].canonical[:2]
        return el.size(self.out_shape) * channels * self.geometry.taps

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        lhs, rhs, out = self.layouts
        groups, channels, n, *_ = lhs.canonical
        outs, y, taps = out.canonical[1], self.geometry.out_shape, self.geometry.taps
        dtype = semiring.dtype(cotangent)
        if 0 in self.out_shape:
            return semiring.zero(self.in_shape, dtype)
        if self.from_lhs and self._at_once(semiring, (groups, outs, n), self.geometry.in_shape):
            kernels = self._kernels().transpose(1, 3, 0, 2)  # [groups, channels, taps, out]
            readers = self.geometry.readers
            return self._over_all_taps(semiring, readers, kernels, cotangent, out, lhs)
        if self.from_lhs:
            kernels = self._kernels().mT  # [taps, groups, channels, out]
            lead = (groups, channels, n)
            g = out.apply(cotangent)  # [groups, out, n, *y]
            merged = el.reshape(g, out.canonical, (groups, outs, n * el.size(y)))

            def to_lhs(padded: Elements, tap: Any) -> Elements:
                parts = einsum(semiring, MATRICES, kernels[tap], merged)
                parts = el.reshape(parts, (groups, channels, n * el.size(y)), (*lead, *y))
                return self.geometry.accumulate(semiring, padded, parts, tap, lead)

            state = semiring.zero((*lead, *self.geometry.padded_shape), dtype)
            pulled = self.geometry.over_taps(to_lhs, state)
            return lhs.invert(self.geometry.unpad(pulled, semiring.zero((), dtype), lead))

        padded, inside = self._padded_lhs()
        g = out.apply(cotangent)  # [groups, out, n, *y]
        columns = el.transpose(
            el.reshape(g, out.canonical, (groups, outs, n, el.size(y))), (0, 2, 3, 1)
        )  # [groups, n, y, out]
        zero = semiring.zero((groups, n, el.size(y), outs), dtype)

        def to_rhs(tap: Any) -> Elements:
            seen = self._seen(padded, tap)  # [groups, n · y, channels]
            mask = self._inside(inside, tap)[:, None]
            kept = el.where(
                jnp.broadcast_to(mask, (groups, n, *mask.shape[:1], outs)), columns, zero
            )
            kept = el.reshape(kept, (groups, n, el.size(y), outs), (groups, n * el.size(y), outs))
            return einsum(semiring, "bkm,bkn->bmn", seen, kept)  # [groups, channels, out]

        pulled = lax.map(to_rhs, jnp.arange(taps))  # [taps, groups, channels, out]
        pulled = el.transpose(pulled, (1, 3, 2, 0))
        return rhs.invert(el.reshape(pulled, (groups, outs, channels, taps), rhs.canonical))

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        lhs, rhs, out = self.layouts
        groups, channels, n, *_ = lhs.canonical
        outs, y, taps = out.canonical[1], self.geometry.out_shape, self.geometry.taps
        dtype = semiring.dtype(tangent)
        shape = (groups, outs, n * el.size(y))
        zero = semiring.zero(shape, dtype)
        if 0 in self.out_shape:
            return semiring.zero(self.out_shape, dtype)
        lead = (groups, channels, n)
        if self.from_lhs and self._at_once(semiring, lead, y):
            kernels = self._kernels().transpose(1, 2, 0, 3)  # [groups, out, taps, channels]
            patches = self.geometry.patches
            return self._over_all_taps(semiring, patches, kernels, tangent, lhs, out)
        if self.from_lhs:
            kernels = self._kernels()  # [taps, groups, out, channels]
            padded = self.geometry.pad(lhs.apply(tangent), semiring.zero((), dtype), 3)

            def part(tap: Any) -> Elements:
                read = self.geometry.read(padded, tap, lead)
                read = el.reshape(read, (*lead, *y), (groups, channels, n * el.size(y)))
                return einsum(semiring, MATRICES, kernels[tap], read)
        else:
            weights, inside = self._padded_lhs()
            t = el.reshape(rhs.apply(tangent), rhs.canonical, (groups, outs, channels, taps))
            t = el.transpose(t, (3, 0, 2, 1))  # [taps, groups, channels, out]

            def part(tap: Any) -> Elements:
                kernel = el.map_leaves(lambda leaf: leaf[tap], t)
                pushed = einsum(semiring, MATRICES, self._seen(weights, tap), kernel)
                pushed = el.transpose(pushed, (0, 2, 1))  # [groups, out, n · y]
                mask = jnp.tile(self._inside(inside, tap), n)
                return el.where(jnp.broadcast_to(mask, shape), pushed, zero)

        def step(pushed: Elements, tap: Any) -> Elements:
            return el.cast_like(semiring.add(pushed, part(tap)), zero)

        pushed = self.geometry.over_taps(step, zero)
        return out.invert(el.reshape(pushed, shape, out.canonical))

    def _at_once(self, semiring: Semiring, lead: Shape, spatial: Shape) -> bool:
        """Tell whether all taps are worth one contraction of what is then stored for each of them.

        Where outputs lie far apart, most of the inputs are read at a few taps only.
        """
        taps, sparse = self.geometry.taps, el.size(self.geometry.strides)
        size = taps * el.size((*lead, *spatial)) * semiring.bytes_per_element(jnp.float32)
        return sparse == 1 and size <= PATCHES_BYTES

    def _over_all_taps(
        self,
        semiring: Semiring,
        gather: Callable[[Elements, Elements, Axes], Elements],
        kernels: jax.Array,
        elements: Elements,
        source: Layout,
        target: Layout,
    ) -> Elements:
        """Contract once, over taps and channels.

        Args:
            semiring: that of the elements.
            gather: what stores the elements at every tap.
            kernels: ``[groups, rows, taps, channels]``.
            elements: those of one side of the convolution.
            source: the layout of that side.
            target: the layout of the other side, for the result.
        """
        groups, rows, taps, channels = kernels.shape
        kernels = kernels.reshape(groups, rows, taps * channels)
        zero = semiring.zero((), semiring.dtype(elements))
        rank = len(self.geometry.window)
        if groups == 1 and source.channels_last and target.channels_last:
            read = gather(elements, zero, Axes(1, 1))  # [n, *spatial, taps, channels]
            others = semiring.shape(read)[: 1 + rank]
            read = el.reshape(
                read, (*others, taps, channels), (1, el.size(others), taps * channels)
            )
            found = einsum(semiring, "bmk,bnk->bnm", kernels, read)
            return el.reshape(found, (1, el.size(others), rows), target.shape)
        read = gather(
            source.apply(elements), zero, Axes(3)
        )  # [groups, channels, n, taps, *spatial]
        shape = semiring.shape(read)
        n, spatial = shape[2], shape[4:]
        read = el.transpose(read, (0, 3, 1, 2, *range(4, 4 + rank)))
        columns = n * el.size(spatial)
        merged = groups, taps * channels, columns
        read = el.reshape(read, (groups, taps, channels, n, *spatial), merged)
        found = einsum(semiring, MATRICES, kernels, read)
        return target.invert(el.reshape(found, (groups, rows, columns), target.canonical))

    def _kernels(self) -> jax.Array:
        groups, outs, channels = self.layouts[1].canonical[:3]
        kernels = self.layouts[1].apply(accumulated(self.weights))
        kernels = kernels.reshape(groups, outs, channels, self.geometry.taps)
        return kernels.transpose(3, 0, 1, 2)

    def _padded_lhs(self) -> tuple[jax.Array, jax.Array]:
        """Return the padded input, and a mask of where it is not padding."""
        weights = self.layouts[0].apply(accumulated(self.weights))
        inside = jnp.ones(self.geometry.in_shape, bool)
        padded = self.geometry.pad(weights, jnp.zeros((), weights.dtype), 3)
        return padded, self.geometry.pad(inside, jnp.zeros((), bool), 0)

    def _seen(self, padded: jax.Array, tap: Any) -> jax.Array:
        groups, channels, n, *_ = self.layouts[0].canonical
        seen = self.geometry.read(padded, tap, (groups, channels, n))
        return seen.reshape(groups, channels, n * el.size(self.geometry.out_shape)).mT

    def _inside(self, inside: jax.Array, tap: Any) -> jax.Array:
        return self.geometry.read(inside, tap, ()).ravel()


@dataclasses.dataclass(frozen=True)
class Layout:
    """The way an operand of a convolution becomes [groups, a, b, *spatial].

    Attributes:
        shape: the operand's shape.
        split: the axis whose leading factor the groups are, and the number of groups.
        order: the permutation of the axes, the groups' axis being inserted before ``split[0]``.
    """

    shape: Shape
    split: tuple[int, int]
    order: tuple[int, ...]

    @property
    def canonical(self) -> Shape:
        """The shape it becomes."""
        grouped = self._grouped()
        return tuple(grouped[axis] for axis in self.order)

    @property
    def channels_last(self) -> bool:
        """True if the operand itself is [b, *spatial, groups and a]."""
        rank = len(self.shape) - 1
        return self.order == (rank, rank + 1, *range(rank))

    def apply(self, elements: Elements) -> Elements:
        """Map from the operand's shape to the canonical one."""
        return el.transpose(el.reshape(elements, self.shape, self._grouped()), self.order)

    def invert(self, elements: Elements) -> Elements:
        """Map from the canonical shape to the operand's."""
        grouped = el.transpose(elements, tuple(np.argsort(self.order)))
        return el.reshape(grouped, self._grouped(), self.shape)

    def _grouped(self) -> Shape:
        axis, groups = self.split
        return (
            *self.shape[:axis],
            groups,
            self.shape[axis] // groups,
            *self.shape[axis + 1 :],
        )


def _layout(shape: Shape, split: tuple[int, int], first: int, second: int, spatial: Any) -> Layout:
    axis = split[0]

    def shifted(a: int) -> int:
        return a + 1 if a >= axis else a

    return Layout(shape, split, (axis, shifted(first), shifted(second), *map(shifted, spatial)))


@rule_for("conv_general_dilated", bilinear=True)
def conv_jacobian(equation: Equation, lhs: Any, rhs: Any) -> list[LocalJacobian]:
    """Return ∂o/∂lhs, the kernel slid over the input, and ∂o/∂rhs, the input over the kernel."""
    params = equation.params
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    out_shape = equation.outputs[0].shape
    by_batch = params["batch_group_count"] > 1
    groups = params["batch_group_count"] if by_batch else params["feature_group_count"]
    # The groups split the input's batch or its channels, and always the kernel's outputs.
    lhs_split = lhs_spec[0] if by_batch else lhs_spec[1]
    layouts = (
        _layout(lhs.shape, (lhs_split, groups), lhs_spec[1], lhs_spec[0], lhs_spec[2:]),
        _layout(rhs.shape, (rhs_spec[0], groups), rhs_spec[0], rhs_spec[1], rhs_spec[2:]),
        _layout(out_shape, (out_spec[1], groups), out_spec[1], out_spec[0], out_spec[2:]),
    )
    padding = zip(params["padding"], params["lhs_dilation"], strict=True)
    geometry = Geometry(
        in_shape=layouts[0].canonical[3:],
        out_shape=layouts[2].canonical[3:],
        window=layouts[1].canonical[3:],
        strides=tuple(params["window_strides"]),
        dilation=tuple(params["rhs_dilation"]),
        padding=tuple((low, high, dilation - 1) for (low, high), dilation in padding),
    )
    return [
        Convolution(rhs, True, geometry, layouts),
        Convolution(lhs, False, geometry, layouts),
    ]


def _pooling_geometry(equation: Equation, in_shape: Shape) -> Geometry:
    params = equation.params
    ones = (1,) * len(in_shape)
    padding = zip(params["padding"], params.get("base_dilation", ones), strict=True)
    return Geometry(
        in_shape=in_shape,
        out_shape=equation.outputs[0].shape,
        window=tuple(params["window_dimensions"]),
        strides=tuple(params["window_strides"]),
        dilation=tuple(params.get("window_dilation", ones)),
        padding=tuple((low, high, dilation - 1) for (low, high), dilation in padding),
    )


@rule_for("reduce_window_sum", linear_in=EVERY)
def reduce_window_sum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1 for i in o's window."""
    return [Pooling(_pooling_geometry(equation, x.shape))]


@compiled_on_numbers
def averaged_window_extremum(equation: Equation, line: Line) -> list[LocalJacobian]:
    """Return ∂o/∂i, the share of the line on which i is the largest of the window."""
    x, r = (sign_of_extremum(equation) * end for end in line.ends(0))
    geometry = _pooling_geometry(equation, x.shape)
    nothing = jnp.asarray(-jnp.inf, x.dtype)

    def windows(end: jax.Array) -> jax.Array:
        padded = geometry.pad(end, nothing, 0)
        taps = jax.vmap(lambda tap: geometry.read(padded, tap, ()))(jnp.arange(geometry.taps))
        return jnp.moveaxis(taps, 0, -1)

    shares = shares_of_largest(windows(x), windows(r), ties=False)
    return [Pooling(geometry, weights=jnp.moveaxis(shares, -1, 0))]


@rule_for("reduce_window_max", "reduce_window_min", average=averaged_window_extremum)
def reduce_window_extremum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1 for the element of the window that JAX's derivative selects, else 0."""
    selected = _selected(
        lambda tangent: jax.jvp(lambda x: equation.bind(x)[0], (x,), (tangent,))[1], x
    )
    return [Pooling(_pooling_geometry(equation, x.shape), selected)]


@rule_for("select_and_gather_add", linear_in=FIRST)
def select_and_gather_add_jacobian(
    equation: Equation, tangents: Any, operand: Any
) -> list[LocalJacobian | None]:
    """Read from ``tangents`` the element that wins the window of ``operand``."""
    selected = _selected(lambda tangent: equation.bind(tangent, operand)[0], tangents)
    return [Pooling(_pooling_geometry(equation, tangents.shape), selected), None]


declare("select_and_scatter_add", linear_in=FIRST)


def _selected(select: Callable[[jax.Array], jax.Array], x: Any) -> jax.Array:
    """Find the positions that a selection picks by letting it pick digits of the positions.

    A digit is exact in the dtype. Where a window holds nothing but padding, the result is
    arbitrary: nothing there could equal it.
    """
    base = 2 ** min(7, jnp.finfo(x.dtype).nmant + 1)
    own = positions(x.shape)
    selected, scale = jnp.zeros((), own.dtype), 1
    while True:
        digit = select((own // scale % base).astype(x.dtype))
        selected = selected + digit.astype(own.dtype) * scale
        scale *= base
        if scale >= max(1, x.size):
            return selected

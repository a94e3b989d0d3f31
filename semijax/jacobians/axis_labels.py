"""The axes that a function only carries along: the batch axes of its Jacobian.

An axis of the input is a batch axis if some axis of the output has the same index for every edge:
the Jacobian is then block diagonal, one block per index. Softmax over the last axis of an array of
shape [heads, tokens, tokens] needs a dense block of tokens × tokens, not one of
(heads · tokens · tokens)².
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from semijax.elements import Shape
from semijax.jacobians.base import AxisRule, declaration
from semijax.trace.graph import Constant, Equation, Graph, Variable, build

Labels = tuple[int | None, ...]
"""A label for every axis of an array; None for one that depends on no index of the inputs."""


def batch_axes(pullback: Graph, argument: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the batch axes of a function's Jacobian: those of its input and those of its output.

    Args:
        pullback: the graph of a linear function from cotangents of outputs to the cotangent of one
            input. The axes are read off it, so that they hold for a custom derivative too.
        argument: the position, among its inputs, of the output's cotangent.
    """
    analysis = AxisLabels()
    labels: list[Labels] = [(None,) * len(v.shape) for v in pullback.inputs]
    labels[argument] = cotangent = analysis.fresh(pullback.inputs[argument].shape)
    (pulled,) = analysis.run(pullback, labels)
    return analysis.shared(pulled, cotangent)


class AxisLabels:
    """A label for every axis of the inputs, followed through the equations.

    ``mixed`` holds the labels along which different indices have met. An axis without a label holds
    nothing that depends on an index of the inputs.
    """

    def __init__(self) -> None:
        self.parents: list[int] = []
        self.mixed: set[int] = set()
        self.seen: list[Labels] = []

    def fresh(self, shape: Sequence[int]) -> Labels:
        start = len(self.parents)
        self.parents += range(start, start + len(shape))
        return tuple(range(start, start + len(shape)))

    def find(self, label: int) -> int:
        while self.parents[label] != label:
            label = self.parents[label]
        return label

    def unify(self, *groups: Labels) -> Labels:
        """Merge, axis by axis, the labels of arrays that meet elementwise."""
        merged: list[int | None] = []
        for labels in zip(*groups, strict=True):
            known = [self.find(label) for label in labels if label is not None]
            for label in known[1:]:
                self.parents[self.find(label)] = self.find(known[0])
            merged.append(self.find(known[0]) if known else None)
        return tuple(merged)

    def mix(self, labels: Sequence[int | None]) -> None:
        self.mixed |= {label for label in labels if label is not None}

    def shared(self, inputs: Labels, outputs: Labels) -> tuple[tuple[int, ...], tuple[int, ...]]:
        mixed = {self.find(label) for label in self.mixed}
        for labels in self.seen:  # an outer product: two axes with the same label
            roots = [self.find(label) for label in labels if label is not None]
            mixed |= {root for root in roots if roots.count(root) > 1}
        ins = {self.find(label): a for a, label in enumerate(inputs) if label is not None}
        outs = {self.find(label): a for a, label in enumerate(outputs) if label is not None}
        kept = [label for label in ins if label in outs and label not in mixed]
        return tuple(ins[label] for label in kept), tuple(outs[label] for label in kept)

    def run(self, graph: Graph, inputs: Sequence[Labels]) -> list[Labels]:
        known: dict[Variable, Labels] = {v: (None,) * len(v.shape) for v in graph.constants}
        known.update(zip(graph.inputs, inputs, strict=True))

        def read(v: Variable | Constant) -> Labels:
            return known[v] if isinstance(v, Variable) else (None,) * np.ndim(v.value)

        self.seen += inputs
        for equation in graph.equations:
            outputs = self.step(equation, [read(v) for v in equation.inputs])
            known.update(zip(equation.outputs, outputs, strict=True))
            self.seen += outputs
        return [read(v) for v in graph.outputs]

    def step(self, equation: Equation, inputs: list[Labels]) -> list[Labels]:
        """Map the labels of an equation's inputs to those of its outputs."""
        if equation.is_atomic:
            return self.run(build(equation.params["jaxpr"]), inputs)
        rule = declaration(equation.primitive).axes or all_mixed
        return rule(self, equation, inputs)


# How the axes of an equation's inputs become those of its outputs: what a primitive declares. Each
# is called with the labels so far, the equation, and the labels of its inputs.


def all_mixed(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Let any index meet any other."""
    for own in inputs:
        labels.mix(own)
    return [(None,) * len(v.shape) for v in equation.outputs]


def unchanged(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Give output k the axes of input k."""
    del labels, equation
    return inputs


def elementwise(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Let equal indices meet, with the last axes aligned."""
    rank = len(equation.outputs[0].shape)
    aligned = [
        _aligned(equation, i, own, range(rank - len(own), rank)) for i, own in enumerate(inputs)
    ]
    return [labels.unify(*aligned)]


def same_bits(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Treat as elementwise if the dtypes are equally wide."""
    same_rank = len(inputs[0]) == len(equation.outputs[0].shape)
    return (elementwise if same_rank else all_mixed)(labels, equation, inputs)


def broadcast(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Move the axes to where ``broadcast_dimensions`` says."""
    del labels
    return [_aligned(equation, 0, inputs[0], equation.params["broadcast_dimensions"])]


def transposed(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Permute the axes."""
    del labels
    return [tuple(inputs[0][a] for a in equation.params["permutation"])]


def squeezed(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Drop the squeezed axes, of size 1."""
    del labels
    gone = equation.params["dimensions"]
    return [tuple(x for a, x in enumerate(inputs[0]) if a not in gone)]


def reshaped(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Drop and add axes of size 1, keep the first and last unchanged ones, and mix the others."""
    (sizes, *_), out, own = shapes(equation), equation.outputs[0].shape, inputs[0]
    same = unchanged_axes(sizes, out)
    labels.mix([own[a] for a, n in enumerate(sizes) if n != 1 and a not in same.values()])
    return [tuple(own[same[a]] if a in same else None for a in range(len(out)))]


def unchanged_axes(sizes: Shape, new_sizes: Shape) -> dict[int, int]:
    """Return which axis each axis of a reshaped array has been: the first and last unchanged ones.

    Axes of size 1 don't count.
    """
    old, new, found = list(range(len(sizes))), list(range(len(new_sizes))), {}

    def keep() -> None:
        for end in (0, -1):
            while old and new and sizes[old[end]] == new_sizes[new[end]]:
                found[new.pop(end)] = old.pop(end)

    keep()
    old, new = [a for a in old if sizes[a] != 1], [a for a in new if new_sizes[a] != 1]
    keep()
    return found


def reduced(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Mix and drop the axes that are reduced over."""
    axes = equation.params["axes"]
    labels.mix([inputs[0][a] for a in axes])
    return [tuple(x for a, x in enumerate(inputs[0]) if a not in axes)]


def contracted(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Pair the batch axes, mix and drop the contracted ones, and put the others side by side.

    As in ``jax.lax.dot_general``.
    """
    lhs, rhs = inputs
    (lhs_in, rhs_in), (lhs_batch, rhs_batch) = equation.params["dimension_numbers"]
    labels.mix([lhs[a] for a in lhs_in] + [rhs[a] for a in rhs_in])
    batch = labels.unify(tuple(lhs[a] for a in lhs_batch), tuple(rhs[a] for a in rhs_batch))
    free = [x for a, x in enumerate(lhs) if a not in (*lhs_in, *lhs_batch)]
    free += [x for a, x in enumerate(rhs) if a not in (*rhs_in, *rhs_batch)]
    return [(*batch, *free)]


def gathered(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Keep the axes of the indices and those of the operand that are read whole; mix the others."""
    (operand, indices), numbers = inputs, equation.params["dimension_numbers"]
    out: list[int | None] = [None] * len(equation.outputs[0].shape)
    sizes, slices = shapes(equation)[0], equation.params["slice_sizes"]
    batched = numbers.operand_batching_dims
    kept = [a for a in range(len(sizes)) if a not in (*numbers.collapsed_slice_dims, *batched)]
    whole = {a for a in kept if slices[a] == sizes[a]}
    labels.mix([x for a, x in enumerate(operand) if a not in whole and a not in batched])
    for axis, a in zip(numbers.offset_dims, kept, strict=True):
        out[axis] = operand[a] if a in whole else None
    read = [a for a in range(len(out)) if a not in numbers.offset_dims]
    pairs = dict(zip(numbers.start_indices_batching_dims, batched, strict=True))
    for n, (axis, own) in enumerate(zip(read, indices[:-1], strict=True)):
        both = (own,), ((operand[pairs[n]],) if n in pairs else (None,))
        (out[axis],) = labels.unify(*both)
    return [tuple(out)]


def stacked(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Let equal indices of all inputs meet, and add an axis."""
    own, axis = labels.unify(*inputs), equation.params["axis"]
    return [(*own[:axis], None, *own[axis:])]


def unstacked(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
    """Mix and drop an axis."""
    (own,), axis = inputs, equation.params["axis"]
    labels.mix([own[axis]])
    return [(*own[:axis], *own[axis + 1 :])] * len(equation.outputs)


def called(parameter: str) -> AxisRule:
    """Make a rule that follows the jaxpr in a parameter of the equation."""

    def rule(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
        return labels.run(build(equation.params[parameter]), inputs)

    return rule


def mixing(axes_of: Callable[[Equation], Collection[int] | None]) -> AxisRule:
    """Make a rule that mixes some axes (None: all); the others meet one by one, in order."""

    def rule(labels: AxisLabels, equation: Equation, inputs: list[Labels]) -> list[Labels]:
        axes = axes_of(equation)
        if axes is None:
            return all_mixed(labels, equation, inputs)
        arrays = [own for own in inputs if own]
        if not arrays:
            return [(None,) * len(v.shape) for v in equation.outputs]
        for own in arrays:
            labels.mix([label for a, label in enumerate(own) if a in axes])
        kept = [[None if a in axes else x for a, x in enumerate(own)] for own in arrays]
        rank = max(map(len, kept))
        merged = labels.unify(*(tuple(k) for k in kept if len(k) == rank))
        return [merged[: len(v.shape)] + (None,) * (len(v.shape) - rank) for v in equation.outputs]

    return rule


def shapes(equation: Equation) -> list[Shape]:
    """Return the shapes of an equation's inputs."""
    return [np.shape(v.value) if isinstance(v, Constant) else v.shape for v in equation.inputs]


def mixing_where_resized(operand: int, other: int | None = None) -> AxisRule:
    """Make a rule that mixes axes where an input differs in size from another, or the output."""

    def axes_of(equation: Equation) -> set[int]:
        sizes = shapes(equation)
        than = equation.outputs[0].shape if other is None else sizes[other]
        return {a for a, n in enumerate(sizes[operand]) if n != than[a]}

    return mixing(axes_of)


def mixing_along(parameter: str) -> AxisRule:
    """Make a rule that mixes the axis, or the axes, in a parameter of the equation."""

    def axes_of(equation: Equation) -> set[int]:
        axes = equation.params[parameter]
        return {int(axes)} if isinstance(axes, (int, np.integer)) else set(axes)

    return mixing(axes_of)


def _aligned(equation: Equation, i: int, labels: Labels, dims: Sequence[int]) -> Labels:
    """Return labels of the output's axes; one that was stretched from size 1 has none."""
    out, sizes = equation.outputs[0].shape, shapes(equation)[i]
    at = {d: x for d, n, x in zip(dims, sizes, labels, strict=False) if n == out[d]}
    return tuple(at.get(a) for a in range(len(out)))

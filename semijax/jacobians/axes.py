"""Which axes a function only carries along: the batch axes of its Jacobian.

An axis of the input is a batch axis if some axis of the output has the same index for every edge:
the Jacobian is then block diagonal, one block per index. Softmax over the last axis of an array of
shape [heads, tokens, tokens] needs a dense block of tokens × tokens, not one of
(heads · tokens · tokens)².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from semijax.jacobians.elementwise import ELEMENTWISE, UNIT
from semijax.trace.graph import Constant, Equation, Graph, Variable, build

_ELEMENTWISE = {
    *ELEMENTWISE,
    *UNIT,
    *("eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "xor", "is_finite"),
    *("real", "imag", "complex", "conj", "stop_gradient", "optimization_barrier", "polynomial"),
}
_REDUCTIONS = {f"reduce_{kind}" for kind in ("sum", "max", "min", "prod", "and", "or", "xor")} | {
    "argmax",
    "argmin",
}
_BATCHED = {  # linear algebra: the last two axes of every operand mix, the first ones are a batch
    *("cholesky", "lu", "qr", "geqrf", "householder_product", "eigh", "eig", "svd"),
    "triangular_solve",
}
_CALLS = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def batch_axes(
    pullback: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]], x: Any, out: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The batch axes of a function's Jacobian: those of its input, and those of its output.

    Args:
        pullback: from the input and a cotangent of the output to the output and the cotangent of
            the input. The axes are read off this jaxpr, so that they hold for a custom derivative
            too.
        x: the input, or its shape and dtype.
        out: the output, or its shape and dtype.
    """
    analysis = _Labels()
    graph = build(jax.make_jaxpr(pullback)(x, out))
    start, cotangent = (analysis.fresh(v.shape) for v in graph.inputs)
    end, pulled = analysis.run(graph, [start, cotangent])
    analysis.unify(end, cotangent)
    analysis.unify(start, pulled)
    return analysis.shared(pulled, cotangent)


Labels = tuple[int | None, ...]


class _Labels:
    """A label for every axis of the inputs, followed through the equations.

    ``mixed`` has the labels along which different indices have met. An axis without a label holds
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
        """Arrays that meet elementwise: axis by axis, their labels become one."""
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
            return known[v] if isinstance(v, Variable) else (None,) * getattr(v.value, "ndim", 0)

        self.seen += inputs
        for equation in graph.equations:
            outputs = self.step(equation, [read(v) for v in equation.inputs])
            known.update(zip(equation.outputs, outputs, strict=True))
            self.seen += outputs
        return [read(v) for v in graph.outputs]

    def step(self, equation: Equation, inputs: list[Labels]) -> list[Labels]:
        name, params = equation.primitive.name, equation.params
        out = equation.outputs[0].shape if equation.outputs else ()
        if name in _CALLS or equation.is_atomic:
            return self.run(build(params[_CALLS.get(name, "jaxpr")]), inputs)
        same_bits = name == "bitcast_convert_type" and len(inputs[0]) == len(out)
        if (name in _ELEMENTWISE or same_bits) and len(equation.outputs) == 1:
            rank = len(out)
            aligned = [
                self._aligned(equation, i, labels, range(rank - len(labels), rank))
                for i, labels in enumerate(inputs)
            ]
            return [self.unify(*aligned)]
        if name == "broadcast_in_dim":
            return [self._aligned(equation, 0, inputs[0], params["broadcast_dimensions"])]
        if name == "transpose":
            return [tuple(inputs[0][a] for a in params["permutation"])]
        if name == "squeeze":
            return [tuple(x for a, x in enumerate(inputs[0]) if a not in params["dimensions"])]
        if name == "reshape":
            return [self._reshaped(equation, inputs[0])]
        if name in _REDUCTIONS:
            self.mix([inputs[0][a] for a in params["axes"]])
            return [tuple(x for a, x in enumerate(inputs[0]) if a not in params["axes"])]
        if name == "dot_general":
            return [self._contracted(params, *inputs)]
        if name == "stack":
            labels, axis = self.unify(*inputs), params["axis"]
            return [(*labels[:axis], None, *labels[axis:])]
        if name == "unstack":
            labels, axis = inputs[0], params["axis"]
            self.mix([labels[axis]])
            return [(*labels[:axis], *labels[axis + 1 :])] * len(equation.outputs)
        return self._partly_mixed(_mixing_axes(equation), equation, inputs)

    def _aligned(self, equation: Equation, i: int, labels: Labels, dims: Sequence[int]) -> Labels:
        """Labels of the output's axes; one that was stretched from size 1 has none."""
        out, v = equation.outputs[0].shape, equation.inputs[i]
        sizes = getattr(v, "shape", ())
        at = {d: x for d, n, x in zip(dims, sizes, labels, strict=False) if n == out[d]}
        return tuple(at.get(a) for a in range(len(out)))

    def _reshaped(self, equation: Equation, labels: Labels) -> Labels:
        """Axes of size 1 come and go; where the others change, everything mixes."""
        v = equation.inputs[0]
        assert isinstance(v, Variable)
        old = [(n, label) for n, label in zip(v.shape, labels, strict=True) if n != 1]
        out = equation.outputs[0].shape
        if [n for n, _ in old] != [n for n in out if n != 1]:
            self.mix(labels)
            return (None,) * len(out)
        rest = iter(label for _, label in old)
        return tuple(next(rest) if n != 1 else None for n in out)

    def _contracted(self, params: Any, lhs: Labels, rhs: Labels) -> Labels:
        (lhs_in, rhs_in), (lhs_batch, rhs_batch) = params["dimension_numbers"]
        self.mix([lhs[a] for a in lhs_in] + [rhs[a] for a in rhs_in])
        batch = self.unify(tuple(lhs[a] for a in lhs_batch), tuple(rhs[a] for a in rhs_batch))
        free = [x for a, x in enumerate(lhs) if a not in (*lhs_in, *lhs_batch)]
        free += [x for a, x in enumerate(rhs) if a not in (*rhs_in, *rhs_batch)]
        return (*batch, *free)

    def _partly_mixed(
        self, axes: set[int] | None, equation: Equation, inputs: list[Labels]
    ) -> list[Labels]:
        """Along these axes everything mixes (None: along all); the others meet one by one."""
        if axes is None:
            for labels in inputs:
                self.mix(labels)
            return [(None,) * len(v.shape) for v in equation.outputs]
        arrays = [labels for labels in inputs if labels]
        for labels in arrays:
            self.mix([label for a, label in enumerate(labels) if a in axes])
        kept = [[None if a in axes else x for a, x in enumerate(labels)] for labels in arrays]
        rank = max(map(len, kept))
        merged = self.unify(*(tuple(k) for k in kept if len(k) == rank))
        return [merged[: len(v.shape)] + (None,) * (len(v.shape) - rank) for v in equation.outputs]


def _mixing_axes(equation: Equation) -> set[int] | None:
    """The axes along which a primitive that keeps the order of its axes is not a batch."""
    name, params = equation.primitive.name, equation.params
    shapes = [getattr(v, "shape", ()) for v in equation.inputs]
    out = equation.outputs[0].shape if equation.outputs else ()
    if name in ("slice", "dynamic_slice"):
        return {a for a, n in enumerate(shapes[0]) if n != out[a]}
    if name == "dynamic_update_slice":
        return {a for a, n in enumerate(shapes[0]) if n != shapes[1][a]}
    if name == "pad":
        return {a for a, config in enumerate(params["padding_config"]) if any(config)}
    if name == "rev":
        return set(params["dimensions"])
    if name in ("concatenate", "sort"):
        return {params["dimension"]}
    if name in ("split", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"):
        return {params["axis"]}
    if name == "fft":
        return set(range(len(out) - len(params["fft_lengths"]), len(out)))
    if name in _BATCHED:
        rank = len(shapes[0])
        same = all(len(shape) == rank for shape in shapes)
        return {rank - 2, rank - 1} if same else None
    return None

"""The weights of a path's edges once more, without the local Jacobians it was found by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semijax.jacobians.dense import Function
from semijax.paths.call import Call
from semijax.paths.run import Step

Index = tuple[int, ...]


class Hop(NamedTuple):
    """An edge to be found again.

    Attributes:
        step: the number of the step.
        primitive: its equation's name.
        input, output: the positions of the two arrays.
        start, end: the indices in them.
    """

    step: int
    primitive: str
    input: int
    output: int
    start: Index
    end: Index


def recompute(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argnums: Sequence[int],
    hops: Sequence[Hop],
) -> list[float]:
    """∂o/∂i of every edge, by ``jax.vjp`` of its equation.

    Args:
        fun: the function.
        args: its arguments.
        kwargs: its keyword arguments.
        argnums: the arguments that paths start from.
        hops: the edges.

    Raises:
        ValueError: if the function has no such path.
    """
    steps = Call(fun, argnums, args, kwargs).run.steps
    weights = []
    for hop in hops:
        step = steps[hop.step] if hop.step < len(steps) else None
        if step is None or step.equation is None or not _is_there(step, hop):
            raise ValueError(
                f"This function has no such path: step {hop.step} is not the '{hop.primitive}' "
                f"from {list(hop.start)} to {list(hop.end)} that the path takes."
            )
        function = Function(step.equation, step.values, hop.input, hop.output)
        here = jnp.zeros(function.out.shape, function.out.dtype).at[hop.end].set(1)
        _, pulled = jax.jit(function.pullback)(function.x, here)
        weights.append(float(np.asarray(pulled)[hop.start]))
    return weights


def _is_there(step: Step, hop: Hop) -> bool:
    return (
        step.equation is not None
        and step.equation.name == hop.primitive
        and hop.input in step.inputs
        and hop.output in step.outputs
        and _fits(hop.start, step.inputs[hop.input].shape)
        and _fits(hop.end, step.outputs[hop.output].shape)
    )


def _fits(index: Index, shape: Index) -> bool:
    return len(index) == len(shape) and all(0 <= i < n for i, n in zip(index, shape, strict=True))

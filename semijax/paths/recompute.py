"""The weights of a path's edges once more, without the local Jacobians it was found by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax.jacobians.dense import Function
from semijax.paths.call import Call
from semijax.paths.run import Step

Index = tuple[int, ...]


def recompute(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argnums: Sequence[int],
    hops: Sequence[tuple[int, int, int]],
    nodes: Sequence[tuple[str, tuple[int, ...]]],
) -> list[float]:
    """∂o/∂i by ``jax.vjp`` of each equation.

    Args:
        fun: the function.
        args: its arguments.
        kwargs: its keyword arguments.
        argnums: the arguments that paths start from.
        hops: for each edge the number of the step, the positions of its input and output.
        nodes: for each node the primitive and the index.

    Raises:
        ValueError: if the function has no such path.
    """
    steps = Call(fun, argnums, args, kwargs).run.steps
    weights = []
    for (number, i, o), (_, start), (primitive, end) in zip(hops, nodes, nodes[1:], strict=False):
        step = steps[number] if number < len(steps) else None
        if step is None or not _is_there(step, i, o, start, end, primitive):
            raise ValueError(
                f"This function has no such path: step {number} is not the '{primitive}' from "
                f"{list(start)} to {list(end)} that the path takes."
            )
        assert step.equation is not None
        function = Function(step.equation, step.values, i, o)
        here = jnp.zeros(function.out.shape, function.out.dtype).at[end].set(1)
        _, pulled = jax.jit(function.pullback)(function.x, here)
        weights.append(float(np.asarray(pulled)[start]))
    return weights


def _is_there(step: Step, i: int, o: int, start: Index, end: Index, primitive: str) -> bool:
    return (
        step.equation is not None
        and step.equation.name == primitive
        and i in step.inputs
        and o in step.outputs
        and _fits(start, step.inputs[i].shape)
        and _fits(end, step.outputs[o].shape)
    )


def _fits(index: Index, shape: Index) -> bool:
    return len(index) == len(shape) and all(0 <= i < n for i, n in zip(index, shape, strict=True))

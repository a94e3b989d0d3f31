"""The weights of a path's edges once more, without the local Jacobians it was found by."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from semijax.jacobians.pullback import Pullback
from semijax.paths.call import Call
from semijax.paths.run import Run

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
    fun: functools.partial[Any],
    argnums: Sequence[int],
    sites: Sequence[str],
    start: tuple[str, Index, Index],
    hops: Sequence[Hop],
) -> list[float]:
    """∂o/∂i of every edge of a path, by ``jax.vjp`` of its equation alone.

    Args:
        fun: the function with its arguments.
        argnums: the arguments that paths start from.
        sites: the sites that they start from; none if they start from the arguments.
        start: the name of the array that the path starts in, its iteration, and the index.
        hops: the edges.

    Raises:
        ValueError: if there is no such path: it starts elsewhere, does not hang together, or ends
            before the output.
    """
    source = list(sites) or None
    call = Call(fun.func, fun.args, fun.keywords, argnums, source, caller="Path.verify")
    run, (name, iteration, index) = call.run, start
    arrays = [a for a, known in call.names.items() if (known, a.iteration) == (name, iteration)]
    if not arrays or not _fits(index, arrays[0].shape):
        known = list(dict.fromkeys(call.names.values()))
        raise ValueError(f"No path starts from {name}{list(index)}: it is none of {known}.")
    place, weights = (arrays[0], index), []
    for hop in hops:
        if not _leads_on(run, place, hop):
            raise ValueError(
                f"This function has no such path: step {hop.step} is not the '{hop.primitive}' "
                f"from {place[0].dtype}{list(place[1])} that the path takes."
            )
        step = run.steps[hop.step]
        assert step.equation is not None
        derivatives = Pullback(step.equation, step.values).derivatives()
        derivative = derivatives[hop.input, hop.output]
        here = jnp.zeros(derivative.out.shape, derivative.out.dtype).at[hop.end].set(1)
        weights.append(float(np.asarray(derivative.pull(here))[hop.start]))
        place = step.outputs[hop.output], hop.end
    if call.end is None or run.origin(*place) != run.origin(call.end, ()):
        raise ValueError("This function has no such path: it does not lead to the output.")
    return weights


def _leads_on(run: Run, place: tuple[Any, Index], hop: Hop) -> bool:
    """Whether the hop is an edge of the run that leaves this node."""
    step = run.steps[hop.step] if 0 <= hop.step < len(run.steps) else None
    return (
        step is not None
        and step.equation is not None
        and step.equation.name == hop.primitive
        and hop.input in step.inputs
        and hop.output in step.outputs
        and _fits(hop.start, step.inputs[hop.input].shape)
        and _fits(hop.end, step.outputs[hop.output].shape)
        and run.origin(step.inputs[hop.input], hop.start) == run.origin(*place)
    )


def _fits(index: Index, shape: Index) -> bool:
    return len(index) == len(shape) and all(0 <= i < n for i, n in zip(index, shape, strict=True))

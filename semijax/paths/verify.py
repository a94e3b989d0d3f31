"""The weights of a path's edges once more, without the local Jacobians it was found with."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semijax.jacobians.pullback import Pullback
from semijax.paths.call import Call
from semijax.paths.run import Run, Step
from semijax.trace.graph import Equation
from semijax.weighting import Weighting, line_of

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
    weighting: Weighting,
    argnums: Sequence[int],
    sites: Sequence[str],
    start: tuple[str, Index, Index],
    hops: Sequence[Hop],
) -> list[float]:
    """Compute the weight of every edge of a path, by ``jax.vjp`` of its equation alone.

    Args:
        fun: the function with its arguments.
        weighting: what the edges weigh.
        argnums: the arguments that paths start from.
        sites: the sites that they start from; none if they start from the arguments.
        start: the name of the array that the path starts in, its iteration, and the index.
        hops: the edges.

    Raises:
        ValueError: if there is no such path: it starts elsewhere, does not hang together, or ends
            before the output.
    """
    source = list(sites) or None
    given = fun.func, fun.args, fun.keywords, argnums, source
    call = Call(*given, caller="Path.verify", weighting=weighting)
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
        weights.append(_weight(step, hop, weighting))
        place = step.outputs[hop.output], hop.end
    if call.end is None or run.origin(*place) != run.origin(call.end, ()):
        raise ValueError("This function has no such path: it does not lead to the output.")
    return weights


def _weight(step: Step, hop: Hop, weighting: Weighting) -> float:
    """Return the derivative, or its average along the weighting's line for the equation.

    Where there is no line, or an index or a mask differs at its ends, return the weighting's own.
    """
    equation = step.equation
    assert equation is not None
    line = line_of(weighting, equation, *step.runs)
    if line is None or {*line.others} != line.moving:
        begin = _position(hop.start, step.inputs[hop.input].shape)
        end = _position(hop.end, step.outputs[hop.output].shape)
        jacobian = weighting.jacobian(equation, *step.runs)
        found = dict(jacobian.leaving(hop.input, np.array([begin])))[hop.output]
        return float(found.weight[found.other == end].sum())

    def derivative(t: Any, left: Any) -> Any:
        values = line.at(t, left)
        try:
            derivatives = Pullback(equation, values).derivatives()
        except NotImplementedError:  # JAX differentiates some forward only
            return _forward(equation, values, hop)
        own = derivatives.get((hop.input, hop.output))
        if own is None:  # a step: the derivative is 0, whatever the values
            return jnp.zeros(())
        here = jnp.zeros(own.out.shape, own.out.dtype).at[hop.end].set(1)
        return own.pull(here)[hop.start]

    return _average(jax.jit(derivative)) if line.moving else float(derivative(1.0, 0.0))


def _forward(equation: Equation, values: Sequence[Any], hop: Hop) -> Any:
    """Return the derivative of one element of an output by one of an input, both real."""
    x = jnp.asarray(values[hop.input])

    def output(x: Any) -> Any:
        return equation.bind(*values[: hop.input], x, *values[hop.input + 1 :])[hop.output]

    return jax.jvp(output, (x,), (jnp.zeros_like(x).at[hop.start].set(1),))[1][hop.end]


def _average(function: Callable[[float, float], Any]) -> float:
    """Compute ∫₀¹ of a function of t and 1 − t, adaptively.

    It goes from both ends, where a quotient may be steep, and in eighths, so that what is not 0 in
    a narrow place is not missed.
    """
    from scipy import integrate  # takes as long to import as JAX

    options: dict[str, Any] = {"epsabs": 0, "epsrel": 1e-9, "limit": 60}
    halves = (lambda t: float(function(t, 1 - t)), lambda t: float(function(1 - t, t)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", integrate.IntegrationWarning)  # at a kink it is near enough
        parts = [
            integrate.quad(half, low, high, **options)[0]
            for half in halves
            for low, high in itertools.pairwise(np.linspace(0, 0.5, 5))
        ]
    return float(sum(parts))


def _position(index: Index, shape: Index) -> int:
    return int(np.ravel_multi_index(index, shape)) if shape else 0


def _leads_on(run: Run, place: tuple[Any, Index], hop: Hop) -> bool:
    """Tell whether the hop is an edge of the run that leaves this node."""
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

"""What lies ahead of every node: a semiring's reverse sweep over a run, all of it kept.

In double precision, so that what is compared there differs by more than rounding; and weights with
an exponent for every array, so that nothing overflows, however deep the network.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements
from semijax.jacobians import EquationJacobian
from semijax.jacobians.base import Structure
from semijax.jacobians.edges import is_static
from semijax.paths.run import Array, Run, Step
from semijax.semirings import Product, Semiring

LARGE = 2.0**256
"""Numbers beyond it, or below its inverse, are written with another exponent."""


class Scaled(NamedTuple):
    """Elements times 2 to an exponent."""

    elements: Elements
    exponent: int = 0


Survey = dict[int, Scaled]
"""The elements at every array, by its number, that a path to the end leaves from."""


def survey(
    run: Run,
    semiring: Semiring,
    end: Array,
    passes: Callable[[Step], bool] | None = None,
    ahead: Survey | None = None,
) -> Survey:
    """The ⊕, for every node, over the paths from it to the end: backpropagation, recorded.

    Args:
        run: the run.
        semiring: any.
        end: an array, every node of which a path may end in.
        passes: if given, only the paths that take a step which this is true of.
        ahead: for these, the survey of all paths.
    """
    with jax.enable_x64(True):
        found: Survey = {}
        if passes is None:
            found[end.number] = Scaled(semiring.one(end.shape, jnp.float64))
        for step in reversed(run.steps):
            known = found if ahead is None or passes is None or not passes(step) else ahead
            arrived = {o: known[a.number] for o, a in step.outputs.items() if a.number in known}
            if arrived:
                for i, part in _swept("pull", semiring, step, arrived).items():
                    if i in step.inputs:
                        _accumulate(semiring, found, step.inputs[i], part)
        return found


def arrivals(run: Run, semiring: Semiring, begin: Iterable[Array]) -> Survey:
    """The ⊕, for every node, over the paths to it from some arrays: the forward sweep, kept."""
    with jax.enable_x64(True):
        found = {a.number: Scaled(semiring.one(a.shape, jnp.float64)) for a in begin}
        for step in run.steps:
            departing = {i: found[a.number] for i, a in step.inputs.items() if a.number in found}
            if departing:
                for o, part in _swept("push", semiring, step, departing).items():
                    if o in step.outputs:
                        _accumulate(semiring, found, step.outputs[o], part)
        return found


def flows(
    run: Run, semiring: Semiring, arrived: Survey, ahead: Survey
) -> Iterator[tuple[Step, int, Scaled]]:
    """What flows into each equation through each of its inputs, in all: a scalar's elements.

    The ⊕ over all complete paths that take an edge from this input to any output of the equation.

    Args:
        run: the run.
        semiring: any.
        arrived: how the paths get to every node.
        ahead: how they get to the end from there.
    """
    with jax.enable_x64(True):
        for step in run.steps:
            leaving = {o: ahead[a.number] for o, a in step.outputs.items() if a.number in ahead}
            if step.equation is not None and leaving:
                for i, part in _swept("pull", semiring, step, leaving).items():
                    if i in step.inputs and step.inputs[i].number in arrived:
                        before = arrived[step.inputs[i].number]
                        through = _joined(semiring, before.elements, part.elements)
                        exponent = before.exponent + part.exponent
                        yield step, i, _normalised(semiring, Scaled(through, exponent))


@functools.partial(jax.jit, static_argnums=0)
def _joined(semiring: Semiring, before: Elements, after: Elements) -> Elements:
    axes = tuple(range(len(semiring.shape(before))))
    return semiring.sum(semiring.mul(before, after), axes)


def total(semiring: Semiring, parts: Sequence[Scaled]) -> Scaled:
    """The ⊕ of scalars' elements."""
    with jax.enable_x64(True):
        elements, exponent = _aligned(parts)
        return Scaled(functools.reduce(semiring.add, elements), exponent)


def _swept(
    verb: str, semiring: Semiring, step: Step, given: dict[int, Scaled]
) -> dict[int, Scaled]:
    """From outputs to inputs, or the other way, by position."""
    if step.equation is not None:
        semiring = semiring.at(step.equation)
    elements, exponent = _aligned(given.values())
    known: Any = dict(zip(given, elements, strict=True))
    if verb == "pull":
        count = len(step.outputs if step.equation is None else step.equation.outputs)
        known = [known.get(o) for o in range(count)]
    sweep = _staged_sweep if is_static(step.jacobian) else _sweep
    found = sweep(verb, semiring, step.jacobian, known)
    return {
        p: _normalised(semiring, Scaled(part, exponent))
        for p, part in found.items()
        if part is not None
    }


def _sweep(verb: str, semiring: Semiring, jacobian: EquationJacobian, given: Any) -> Any:
    found = getattr(jacobian, verb)(semiring, given)
    return dict(found) if verb == "pull" else dict(enumerate(found))


_staged_sweep = functools.partial(jax.jit, static_argnums=(0, 1))(_sweep)


def _accumulate(semiring: Semiring, found: Survey, array: Array, part: Scaled) -> None:
    if array.number in found:
        (a, b), exponent = _aligned([found[array.number], part])
        part = Scaled(_add(semiring, a, b), exponent)
    found[array.number] = part


@functools.partial(jax.jit, static_argnums=0)
def _add(semiring: Semiring, a: Elements, b: Elements) -> Elements:
    return semiring.add(a, b)


def _aligned(scaled: Iterable[Scaled]) -> tuple[list[Elements], int]:
    """The same elements, all with the largest of their exponents."""
    scaled = list(scaled)
    exponent = max(s.exponent for s in scaled)
    return [_times(s.elements, s.exponent - exponent) for s in scaled], exponent


def _normalised(semiring: Semiring, scaled: Scaled) -> Scaled:
    if not _is_homogeneous(semiring):
        return scaled
    largest = 0.0
    for leaf in jax.tree.leaves(scaled.elements):
        if leaf.dtype != bool and leaf.size:
            values = np.abs(np.asarray(leaf))
            largest = max(largest, float(values.max(initial=0, where=np.isfinite(values))))
    if largest == 0 or 1 / LARGE <= largest <= LARGE:
        return scaled
    exponent = math.frexp(largest)[1]
    return Scaled(_times(scaled.elements, -exponent), scaled.exponent + exponent)


def _is_homogeneous(semiring: Semiring) -> bool:
    """Whether twice the weights of all paths is twice the element."""
    if isinstance(semiring, Product):
        return all(map(_is_homogeneous, semiring.members))
    return semiring.units == "weight" or isinstance(semiring, Structure)


def _times(elements: Elements, exponent: int) -> Elements:
    if exponent == 0:
        return elements
    factor = math.ldexp(1, max(exponent, -1000))  # not 0, by which no path would be no number
    return el.map_leaves(lambda leaf: leaf if leaf.dtype == bool else leaf * factor, elements)

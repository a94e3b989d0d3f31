"""The sweeps of a semiring over a run, with the elements at every array kept; in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians import EquationJacobian
from semijax.jacobians.base import Structure
from semijax.jacobians.edges import is_static
from semijax.jacobians.pins import Pins, part_of
from semijax.paths.run import Array, Run, Step
from semijax.semirings import Semiring

Kept = dict[Array, Elements]
"""The elements at the arrays that a sweep has reached."""


def backward(
    run: Run,
    semiring: Semiring,
    end: Array,
    passes: Callable[[Array], bool] | None = None,
    all_paths: Kept | None = None,
) -> Kept:
    """Compute, for every node, the ⊕ over the paths from it to the end.

    Args:
        run: the run.
        semiring: any.
        end: where the paths end.
        passes: if given, only paths with an edge to an array for which this is true count.
        all_paths: for ``passes``, the same sweep over all paths.
    """
    with jax.enable_x64(True):
        found: Kept = {} if passes else finished(semiring, end)
        for step in reversed(run.steps):
            arrived = {}
            for o, made in step.outputs.items():
                known = all_paths if all_paths is not None and passes and passes(made) else found
                if made in known:
                    arrived[o] = known[made]
            for i, part in _swept("pull", semiring, step, arrived).items():
                if i in step.inputs:
                    accumulate(semiring, found, step.inputs[i], part)
        return found


def forward(run: Run, semiring: Semiring, begin: Mapping[Array, np.ndarray | None]) -> Kept:
    """Compute, for every node, the ⊕ over paths to it from positions in arrays; None for all."""
    return forward_by_state(run, semiring, begin, None)[True]


def forward_by_state(
    run: Run,
    semiring: Semiring,
    begin: Mapping[Array, np.ndarray | None],
    passes: Callable[[Array], bool] | None,
) -> dict[bool, Kept]:
    """Do the same as ``forward``, by whether paths have been at an array that ``passes``.

    Without it, all of them have.
    """
    with jax.enable_x64(True):
        found: dict[bool, Kept] = {True: {}} if passes is None else {False: {}, True: {}}

        def after(state: bool, array: Array) -> bool:
            return state or passes is None or passes(array)

        for array, positions in begin.items():
            begun = only_at(semiring, started(semiring, array), positions)
            accumulate(semiring, found[after(False, array)], array, begun)
        for step in run.steps:
            for state, kept in found.items():
                departing = {i: kept[a] for i, a in step.inputs.items() if a in kept}
                for o, part in _pushed(semiring, step, departing).items():
                    if o in step.outputs:
                        made = step.outputs[o]
                        accumulate(semiring, found[after(state, made)], made, part)
        return found


def finished(semiring: Semiring, end: Array) -> Kept:
    """Return the elements of paths that have come to their end."""
    with jax.enable_x64(True):
        return {end: semiring.one(end.shape, jnp.float64)}


def started(
    semiring: Semiring, array: Array, elements: Elements | None = None, pins: Pins = ()
) -> Elements:
    """Return the elements of paths that start in an array, or a part of it, given those ahead."""
    with jax.enable_x64(True):
        on = semiring.one(array.shape, jnp.float64) if elements is None else elements
        if array.carried is None:
            return on
        weights = jnp.asarray(part_of(array.carried_at(None).reshape(array.shape), pins))
        return semiring.scale_selected(weights, weights != 0, on)


def only_at(semiring: Semiring, elements: Elements, positions: np.ndarray | None) -> Elements:
    """Return the elements at some positions of an array, 0̄ elsewhere; all of them for None."""
    if positions is None:
        return elements
    return masked(semiring, elements, mask_of(positions, semiring.shape(elements)))


def mask_of(positions: np.ndarray, shape: Shape) -> np.ndarray:
    """Return an array of Booleans that is true at some positions."""
    mask = np.zeros(el.size(shape), bool)
    mask[positions] = True
    return mask.reshape(shape)


def masked(semiring: Semiring, elements: Elements, mask: np.ndarray) -> Elements:
    """Return the elements where a mask of their shape is true, 0̄ elsewhere."""

    def own(leaf: Any, none: np.ndarray) -> np.ndarray:
        # In NumPy: for so many small arrays it is several times faster.
        return np.where(mask.reshape(mask.shape + (1,) * none.ndim), leaf, none)

    return jax.tree.map(own, elements, no_path(semiring))


@functools.cache
def no_path(semiring: Semiring) -> Any:
    """Return 0̄ of a single node, in NumPy."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, semiring.zero((), jnp.float64))


def total(semiring: Semiring, elements: Iterable[Elements]) -> Elements:
    """Return the ⊕ of everything in some arrays."""
    with jax.enable_x64(True):
        return functools.reduce(semiring.add, (_sum(semiring, e) for e in elements))


def read_out(semiring: Semiring, elements: Elements) -> Any:
    """Return the statistic of elements in float64."""
    with jax.enable_x64(True):
        return semiring.readout(elements)


def accumulate(semiring: Semiring, found: Kept, array: Array, part: Elements) -> None:
    """Add elements with ⊕ to those known for an array."""
    with jax.enable_x64(True):
        found[array] = add(semiring, found[array], part) if array in found else part


def pulled(
    semiring: Semiring,
    step: Step,
    given: dict[int, Elements],
    jacobian: EquationJacobian | None = None,
) -> dict[int, Elements]:
    """Pull the elements at a step's outputs, by position, to its inputs.

    Args:
        semiring: any.
        step: the step.
        given: the elements.
        jacobian: its edges, if not all of them are meant.
    """
    with jax.enable_x64(True):
        return _swept("pull", semiring, step, given, jacobian)


def _pushed(semiring: Semiring, step: Step, given: dict[int, Elements]) -> dict[int, Elements]:
    """Push the elements at a step's inputs to its outputs.

    What weighs nothing so far was not selected, and still weighs nothing across an infinite edge.
    """
    found = _swept("push", semiring, step, given)
    if not is_nan(found):
        return found
    nothing = {i: _weighs_nothing(semiring, elements) for i, elements in given.items()}
    weighing = _swept("push", Structure(), step, {i: ~own for i, own in nothing.items()})
    paths = {i: own & ~semiring.is_zero(given[i]) for i, own in nothing.items()}
    weightless = _swept("push", Structure(), step, paths)
    for o, elements in found.items():
        none = semiring.zero(semiring.shape(elements), jnp.float64)
        rest = el.where(weightless[o], _weightless(semiring, elements), none)
        found[o] = add(semiring, el.where(weighing[o], elements, none), rest)
    return found


def is_nan(found: Any) -> bool:
    """Tell whether any number in a pytree of arrays is NaN."""
    return any(np.isnan(leaf).any() for leaf in jax.tree.leaves(found))


def _weighs_nothing(semiring: Semiring, elements: Elements) -> jax.Array:
    """Tell where there is no path, or all paths have a weight of 0."""
    return semiring.is_zero(elements) | _equal(semiring, elements, _weightless(semiring, elements))


def _weightless(semiring: Semiring, like: Elements) -> Elements:
    return semiring.lift(jnp.zeros(semiring.shape(like), jnp.float64))


def _equal(semiring: Semiring, a: Elements, b: Elements) -> jax.Array:
    """Tell where all numbers of two elements are equal."""
    rank = len(semiring.shape(a))
    same = [jnp.equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)]
    return functools.reduce(
        jnp.logical_and, [leaf.all(tuple(range(rank, leaf.ndim))) for leaf in same]
    )


@functools.partial(jax.jit, static_argnums=0)
def add(semiring: Semiring, a: Elements, b: Elements) -> Elements:
    """Compute the ⊕ of two elements."""
    return semiring.add(a, b)


def multiplied(semiring: Semiring, before: Elements, after: Elements) -> Elements:
    """Return the elements of paths through every node, given those of the ways to it and on.

    What weighs nothing on one side weighs nothing, however steep the other side is.
    """
    with jax.enable_x64(True):
        found = _mul(semiring, before, after)
        if not is_nan(found):
            return found
        nothing = _weighs_nothing(semiring, before) | _weighs_nothing(semiring, after)
        none = semiring.is_zero(before) | semiring.is_zero(after)
        zero = semiring.zero(semiring.shape(found), jnp.float64)
        instead = el.where(none, zero, _weightless(semiring, found))
        return el.where(nothing, instead, found)


def _swept(
    verb: str,
    semiring: Semiring,
    step: Step,
    given: dict[int, Elements],
    jacobian: EquationJacobian | None = None,
) -> dict[int, Elements]:
    """Sweep a step by position, from outputs to inputs or the reverse; nothing from nothing."""
    if not given:
        return {}
    edges = step.jacobian if jacobian is None else jacobian
    if step.equation is None:
        found = _sweep(verb, semiring, edges, len(step.outputs), given)
    else:
        # A rule's Jacobian is a pytree, and compiled once for all that look like it.
        sweep = _jitted_sweep if is_static(edges) else _sweep
        found = sweep(verb, semiring.at(step.equation), edges, len(step.equation.outputs), given)
    return {position: part for position, part in found.items() if part is not None}


def _sweep(
    verb: str, semiring: Semiring, jacobian: EquationJacobian, outputs: int, given: Any
) -> dict[int, Any]:
    if verb == "push":
        return dict(enumerate(jacobian.push(semiring, given)))
    return dict(jacobian.pull(semiring, [given.get(o) for o in range(outputs)]))


_jitted_sweep = functools.partial(jax.jit, static_argnums=(0, 1, 3))(_sweep)


@functools.partial(jax.jit, static_argnums=0)
def _mul(semiring: Semiring, a: Elements, b: Elements) -> Elements:
    return semiring.mul(a, b)


@functools.partial(jax.jit, static_argnums=0)
def _sum(semiring: Semiring, elements: Elements) -> Elements:
    return semiring.sum(elements, tuple(range(len(semiring.shape(elements)))))

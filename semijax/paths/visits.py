"""The modules that paths visit, each visit separately.

A module may be entered again: a block of a transformer adds what attention returns, and later what
the MLP returns. The two sums lie in the same scope, and are different stations of a path.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping

from semijax.paths.labels import SUMS, around
from semijax.paths.path import brackets
from semijax.paths.run import Array, Run, Step
from semijax.trace import scope_names


def name_visits(
    run: Run, starts: Mapping[Array, str], component: Callable[[str], str], *, apart: bool = True
) -> dict[Array, str]:
    """Name the visit to a module in which each array was made.

    Args:
        run: the run.
        starts: the arrays where paths start; their visit is called by the array's name.
        component: from a scope to the module it belongs to.
        apart: whether visits to one module have names of their own.

    Returns:
        Names such as ``"h/0/attn"``, in the order of computation. The sums of residual connections
        are called by what they add, the last module on the way: ``"h/0 + attn"``; several of one
        name, and other modules that paths come back to, by number: ``"h/0 (1)"``, ``"h/0 (2)"``.
        Where paths start in a loop, each iteration has a name: ``"layer/up[2]"``.
    """
    visit_of = _visits(run, starts, component)
    if not apart:
        return {array: starts.get(array, module) for array, (module, _) in visit_of.items()}
    steps: dict[tuple[str, int], list[Step]] = {}
    counts: collections.Counter[str] = collections.Counter()
    for array, visit in visit_of.items():
        if visit not in steps:
            counts[visit[0]] += 1
        made = steps.setdefault(visit, [])
        if array.step is not None and array not in starts:
            made.append(run.steps[array.step])
    sums = {visit: _sum_name(run, visit[0], made) for visit, made in steps.items()}
    alike = collections.Counter(sums.values())
    names, numbers = {}, collections.Counter[str]()
    for visit, name in sums.items():
        if name is not None and alike[name] > 1:
            numbers[name] += 1
            name = f"{name} ({numbers[name]})"
        whole = visit[0] if counts[visit[0]] == 1 else f"{visit[0]} ({visit[1] + 1})"
        names[visit] = name or whole
    return {
        array: names[visit] if array not in starts else starts[array] + brackets(array.iteration)
        for array, visit in visit_of.items()
    }


def _visits(
    run: Run, starts: Mapping[Array, str], component: Callable[[str], str]
) -> dict[Array, tuple[str, int]]:
    """Return each array's module, and how often paths to it may have come back to that module."""
    found: dict[Array, tuple[str, int]] = {}
    before: dict[Array, dict[str, int]] = {}  # the last visits to all modules on the way
    for array in run.arrays:
        step = None if array.step is None else run.steps[array.step]
        inputs = [] if step is None else list(step.inputs.values())
        seen: dict[str, int] = {}
        for own in inputs:
            for module, visit in before[own].items():
                seen[module] = max(visit, seen.get(module, 0))
        if step is not None and step.equation is None:  # rows are where they were made
            found[array] = found[inputs[0]]
        else:
            module = starts[array] if array in starts else component(array.scope)
            visits = [
                found[own][1] if found[own][0] == module else before[own][module] + 1
                for own in inputs
                if module in before[own]
            ]
            found[array] = module, max(visits, default=0)
        module, visit = found[array]
        before[array] = seen | {module: max(visit, seen.get(module, 0))}
    return found


def _sum_name(run: Run, module: str, made: list[Step]) -> str | None:
    """Return the name of a visit that consists of the sum of a residual connection."""
    if len(made) != 1 or made[0].equation is None or made[0].equation.primitive not in SUMS:
        return None
    (step,) = made
    for i in step.inputs:
        names = around(run, step, i)
        if names:
            return f"{module} + {scope_names.relative(names[-1:], module)}"
    return None

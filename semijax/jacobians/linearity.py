"""The dependence of a program's results on its inputs: which reach which, and whether linearly.

All of it is read off the jaxpr, equation by equation. No numbers are needed, so what is found holds
for every one of them.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from semijax.jacobians.base import declaration
from semijax.trace import compat
from semijax.trace.primitives import primitives
from semijax.trace.regions import CondRegion, Region, WhileRegion, region_of


class Form(enum.Enum):
    """The way an array depends on the inputs of the program."""

    ZERO = "it is 0, whatever they are"
    FIXED = "not at all"
    LINEAR = "linearly"
    UNKNOWN = "perhaps not linearly"


class Dependence(NamedTuple):
    """The facts known about one array of a program.

    Attributes:
        form: how it depends on the inputs.
        origins: the inputs it depends on, by number.
        selected: whether a selection may have replaced a part of it by something else on the way.
    """

    form: Form
    origins: frozenset[int] = frozenset()
    selected: bool = False


UNCHANGED = {*primitives("optimization_barrier", "device_put")}
"""Primitives whose outputs are their inputs."""

FUNCTIONS = {*primitives("custom_jvp_call", "custom_vjp_call")}
"""Primitives that call a function, in ``call_jaxpr``, whose derivative its author wrote."""

(SELECT,) = primitives("select_n")
(LINEAR_SOLVE,) = primitives("custom_linear_solve")


def dependences(program: Any) -> list[Dependence]:
    """Return how each result of a jaxpr depends on its inputs."""
    jaxpr, _ = compat.open_jaxpr(program)
    inputs = [Dependence(Form.LINEAR, frozenset({n})) for n in range(len(jaxpr.invars))]
    return _follow(program, inputs)


def _follow(closed: Any, inputs: Sequence[Dependence]) -> list[Dependence]:
    jaxpr, consts = compat.open_jaxpr(closed)
    known = dict(zip(jaxpr.invars, inputs, strict=True))
    known.update((v, _constant(x)) for v, x in zip(jaxpr.constvars, consts, strict=True))

    def read(atom: Any) -> Dependence:
        return _constant(atom.val) if isinstance(atom, compat.Literal) else known[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        written = [atom for atom in equation.invars if _is_reference(atom)]
        if written:  # whatever is there may be in the others now, and among the results
            found = Dependence(Form.UNKNOWN, _origins(operands))
            known.update(dict.fromkeys([*written, *equation.outvars], found))
        else:
            known.update(zip(equation.outvars, _step(equation, operands), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_reference(atom: Any) -> bool:
    """Tell whether it is not an array but a reference, which can be written to."""
    return not isinstance(atom.aval, jax.core.ShapedArray)


def _constant(value: Any) -> Dependence:
    on_device = isinstance(value, jax.Array)  # or a tracer; looking at it could take time
    return Dependence(Form.FIXED if on_device or np.any(value) else Form.ZERO)


def _merged(parts: Sequence[Dependence]) -> Dependence:
    """Return the dependence of a sum of these, or of any one of them."""
    forms = {part.form for part in parts} - {Form.ZERO}
    form = forms.pop() if len(forms) == 1 else Form.UNKNOWN if forms else Form.ZERO
    return Dependence(form, _origins(parts), any(part.selected for part in parts))


def _origins(parts: Sequence[Dependence]) -> frozenset[int]:
    return frozenset().union(*(part.origins for part in parts))


def _product(parts: Sequence[Dependence]) -> Dependence:
    """Return a product's dependence: linear if one factor is and the other is fixed."""
    forms = {part.form for part in parts}
    if all(part.origins for part in parts) or Form.UNKNOWN in forms:
        form = Form.UNKNOWN
    else:
        order = Form.ZERO, Form.LINEAR, Form.FIXED
        form = next(form for form in order if form in forms)
    return Dependence(form, _origins(parts), any(part.selected for part in parts))


def _step(equation: Any, inputs: list[Dependence]) -> list[Dependence]:
    """Map what is known about an equation's inputs to what is known about its outputs."""
    primitive, params = equation.primitive, equation.params
    called = params["call_jaxpr"] if primitive in FUNCTIONS else compat.called_jaxpr(equation)
    if called is None and compat.is_atomic(equation):
        called = params["jaxpr"]
    if called is not None:
        return _follow(called, inputs)
    if region := region_of(equation):
        return _through(region, inputs)
    if primitive in UNCHANGED:
        return inputs
    known, operands = declaration(primitive), _linear_operands(equation)
    if operands is not None:
        chosen = range(len(inputs))[operands]
        others = _origins([part for n, part in enumerate(inputs) if n not in chosen])
        found = _merged([inputs[n] for n in chosen])
    elif known.bilinear:
        others = _origins(inputs[2:])
        found = _product(inputs[:2])
    else:
        others = _origins(inputs)
        found = Dependence(Form.FIXED)
    origins = found.origins | others
    selected = (bool(origins) and primitive is SELECT) or any(p.selected for p in inputs)
    results = []
    for output in equation.outvars:
        # What depends on the inputs is linear only if it is a real or complex number.
        known = not others and (jnp.issubdtype(output.aval.dtype, jnp.inexact) or not origins)
        results.append(Dependence(found.form if known else Form.UNKNOWN, origins, selected))
    return results


def _linear_operands(equation: Any) -> slice | None:
    """Return the operands that a primitive is linear in, as is known or was promised."""
    if equation.primitive is LINEAR_SOLVE:
        return slice(sum(equation.params["const_lengths"]), None)
    return declaration(equation.primitive).linear_in


def _through(region: Region, inputs: list[Dependence]) -> list[Dependence]:
    """Follow control flow: linear if its body is, and no test or index depends on the inputs."""
    if isinstance(region, CondRegion):
        index, operands = region.operands(inputs)
        columns = zip(*(_follow(body, operands) for body in region.bodies), strict=True)
        merged = [_merged(column) for column in columns]
        taken = [part._replace(selected=bool(part.origins)) for part in merged]
        return _decided_by(index, taken)
    first, carries = region.carried
    (body,) = region.bodies
    if isinstance(region, WhileRegion):
        own = [*region.operands(inputs).body_consts, *region.operands(inputs).carry]
    else:
        own = list(inputs)
    while True:  # until what one iteration hands on is what it was given
        results = _follow(body, own)
        carried = [_merged(both) for both in zip(own[first:], results[:carries], strict=False)]
        if carried == own[first : first + carries]:
            break
        own[first : first + carries] = carried
    if not isinstance(region, WhileRegion):
        return [*carried, *results[carries:]]
    (again,) = _follow(region.test, [*region.operands(inputs).test_consts, *carried])
    return _decided_by(again, carried)


def _decided_by(decision: Dependence, results: list[Dependence]) -> list[Dependence]:
    if not decision.origins:
        return results
    return [
        Dependence(Form.UNKNOWN, part.origins | decision.origins, part.selected) for part in results
    ]

"""The remainders of a weighting: the part of the difference that no path carries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from semijax import sweep, tables
from semijax.arguments import paired_leaves
from semijax.elements import Elements
from semijax.evaluation import Evaluation, Runs, evaluate, holds, output_values
from semijax.flow.entering import all_paths
from semijax.flow.results import TOTAL
from semijax.jacobians.base import EquationJacobian
from semijax.jacobians.control_flow import equations_within
from semijax.semirings import Semiring, SumProduct
from semijax.sites.program import Argnums
from semijax.sites.starts import start_program
from semijax.trace.graph import Equation, Graph, Variable
from semijax.weighting import Contrast, Derivative, Weighting, check_weighting

Key = tuple[Any, int, str]
"""The regions that an equation lies in, its number, and the name of the figure."""

LOCAL, EFFECT = "local", "effect"


def remainders(
    graph: Graph, semiring: Semiring, at: Evaluation, tangents: Any, cotangents: Any
) -> dict[Key, Elements]:
    """Collect, by equation, the largest remainder and the effect of all on the outputs.

    A collector, for ``SumProduct``. A region's own effect is that of the whole less those inside.
    """
    del tangents
    found: dict[Key, Elements] = {}
    for equation, jacobian, arrived, _ in sweep.backward(graph, semiring, at, cotangents):
        if equation is None or jacobian is None:
            continue
        local, effect = _remainder(equation, jacobian, semiring, at, arrived)
        if equation.region is not None:
            inside = jacobian.inside(semiring, None, arrived, remainders)
            found |= inside
            effect -= sum(x.sum() for (*_, what), x in inside.items() if what == EFFECT)
        found[graph.path, equation.number, LOCAL] = local
        found[graph.path, equation.number, EFFECT] = effect
    return found


def _remainder(
    equation: Equation,
    jacobian: EquationJacobian,
    semiring: Semiring,
    at: Evaluation,
    arrived: Sequence[Elements | None],
) -> tuple[Any, Any]:
    inputs = ((i, equation.inputs[i]) for i in equation.wrt)
    carried = {i: at.carried(v) for i, v in inputs if isinstance(v, Variable)}
    pushed = jacobian.push(semiring, carried)
    local = effect = jnp.zeros(())
    for variable, element, part in zip(equation.outputs, arrived, pushed, strict=False):
        if element is not None:
            whole = at.carried(variable)
            rest = whole - (0 if part is None else part)
            rest = jnp.where(jnp.isnan(rest) & (whole == 0), 0, rest)  # nothing, times infinity
            local = jnp.maximum(local, jnp.abs(rest).max(initial=0))
            effect = effect + jnp.where(rest == 0, 0, element * rest).sum()
    return local, effect


@dataclasses.dataclass(frozen=True)
class Residual:
    """The part of the difference that no path carries past one equation.

    Attributes:
        primitive: the equation's name.
        scope: the modules it was written in.
        source: the user's line.
        largest: the largest remainder of an element of its outputs, in their units.
        effect: what all its remainders make of the output, in the output's units.
    """

    primitive: str
    scope: str
    source: str
    largest: float
    effect: float


@dataclasses.dataclass(frozen=True, repr=False)
class Residuals(tables.Printed, Sequence[Residual]):
    """The parts of a difference that equations leave, largest effect first; prints as a table.

    ``whole`` is ``contributed`` and all effects together, up to rounding.

    Attributes:
        rows: those that leave anything at all, if only by rounding.
        whole: the difference of the two outputs, or for ``Relevance`` the output.
        contributed: the part of it that all paths contribute together.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.round(x) + 2 * x
        >>> left = sj.residuals(f, (1.8,), (0.0,))
        >>> print(f"{left.whole:.1f} {left.contributed:.1f}")
        5.6 3.6
        >>> [row.primitive for row in left.rows]
        ['round']
    """

    rows: tuple[Residual, ...]
    whole: float
    contributed: float

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    @property
    def remainder(self) -> float:
        """The part of the whole that no path carries."""
        return self.whole - self.contributed

    def _table(self) -> tables.Table:
        notable = [row for row in self.rows if abs(row.effect) > ROUNDING * self._scale()]
        cells = [
            (
                row.primitive,
                f"{row.effect:+.4g}",
                f"{row.largest:.2g}",
                row.scope,
                tables.line_text(row.source),
            )
            for row in notable[:SHOWN]
        ]
        more = f"… and {len(notable) - SHOWN} more\n" if len(notable) > SHOWN else ""
        rest = "" if notable else "; no equation leaves more than rounding"
        legend = (
            f"{more}whole {self.whole:.6g}, paths contribute {self.contributed:.6g}, remainder "
            f"{self.remainder:.2g}{rest}"
        )
        header = ("primitive", "effect", "largest element", "scope", "source")
        return tables.Table(header, cells, right=(1, 2), legend=legend)

    def _scale(self) -> float:
        return max(abs(self.whole), abs(self.contributed))


SHOWN = 20
"""The number of rows that are printed."""

ROUNDING = 1e-5
"""The largest effect that is not printed, as a part of the whole."""

HELD = "stop_gradient"
"""The name of the row for everything that is held the same in both runs."""


def residuals(
    fun: Callable[..., Any],
    args: Sequence[Any],
    reference: Sequence[Any] | Weighting,
    argnums: int | Sequence[int] | None = None,
    *,
    source: Any = None,
    traced: Argnums = None,
) -> Residuals:
    """List the equations that keep a part of the difference between two runs, and how much.

    Every equation's inputs should account for the difference of its outputs. Where they cannot, no
    path carries the rest: an integer index that differs between the runs, a branch that only one
    of them took, a jump (``floor``, a ``where`` between values that do not meet), an array that
    differs though no path leads to it, an array that ``stop_gradient`` keeps at the point's value,
    or an integrand that is too steep for the quadrature's points.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        args: its arguments, a tuple.
        reference: the arguments of the second run; or a weighting, such as ``Relevance()``, for
            which the remainders are the equations' values at 0.
        argnums: the positional argument(s) where paths start; by default all that are floating.
        source: where they start in place of these, see ``site_flow``.
        traced: as for ``site_grads``.

    Returns:
        ``Residuals``, a sequence of ``Residual`` that prints as a table.

    Raises:
        TypeError: if the arguments are not tuples, or the weighting carries nothing.
        ValueError, NotImplementedError: as ``site_flow``.
        jax.errors.ConcretizationTypeError: under ``jit``, ``vmap`` or ``grad``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.floor(x) + 2 * x
        >>> print(sj.residuals(f, (2.5,), (1.0,))[0].effect)
        1.0
    """
    for given, name in ((args, "args"), (reference, "reference")):
        if not isinstance(given, (tuple, list, Weighting)):
            raise TypeError(f"{name} must be a tuple of arguments, got {type(given).__name__}.")
    weighting = reference if isinstance(reference, Weighting) else Contrast(*reference)
    if isinstance(check_weighting(weighting), Derivative):
        raise TypeError("Derivatives carry no part of a difference: compare with Contrast.")
    if argnums is None:
        argnums = [n for n in range(len(args)) if _all_floating(args, n)]
    where = argnums, source, traced, "residuals"
    call, starts = start_program(fun, tuple(args), {}, *where, weighting)
    graph = call.graph((), starts.masks())
    semiring = SumProduct()
    found = call.between(graph, semiring, remainders)
    contributed = float(call.between(graph, semiring, all_paths).get(TOTAL, 0))
    rows = []
    for equation in equations_within(graph):
        key = equation.path, equation.number
        if (*key, LOCAL) in found:
            largest = float(np.max(found[*key, LOCAL], initial=0))
            effect = float(np.sum(found[*key, EFFECT]))
            rows.append(Residual(equation.name, equation.scope, equation.source, largest, effect))
    whole, held = _whole(call.evaluation(graph), call.runs, graph)
    if held:
        rows.append(Residual(HELD, "", "", abs(held), held))
    kept = sorted((row for row in rows if row.effect), key=lambda row: -abs(row.effect))
    return Residuals(tuple(kept), whole, contributed)


def _all_floating(args: Sequence[Any], argnum: int) -> bool:
    leaves = paired_leaves(args, None, [argnum])
    return bool(leaves) and all(leaf.is_floating for leaf in leaves)


def _whole(at: Evaluation, runs: Runs, graph: Graph) -> tuple[float, float]:
    """Return the difference of the outputs, and how much of it is held back."""
    ends = [output_values(graph, values)[0] for values in at.runs]
    whole = float(at.weighting.at_start(*map(jnp.asarray, ends)))
    if len(runs.inputs) == 1 or not holds(graph):
        return whole, 0.0
    alone = evaluate(graph, Runs.once(runs.inputs[1])).values
    own = float(at.weighting.at_start(ends[0], jnp.asarray(output_values(graph, alone)[0])))
    return own, own - whole

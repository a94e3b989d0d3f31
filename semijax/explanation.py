"""The graph of a function as semijax sees it, one row per equation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from semijax import elements as el
from semijax import tables
from semijax.arguments import paired_leaves
from semijax.evaluation import Evaluation, Runs, evaluate
from semijax.flow.remainders import LOCAL, remainders
from semijax.jacobians import EquationJacobian
from semijax.semirings import SumProduct
from semijax.trace.graph import Equation, Graph, Variable, reported_as, trace
from semijax.weighting import DERIVATIVE, Derivative, Weighting


@dataclasses.dataclass(frozen=True)
class Row:
    """One equation of a graph.

    Attributes:
        primitive: the primitive's name, or an atomic function's.
        scope: the modules it was written in, joined by ``/``.
        source: the user's line.
        shape: the shape of the (first) output.
        kind: its kind of local Jacobian; ``-`` where no path passes.
        edges: how many edges it may have; None for a region, whose body follows.
        dense: whether it fell back to a dense Jacobian.
        depth: how many regions it lies in.
        remainder: what a weighting leaves of the difference of its outputs: the largest of any
            element, in any iteration; None where no path passes, and for derivatives.
    """

    primitive: str
    scope: str
    source: str
    shape: tuple[int, ...]
    kind: str
    edges: int | None
    dense: bool
    depth: int
    remainder: float | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Explanation(tables.Printed):
    """The rows, in order of evaluation, printed as a table."""

    rows: tuple[Row, ...]

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def _table(self) -> tables.Table:
        cells = [
            [
                "  " * row.depth + row.primitive,
                row.kind + (" (fallback)" if row.dense else ""),
                "" if row.edges is None else f"{row.edges:,}",
                "×".join(map(str, row.shape)) or "scalar",
                row.scope,
                tables.line_text(row.source),
            ]
            for row in self.rows
        ]
        header = ["primitive", "Jacobian", "edges", "shape", "scope", "source"]
        if any(row.remainder is not None for row in self.rows):
            header.insert(4, "remainder")
            for line, row in zip(cells, self.rows, strict=True):
                line.insert(4, "" if row.remainder is None else f"{row.remainder:.1e}")
        total = sum(row.edges or 0 for row in self.rows)
        fallbacks = sum(row.dense for row in self.rows)
        legend = f"{len(self.rows)} equations, {total:,} edges, {fallbacks} dense fallbacks"
        right = (2, 4) if "remainder" in header else (2,)
        return tables.Table(header, cells, right=right, legend=legend)


def explain(
    fun: Callable[..., Any], *, weighting: Weighting = DERIVATIVE
) -> Callable[..., Explanation]:
    """Show the graph that semijax builds from a function, equation by equation.

    Args:
        fun: any function of arrays or pytrees of arrays; nothing is differentiated, so integers
            are welcome too.
        weighting: what the edges weigh. For derivatives, the function is only traced. For any other
            weighting it is run, and the table shows, for each equation, the part of the difference
            of its outputs that it leaves, see ``residuals``.

    Returns:
        A function with the arguments of ``fun`` that returns an ``Explanation``. Print it: each
        equation with its kind of local Jacobian, how many edges it has, the shape of its output,
        its scope and source line, and whether it fell back to a dense Jacobian. An equation that no
        path from a floating point input passes has the kind ``-``. Where no Jacobian is available,
        the kind is the name of the error.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> table = sj.explain(lambda x: jnp.sin(x).sum())(jnp.ones(3))
        >>> [(row.primitive, row.kind, row.edges) for row in table]
        [('sin', 'Diagonal', 3), ('reduce_sum', 'Reduction', 3)]
    """

    def explained(*args: Any, **kwargs: Any) -> Explanation:
        @reported_as(fun)
        def of_args(*args: Any) -> Any:
            return fun(*args, **kwargs)

        graph, _ = trace(of_args, *args)
        left = {} if isinstance(weighting, Derivative) else _remainders(graph, args, weighting)
        return Explanation(tuple(_rows(graph, 0, left)))

    return explained


def _remainders(
    graph: Graph, args: Sequence[Any], weighting: Weighting
) -> Mapping[tuple[Any, int], float]:
    """Return the most that each equation leaves, by the graph it lies in and its number there."""
    leaves = paired_leaves(args, weighting.reference)
    at = evaluate(graph, Runs.of_arguments(leaves, weighting, backward=True))
    semiring = SumProduct()
    ends = [
        semiring.one(el.node_shape(v), jnp.float32)
        if isinstance(v, Variable) and v.differentiable
        else None
        for v in graph.outputs
    ]
    found = remainders(graph, semiring, at, None, ends)
    return {
        (path, number): float(jnp.max(x, initial=0))
        for (path, number, what), x in found.items()
        if what == LOCAL
    }


def _rows(graph: Graph, depth: int, left: Mapping[tuple[Any, int], float]) -> list[Row]:
    rows: list[Row] = []

    def visit(*inputs: Any) -> None:
        at = evaluate(graph, Runs.once(inputs))
        for equation in graph.equations:
            first, *inside = _row(equation, at, depth, left)
            remainder = left.get((graph.path, equation.number))
            rows.extend([dataclasses.replace(first, remainder=remainder), *inside])

    jax.eval_shape(visit, *(jax.ShapeDtypeStruct(v.shape, v.dtype) for v in graph.inputs))
    return rows


def _row(
    equation: Equation, at: Evaluation, depth: int, left: Mapping[tuple[Any, int], float]
) -> list[Row]:
    jacobian: EquationJacobian | None = None
    kind = "-"
    if equation.wrt:
        try:
            jacobian = at.jacobian(equation)
            kind = jacobian.kind or "none"
        except (NotImplementedError, ValueError) as error:
            kind = type(error).__name__
    own = Row(
        equation.name,
        equation.scope,
        equation.source,
        equation.outputs[0].shape if equation.outputs else (),
        kind,
        0 if jacobian is None else jacobian.edges,
        "Dense" in kind.split(", "),
        depth,
    )
    bodies = () if jacobian is None else jacobian.bodies
    return [own, *(row for body in bodies for row in _rows(body, depth + 1, left))]

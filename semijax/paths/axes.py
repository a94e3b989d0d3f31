"""What the axes of arrays mean: which one counts the tokens, and which one the heads of attention.

Nobody has to say it. An embedding is a row of a table for each token; from there the labels of the
axes are followed through the equations (``AxisLabels``), as they are to find the batch axes of a
Jacobian. Where two arrays with tokens are contracted head by head, as queries and keys are, the
axis they share is that of the heads. What else there is may be stated for one array, and is known
then of all that are computed from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semijax.jacobians.axis_labels import AxisLabels, Labels, shapes
from semijax.paths.run import Array, Rows, Run, Step
from semijax.trace.graph import Equation
from semijax.trace.primitives import primitive

TOKEN, HEAD, BATCH = "token", "head", "batch"

Names = tuple[str | None, ...]
"""A name for every axis of an array; None for one without a name."""

GATHER, DOT = primitive("gather"), primitive("dot_general")


class AxisNames:
    """The names of the axes of a run's arrays.

    Args:
        run: the run.
        stated: the names that the user gives the axes of some arrays; an array with fewer names
            than axes has no others.
    """

    def __init__(self, run: Run, stated: Mapping[Array, Sequence[str | None]]) -> None:
        self._labels = AxisLabels()
        self._of: dict[Array, Labels] = {}
        self._named: list[tuple[int | None, str]] = []
        self._contractions: list[tuple[Labels, Labels]] = []
        for array in run.arrays:
            if array.step is None:
                self._of[array] = self._labels.fresh(array.shape)
                if array.made_by is not None and array.made_by.primitive is GATHER:
                    self._embedding(array.made_by, self._of[array])
        for step in run.steps:
            self._follow(step)
        for array, names in stated.items():
            for label, name in zip(self._of[array], names, strict=False):
                self._name(label, name)
        given: dict[int, str] = {}
        for label, name in self._named:
            if label is not None and (name != BATCH or self._labels.find(label) not in given):
                given[self._labels.find(label)] = name
        self._names = self._with_heads(given)

    def of(self, array: Array) -> Names:
        """The names of an array's axes."""
        find = self._labels.find
        labels = self._of[array]
        return tuple(None if x is None else self._names.get(find(x)) for x in labels)

    def axis(self, array: Array, name: str) -> int | None:
        """The first axis of this name: that of the query, of scores ``[query, key]``."""
        names = self.of(array)
        return names.index(name) if name in names else None

    @property
    def known(self) -> frozenset[str]:
        """All names that any axis has."""
        return frozenset(self._names.values())

    def _name(self, label: int | None, name: str | None) -> None:
        if name is not None:
            self._named.append((label, name))

    def _embedding(self, equation: Equation, out: Labels) -> None:
        """Rows of a table: there is one for each token, of each example."""
        offset = equation.params["dimension_numbers"].offset_dims
        read = [label for axis, label in enumerate(out) if axis not in offset]
        for label, name in zip(reversed(read), (TOKEN, *(BATCH for _ in read)), strict=False):
            self._name(label, name)

    def _follow(self, step: Step) -> None:
        if isinstance(step.jacobian, Rows):
            self._rows(step, step.jacobian)
            return
        assert step.equation is not None
        inputs = [
            self._of[step.inputs[i]][: len(shape)]
            if i in step.inputs
            else self._labels.fresh(shape)
            for i, shape in enumerate(shapes(step.equation))
        ]
        outputs = self._labels.step(step.equation, inputs)
        for o, made in step.outputs.items():
            fresh = self._labels.fresh(made.shape)
            known = (*outputs[o], *(None for _ in fresh[len(outputs[o]) :]))
            self._of[made] = tuple(
                new if old is None else old for old, new in zip(known, fresh, strict=True)
            )
        if step.equation.primitive is DOT and {0, 1} <= step.inputs.keys():
            (_, (batch, _)) = step.equation.params["dimension_numbers"]
            shared = tuple(inputs[0][a] for a in batch)
            self._contractions.append((shared, tuple(x for own in inputs for x in own)))
        if step.equation.primitive is GATHER and 0 in step.inputs:
            table = step.inputs[0]
            if table.made_by is None and len(table.shape) == 2:
                (made,) = step.outputs.values()
                self._embedding(step.equation, self._of[made])

    def _rows(self, step: Step, rows: Rows) -> None:
        if rows.joined:
            own = self._labels.unify(*(self._of[array] for array in step.inputs.values()))
            self._of[step.outputs[0]] = (*self._labels.fresh(step.outputs[0].shape[:1]), *own)
        else:
            for made in step.outputs.values():
                self._of[made] = self._of[step.inputs[0]][1:]

    def _with_heads(self, names: dict[int, str]) -> dict[int, str]:
        find = self._labels.find
        found = dict(names)
        for shared, everything in self._contractions:
            known = {names.get(find(label)) for label in everything if label is not None}
            if TOKEN in known:
                for label in shared:
                    if label is not None and find(label) not in names:
                        found[find(label)] = HEAD
        return found

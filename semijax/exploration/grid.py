"""The page's grid: the modules that paths visit, times the tokens."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from semijax import tables
from semijax.paths.call import Call
from semijax.paths.crossings import Groups, group_nodes
from semijax.paths.run import Array
from semijax.paths.visits import name_visits
from semijax.sites.axis_names import HEAD, TOKEN
from semijax.trace import scope_names


class Grid:
    """The modules and the tokens of a call; each of its nodes lies in a cell.

    Attributes:
        rows: the names of the modules that paths visit, in the order of computation.
        modules: for each row the scope of the module.
        last: for each row the array that was made last.
        tokens: the number of tokens; 0 if no axis is known to count them.
        groups: for each array the numbers of its nodes' cells.
        level: what a cell says of a node, see ``top_paths``.
    """

    def __init__(self, call: Call, depth: int | None) -> None:
        component = functools.partial(scope_names.component, depth=depth)
        names = name_visits(call.run, call.names, component)
        self._call, self._names = call, names
        self.rows: list[str] = list(dict.fromkeys(names.values()))
        self._number = {row: n for n, row in enumerate(self.rows)}
        self.last: dict[str, Array] = {
            row: a for a, row in names.items() if a.made_by is not None or a in call.names
        }
        self.modules: dict[str, str] = {row: component(a.scope) for row, a in self.last.items()}
        tokens = [t for a in names if (t := call.indices(a, TOKEN)) is not None]
        self.tokens: int = 1 + max((int(t.max(initial=-1)) for t in tokens), default=-1)
        self.groups: Groups = group_nodes(call.run, self._cells)
        self.level: tuple[str | int, str] = ("module" if depth is None else depth, TOKEN)

    @property
    def cells(self) -> int:
        """The number of cells: for each row one without a token, and one for each token."""
        return len(self.rows) * (self.tokens + 1)

    def rows_and_tokens(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of some cells, and their tokens; −1 for none."""
        rows, tokens = np.divmod(cells, self.tokens + 1)
        return rows, tokens - 1

    def _cells(self, array: Array) -> np.ndarray:
        tokens = self._call.indices(array, TOKEN)
        row = self._number[self._names[array]]
        return np.asarray(row * (self.tokens + 1) + (0 if tokens is None else tokens + 1))

    def layers(self) -> list[str | None]:
        """Return for each row the scope of the layer that it lies in, as in ``names``."""
        layers = scope_names.numbered(self.modules.values()).values()
        return [
            next((self._short(of) for of in layers if scope_names.is_within(module, of)), None)
            for module in self.modules.values()
        ]

    def names(self) -> list[str]:
        """Return the names of the rows, without the scope that all modules lie in."""
        return [*map(self._short, self.rows)]

    def _short(self, name: str) -> str:
        return name.removeprefix(f"{self._within}/") if self._within else name

    @functools.cached_property
    def _within(self) -> str:
        modules = {m for m in self.modules.values() if m and m != scope_names.OUTSIDE}
        return scope_names.enclosing_all([*modules]) if modules else ""

    def heads(self, reached: Callable[[Array], bool]) -> dict[str, tuple[Array, int]]:
        """Return for each row with heads the last array that has them, and which axis they are.

        Args:
            reached: whether any path leads from an array to the output.
        """
        found = {}
        for array, row in self._names.items():
            axis = self._call.axis_of(array, HEAD)
            if axis is not None and array.made_by is not None and reached(array):
                found[row] = array, axis
        return found

    def described(self, rows: np.ndarray, tokens: np.ndarray) -> dict[str, list[Any]]:
        """Return the scope, the user's line, and the root mean square of the values, of some cells.

        They are those of the array that was made last in the row, at the token.
        """
        scopes, lines, values = [], [], []
        squares = {row: self._mean_squares(array) for row, array in self.last.items()}
        for row, token in zip((self.rows[r] for r in rows), tokens.tolist(), strict=True):
            array, of_row = self.last[row], squares[row]
            scopes.append(array.scope)
            source = "" if array.made_by is None else array.made_by.source
            lines.append(tables.line_text(source))
            square = of_row.get(token)
            values.append(None if square is None else math.sqrt(square))
        return {"scope": scopes, "line": lines, "value": values}

    def _mean_squares(self, array: Array) -> dict[int, float]:
        squares = np.abs(np.asarray(array.value, complex)) ** 2
        axis, tokens = self._call.axis_of(array, TOKEN), self._call.indices(array, TOKEN)
        if axis is None:
            return {-1 if tokens is None else int(tokens): float(squares.mean())}
        others = tuple(a for a in range(squares.ndim) if a != axis)
        return dict(enumerate(squares.mean(others).tolist()))


class Cells:
    """The cells of a grid as a level of stories, see ``Labelling``."""

    def __init__(self, grid: Grid) -> None:
        self._groups = grid.groups
        self.labels: range = range(grid.cells)

    def at(self, array: Array) -> int | np.ndarray:
        """See ``Labelling``."""
        groups = self._groups[array]
        return (
            int(groups.ravel()[0])
            if groups.size == 1
            else np.broadcast_to(groups, array.shape).ravel()
        )

    def at_start(self, array: Array) -> int | np.ndarray:
        """See ``Labelling``."""
        return self.at(array)

"""The data of the page: what flows, which stories are best, and what is known about each node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements
from semijax.exploration.grid import Cells, Grid
from semijax.paths.crossings import Crossings, Flow, largest
from semijax.paths.path import Path
from semijax.paths.scores import MASS, Scores
from semijax.paths.search import Search, told_stories, where_infinite
from semijax.semirings import (
    AbsMaxProduct,
    AbsSumProduct,
    Product,
    Semiring,
    SumProduct,
    as_semiring,
)
from semijax.weighting import Weighting

SIZES = AbsSumProduct()
"""The semiring whose shares decide what is worth drawing."""

DIGITS = 4
"""The number of significant digits that numbers have on the page."""


Readings = Mapping[str, Semiring]
"""Semirings that edges are read in, by the names to switch by."""


def readings(semirings: Any, weighting: Weighting) -> Readings:
    """Return the readings, of which ``"mass"`` is one.

    By default the first is what fits the weighting: where paths contribute to a difference, their
    sum; where they do not, that would add up derivatives by all that paths start from, and is left
    out.

    Raises:
        TypeError: if a semiring is not one.
        ValueError: if another is called ``"mass"``.
    """
    if semirings is None:
        carries = type(weighting).at_start is not Weighting.at_start
        first = {"sum": SumProduct()} if carries else {}
        return {**first, "mass": SIZES, "strongest": AbsMaxProduct()}
    if isinstance(semirings, Mapping):
        found = {str(name): as_semiring(own) for name, own in semirings.items()}
    else:
        given = as_semiring(semirings)
        several = given.members if isinstance(given, Product) else (given,)
        found = {str(own).removesuffix("()"): own for own in several}
    found = {"mass" if own == SIZES else name: own for name, own in found.items()}
    if found.setdefault("mass", SIZES) != SIZES:
        raise ValueError(f"'mass' is {SIZES}; give {found['mass']} another name.")
    return found


class Content:
    """The data of a page.

    Args:
        search: which paths are meant.
        grid: the modules and the tokens of its call.
        read: the readings.
        k: how many stories are told.
        share: in each reading, keep the largest edges that together have this much of the sum of
            all sizes.
        max_edges: the most edges to keep.

    Attributes:
        stories: the best path of each of the best stories.

    Raises:
        FloatingPointError: where a mass is infinite or not a number.
        TypeError: if a semiring reads out several numbers.
    """

    def __init__(
        self,
        search: Search,
        grid: Grid,
        read: Readings,
        k: int,
        share: float,
        max_edges: int,
    ) -> None:
        call, end = search.call, search.call.end
        assert end is not None
        crossings = Crossings(call.run, call.sources, end, grid.groups)
        assert search.scores is not None
        self._grid, self._heads = grid, grid.heads(search.scores.reached)
        watched = [array for array, _ in self._heads.values()]
        flows = {name: crossings.flow(semiring, watched) for name, semiring in read.items()}
        self._names, self._flows, self._mass = [*flows], [*flows.values()], flows["mass"]
        if not self._mass.log_size() < math.inf:
            raise FloatingPointError(where_infinite(Scores(call.run, end, MASS)))
        self._sizes = [self._size(flow, flow.crossing) for flow in self._flows]
        most = max(1, max_edges // len(read))
        self._kept = np.unique(np.concatenate([largest(s, share)[:most] for s in self._sizes]))
        of_all = as_semiring(tuple(read.values()))
        told = told_stories(search, k, Cells(grid), grid.level, of_all)
        self.stories: list[Path] = [path for path, _ in told]
        self._together = [elements for _, elements in told]
        self._told = [np.array(path.story, int) for path in self.stories]
        ends = self._mass.pairs[self._kept].ravel()
        self._cells = np.unique(np.concatenate([ends, self._mass.starts, *self._told]))

    def to_dict(self) -> dict[str, Any]:
        """Return the data, see ``Explorer.to_json``, except tokens and what is told with them."""
        with jax.enable_x64(True):
            return {
                "unit": None,
                "rows": self._rows(),
                "readings": self._readings(),
                "nodes": self._nodes(),
                "edges": self._edges(),
                "stories": [*map(self._story, self.stories, self._told, self._together)],
                "heads": self._by_head() if self._heads else None,
                "sources": {"through": self._by_source()} if self._grid.tokens else None,
            }

    def _rows(self) -> list[dict[str, Any]]:
        pairs = zip(self._grid.names(), self._grid.layers(), strict=True)
        return [{"name": name, "group": layer} for name, layer in pairs]

    def _readings(self) -> list[dict[str, Any]]:
        wholes = self._read([flow.whole() for flow in self._flows])
        crossing = [flow.numbers(flow.crossing) for flow in self._flows]
        return [
            {
                "name": name,
                "semiring": str(flow.semiring),
                "total": whole,
                "shares": flow is self._mass,
                "adds": flow is self._mass or isinstance(flow.semiring, SumProduct),
                "signed": flow.semiring.units == "weight" and bool((own < 0).any()),
            }
            for name, flow, whole, own in zip(
                self._names, self._flows, wholes, crossing, strict=True
            )
        ]

    def _nodes(self) -> dict[str, Any]:
        rows, tokens = self._grid.rows_and_tokens(self._cells)
        cells, count = jnp.asarray(self._cells), self._grid.cells
        described = self._grid.described(rows, tokens)
        values = [v if v is None else _rounded(np.array(v)) for v in described["value"]]
        return {
            "row": rows.tolist(),
            "column": tokens.tolist(),
            **described,
            "value": values,
            "through": self._read([el.take(flow.through(count), cells) for flow in self._flows]),
            "start": np.searchsorted(self._cells, self._mass.starts).tolist(),
        }

    def _edges(self) -> dict[str, Any]:
        kept = jnp.asarray(self._kept)
        tails, heads = np.searchsorted(self._cells, self._mass.pairs[self._kept]).T
        return {
            "tail": tails.tolist(),
            "head": heads.tolist(),
            "weights": self._read([el.take(flow.crossing, kept) for flow in self._flows]),
            "shown": [
                _rounded(sizes[self._kept].sum() / (sizes.sum() or 1)) for sizes in self._sizes
            ],
        }

    def _story(self, path: Path, told: np.ndarray, together: Sequence[Elements]) -> dict[str, Any]:
        return {
            "nodes": np.searchsorted(self._cells, told).tolist(),
            "score": _rounded(np.array(path.contribution)),
            "together": self._read(together),
        }

    def _by_head(self) -> dict[str, Any]:
        """Return what flows through each head of each row that has some."""
        count = max(array.shape[axis] for array, axis in self._heads.values())
        values: list[list[Any]] = [[] for _ in self._flows]
        for array, axis in self._heads.values():
            others = tuple(a for a in range(len(array.shape)) if a != axis)
            sums = [flow.semiring.sum(flow.watched[array], others) for flow in self._flows]
            for own, row in zip(values, self._read(sums), strict=True):
                own.append([*row, *[None] * (count - len(row))])
        names = dict(zip(self._grid.rows, self._grid.names(), strict=True))
        return {"rows": [names[row] for row in self._heads], "count": count, "values": values}

    def _by_source(self) -> list[Any]:
        """Return what starts at each token."""
        _, tokens = self._grid.rows_and_tokens(self._mass.starts)
        count = self._grid.tokens
        where = jnp.asarray(np.where(tokens < 0, count, tokens))
        sums = [flow.semiring.segment_sum(flow.starting, where, count) for flow in self._flows]
        return self._read(sums)

    def _size(self, flow: Flow, elements: Elements) -> np.ndarray:
        """Return the sizes of numbers; 0 where there is no path, or what is read is not finite."""
        own = flow.shares(elements) if flow is self._mass else flow.numbers(elements)
        return np.where(np.isfinite(own), np.abs(own), 0.0)

    def _read(self, elements: Sequence[Elements]) -> list[Any]:
        """Return numbers for each reading: shares of the mass, and what other semirings read."""
        return [
            _rounded(flow.shares(own) if flow is self._mass else flow.numbers(own))
            for flow, own in zip(self._flows, elements, strict=True)
        ]


def _rounded(numbers: np.ndarray) -> Any:
    """Round numbers to as many digits as are shown."""
    if numbers.ndim:
        return [_rounded(number) for number in numbers]
    return float(f"{float(numbers):.{DIGITS}g}")

"""Means and their standard errors, by statistic and group: what a study finds."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from semijax import tables

Label = str | int | bool
"""The name of a group."""

COLUMNS = ("statistic", "group", "count", "mean", "stderr")


@dataclasses.dataclass(frozen=True, slots=True)
class Moments:
    """The mean of observations, and what it takes to add more to it.

    Attributes:
        count: how many observations there are.
        centre: their mean; 0 if there are none.
        squares: the sum of their squared deviations from it.
    """

    count: int = 0
    centre: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """The moments of a vector of numbers."""
        if not values.size:
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):  # whoever calls looks for infinities
            centre = values.mean()
            return cls(values.size, float(centre), float(np.square(values - centre).sum()))

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of observations (Chan, Golub, LeVeque 1983).

        Unlike a sum of squares less a squared sum, it does not cancel where the mean is large.
        """
        if not other.count:
            return self
        count = self.count + other.count
        share = other.count / count
        delta = other.centre - self.centre
        between = delta * (delta * (self.count * share))
        return Moments(count, self.centre + delta * share, self.squares + other.squares + between)

    @property
    def mean(self) -> float:
        """The mean; NaN of no observations."""
        return self.centre if self.count else math.nan

    @property
    def stderr(self) -> float:
        """The standard error of the mean, √(squares / (count − 1) / count); NaN below count 2."""
        if self.count < 2:
            return math.nan
        return math.sqrt(self.squares / (self.count - 1) / self.count)


@dataclasses.dataclass(frozen=True, repr=False)
class Study(tables.Printed):
    """What ``run_study`` found: ``study["entropy"]["nouns"].mean``.

    Attributes:
        statistics: for every statistic the ``Moments`` (``count``, ``mean``, ``stderr``) by group.
        batches: how many batches were seen.
        provenance: what made the numbers: versions, the names of the function and the reducers, the
            padding, ``compiled`` (how many distinct shapes were compiled), what the function's
            outputs say of themselves (``semiring``, ``granularity``), and your own.
    """

    statistics: Mapping[str, Mapping[Label, Moments]]
    batches: int
    provenance: Mapping[str, Any]

    def __getitem__(self, statistic: str) -> Mapping[Label, Moments]:
        """The moments of a statistic, by group."""
        if statistic not in self.statistics:
            raise KeyError(f"No statistic {statistic!r}, there are {list(self.statistics)}.")
        return self.statistics[statistic]

    def rows(self) -> list[tuple[str, Label, int, float, float]]:
        """A row for each statistic and group: statistic, group, count, mean, stderr."""
        return [
            (name, group, groups[group].count, groups[group].mean, groups[group].stderr)
            for name, groups in self.statistics.items()
            for group in sorted(groups)
        ]

    def to_dataframe(self) -> Any:
        """The rows as a ``pandas.DataFrame``."""
        import pandas

        return pandas.DataFrame(self.rows(), columns=list(COLUMNS))

    def _table(self) -> tables.Table:
        cells = [
            [format(v, ".6g") if isinstance(v, float) else str(v) for v in row]
            for row in self.rows()
        ]
        title = f"{self.provenance.get('function', 'Study')} over {self.batches} batches"
        return tables.Table(COLUMNS, cells, right=(2, 3, 4), title=title)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file, whole or not at all."""
        write_json(pathlib.Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Study:
        """Read what ``save`` wrote; it is equal to what was saved.

        Raises:
            ValueError: if the file holds something else.
        """
        return read_json(pathlib.Path(path), "a saved Study", cls.from_json)

    def to_json(self) -> dict[str, Any]:
        """Itself in JSON's types."""
        # Moments, where mean and stderr may be NaN: these are finite, which is all that JSON has.
        # Lists of groups, as the keys of JSON's objects are strings and a group may be 1 or True.
        statistics = [
            [name, [[group, *dataclasses.astuple(m)] for group, m in groups.items()]]
            for name, groups in self.statistics.items()
        ]
        return {
            "statistics": statistics,
            "batches": self.batches,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, data: Any) -> Study:
        """The study that ``to_json`` gave."""
        statistics = {
            name: {group: Moments(*numbers) for group, *numbers in groups}
            for name, groups in data["statistics"]
        }
        return cls(statistics, data["batches"], data["provenance"])


def read_json(path: pathlib.Path, what: str, parse: Callable[[Any], Any]) -> Any:
    """What a JSON file holds, parsed; a ValueError if it is not ``what`` it should be."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not {what}: {error!r}.") from error


def write_json(path: pathlib.Path, data: Any) -> None:
    """Write a JSON file, as ``write_whole``."""
    write_whole(path, json.dumps(data, allow_nan=False).encode())


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file so that whoever reads it, even after a kill, finds the old or the new."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # its content must be on the disk before its name is
    os.replace(temporary, path)

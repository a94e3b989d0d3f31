"""The findings of a study: means and their standard errors, by statistic and group."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semijax import tables

if TYPE_CHECKING:
    from semijax.pictures import Picture

Label = str | int | bool
"""The name of a group."""

COLUMNS = (
    *("statistic", "group", "count", "examples", "mean", "stderr"),
    *("dropped", "dropped_examples"),
)

OBSERVED = ("statistic", "group", "batch", "example", "value")
"""The columns of an observation."""

LEGEND = "stderr: clustered by example; dropped: NaN, in no mean"

LAYOUT = 3
"""The layout of the files that are written: another number means other fields."""


@dataclasses.dataclass(frozen=True, slots=True)
class Moments:
    """The mean of numbers that come from examples, its standard error, and what was left out.

    Numbers of one example (its tokens, its layers) depend on each other; only examples are
    independent. So example c, with n_c numbers that add up to y_c, counts as one observation of the
    pair (y_c, n_c), and the mean is the ratio of their sums, m = Σ y_c / Σ n_c.

    Attributes:
        count: how many numbers are in the mean, Σ n_c.
        examples: how many examples they come from, G.
        dropped: how many numbers were NaN (or masked) and are in no mean.
        dropped_examples: how many examples had nothing but such numbers.
        centre: the mean; 0 if there are no numbers.
        squares: Σ d_c², where d_c = y_c − m n_c.
        products: Σ n_c d_c.
        sizes: Σ n_c².

    Example:
        >>> import numpy as np, semijax as sj
        >>> batches = [np.arange(3.0), np.array([1.0, np.nan])]
        >>> reducers = {"double": lambda output, batch: output}
        >>> study = sj.run_study(lambda x: 2 * x, batches, reducers=reducers, progress=False)
        >>> moments = study["double"]["all"]
        >>> moments.count, moments.dropped, round(moments.mean, 3)
        (4, 1, 2.0)
    """

    count: int = 0
    examples: int = 0
    dropped: int = 0
    dropped_examples: int = 0
    centre: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    sizes: int = 0

    @classmethod
    def of(cls, values: np.ndarray, examples: np.ndarray | None = None) -> Moments:
        """Compute the moments of a vector of numbers, in which NaN is none.

        Args:
            values: float64 ``[n]``.
            examples: the number of each one's example, int ``[n]``; by default all are of one.
        """
        of = np.zeros(values.size, int) if examples is None else examples
        found = ~np.isnan(values)
        kept, kept_of = values[found], of[found]
        dropped = values.size - kept.size
        lost = np.setdiff1d(of, kept_of).size
        if not kept.size:
            return cls(dropped=dropped, dropped_examples=lost)
        _, row = np.unique(kept_of, return_inverse=True)
        sizes = np.bincount(row)
        with np.errstate(over="ignore", invalid="ignore"):  # whoever calls looks for infinities
            centre = kept.mean()
            sums = np.bincount(row, kept - centre)
            squares, products = float(sums @ sums), float(sizes @ sums)
        return cls(
            *(kept.size, sizes.size, dropped, lost),
            *(float(centre), squares, products, int(sizes @ sizes)),
        )

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both; no example may be in both.

        The sums are about a mean, like those of Chan, Golub and LeVeque (1983), and are moved to
        the new one. Unlike plain sums of squares, they do not cancel where the mean is large.
        """
        count = self.count + other.count
        share = other.count / count if count else 0.0
        step = share * (other.centre - self.centre) if other.count else 0.0
        back = (1 - share) * (self.centre - other.centre) if self.count else 0.0
        (squares, products), (more, others) = self._about(step), other._about(back)
        return Moments(
            count,
            self.examples + other.examples,
            self.dropped + other.dropped,
            self.dropped_examples + other.dropped_examples,
            self.centre + step if self.count else other.centre,
            squares + more,
            products + others,
            self.sizes + other.sizes,
        )

    def _about(self, step: float) -> tuple[float, float]:
        """Return the squares and the products about the centre + step."""
        squares = self.squares + step * (step * self.sizes - 2 * self.products)
        return max(squares, 0.0), self.products - step * self.sizes

    @property
    def mean(self) -> float:
        """The mean; NaN if there are no numbers."""
        return self.centre if self.count else math.nan

    @property
    def stderr(self) -> float:
        """The standard error of the mean, clustered by example; NaN below two examples.

        √(G / (G − 1) · Σ (y_c − m n_c)²) / Σ n_c, the standard error of a ratio estimator (Cochran
        1977, Theorem 2.5): the robust one of Liang and Zeger (1986) for a mean, with the factor
        G / (G − 1) for few examples. Where every example has one number it is the usual s / √n.
        """
        if self.examples < 2:
            return math.nan
        return math.sqrt(self.squares * self.examples / (self.examples - 1)) / self.count


@dataclasses.dataclass(frozen=True, repr=False)
class Study(tables.Printed):
    """The findings of ``run_study``: ``study["entropy"]["nouns"].mean``.

    Attributes:
        statistics: for every statistic the ``Moments`` by group: ``count``, ``mean``, ``stderr``,
            ``examples``, and what was ``dropped``.
        batches: how many batches were seen.
        provenance: what made the numbers: versions, the names of the functions and the reducers,
            the padding, ``compiled`` (how many distinct shapes the batches had, once padded), what
            the outputs say about themselves (``semiring``, ``granularity``), and your own.
        observations: if the study keeps them, every number that is in a mean: statistic, group,
            batch, example (its number in the batch), value.

    Example:
        >>> import numpy as np, semijax as sj
        >>> batches = [np.arange(3.0), np.arange(5.0)]
        >>> reducers = {"square": lambda output, batch: output}
        >>> study = sj.run_study(lambda x: x**2, batches, reducers=reducers, progress=False)
        >>> moments = study["square"]["all"]
        >>> print(f"{moments.mean:.3f} of {moments.count} numbers of {moments.examples} examples")
        4.375 of 8 numbers of 2 examples
    """

    statistics: Mapping[str, Mapping[Label, Moments]]
    batches: int
    provenance: Mapping[str, Any]
    observations: tuple[tuple[str, Label, int, int, float], ...] = ()

    def __getitem__(self, statistic: str) -> Mapping[Label, Moments]:
        """Return the moments of a statistic, by group."""
        if statistic not in self.statistics:
            raise KeyError(f"No statistic {statistic!r}, there are {list(self.statistics)}.")
        return self.statistics[statistic]

    def rows(self) -> list[tuple[str, Label, int, int, float, float, int, int]]:
        """Return a row per statistic and group: these two, then the numbers of their ``Moments``.

        The numbers are count, examples, mean, stderr, dropped and dropped_examples.
        """
        return [
            (name, group, *(getattr(groups[group], column) for column in COLUMNS[2:]))
            for name, groups in self.statistics.items()
            for group in sorted(groups)
        ]

    def to_dataframe(self, *, observations: bool = False) -> Any:
        """Return the rows as a ``pandas.DataFrame``, or one row for each observation.

        Raises:
            ValueError: if observations are asked for that the study has not kept.
        """
        import pandas

        if not observations:
            return pandas.DataFrame(self.rows(), columns=list(COLUMNS))
        if not self.observations and any(
            m.count for g in self.statistics.values() for m in g.values()
        ):
            raise ValueError("The study has kept means only: run_study(…, keep=True) keeps all.")
        return pandas.DataFrame(self.observations, columns=list(OBSERVED))

    def plot(
        self,
        statistics: Sequence[str] | None = None,
        *,
        unit: str = "mean",
        title: str | None = None,
    ) -> Picture:
        """Draw the means as bars, one for each group of each statistic, with their standard errors.

        Args:
            statistics: which; all by default.
            unit: what the numbers are.
            title: above the bars.

        Raises:
            KeyError: if there is no such statistic.
        """
        from semijax.pictures import grouped_bars  # matplotlib is an extra

        names = [*self.statistics] if statistics is None else [*statistics]
        groups = sorted({group for name in names for group in self[name]})

        def of_groups(column: str) -> dict[str, list[float]]:
            none = Moments()
            return {
                str(group): [getattr(self[name].get(group, none), column) for name in names]
                for group in groups
            }

        return grouped_bars(
            of_groups("mean"),
            groups=names,
            unit=unit,
            group_label="statistic",
            errors=of_groups("stderr"),
            title=title,
            of="group",
        )

    def _table(self) -> tables.Table:
        cells = [
            [format(v, ".6g") if isinstance(v, float) else str(v) for v in row]
            for row in self.rows()
        ]
        title = f"{self.provenance.get('function', 'Study')} over {self.batches} batches"
        right = range(2, len(COLUMNS))
        return tables.Table(COLUMNS, cells, right=right, title=title, legend=LEGEND)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the study to a JSON file, whole or not at all."""
        write_json(pathlib.Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Study:
        """Read a study that ``save`` wrote; it is equal to the one saved.

        Raises:
            ValueError: if the file holds something else, or was written in another layout.
        """
        keys = {field.name for field in dataclasses.fields(cls)}
        return read_json(pathlib.Path(path), "a saved Study", keys, cls.from_json)

    def to_json(self) -> dict[str, Any]:
        """Return the fields in JSON's types."""
        # Moments, not mean and stderr, which may be NaN: JSON has finite numbers only.
        # Lists of groups, as the keys of JSON's objects are strings and a group may be 1 or True.
        statistics = [
            [name, [[group, *dataclasses.astuple(m)] for group, m in groups.items()]]
            for name, groups in self.statistics.items()
        ]
        return {
            "statistics": statistics,
            "batches": self.batches,
            "provenance": dict(self.provenance),
            "observations": self.observations,
        }

    @classmethod
    def from_json(cls, data: Any) -> Study:
        """Rebuild a study from what ``to_json`` returned."""
        fields = [field.name for field in dataclasses.fields(Moments)]
        statistics = {
            name: {
                group: Moments(**dict(zip(fields, numbers, strict=True)))
                for group, *numbers in groups
            }
            for name, groups in data["statistics"]
        }
        observations = tuple(map(tuple, data["observations"]))
        return cls(statistics, data["batches"], data["provenance"], observations)


def read_json(
    path: pathlib.Path, what: str, keys: Collection[str], parse: Callable[[Any], Any]
) -> Any:
    """Parse what ``write_json`` wrote; raise a ValueError if it is not ``what`` it should be.

    An object that has all the keys is what it should be, perhaps in another layout.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        layout = data.get("layout", 1) if isinstance(data, dict) else LAYOUT
        if layout == LAYOUT or not data.keys() >= set(keys):
            return parse(data)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not {what}: {error!r}.") from error
    raise ValueError(
        f"{path} is {what} in layout {layout!r}, of another version of semijax; this one reads "
        f"layout {LAYOUT}, and the numbers cannot be converted. Run the study anew, with another "
        "path."
    )


def write_json(path: pathlib.Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file with its layout, by ``write_whole``."""
    write_whole(path, json.dumps({"layout": LAYOUT, **data}, allow_nan=False).encode())


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file so that whoever reads it, even after a kill, finds the old or the new."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # its content must be on the disk before its name is
    os.replace(temporary, path)

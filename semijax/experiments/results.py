"""Tables of results that grow a run at a time: killed and started again, a grid goes on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class ResultTable:
    """A CSV file with the rows of several runs, each of them written as soon as it is known.

    Attributes:
        path: of the file; missing folders are made.
        key: the columns that tell runs apart. A run may have several rows.
    """

    path: pathlib.Path
    key: tuple[str, ...]

    def read(self) -> Any:
        """Read all rows, as a ``pandas.DataFrame``."""
        import pandas

        return pandas.read_csv(self.path)

    def missing(self, keys: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Yield those runs that are not in the table, each asked for when its turn comes."""
        for key in keys:
            if key not in self._keys():
                yield key

    def append(self, rows: Sequence[dict[str, Any]] | Any) -> None:
        """Write the rows of a finished run: dicts, or a ``DataFrame``, all with the same columns.

        Raises:
            ValueError: if the columns are not the table's.
        """
        import pandas

        frame = pandas.DataFrame(rows)
        if self.path.exists():
            columns = pandas.read_csv(self.path, nrows=0).columns
            if list(columns) != list(frame.columns):
                raise ValueError(
                    f"{self.path} has the columns {', '.join(columns)}, and the new rows have "
                    f"{', '.join(frame.columns)}. Give another folder, or remove the table."
                )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(self.path, mode="a", header=not self.path.exists(), index=False)

    def of(self, keys: Iterable[tuple[Any, ...]]) -> Any:
        """Read the rows of these runs."""
        wanted, table = {*keys}, self.read()
        return table[[key in wanted for key in self._keys_of(table)]].reset_index(drop=True)

    def _keys(self) -> set[tuple[Any, ...]]:
        return {*self._keys_of(self.read())} if self.path.exists() else set()

    def _keys_of(self, table: Any) -> list[tuple[Any, ...]]:
        return list(table[list(self.key)].itertuples(index=False, name=None))

"""Tables as text, and for notebooks."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Collection, Sequence

from semijax import page


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of text in columns.

    Attributes:
        header: the columns' names.
        rows: the cells.
        right: the columns that are aligned at the right.
        title: above the table.
        legend: below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int] = ()
    title: str = ""
    legend: str = ""

    def text(self) -> str:
        """Return the columns side by side, as wide as they need to be."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]

        def line(cells: Sequence[str]) -> str:
            padded = [
                cell.rjust(width) if i in self.right else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return "  ".join(padded).rstrip()

        return "\n".join(filter(None, [self.title, *map(line, lines), self.legend]))

    def html(self) -> str:
        """Return the table as HTML for a page, with everything escaped."""
        cells = [[page.text(cell) for cell in row] for row in self.rows]
        caption = ". ".join(filter(None, [self.title, self.legend]))
        return page.table(self.header, cells, caption)

    def csv(self) -> str:
        """Return the header and the cells, separated by commas."""
        file = io.StringIO()
        csv.writer(file).writerows([self.header, *self.rows])
        return file.getvalue()


def line_text(source: str) -> str:
    """Return a line of code to show to others: without the folders that are this machine's.

    In an installed package it begins with the package's name, in the working directory after that.
    """
    here = os.path.join(os.getcwd(), "")
    return re.sub(r"^.*[/\\](?:site|dist)-packages[/\\]", "", source).removeprefix(here)


class Printed:
    """A base class for objects that print as a table, in a terminal and in a notebook."""

    def _table(self) -> Table:
        raise NotImplementedError

    def _whole_table(self) -> Table:
        """Return the table with nothing left out."""
        return self._table()

    def __str__(self) -> str:
        return self._table().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table().html()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a file.

        Args:
            path: ends in ``.html``, one page that needs no other file; in ``.txt``, as it prints;
                or in ``.csv``, without title and legend.

        Raises:
            ValueError: if it ends in something else.
        """
        table = self._table()
        title = table.title or type(self).__name__
        formats = {
            ".html": lambda: page.document(title, table.html()),
            ".txt": lambda: table.text() + "\n",
            ".csv": self._whole_table().csv,
        }
        page.save(path, formats)

"""A command that compares what was measured with stored results: ``python -m benchmarks.compare``.

Ratios are compared, never seconds: a ratio was measured in turns on one machine, and is about the
same on another.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

FACTOR = 2.0
"""By how much a ratio may exceed the stored one."""

Ratios = Mapping[tuple[str, str], float]
"""Ratios by what they are of and where they were measured."""


@dataclasses.dataclass(frozen=True)
class Change:
    """A ratio beside the stored one."""

    what: str
    where: str
    stored: float
    measured: float

    @property
    def factor(self) -> float:
        return self.measured / self.stored

    def __str__(self) -> str:
        numbers = f"{self.stored:8.2f} → {self.measured:8.2f}   × {self.factor:.2f}"
        return f"{self.what:46} {self.where:34} {numbers}"


def read(path: Path) -> Ratios:
    """Read the ratios of a file that ``python -m benchmarks`` wrote."""
    figures = json.loads(path.read_text())["figures"]
    ratios = [figure for figure in figures if not figure["what"].endswith("seconds")]
    return {(figure["what"], figure["where"]): figure["ratio"] for figure in ratios}


def compare(stored: Ratios, measured: Ratios) -> list[Change]:
    """Pair the ratios that both have, the one that grew most first.

    Raises:
        ValueError: if they have none in common.
    """
    both = stored.keys() & measured.keys()
    if not both:
        raise ValueError("The two files have no figure in common.")
    changes = [Change(*key, stored[key], measured[key]) for key in both]
    return sorted(changes, key=lambda change: (-change.factor, change.what, change.where))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("stored", type=Path)
    parser.add_argument("measured", type=Path)
    parser.add_argument("--factor", type=float, default=FACTOR, help="default: %(default)g")
    options = parser.parse_args()
    changes = compare(read(options.stored), read(options.measured))
    for change in changes:
        print(change)
    worse = [change for change in changes if not change.factor <= options.factor]
    if worse:
        sys.exit(
            f"{len(worse)} of {len(changes)} ratios exceed {options.factor:g} × the stored one."
        )
    print(f"No ratio of {len(changes)} exceeds {options.factor:g} × the stored one.")


if __name__ == "__main__":
    main()

"""Every claim of Du et al. (2023) that a stored result speaks about, in one table.

``python -m semijax.experiments.paper FOLDER`` reads the tables that the other commands of this
package write, and prints the claims as Markdown: what the paper reports, the estimate here over
seeds, the control, and a verdict. Tables of the same name in its folder ``retrained`` are those of
the same commands with other instructions of the processor, and get a column.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from semijax.experiments import (
    difficulty,
    entropy,
    features,
    first_token,
    generated,
    pretrained,
)
from semijax.experiments.claims import Claim, as_markdown, overturned
from semijax.experiments.results import ResultTable

Claims = Callable[[Any], list[Claim]]

SECTIONS: tuple[tuple[str, str, Claims], ...] = (
    ("Fig. 2, without dropout", first_token.FILE, partial(first_token.claims, dropout=0.0)),
    (
        "Fig. 2, with dropout 0.2, as its released run has in its hidden layers",
        first_token.FILE,
        partial(first_token.claims, dropout=0.2),
    ),
    ("Fig. 4, on a generated language", generated.FILE, generated.claims),
    ("Fig. 5", difficulty.FILE, difficulty.claims),
    ("Fig. 6a and 7, on a generated language", entropy.FILE, entropy.claims),
    ("Fig. 6b", features.FILE, features.claims),
    ("Fig. 4, 6a and 7, in a pretrained encoder", pretrained.FILE, pretrained.claims),
)
"""Titles, the tables they are about, and what they claim, in the paper's order."""


RETRAINED = "retrained"
"""The folder of the tables of models that were trained again with other instructions."""


def markdown(folder: str | os.PathLike[str]) -> str:
    """Return the claims about all tables in a folder, as Markdown.

    Args:
        folder: of the tables.

    Raises:
        FileNotFoundError: if there is none of them.
    """
    folder = pathlib.Path(folder)
    parts, titled = [], []
    for title, file, claims in SECTIONS:
        if (folder / file).exists():
            found = claims(ResultTable(folder / file, ()).read())
            again = folder / RETRAINED / file
            same = claims(ResultTable(again, ()).read()) if again.exists() else ()
            parts.append(f"### {title}\n\n{as_markdown(found, same)}\n")
            titled += [(title, claim) for claim in found]
    if not parts:
        names = ", ".join(sorted({file for _, file, _ in SECTIONS}))
        raise FileNotFoundError(f"{folder} has none of the tables {names}.")
    gone = {id(claim) for claim in overturned([claim for _, claim in titled])}
    lost = [f"“{claim.statement}” ({title})" for title, claim in titled if id(claim) in gone]
    parts.append(
        "The intervals are not corrected for the number of claims. At a false discovery rate of 5% "
        f"over all {len(titled)} (Benjamini and Yekutieli 2001), "
        + (f"these verdicts are lost: {'; '.join(lost)}." if lost else "all verdicts stay.")
        + "\n"
    )
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the claims.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=pathlib.Path, help="of the stored tables")
    print(markdown(parser.parse_args(argv).folder))


if __name__ == "__main__":
    main()

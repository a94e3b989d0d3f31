"""What was measured: printed, as JSON, and as the table in docs/costs.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import LAYER, Figure

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
COSTS = ("", "compile ", "trace ", "memory ")
"""The prefix of a semiring's name, for each column after it."""


def collect(
    figures: Iterable[Figure],
    machine: Mapping[str, Any],
    output: Path,
    known: Iterable[Figure] = (),
) -> list[Figure]:
    """Print each figure as soon as it is measured, and write all so far as JSON.

    Args:
        figures: those to measure.
        machine: what they are measured on.
        output: the file to write.
        known: figures that are kept unless they are measured again.
    """
    print("  ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    measured = [*known]
    places = {(figure.what, figure.where): n for n, figure in enumerate(measured)}
    for figure in figures:
        print(figure, flush=True)
        place = places.pop((figure.what, figure.where), len(measured))
        measured[place : place + 1] = [figure]
        rows = [dataclasses.asdict(each) for each in measured]
        output.write_text(json.dumps({"machine": dict(machine), "figures": rows}, indent=1) + "\n")
    print(f"wrote {output}")
    return measured


def read(path: Path, machine: Mapping[str, Any]) -> list[Figure]:
    """Read figures that were measured on the same machine; none if there are none."""
    stored = json.loads(path.read_text()) if path.exists() else {"machine": None, "figures": []}
    if stored["machine"] != dict(machine):
        return []
    return [Figure(**figure) for figure in stored["figures"]]


def write(page: Path, machine: dict[str, str | int], figures: Sequence[Figure]) -> None:
    """Replace the text between the two marks."""
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{table(machine, figures)}\n{END}{after}")


def table(machine: dict[str, str | int], figures: Sequence[Figure]) -> str:
    """Format three tables: what each semiring costs, the same for layers, and everything else."""
    by_name: dict[str, list[Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.what, []).append(figure)
    of_workload = {what: _of_workload(of) for what, of in by_name.items()}
    names = [what.removesuffix(" / grad").removeprefix("trace ") for what in by_name]
    names = [name for name in dict.fromkeys(names) if of_workload.get(f"trace {name} / grad")]
    lines = [
        f"Measured on {machine['processor']}, {machine['cores']} cores, kernels for "
        f"{machine['kernels']}, jax {machine['jax']}. Lowest to highest ratio over the workloads, "
        "and the target.",
        "",
        "| over jitted `jax.grad` | run time | compile time | trace time | memory |",
        "|---|---|---|---|---|",
    ]
    costs = {f"{cost}{name} / grad" for name in names for cost in COSTS}
    for name in names:
        cells = (_cell(of_workload[f"{cost}{name} / grad"]) for cost in COSTS)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    of_layers = {what: of for what, of in by_name.items() if what.startswith(LAYER)}
    if of_layers:
        lines += ["", *_layers(of_layers)]
    lines += ["", "| | ratio |", "|---|---|"]
    others = (what for what in by_name if what not in costs and what not in of_layers)
    lines += [f"| {what} | {_cell(by_name[what])} |" for what in others]
    return "\n".join(lines)


def _layers(by_name: Mapping[str, Sequence[Figure]]) -> Iterator[str]:
    """Format a row for each layer, and a column for each semiring."""
    names = [f"`{what.removeprefix(LAYER).removesuffix(' / grad')}`" for what in by_name]
    yield f"| run time over jitted `jax.grad` | {' | '.join(names)} |"
    yield "|---" * (1 + len(names)) + "|"
    for row in zip(*by_name.values(), strict=True):
        yield f"| {row[0].where} | {' | '.join(_cell([figure]) for figure in row)} |"


def _of_workload(figures: Iterable[Figure]) -> list[Figure]:
    return [figure for figure in figures if figure.where.startswith("6 layers")]


def _cell(figures: Sequence[Figure]) -> str:
    low, high = (pick(f.ratio for f in figures) for pick in (min, max))
    text = f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g}–{high:.3g}"
    targets = sorted({f.target for f in figures if f.target is not None})
    return text + (f" (≤ {', '.join(f'{t:g}' for t in targets)})" if targets else "")

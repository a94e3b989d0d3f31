"""A command that measures everything, prints each figure at once, and writes all as JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from benchmarks import report, table
from benchmarks.layers import CONVOLUTIONS, STATE_SPACE
from benchmarks.workload import Workload
from semijax import native


def machine() -> dict[str, str | int]:
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        processor = next((x.split(":")[1].strip() for x in lines if "model name" in x), processor)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "semijax")}
    kernels = native.target() or "none"
    return {"processor": processor, "cores": os.cpu_count() or 0, "kernels": kernels, **versions}


DEEP = Workload(12, 32, width=768)

PARTS: dict[str, Callable[[int], Iterator[table.Figure]]] = {
    "import": lambda repeats: table.imports(),
    "cost": lambda repeats: table.cost(Workload(6, 16), list(table.SEMIRINGS), repeats),
    "paths": lambda repeats: table.paths(DEEP, repeats),
    "stories": lambda repeats: chain(table.stories(DEEP, repeats), table.graphs(repeats)),
    "contrast": lambda repeats: chain(
        table.contrast(Workload(6, 16), repeats), table.contrast_paths(DEEP, repeats)
    ),
    "flow": lambda repeats: chain(table.flow(Workload(6, 32), repeats), table.study()),
    "agreement": lambda repeats: table.agreement(),
    "layers": lambda repeats: table.layers([*CONVOLUTIONS, STATE_SPACE], repeats),
    "first": lambda _: table.first_calls(),
    "large": lambda _: table.large(1),
    "long": lambda _: table.long(),
    "contractions": lambda repeats: chain(
        table.contractions(repeats), table.instruction_sets(repeats)
    ),
}
"""What can be measured alone, by name; ``results.json`` has all of it."""


def quick(repeats: int) -> Iterator[table.Figure]:
    """Measure one layer, and nothing that needs torch."""
    yield from PARTS["import"](repeats)
    yield from table.cost(Workload(layers=1), list(table.SEMIRINGS), repeats)
    yield from table.paths(Workload(layers=1), repeats)
    yield from table.stories(Workload(layers=1), repeats)
    yield from table.graphs(repeats)
    yield from table.contrast(Workload(layers=1), repeats)
    yield from table.contrast_paths(Workload(layers=1), repeats)
    yield from table.flow(Workload(layers=1), repeats)
    yield from table.contractions(repeats)
    yield from table.against_fixed_shape(repeats)


def everything(repeats: int) -> Iterator[table.Figure]:
    """Measure all parts, the costs for more workloads than the part has."""
    yield from PARTS["import"](repeats)
    for batch in (1, 8):
        for tokens in (16, 64, 128):
            yield from table.cost(Workload(6, tokens, batch), list(table.SEMIRINGS), repeats)
    for name in ("AbsMaxProduct", "MaxProduct", "Entropy"):
        layers = [Workload(n) for n in (2, 4, 8, 16, 32)]
        yield from table.growth(name, layers, repeats)
        tokens = [Workload(2, n) for n in (16, 32, 64, 128, 256, 512)]
        yield from table.growth(name, tokens, repeats)
    yield from table.penalty(Workload(2, 64))
    yield from table.penalty(Workload(6, 64))
    for part, figures in PARTS.items():
        if part not in ("import", "cost"):
            yield from figures(repeats)
    yield from table.against_fixed_shape(repeats)
    yield from table.against_torch(repeats)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one layer, and no torch")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--repeats", type=int, default=11, help="of each timing")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results.json"))
    parser.add_argument("--page", type=Path, help="the file whose table to replace")
    options = parser.parse_args()
    found = machine()
    if options.only:
        parts = [PARTS[part] for part in options.only]
        figures = chain.from_iterable(part(options.repeats) for part in parts)
    else:
        figures = (quick if options.quick else everything)(options.repeats)
    # A page has all figures: those of other parts stay as they are.
    known = report.read(options.output, found) if options.only and options.page else ()
    measured = report.collect(figures, found, options.output, known)
    if options.page:
        report.write(options.page, found, measured)
        print(f"wrote the table of {options.page}")


if __name__ == "__main__":
    main()

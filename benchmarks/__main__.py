"""A command that measures everything, prints each figure at once, and writes all as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from benchmarks import report, table
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


def figures(quick: bool, only: str | None, repeats: int) -> Iterator[table.Figure]:
    names = list(table.SEMIRINGS)
    if only == "paths":
        yield from table.paths(Workload(12, 32, width=768), repeats)
        return
    if only == "stories":
        yield from table.stories(Workload(12, 32, width=768), repeats)
        yield from table.graphs(repeats)
        return
    if only == "contrast":
        yield from table.contrast(Workload(6, 16), repeats)
        yield from table.contrast_paths(Workload(12, 32, width=768), repeats)
        return
    if only == "flow":
        yield from table.flow(Workload(6, 32), repeats)
        yield from table.study()
        return
    if only == "agreement":
        yield from table.agreement()
        return
    if quick:
        yield from table.cost(Workload(layers=1), names, repeats)
        yield from table.paths(Workload(layers=1), repeats)
        yield from table.stories(Workload(layers=1), repeats)
        yield from table.graphs(repeats)
        yield from table.contrast(Workload(layers=1), repeats)
        yield from table.contrast_paths(Workload(layers=1), repeats)
        yield from table.flow(Workload(layers=1), repeats)
        yield from table.contractions(repeats)
        yield from table.against_fixed_shape(repeats)
        return
    for batch in (1, 8):
        for tokens in (16, 64, 128):
            yield from table.cost(Workload(6, tokens, batch), names, repeats)
    for name in ("AbsMaxProduct", "MaxProduct", "Entropy"):
        layers = [Workload(n) for n in (2, 4, 8, 16, 32)]
        yield from table.growth(name, layers, repeats)
        tokens = [Workload(2, n) for n in (16, 32, 64, 128, 256, 512)]
        yield from table.growth(name, tokens, repeats)
    yield from table.penalty(Workload(2, 64))
    yield from table.penalty(Workload(6, 64))
    yield from table.paths(Workload(12, 32, width=768), repeats)
    yield from table.stories(Workload(12, 32, width=768), repeats)
    yield from table.graphs(repeats)
    yield from table.contrast(Workload(6, 16), repeats)
    yield from table.contrast_paths(Workload(12, 32, width=768), repeats)
    yield from table.flow(Workload(6, 32), repeats)
    yield from table.study()
    yield from table.agreement()
    yield from table.contractions(repeats)
    yield from table.against_fixed_shape(repeats)
    yield from table.against_torch(repeats)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one layer, and no torch")
    parser.add_argument(
        "--only",
        choices=("paths", "stories", "flow", "agreement", "contrast"),
        help="one part alone",
    )
    parser.add_argument("--repeats", type=int, default=11, help="of each timing")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results.json"))
    parser.add_argument("--readme", type=Path, help="the file whose table to replace")
    options = parser.parse_args()
    found = machine()
    print("  ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    measured: list[table.Figure] = []
    for figure in figures(options.quick, options.only, options.repeats):
        print(figure, flush=True)
        measured.append(figure)
        rows = [dataclasses.asdict(each) for each in measured]
        options.output.write_text(json.dumps({"machine": found, "figures": rows}, indent=1) + "\n")
    print(f"wrote {options.output}")
    if options.readme:
        report.write(options.readme, found, measured)
        print(f"wrote the table of {options.readme}")


if __name__ == "__main__":
    main()

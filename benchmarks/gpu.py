"""Measure on a GPU, offline: ``python -m benchmarks.gpu``.

Every semiring is compared with the CPU; its costs are those of ``make bench``, in float32 and in
bfloat16; and contractions of cubes are timed over ``jnp.matmul``, which is cuBLAS there, and over
the time that the device needs to issue the comparisons. Prints each figure at once, and writes all
as JSON.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import semijax as sj
from benchmarks import report, table
from benchmarks.__main__ import machine
from benchmarks.measure import compiled, run_times
from benchmarks.table import SEMIRINGS, Figure
from benchmarks.workload import Workload

CUBES = (512, 1024, 2048, 4096, 8192)
DTYPES = ("float32", "bfloat16")

COMPARISONS_PER_CLOCK = 64
"""The minima or maxima of 32-bit numbers that a multiprocessor issues per clock.

Source: CUDA C++ Programming Guide, "Throughput of native arithmetic instructions", for compute
capabilities 7.x to 9.0.
"""

ISSUE_TARGET = 1 / 0.6
"""The aim: 60% of what the issue of comparisons allows."""


def comparisons_per_second() -> float | None:
    """Return how many comparisons an NVIDIA GPU can issue; None for any other device."""
    query = "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"
    try:
        found = subprocess.run(["nvidia-smi", *query], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    megahertz = float(found.stdout.splitlines()[0])
    return jax.devices()[0].core_count * COMPARISONS_PER_CLOCK * megahertz * 1e6


def against_cpu(workload: Workload, names: list[str]) -> Iterator[Figure]:
    """Compare semirings' sweeps here with those on the CPU: the largest difference."""
    arguments = workload.arguments()
    for name in names:
        sweep = jax.jit(sj.semiring_grad(workload.function, SEMIRINGS[name]))
        found = jax.tree.leaves(sweep(*arguments))
        with jax.default_device(jax.devices("cpu")[0]):
            expected = jax.tree.leaves(sweep(*jax.device_put(arguments, jax.devices("cpu")[0])))
        differences = [
            np.max(np.abs(np.asarray(a) - np.asarray(b))) / np.max(np.abs(np.asarray(b)))
            for a, b in zip(found, expected, strict=True)
        ]
        yield Figure(
            f"{name}, difference from the CPU", workload.name, float(max(differences)), 1e-3
        )


def cube(size: int, dtype: str, repeats: int, limit: float | None) -> Iterator[Figure]:
    """Time contractions of a cube over matmul, and over the issue of as many comparisons."""
    w, g = (jnp.asarray(x, dtype) for x in table.operands(size, size, size))
    functions: dict[str, Any] = {"matmul": jnp.matmul}
    elements = {"matmul": g}
    for name in ("AbsMaxProduct", "MaxProduct", "TopK(4)", "Entropy"):
        functions[name] = SEMIRINGS[name].contract
        elements[name] = SEMIRINGS[name].lift(g.astype(jnp.float32))  # as a sweep carries them
    calls = {name: compiled(f, w, elements[name]).run for name, f in functions.items()}
    times = run_times(calls, repeats)
    where = f"{size}³, {dtype}"
    for name in [*calls][1:]:
        yield Figure(f"contract {name} / matmul", where, times[name] / times["matmul"])
        if limit is not None and name == "AbsMaxProduct":
            issued = times[name] * limit / size**3
            yield Figure(f"contract {name} / issue", where, issued, ISSUE_TARGET)


def everything(*, quick: bool, repeats: int, seconds: float) -> Iterator[Figure]:
    """Measure all; sizes of cubes are left out, the largest first, when the time has passed."""
    begin = time.monotonic()
    names = ["SumProduct", "MaxProduct"] if quick else [*SEMIRINGS]
    yield from against_cpu(Workload(1, 8, width=64) if quick else Workload(2, 16), names)
    for dtype in DTYPES:
        sizes = {"layers": 1, "tokens": 8, "width": 64} if quick else {"layers": 6, "tokens": 64}
        yield from table.cost(Workload(**sizes, dtype=dtype), names, repeats)
    limit = comparisons_per_second()
    for size in (16,) if quick else CUBES:
        for dtype in DTYPES:
            if time.monotonic() - begin < seconds:
                yield from cube(size, dtype, repeats, limit)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes and two semirings, on any device"
    )
    parser.add_argument("--repeats", type=int, default=7, help="of each timing")
    parser.add_argument("--seconds", type=float, default=360, help="begin nothing new after these")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/gpu.json"))
    options = parser.parse_args()
    device = jax.devices()[0]
    if device.platform == "cpu" and not options.quick:
        parser.error("JAX finds no GPU here: install jax[cuda13], or see if --quick runs.")
    found = machine() | {"device": device.device_kind}
    figures = everything(quick=options.quick, repeats=options.repeats, seconds=options.seconds)
    report.collect(figures, found, options.output)


if __name__ == "__main__":
    main()

"""Compile time, run time and memory of jitted functions, side by side."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A function compiled for its arguments.

    Attributes:
        run: calls it and waits for the result.
        trace_s: seconds of Python to trace and lower it.
        compile_s: seconds that XLA took.
        temporary_bytes: what it needs besides arguments and results.
        whole_bytes: what it needs with them.
    """

    run: Callable[[], Any]
    trace_s: float
    compile_s: float
    temporary_bytes: int
    whole_bytes: int


def compiled(function: Callable[..., Any], *args: Any) -> Compiled:
    """Trace and compile a function anew, with no garbage collected meanwhile."""
    gc.collect()
    gc.disable()
    begin = time.perf_counter()
    lowered = jax.jit(lambda *args: function(*args)).lower(*args)
    traced = time.perf_counter()
    executable = lowered.compile()
    done = time.perf_counter()
    gc.enable()
    memory = executable.memory_analysis()
    temporary = memory.temp_size_in_bytes
    whole = temporary + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return Compiled(
        lambda: jax.block_until_ready(executable(*args)),
        traced - begin,
        done - traced,
        temporary,
        whole,
    )


def compiled_in_turns(
    functions: Mapping[str, Callable[..., Any]], *args: Any, repeats: int
) -> dict[str, Compiled]:
    """Compile all of them, with the median times of several rounds after one to warm JAX up."""
    jax.config.update("jax_enable_compilation_cache", False)
    rounds = [
        {name: compiled(function, *args) for name, function in functions.items()}
        for _ in range(repeats + 1)
    ]

    def medians(name: str) -> Compiled:
        of = [found[name] for found in rounds[1:]]
        return dataclasses.replace(
            of[-1],
            trace_s=statistics.median(c.trace_s for c in of),
            compile_s=statistics.median(c.compile_s for c in of),
        )

    return {name: medians(name) for name in functions}


def resident_bytes(key: str = "VmRSS") -> int:
    """Read how much memory this process has, on Linux; ``"VmHWM"`` is the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def peak_bytes(function: Callable[[], Any]) -> int:
    """Measure how much the resident memory grows while a function runs, on Linux.

    What the allocator keeps of earlier calls hides some of it, unless the environment variable
    ``MALLOC_MMAP_THRESHOLD_`` makes it give large arrays back.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident_bytes()
    function()
    return resident_bytes("VmHWM") - before


def run_times(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each, called in turns so that other load slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            if turn:  # the first is to warm up
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in times.items()}

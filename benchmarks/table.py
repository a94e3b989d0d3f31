"""The figures, each a ratio with the target that was set for it on two CPU cores."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import semijax as sj
from benchmarks import decoder, first
from benchmarks.layers import Layer
from benchmarks.measure import Compiled, compiled, compiled_in_turns, peak_bytes, run_times
from benchmarks.workload import CONTRACTIONS, Workload
from semijax import native
from semijax.paths.call import Call
from semijax.paths.sweeps import backward
from semijax.semirings.expectation import LogMassSemiring
from semijax.semirings.logarithmic import LogAbsMaxProduct

FIRST_REPEATS = 3
"""The number of new processes that make each first call."""

COMPILATIONS = 1
"""The number of compilations of each that are timed, after one to warm up."""

TOGETHER = (sj.SumProduct(), sj.MaxProduct(), sj.Entropy())
SEMIRINGS: dict[str, Any] = {
    "SumProduct": sj.SumProduct(),
    "AbsSumProduct": sj.AbsSumProduct(),
    "AbsMaxProduct": sj.AbsMaxProduct(),
    "MaxProduct": sj.MaxProduct(),
    "Entropy": sj.Entropy(),
    "PathCount": sj.PathCount(),
    "TopK(4)": sj.TopK(4),
    "three in one": TOGETHER,
}
RUN_TARGETS = {
    "SumProduct": 1.05,
    "AbsMaxProduct": 1.3,
    "MaxProduct": 2.2,
    "Entropy": 4,
    "TopK(4)": 8,
}
BATCH_TARGETS = {**RUN_TARGETS, "Entropy": 3}
LAYER_TARGETS = {
    "SumProduct": 1.1,
    "AbsMaxProduct": 1.5,
    "MaxProduct": 2.5,
    "Entropy": 4,
    "TopK(4)": 10,
}
LAYER = "layer: "
COMPILE_TARGETS = {"AbsMaxProduct": 1.5, "MaxProduct": 1.5, "TopK(4)": 1.5}
CONTRACTION_TARGETS = {"AbsMaxProduct": 1.3, "MaxProduct": 4}
FIXED_SHAPES = [(512, 512, 128), (512, 2048, 128)]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A row: a ratio, what it is of, where it was measured, and the target."""

    what: str
    where: str
    ratio: float
    target: float | None = None

    def __str__(self) -> str:
        target = "" if self.target is None else f"≤ {self.target:g}"
        mark = "" if self.target is None or self.ratio <= self.target else "  over"
        return f"{self.what:38} {self.where:32} {self.ratio:8.2f}   {target}{mark}"


def compile_all(workload: Workload | Layer, names: list[str]) -> dict[str, Compiled]:
    gradients = {"grad": jax.grad(workload.function)}
    for name in names:
        gradients[name] = sj.semiring_grad(workload.function, SEMIRINGS[name])
    functions = {name: workload.batched(gradient) for name, gradient in gradients.items()}
    return compiled_in_turns(functions, *workload.arguments(), repeats=COMPILATIONS)


def cost(workload: Workload, names: list[str], repeats: int) -> Iterator[Figure]:
    """Measure run time, compile time, trace time and memory, each over that of ``jax.grad``."""
    everything = compile_all(workload, names)
    times = run_times({name: c.run for name, c in everything.items()}, repeats)
    grad = everything["grad"]
    for name in names:
        target = (RUN_TARGETS if workload.batch == 1 else BATCH_TARGETS).get(name)
        if name != "three in one":
            yield Figure(f"{name} / grad", workload.name, times[name] / times["grad"], target)
    if set(names) >= {"three in one", "SumProduct", "MaxProduct", "Entropy"}:
        apart = sum(times[name] for name in ("SumProduct", "MaxProduct", "Entropy"))
        yield Figure("three in one / apart", workload.name, times["three in one"] / apart, 0.8)
    for name in names:
        if name == "three in one":
            continue
        found = everything[name]
        yield Figure(
            f"compile {name} / grad",
            workload.name,
            found.compile_s / grad.compile_s,
            COMPILE_TARGETS.get(name, 2.5),
        )
        yield Figure(f"trace {name} / grad", workload.name, found.trace_s / grad.trace_s, 3)
        memory = found.temporary_bytes / grad.temporary_bytes
        yield Figure(f"memory {name} / grad", workload.name, memory, 3)


def layers(of: Iterable[Layer], repeats: int) -> Iterator[Figure]:
    """Measure run time and memory of sweeps through single layers, over those of ``jax.grad``."""
    for layer in of:
        everything = compile_all(layer, [*LAYER_TARGETS])
        times = run_times({name: c.run for name, c in everything.items()}, repeats)
        for name, target in LAYER_TARGETS.items():
            ratio = times[name] / times["grad"]
            yield Figure(f"{LAYER}{name} / grad", layer.name, ratio, target)
            # Alone, many a gradient needs nothing besides its arguments and results.
            memory = everything[name].whole_bytes / everything["grad"].whole_bytes
            yield Figure(f"memory {LAYER}{name} / grad", layer.name, memory)


def first_calls() -> Iterator[Figure]:
    """Time the first call of each function in a process of its own, over that of ``jax.grad``."""
    taken: dict[str, list[float]] = {call: [] for call in first.CALLS}
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    for _ in range(FIRST_REPEATS):
        for call, times in taken.items():
            command = [sys.executable, "-m", "benchmarks.first", call]
            output = subprocess.run(command, env=environment, check=True, capture_output=True)
            times.append(float(output.stdout))
    seconds = {call: statistics.median(times) for call, times in taken.items()}
    for call, (_, reference, target) in first.CALLS.items():
        if reference != call:
            ratio = seconds[call] / seconds[reference]
            yield Figure(f"first {call} / first {reference}", first.MODEL.name, ratio, target)


def contrast(workload: Workload, repeats: int) -> Iterator[Figure]:
    """Measure a sweep that compares two runs, over the same sweep of derivatives."""
    embeddings, params = workload.arguments()
    reference = jax.random.normal(jax.random.key(1), embeddings.shape)
    for name in ("SumProduct", "MaxProduct", "Entropy"):
        semiring = SEMIRINGS[name]

        def derivative(e: Any, r: Any, p: Any, semiring: Any = semiring) -> Any:
            del r
            return sj.semiring_grad(workload.function, semiring)(e, p)

        def between(e: Any, r: Any, p: Any, semiring: Any = semiring) -> Any:
            weighting = sj.Contrast(r, p)
            return sj.semiring_grad(workload.function, semiring, weighting=weighting)(e, p)

        both = {"derivative": derivative, "contrast": between}
        found = compiled_in_turns(both, embeddings, reference, params, repeats=COMPILATIONS)
        times = run_times({key: c.run for key, c in found.items()}, repeats)
        old, new = found["derivative"], found["contrast"]
        what = f"{name} by Contrast / by Derivative"
        yield Figure(what, workload.name, times["contrast"] / times["derivative"], 1.6)
        yield Figure(f"compile {what}", workload.name, new.compile_s / old.compile_s, 2)
        memory = new.temporary_bytes / old.temporary_bytes
        yield Figure(f"memory {what}", workload.name, memory, 1.8)


def contrast_paths(workload: Workload, repeats: int) -> Iterator[Figure]:
    """Time the search for contributions to a difference of two runs, over that for derivatives."""
    embeddings, params = workload.arguments()
    reference = jax.random.normal(jax.random.key(1), embeddings.shape)

    def function(embeddings: jax.Array) -> jax.Array:
        return workload.function(embeddings, params)

    old = sj.top_paths(function, 100)
    new = sj.top_paths(function, 100, weighting=sj.Contrast(reference))
    searches = {"derivative": lambda: old(embeddings), "contrast": lambda: new(embeddings)}
    times = run_times(searches, repeats)
    what = "top_paths(k=100) by Contrast / by Derivative"
    yield Figure(what, workload.name, times["contrast"] / times["derivative"], 1.6)


def growth(name: str, sizes: list[Workload], repeats: int) -> Iterator[Figure]:
    """Measure how ratios to ``jax.grad`` change from the smallest to each size: flat is 1."""
    first = None
    for workload in sizes:
        found = compile_all(workload, [name])
        times = run_times({k: c.run for k, c in found.items()}, repeats)
        run = times[name] / times["grad"]
        compile_ = found[name].compile_s / found["grad"].compile_s
        yield Figure(f"{name} / grad", workload.name, run)
        yield Figure(f"compile {name} / grad", workload.name, compile_)
        if first:
            from_first = run / first[0], compile_ / first[1]
            yield Figure(f"{name} / grad, growth", workload.name, from_first[0], 1.25)
            yield Figure(f"compile {name}, growth", workload.name, from_first[1], 1.25)
        first = first or (run, compile_)


def long() -> Iterator[Figure]:
    """Measure how the memory for long sequences compares; nothing runs, everything is compiled."""
    names = ("SumProduct", "AbsMaxProduct", "MaxProduct", "Entropy", "PathCount", "TopK(4)")
    short, full = (Workload(12, tokens, width=768) for tokens in (128, 2048))
    in_checkpoints = dataclasses.replace(full, checkpoint=True)

    def ratios(workload: Workload) -> dict[str, float]:
        of_grad = _temporary(jax.grad(workload.function), workload)
        sweeps = {n: sj.semiring_grad(workload.function, SEMIRINGS[n]) for n in names}
        return {name: _temporary(sweep, workload) / of_grad for name, sweep in sweeps.items()}

    of_short, of_full, within = map(ratios, (short, full, in_checkpoints))
    for name in names:
        growth = of_full[name] / of_short[name]
        yield Figure(f"memory {name} / grad, growth from 128 tokens", full.name, growth, 1.25)
        what = f"memory {name} / grad, both in jax.checkpoint"
        yield Figure(what, full.name, within[name], 1.3)


def _temporary(function: Callable[..., Any], workload: Workload) -> int:
    shapes = jax.eval_shape(workload.arguments)
    program = jax.jit(function).lower(*shapes).compile()
    return program.memory_analysis().temp_size_in_bytes


def penalty(workload: Workload) -> Iterator[Figure]:
    """Measure the memory of the gradient of a loss with an entropy in it, over the entropy's."""
    embeddings, params = workload.arguments()
    entropy = sj.semiring_grad(workload.function, sj.Entropy())
    step = compiled(jax.grad(workload.with_entropy, 1), embeddings, params)
    sweep = compiled(entropy, embeddings, params)
    what, temporary = "memory of a step with entropy / sweep", step.temporary_bytes
    yield Figure(what, workload.name, step.whole_bytes / sweep.whole_bytes, 4)
    yield Figure(f"{what}, temporary", workload.name, temporary / sweep.temporary_bytes, 4)


def paths(workload: Workload, repeats: int) -> Iterator[Figure]:
    """Measure path searches over the jitted sweep of the same order, and the memory of one."""
    embeddings, params = workload.arguments()

    def function(embeddings: jax.Array) -> jax.Array:
        return workload.function(embeddings, params)

    key = jax.random.key(0)
    orders = {"abs": sj.AbsMaxProduct(), "max": sj.MaxProduct()}
    sweeps = {
        by: compiled(sj.semiring_grad(workload.function, semiring), embeddings, params)
        for by, semiring in orders.items()
    }
    for by, sweep in sweeps.items():
        search = sj.top_paths(function, 100, by=by)
        times = run_times(
            {"sweep": sweep.run, "search": lambda search=search: search(embeddings)}, repeats
        )
        what = f"top_paths(k=100, by={by!r}) / sweep"
        yield Figure(what, workload.name, times["search"] / times["sweep"], 10)
    samples = sj.sample_paths(function, 1000)
    seconds = run_times({"samples": lambda: samples(key, embeddings)}, 3)["samples"]
    yield Figure("sample_paths(n=1000), seconds", workload.name, seconds)
    # In a process of its own, whose allocator gives back at once what is no longer needed.
    command = f"from benchmarks import table; print(table.path_memory(table.{workload}))"
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    output = subprocess.run(
        [sys.executable, "-c", command], env=environment, check=True, capture_output=True, text=True
    ).stdout
    yield Figure("memory top_paths(k=100) / kept", workload.name, float(output.split()[-1]), 2)


def large(repeats: int) -> Iterator[Figure]:
    """Measure sweeps through a decoder of 1.1 billion parameters, each in a process of its own."""
    targets = {"SumProduct": 1.1, "MaxProduct": 2.2, "Entropy": 3, "TopK(4)": 8}
    # The allocator gives back at once what is no longer needed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    for layout in decoder.LAYOUTS:
        for question in decoder.QUESTIONS if layout != "unrolled" else decoder.ALL_QUESTIONS:
            command = ["-m", "benchmarks.decoder", question, layout, "--repeats", str(repeats)]
            output = subprocess.run(
                [sys.executable, *command], env=environment, check=True, capture_output=True
            ).stdout
            found, where = json.loads(output.splitlines()[-1]), f"1.1 B parameters, {layout}"
            what, searched = f"1.1 B: {question}", question == "top_paths"
            ratio = "sweep" if searched else "grad"
            yield Figure(f"{what} / {ratio}", where, found["ratio"], targets.get(question))
            yield Figure(f"{what}, GiB", where, found["peak, GiB"], 20 if searched else 16)
            if not searched:
                yield Figure(f"memory {what} / grad", where, found["temporary ratio"])


def stories(workload: Workload, repeats: int) -> Iterator[Figure]:
    """Time the best stories by module and token, and the explorer, over the jitted sweep."""
    embeddings, params = workload.arguments()

    def function(embeddings: jax.Array) -> jax.Array:
        return workload.function(embeddings, params)

    level, axes = ("module", "token"), {"[0]": ("token", None)}
    search = sj.top_paths(function, 20, distinct=level, axes=axes)
    explore = sj.explorer(function, axes=axes)
    sweep = compiled(sj.semiring_grad(workload.function, sj.AbsMaxProduct()), embeddings, params)
    calls = {
        "sweep": sweep.run,
        "top_paths(k=20, distinct=('module', 'token'))": lambda: search(embeddings),
        "explorer": lambda: explore(embeddings),
    }
    times = run_times(calls, repeats)
    for what, target in zip([*calls][1:], (20, None), strict=True):
        yield Figure(f"{what} / sweep", workload.name, times[what] / times["sweep"], target)


def graphs(repeats: int) -> Iterator[Figure]:
    """Time a search in a graph of 7,500 nodes and a million edges, in seconds."""
    rng = np.random.default_rng(0)
    nodes, edges = 7_500, 1_000_000
    ends = np.sort(rng.integers(0, nodes, (2, 2 * edges)), 0)
    ends = ends[:, ends[0] < ends[1]][:, :edges]
    weights = rng.normal(size=ends.shape[1]) / 20
    graph = sj.graphs.WeightedGraph(tuple(range(nodes)), *ends, weights)
    search = sj.top_paths(graph.function(nodes - 1), 100)
    starts = jnp.ones(nodes)
    seconds = run_times({"search": lambda: search(starts)}, repeats)["search"]
    what = f"top_paths(k=100) in a graph of {ends.shape[1]:,} edges, seconds"
    yield Figure(what, f"{nodes:,} nodes", seconds, 2)


def flow(workload: Workload, repeats: int) -> Iterator[Figure]:
    """Time flow through the layers, the branches and the modules, over the jitted sweep alone."""
    embeddings, params = workload.arguments()
    layers = "*/layer/[0-9]:input"
    branches = {"query": "*/query", "key": "*/key", "value": "*/value", "skip": sj.REST}
    function = workload.function
    for name in ("AbsSumProduct", "AbsMaxProduct", "MaxProduct", "Entropy"):
        semiring = SEMIRINGS[name]
        analyses = {
            "sweep": sj.semiring_grad(function, semiring),
            "branch_flow": sj.branch_flow(function, semiring, layers, branches, traced=0),
            "branch_flow, op": sj.branch_flow(
                function, semiring, layers, branches, traced=0, granularity="op"
            ),
            "site_flow": sj.site_flow(function, semiring, layers),
            "component_flow": sj.component_flow(function, semiring, 4),
        }
        everything = {what: compiled(f, embeddings, params) for what, f in analyses.items()}
        times = run_times({what: c.run for what, c in everything.items()}, repeats)
        for what in list(analyses)[1:]:
            target = 1.5 if what.startswith("branch_flow") else None
            ratio = times[what] / times["sweep"]
            yield Figure(f"{what} / sweep", f"{workload.name}, {name}", ratio, target)


def study() -> Iterator[Figure]:
    """Count the compilations of a study of 200 sentences of mixed length, over its buckets."""
    random = np.random.default_rng(0)
    workload = Workload(layers=1)
    params = workload.arguments()[1]
    embeddings = random.standard_normal((64, workload.width)).astype(np.float32)
    traced = []

    def analysis(batch: jax.Array, mask: jax.Array) -> Any:
        traced.append(batch)

        def margin(embeddings: jax.Array) -> jax.Array:
            return workload.function(jnp.where(mask[:, None], embeddings, 0), params)

        return sj.branch_flow(margin, sj.MaxProduct(), "*/layer/0:input")(batch)

    batches = [embeddings[:n] for n in random.integers(9, 64, 200)]

    def largest(flow: sj.BranchFlow, batch: Any) -> np.ndarray:
        ((_, branches),) = flow.items()
        return np.max([*branches.values()], 0).ravel()

    sj.run_study(
        analysis,
        batches,
        reducers={"largest": largest},
        pad=0,
        buckets=(16, 32, 64),
        pad_tolerance=math.inf,  # the workload attends to padding
        progress=False,
    )
    # One more than there are buckets, to see what is padding.
    yield Figure("compilations of a study / (buckets + 1)", "200 sentences", len(traced) / 4, 1)


def agreement() -> Iterator[Figure]:
    """Time the whole analysis of a sentence of 16 tokens, over what the paper's code took."""
    from semijax.experiments import agreement

    seconds = agreement.seconds_per_sentence(agreement.PAPER_CONFIG)
    ratio = seconds / agreement.REFERENCE_SECONDS
    yield Figure("agreement pipeline, seconds", "a sentence of 16 tokens", seconds)
    yield Figure("agreement pipeline / the paper's code", "a sentence of 16 tokens", ratio, 0.001)


IMPORT_REPEATS = 15
"""The number of processes that import each package."""


def imports() -> Iterator[Figure]:
    """Time ``import semijax`` over ``import jax``, each in a new process: its processor time."""
    # Compiled once, as an installation does, whatever the caller's environment says.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def seconds(package: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", f"import {package}"], env=environment, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    taken: dict[str, list[float]] = {"jax": [], "semijax": []}
    for turn in range(IMPORT_REPEATS + 1):
        for package, times in taken.items():
            found = seconds(package)
            if turn:  # the first fills the file cache
                times.append(found)
    ratio = statistics.median(taken["semijax"]) / statistics.median(taken["jax"])
    yield Figure("import semijax / import jax", "processor time", ratio, 1.3)


def path_memory(workload: Workload) -> float:
    """Measure a search's peak of resident memory, over what its sweep needs and what it keeps."""
    embeddings, params = workload.arguments()
    sweep = compiled(sj.semiring_grad(workload.function, sj.AbsMaxProduct()), embeddings, params)

    def function(embeddings: jax.Array) -> jax.Array:
        return workload.function(embeddings, params)

    call = Call(function, (embeddings,), {}, caller="top_paths")
    assert call.end is not None
    kept = backward(call.run, LogAbsMaxProduct(), call.end)
    needed = sum(array.nbytes for array in kept.values()) + sweep.temporary_bytes
    del call, kept
    search = sj.top_paths(function, 100)
    search(embeddings)  # to compile
    return peak_bytes(lambda: search(embeddings)) / needed


def operands(rows: int, depth: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    weights = random.standard_normal((1, rows, depth)).astype(np.float32)
    return weights, random.standard_normal((1, depth, columns)).astype(np.float32)


def contractions(repeats: int) -> Iterator[Figure]:
    """Time one contraction over ``jnp.matmul`` of the same shape; and in XLA's operations alone."""
    for shape in CONTRACTIONS:
        w, g = map(jnp.asarray, operands(*shape))
        functions: dict[str, Callable[..., Any]] = {"matmul": jnp.matmul}
        for name in ("AbsMaxProduct", "MaxProduct", "TopK(4)", "Entropy"):
            functions[name] = SEMIRINGS[name].contract
        elements = {name: SEMIRINGS[name].lift(g) for name in functions if name != "matmul"}
        calls = {k: compiled(f, w, elements.get(k, g)).run for k, f in functions.items()}
        with native.off():
            calls["AbsMaxProduct by XLA"] = compiled(sj.AbsMaxProduct().contract, w, g).run
        times = run_times(calls, repeats)
        where = "×".join(map(str, shape))
        for name in calls:
            if name != "matmul":
                target = CONTRACTION_TARGETS.get(name, 3 if name.endswith("XLA") else None)
                yield Figure(
                    f"contract {name} / matmul", where, times[name] / times["matmul"], target
                )


def instruction_sets(repeats: int) -> Iterator[Figure]:
    """Time contractions by the kernels for AVX2 over those for AVX-512, where there are both."""
    if native.target() != "avx512":
        return
    for shape in CONTRACTIONS:
        w, g = map(jnp.asarray, operands(*shape))
        for name in ("AbsMaxProduct", "MaxProduct", "TopK(4)", "Entropy"):
            run = compiled(SEMIRINGS[name].contract, w, SEMIRINGS[name].lift(g)).run
            calls = {target: _with_target(target, run) for target in ("avx2", "avx512")}
            times = run_times(calls, repeats)
            native.use("avx512")
            ratio = times["avx2"] / times["avx512"]
            yield Figure(f"contract {name}, AVX2 / AVX-512", "×".join(map(str, shape)), ratio, 1.3)


def _with_target(target: str, run: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        native.use(target)
        return run()

    return call


def against_fixed_shape(repeats: int) -> Iterator[Figure]:
    """Time the max contraction over a kernel for one shape, compiled for this machine."""
    for shape in FIXED_SHAPES:
        yield _against_fixed_shape(shape, repeats)


def _against_fixed_shape(shape: tuple[int, int, int], repeats: int) -> Figure:
    rows, depth, columns = shape
    sizes = [f"-DM={rows}", f"-DK={depth}", f"-DN={columns}"]
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/fixed_shape.so"
        options = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", *sizes]
        source = Path(__file__).with_name("fixed_shape.cc")
        subprocess.run(["c++", *options, "-o", library, str(source)], check=True)
        fixed = ctypes.CDLL(library).contract
    w, g = operands(*shape)
    out = np.empty((rows, columns), np.float32)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (w, g, out)]
    ours = compiled(sj.AbsMaxProduct().contract, jnp.asarray(w), jnp.abs(g)).run
    times = run_times({"ours": ours, "fixed": lambda: fixed(*pointers)}, 10 * repeats)
    np.testing.assert_array_equal(ours()[0], out)
    where = "×".join(map(str, shape))
    ratio = times["ours"] / times["fixed"]
    return Figure("contract AbsMaxProduct / fixed shape", where, ratio, 1.2)


def against_torch(repeats: int) -> Iterator[Figure]:
    """Time the max and the log contraction over torch_semiring_einsum's, on as many threads.

    Its max gives the indices too.
    """
    import torch
    import torch_semiring_einsum as tse

    torch.set_num_threads(os.cpu_count() or 1)
    equation = tse.compile_equation("bmk,bkn->bmn")
    for shape in CONTRACTIONS:
        w, g = operands(*shape)
        log_w, log_g = (torch.from_numpy(np.log(np.abs(x))) for x in (w, g))
        w, g = jnp.asarray(w), jnp.asarray(g)
        largest, mass = sj.AbsMaxProduct(), LogMassSemiring()
        calls = {
            "max": compiled(largest.contract, w, largest.lift(g)).run,
            "log": compiled(mass.contract, w, mass.lift(g)).run,
            "torch max": lambda a=log_w, b=log_g: tse.log_viterbi_einsum_forward(equation, a, b),
            "torch log": lambda a=log_w, b=log_g: tse.log_einsum(equation, a, b),
        }
        times = run_times(calls, repeats)
        where = "×".join(map(str, shape))
        for name in ("max", "log"):
            ratio = times[name] / times[f"torch {name}"]
            yield Figure(f"{name} / torch_semiring_einsum", where, ratio, 0.2)

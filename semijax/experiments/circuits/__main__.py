"""The command ``python -m semijax.experiments.circuits --out FOLDER``."""

from __future__ import annotations

import argparse
import fnmatch
import functools
import pathlib
from collections.abc import Callable, Sequence

from semijax.experiments.circuits import benchmark, handset, summary, trained
from semijax.experiments.circuits.benchmark import Model


def all_models(
    seeds: Sequence[int], folder: pathlib.Path
) -> list[tuple[str, int, Callable[[], Model]]]:
    """List the benchmark's transformers: names, seeds, and what makes them.

    Args:
        seeds: the seeds.
        folder: where trained transformers are kept.
    """
    found: list[tuple[str, int, Callable[[], Model]]] = []
    for seed in seeds:
        for mechanism in handset.MECHANISMS:
            for aligned in (False, True):
                make = functools.partial(benchmark.handset_model, mechanism, seed, aligned)
                name = f"{mechanism.task.name}, by hand" + ", own axes" * aligned
                found.append((name, seed, make))
    for task in trained.TASKS:

        @functools.cache
        def train(task=task):
            return {m.seed: m for m in benchmark.trained_models(task, seeds, folder / "models")}

        for seed in seeds:
            make = functools.partial(lambda seed, train: train()[seed], seed, train)
            found.append((f"{task.name}, trained", seed, make))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark, or some of it.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.circuits",
        description="Compare attribution methods on transformers whose mechanisms are known.",
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--models", nargs="+", default=["*"], metavar="GLOB", help="by their names")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(10)])
    options = parser.parse_args(argv)

    models = all_models(options.seeds, options.out)
    names = dict.fromkeys(name for name, *_ in models)
    for glob in options.models:
        if not fnmatch.filter(names, glob):
            parser.error(f"no model is called {glob!r}. The models: {'; '.join(names)}.")
    chosen = [m for m in models if any(fnmatch.fnmatch(m[0], glob) for glob in options.models)]
    table = benchmark.grid(chosen, options.out)
    for name in dict.fromkeys(name for name, *_ in chosen):
        print(f"\n{name}\n{summary.shown(table, name).to_string()}")
    print(f"\n{summary.contest(table).to_string(index=False)}")
    print(f"Written to {options.out / benchmark.FILE}.")


if __name__ == "__main__":
    main()

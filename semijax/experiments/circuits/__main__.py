"""The command ``python -m semijax.experiments.circuits --out FOLDER``."""

from __future__ import annotations

import argparse
import fnmatch
import functools
import pathlib
from collections.abc import Callable, Sequence

from semijax.experiments.circuits import benchmark, handset, summary, trained
from semijax.experiments.circuits.benchmark import Model
from semijax.experiments.circuits.tasks import Task


def all_models(
    seeds: Sequence[int], folder: pathlib.Path
) -> list[tuple[str, int, Callable[[], Model]]]:
    """List the benchmark's transformers: names, seeds, and what makes them.

    Args:
        seeds: the seeds.
        folder: where trained transformers are kept.
    """

    def by_hand(aligned: bool) -> list[tuple[str, int, Callable[[], Model]]]:
        return [
            (
                benchmark.handset_name(mechanism, aligned),
                seed,
                functools.partial(benchmark.handset_model, mechanism, seed, aligned),
            )
            for seed in seeds
            for mechanism in handset.MECHANISMS
        ]

    def learned(task: Task) -> list[tuple[str, int, Callable[[], Model]]]:
        @functools.cache
        def train() -> list[Model]:  # all seeds at once, when the first is asked for
            return benchmark.trained_models(task, seeds, folder / "models")

        return [
            (benchmark.trained_name(task), seed, lambda n=n: train()[n])
            for n, seed in enumerate(seeds)
        ]

    trained_ones = [entry for task in trained.TASKS for entry in learned(task)]
    return [*by_hand(aligned=False), *trained_ones, *by_hand(aligned=True)]


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

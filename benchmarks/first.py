"""What a first call takes: ``python -m benchmarks.first "top_paths(k=20)"`` prints its seconds."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax

import semijax as sj
from benchmarks.workload import Workload

MODEL = Workload(layers=2, width=64)


def _jitted(semiring: Any) -> Callable[..., Any]:
    return jax.jit(sj.semiring_grad(MODEL.function, semiring))


GRAD, EAGER, STEP = "jitted jax.grad", "jax.grad", "training step"
CALLS: dict[str, tuple[Callable[[], Callable[..., Any]], str, float | None]] = {
    GRAD: (lambda: jax.jit(jax.grad(MODEL.function)), GRAD, None),
    "jitted SumProduct": (lambda: _jitted(sj.SumProduct()), GRAD, None),
    "jitted Entropy": (lambda: _jitted(sj.Entropy()), GRAD, None),
    EAGER: (lambda: jax.grad(MODEL.function), EAGER, None),
    "Entropy": (lambda: sj.semiring_grad(MODEL.function, sj.Entropy()), EAGER, None),
    "top_paths(k=20)": (lambda: sj.top_paths(MODEL.function, 20), EAGER, None),
    STEP: (lambda: jax.jit(jax.grad(MODEL.function, 1)), STEP, None),
    "training step with entropy": (lambda: jax.jit(jax.grad(MODEL.with_entropy, 1)), STEP, 3),
}
"""What can be called, by name: how to make it, what its time is compared with, the target."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first", description=__doc__)
    parser.add_argument("call", choices=CALLS)
    make, *_ = CALLS[parser.parse_args().call]
    arguments = MODEL.arguments()
    begin = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(make()(*arguments)))
    print(time.perf_counter() - begin)


if __name__ == "__main__":
    main()

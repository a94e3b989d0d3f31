"""Random programs between two runs: the sweeps, all paths one by one, and the difference itself."""

import jax
import jax.numpy as jnp
import numpy as np

import semijax as sj

from ..random_programs.generator import program as draw_program

SEMIRINGS = {
    "sum": sj.SumProduct(),
    "mass": sj.AbsSumProduct(),
    "strongest": sj.AbsMaxProduct(),
    "max": sj.MaxProduct(),
    "min": sj.MinProduct(),
    "top": sj.TopK(3),
    "entropy": sj.Entropy(),
    "length": sj.PathLength(),
    "feature": sj.Expectation(lambda equation: equation.primitive.name == "mul"),
    "count": sj.PathCount(),
    "reached": sj.Reachability(),
    "several": (sj.MaxProduct(), sj.Entropy()),
}

MAX_PATHS = 3_000


def draw(seed):
    """A random program, shortened until it has few paths, and arguments of a second run."""
    for length in range(6, 0, -1):
        program = draw_program(seed, length=length)
        args = tuple(map(jnp.asarray, program.args.values()))
        if not program.has_reverse:
            continue
        rng = np.random.default_rng(seed)
        # Of the same signs, for the functions that are not defined for all numbers.
        reference = tuple(x * jnp.asarray(rng.uniform(0.3, 1.8, x.shape)) for x in args)
        yield program, args, reference


def differences(program, args, reference):
    """What is wrong: statistics of the sweep and of the paths; the difference and its parts."""
    weighting = sj.Contrast(*reference)
    found, argnums = [], tuple(range(len(args)))
    paths = sj.testing.enumerate_paths(
        program.scalar, *args, argnums=argnums, limit=MAX_PATHS, weighting=weighting
    )
    sweep = sj.semiring_grad(program.scalar, SEMIRINGS, argnums, weighting=weighting)(*args)
    mass = paths.fold(sj.AbsSumProduct())
    for name, semiring in SEMIRINGS.items():
        wanted, got = jax.tree.leaves(paths.fold(semiring)), jax.tree.leaves(sweep[name])
        sizes = jax.tree.leaves(mass) * (len(got) // len(args))
        for a, b, size in zip(wanted, got, sizes, strict=True):
            a, b = np.asarray(a, float), np.asarray(b, float)
            size = np.asarray(size).reshape(size.shape + (1,) * (a.ndim - size.ndim))
            with np.errstate(invalid="ignore"):
                near = np.abs(a - b) <= 1e-5 * (np.abs(a) + size + 1)
            if not (near | (a == b)).all():
                found.append(f"{name}: {b} instead of {a}")
    for path in sj.top_paths(program.scalar, 2, argnums=argnums, weighting=weighting)(*args):
        error = path.verify()  # each weight by quadrature of JAX's own derivative
        clipped = any(node.primitive == "scatter-max" for node in path.nodes) and error > 1e300
        if error > 1e-5 and not clipped:  # which is infinite where an index is clipped
            found.append(f"{path} is wrong by {error}")
    left = sj.residuals(program.scalar, args, reference)
    whole = program.scalar(*args) - program.scalar(*reference)
    parts = left.contributed + sum(row.effect for row in left)
    scale = abs(whole) + sum(float(np.sum(x)) for x in jax.tree.leaves(mass))
    if not abs(parts - whole) <= 1e-7 * scale:
        found.append(f"parts add up to {parts}, not to {whole}\n{left}")
    return found, left

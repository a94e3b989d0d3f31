"""The smallest program with the same difference."""

import dataclasses

import jax
import numpy as np

from .comparison import TooManyPathsError, check


def shrink(program, what, limit=60, **options):
    """A smaller program of which the package says the same kind of thing wrong.

    Args:
        program: a program that has a difference.
        what: the difference's ``what``.
        limit: how many smaller programs are tried.
        **options: those of ``check``.
    """
    tried = 0
    again = True
    while again:
        again = False
        for smaller in candidates(program):
            tried += 1
            if tried > limit:
                return program
            try:
                found = check(smaller, **options)
            except TooManyPathsError:
                continue
            if any(difference.what == what for difference in found):
                program, again = smaller, True
                break
    return program


def candidates(program):
    """Programs with fewer outputs, with fewer steps, or that begin further on."""
    for name in program.outputs:
        if len(program.outputs) > 1:
            yield pruned(program, outputs=(name,))
    values = values_of(program)
    for n, step in reversed([*enumerate(program.steps)]):
        if not any(np.iscomplexobj(values[name]) for name in step.names):
            args = program.args | {name: values[name] for name in step.names}
            yield pruned(program, args=args, steps=program.steps[:n] + program.steps[n + 1 :])
        gone = {*step.names}
        kept = []
        for other in program.steps:
            if gone & {*other.names, *other.operands}:
                gone |= {*other.names}
            else:
                kept.append(other)
        outputs = [name for name in program.outputs if name not in gone]
        last = kept[-1].names if kept else ()
        if not outputs and last and not any(np.iscomplexobj(values[name]) for name in last):
            outputs = last
        if outputs:
            yield pruned(program, steps=tuple(kept), outputs=tuple(outputs), values=values)


def values_of(program):
    with jax.enable_x64(True):
        values = {name: jax.numpy.asarray(value) for name, value in program.args.items()}
        for step in program.steps:
            values |= step.run(values)
        return {name: np.asarray(value) for name, value in values.items()}


def pruned(program, args=None, steps=None, outputs=None, values=None):
    """A program without what its outputs do not need."""
    steps = program.steps if steps is None else steps
    outputs = program.outputs if outputs is None else outputs
    needed, kept = {*outputs}, []
    for step in reversed(steps):
        if needed & {*step.names}:
            needed |= {*step.operands}
            kept.append(step)
    args = program.args if args is None else args
    used = {name: value for name, value in args.items() if name in needed}
    weights = {
        name: program.weights[name] if name in program.weights else np.ones(values[name].shape)
        for name in outputs
    }
    return dataclasses.replace(
        program, args=used or args, steps=tuple(kept[::-1]), outputs=outputs, weights=weights
    )

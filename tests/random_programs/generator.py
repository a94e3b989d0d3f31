"""Random programs: small functions of arrays as Python source, the same for the same seed.

A program is drawn step by step. Each step applies an operation to arrays that are already there, so
that subexpressions are shared and inputs used again. Operations are drawn by family; they are in
the modules ``elementwise``, ``indexing``, ``algebra`` and ``control``. Whatever numbers an
operation needs (weights, indices, a mask) are literals in the source, so that the source is all
there is: printed, it is a reproduction.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import semijax

from . import algebra, control, elementwise, functions, in_numpy, indexing  # noqa: F401
from .drawing import FAMILIES, Array, Draw, literal

LARGEST_SIZE = 12
LARGEST_VALUE = 6.0
"""Beyond it tanh and the like are flat but for rounding: whether their derivative is 0, and with it
the number of non-zero paths, would depend on the rounding."""

SHAPES = [(3,), (2,), (2, 3), (3, 2), (1, 2), (2, 2), (1,), ()]
RARE_SHAPES = [(0,), (0, 3), (4,), (2, 1, 3), (5,)]

FORWARD_ONLY = {"while"}
"""Families that have no reverse sweep."""

NAMESPACE = {
    "jax": jax,
    "jnp": jnp,
    "lax": lax,
    "np": np,
    "sj": semijax,
    "fn": functions,
    "checkpoint_name": checkpoint_name,
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One assignment.

    Attributes:
        family: of the operation.
        source: the expression.
        operands: the names of the arrays that it reads.
        names: of the arrays that it makes.
        several: whether the expression is a tuple or list of arrays, be it of one.
    """

    family: str
    source: str
    operands: tuple[str, ...]
    names: tuple[str, ...]
    several: bool

    def run(self, values):
        """The values of its arrays by name."""
        found = computed(self.source, self.operands, values)
        return dict(zip(self.names, found if self.several else [found], strict=True))

    def __str__(self):
        names = ", ".join(self.names)
        return f"[{names}] = {self.source}" if self.several else f"{names} = {self.source}"


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of arrays.

    Attributes:
        seed: what it was drawn from.
        args: its arguments by name.
        steps: what it computes of them.
        outputs: the names of the arrays it returns.
        weights: for each output the numbers it is multiplied by for the scalar function.
    """

    seed: int
    args: dict[str, np.ndarray]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    weights: dict[str, np.ndarray]

    @property
    def families(self):
        return [step.family for step in self.steps]

    @property
    def has_reverse(self):
        return not FORWARD_ONLY & {*self.families}

    @property
    def source(self):
        """Of ``arrays``, a function that returns a list, of their ``total``, and of ``scalar``."""
        inputs = ", ".join(self.args)
        lines = [f"def arrays({inputs}):", *(f"    {step}" for step in self.steps)]
        lines.append(f"    return [{', '.join(self.outputs)}]")
        sums = [f"jnp.sum({literal(w)} * {name})" for name, w in self.weights.items()]
        lines += ["", "", f"def total({', '.join(self.outputs)}):"]
        lines.append(f"    return {' + '.join(sums)}")
        lines += ["", "", f"def scalar({inputs}):", f"    return total(*arrays({inputs}))"]
        return "\n".join(lines)

    @functools.cached_property
    def _functions(self):
        namespace = dict(NAMESPACE)
        exec(self.source, namespace)
        return namespace

    @property
    def arrays(self):
        return self._functions["arrays"]

    @property
    def scalar(self):
        return self._functions["scalar"]

    def both(self, *args):
        """The scalar and the list of arrays that it is the total of."""
        arrays = self.arrays(*args)
        return self._functions["total"](*arrays), arrays

    def __str__(self):
        """A script that defines it."""
        head = [
            "import jax, jax.numpy as jnp, numpy as np, semijax as sj",
            "from jax import lax",
            "from jax.ad_checkpoint import checkpoint_name",
            "from tests.random_programs import functions as fn",
            "jax.config.update('jax_enable_x64', True)",
            "",
        ]
        args = ", ".join(literal(value) for value in self.args.values())
        return "\n".join([*head, self.source, "", "", f"args = ({args},)"])


class Sketch:
    """A program in the making: the steps so far, and the arrays at hand with their values."""

    def __init__(self, args):
        self.args = args
        self.values = dict(args)
        self.steps = []

    def array(self, name):
        value = self.values[name]
        return Array(name, value.shape, value.dtype)

    def draw_operand(self, draw):
        """Mostly one of the newest arrays, so that programs are deep; any other, used again."""
        newest = self.steps[-1].names if self.steps else [*self.args]
        return draw.choose(newest if draw.chance(0.5) else self.values)

    def add(self, family, source, operands):
        """Add a step, unless its arrays are large or not finite, or of something empty."""
        try:
            found = computed(source, operands, self.values)
        except (IndexError, ValueError):  # nothing is there to index, or to reduce
            return
        several = isinstance(found, (tuple, list))
        arrays = list(found) if several else [found]
        if not all(np.issubdtype(v.dtype, np.inexact) for v in arrays):
            raise TypeError(f"an operation must make floating arrays: {source}")
        if any(v.size > LARGEST_SIZE or not (abs(v) <= LARGEST_VALUE).all() for v in arrays):
            return
        names = tuple(f"x{len(self.values) + n}" for n in range(len(arrays)))
        self.steps.append(Step(family, source, operands, names, several))
        self.values.update(zip(names, arrays, strict=True))


def computed(source, operands, values):
    """The value of an expression of some of the arrays."""
    given = {name: values[name] for name in operands}
    return in_numpy.run(lambda given: eval(source, NAMESPACE | given), given)


def draw_args(draw):
    """One to three arrays; sometimes with ties and zeros among their elements."""
    n = draw.integer(1, 3)
    shapes = [draw.choose(RARE_SHAPES if draw.chance(0.12) else SHAPES) for _ in range(n)]
    kind = draw.numbers if draw.chance(0.7) else draw.grid
    return {f"x{k}": np.array(eval(kind(shape), NAMESPACE)) for k, shape in enumerate(shapes)}


def program(seed, families=None, length=None):
    """A random program; the same for the same seed.

    Args:
        seed: an integer.
        families: the families to draw from; by default all.
        length: the number of steps; by default three to seven. A shorter program of the same seed
            is the beginning of a longer one.
    """
    draw = Draw(seed)
    families = [*FAMILIES, *2 * ["nested"]] if families is None else families
    sketch = Sketch(draw_args(draw))
    drawn, marked = draw.integer(3, 7), draw.integer(0, 4)
    length = drawn if length is None else length
    for _ in range(100):
        if len(sketch.steps) >= length:
            break
        if len(sketch.steps) == marked and mark(draw, sketch):
            continue
        family = draw.choose(families)
        write = draw.choose(FAMILIES[family])
        arity = len(inspect.signature(write).parameters) - 1
        operands = tuple(sketch.draw_operand(draw) for _ in range(arity))
        source = write(draw, *map(sketch.array, operands))
        if source is not None:
            sketch.add(family, source, operands)
    return finish(draw, seed, sketch)


def mark(draw, sketch):
    """Give one array a name, to be asked for as a site; whether there was one."""
    name = sketch.draw_operand(draw)
    if not sketch.array(name).is_complex:
        sketch.add("sites", f"checkpoint_name({name}, 'site')", (name,))
        return True
    return False


def finish(draw, seed, sketch):
    """The program of a sketch: what it returns is every array that is not used, or most of them."""
    used = {name for step in sketch.steps for name in step.operands}
    loose = [name for name in sketch.values if name not in used and name not in sketch.args]
    loose = [name for name in loose if not draw.chance(0.1)] or loose[-1:]
    loose = loose or [*sketch.args][:1]
    for name in loose:
        if sketch.array(name).is_complex:
            sketch.add("complex", f"(jnp.real({name}), jnp.imag({name}))", (name,))
            loose = [*(n for n in loose if n != name), *sketch.steps[-1].names]
    sign = draw.choose([1.0, 1.0, -1.0])  # all negative: then an edge of weight 0 is the best
    weights = {}
    for name in loose:
        drawn = np.array(eval(draw.numbers(sketch.array(name).shape), NAMESPACE))
        weights[name] = drawn if sign > 0 else -np.abs(drawn)
    return Program(seed, sketch.args, tuple(sketch.steps), tuple(loose), weights)

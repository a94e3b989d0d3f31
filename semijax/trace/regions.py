"""Control flow: the jaxprs that a scan, a cond and a while run, and what their operands mean."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
from jax import lax

from semijax.trace import compat
from semijax.trace.primitives import primitive

Found = Mapping[Any, jax.Array]
"""The arrays found in a body, by any key."""

Run = Callable[[int | None, Sequence[Any], Any], tuple[Sequence[Any], Found]]
"""A function that runs a body, given its position, or the test of a loop, given None.

``run(body, inputs, iteration)`` returns the outputs and what was found. The iteration is None where
a body is not told which it is.
"""


@dataclasses.dataclass(frozen=True)
class Region(abc.ABC):
    """The control flow of an equation: the jaxprs it runs, and what it does with its operands.

    Attributes:
        bodies: the jaxprs that paths lead through. The last operands of the equation are their
            inputs.
        test: for a while, the jaxpr that says whether to go on.
        carried: the first of a body's inputs that one iteration hands to the next, and how many
            there are; a body's first outputs are their next values.
    """

    bodies: tuple[Any, ...]
    carried: tuple[int, int] = (0, 0)
    test: Any = None

    is_loop: ClassVar[bool] = True

    @property
    def iterations(self) -> int | None:
        """The number of times a body runs; None if that is known only after the loop has run."""
        return None

    @abc.abstractmethod
    def interpret(self, run: Run, values: Sequence[Any]) -> tuple[list[Any], Found]:
        """Do what the equation does, with something else in place of its bodies.

        Args:
            run: runs a body.
            values: the equation's operands.

        Returns:
            One value per output, and what was found: for a scan, with a first axis for the
            iterations; for a cond, 0 for what lies in another branch only; for a while, nothing, as
            the number of its iterations is unknown.
        """

    def sources(self, bodies: Sequence[Sequence[frozenset[int]]]) -> list[frozenset[int]]:
        """Return the inputs of a body that lead to each output of the equation, in any iterations.

        Args:
            bodies: for each body and each of its outputs, the inputs that lead to it.
        """
        found = [frozenset[int]().union(*each) for each in zip(*bodies, strict=True)]
        first, carries = self.carried
        for j in range(carries):
            found[j] |= {first + j}  # the loop may not run at all
        while True:
            grown = [
                each.union(*(found[i - first] for i in each if first <= i < first + carries))
                for each in found
            ]
            if grown == found:
                return found
            found = grown


class ScanOperands(NamedTuple):
    """The operands of a scan: its constants, what is carried at the start, what it runs over."""

    consts: Sequence[Any]
    carry: Sequence[Any]
    xs: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class ScanRegion(Region):
    """A ``lax.scan``.

    Attributes:
        length: the number of iterations.
        reverse: whether it runs from the last element to the first.
        unroll: how many iterations a compiled loop does at a time, as ``lax.scan`` says it.
    """

    length: int = 0
    reverse: bool = False
    unroll: int = 1

    @property
    def iterations(self) -> int:
        """The scan's length."""
        return self.length

    def operands(self, values: Sequence[Any]) -> ScanOperands:
        """Split its operands, or its body's inputs, into their three parts."""
        consts, carries = self.carried
        split = consts + carries
        return ScanOperands(values[:consts], values[consts:split], values[split:])

    def run(self, step: Any, state: Any, xs: Any, *, against: bool = False) -> tuple[Any, Any]:
        """Run another body over as many elements, in the same direction or against it."""
        return lax.scan(step, state, xs, self.length, self.reverse != against, self.unroll)

    def evaluate(self, values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Return its outputs, and what every iteration starts from, along a first axis."""
        consts, carry, xs = self.operands(values)
        body = jax.extend.core.jaxpr_as_fun(self.bodies[0])

        def step(carry: Any, x: Any) -> Any:
            results = body(*consts, *carry, *x)
            return results[: len(carry)], (results[len(carry) :], carry)

        carry, (ys, starts) = self.run(step, list(carry), list(xs))
        return [*carry, *ys], starts

    def interpret(self, run: Run, values: Sequence[Any]) -> tuple[list[Any], Found]:
        """Run one iteration after the other, telling each its number."""
        consts, carry, xs = self.operands(values)

        def step(carry: Any, x: Any) -> Any:
            number, x = x
            results, found = run(0, [*consts, *carry, *x], number)
            return list(results[: len(carry)]), (list(results[len(carry) :]), found)

        numbered = jnp.arange(self.length), list(xs)
        carry, (ys, found) = self.run(step, list(carry), numbered)
        return [*carry, *ys], found


class CondOperands(NamedTuple):
    """The operands of a cond: the number of the branch taken, and what that is applied to."""

    index: Any
    operands: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class CondRegion(Region):
    """A ``lax.cond`` or ``lax.switch``; its bodies are the branches.

    Attributes:
        platforms: those that each branch is for, None for all others, where that decides
            (``lax.platform_dependent``).
    """

    platforms: tuple[tuple[str, ...] | None, ...] | None = None

    is_loop: ClassVar[bool] = False

    @property
    def iterations(self) -> int:
        """Always 1, since one branch runs, once."""
        return 1

    def operands(self, values: Sequence[Any]) -> CondOperands:
        """Split its operands into their two parts."""
        return CondOperands(values[0], values[1:])

    def switch(self, index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
        """Apply, from other branches, the one that takes the place of the branch taken."""
        if self.platforms is None:  # the index was clamped where the cond was traced
            return lax.switch(jnp.asarray(index, jnp.int32), branches, *operands)
        default = None
        by_platform = {}
        for names, branch in zip(self.platforms, branches, strict=True):
            if names is None:
                default = branch
            else:
                by_platform |= dict.fromkeys(names, branch)
        return lax.platform_dependent(*operands, default=default, **by_platform)

    def interpret(self, run: Run, values: Sequence[Any]) -> tuple[list[Any], Found]:
        """Run the branch that is taken."""
        index, operands = self.operands(values)
        numbers = range(len(self.bodies))
        shapes: dict[Any, Any] = {}
        for n in numbers:
            shapes |= jax.eval_shape(lambda *inputs, n=n: run(n, inputs, None)[1], *operands)

        def filled(number: int, *inputs: Any) -> Any:
            results, found = run(number, inputs, None)
            rest = {k: jnp.zeros(s.shape, s.dtype) for k, s in shapes.items() if k not in found}
            return list(results), {**found, **rest}

        return self.switch(index, [functools.partial(filled, n) for n in numbers], *operands)


class WhileOperands(NamedTuple):
    """The operands of a while: the constants of its test and of its body, and what is carried."""

    test_consts: Sequence[Any]
    body_consts: Sequence[Any]
    carry: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class WhileRegion(Region):
    """A ``lax.while_loop``.

    Attributes:
        test_consts: the number of the test's constants.
    """

    test_consts: int = 0

    def operands(self, values: Sequence[Any]) -> WhileOperands:
        """Split its operands into their three parts."""
        start = self.test_consts + self.carried[0]
        return WhileOperands(
            values[: self.test_consts], values[self.test_consts : start], values[start:]
        )

    def interpret(self, run: Run, values: Sequence[Any]) -> tuple[list[Any], Found]:
        """Iterate as long as the test says so."""
        test_consts, body_consts, carry = self.operands(values)

        def again(carry: Any) -> Any:
            return run(None, [*test_consts, *carry], None)[0][0]

        def step(carry: Any) -> Any:
            return list(run(0, [*body_consts, *carry], None)[0])

        return lax.while_loop(again, step, list(carry)), {}


def _scan(params: dict[str, Any]) -> ScanRegion:
    layout = compat.scan_layout(params)
    how = {name: params[name] for name in ("length", "reverse", "unroll")}
    return ScanRegion((params["jaxpr"],), layout, **how)


def _cond(params: dict[str, Any]) -> CondRegion:
    branches = tuple(params["branches"])
    return CondRegion(branches, platforms=params.get("branches_platforms"))


def _while(params: dict[str, Any]) -> WhileRegion:
    body, consts = params["body_jaxpr"], params["body_nconsts"]
    carries = len(compat.open_jaxpr(body)[0].outvars)
    return WhileRegion(
        (body,), (consts, carries), test=params["cond_jaxpr"], test_consts=params["cond_nconsts"]
    )


_REGIONS: dict[Any, Callable[[dict[str, Any]], Region]] = {
    primitive("scan"): _scan,
    primitive("cond"): _cond,
    primitive("while"): _while,
}


def region_of(equation: Any) -> Region | None:
    """Return the control flow that an equation of a jaxpr runs; None for any other equation."""
    layout = _REGIONS.get(equation.primitive)
    return layout(equation.params) if layout else None

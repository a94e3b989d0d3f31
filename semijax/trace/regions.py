"""Control flow: which jaxprs a scan, a cond and a while run, and what their operands mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import lax

from semijax.trace import compat
from semijax.trace.primitives import primitive


@dataclasses.dataclass(frozen=True)
class Region:
    """What an equation that runs jaxprs of its own does with its operands.

    Attributes:
        bodies: the jaxprs that paths lead through. The last operands of the equation are their
            inputs.
        carried: the first of a body's inputs that one iteration hands to the next, and how many
            there are; a body's first outputs are their next values.
    """

    bodies: tuple[Any, ...]
    carried: tuple[int, int] = (0, 0)

    is_loop: ClassVar[bool] = True

    @property
    def iterations(self) -> int | None:
        """How many times a body runs; None where that is known only when the loop has run."""
        return None


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
    """

    length: int = 0
    reverse: bool = False

    @property
    def iterations(self) -> int:
        """Its length."""
        return self.length

    def operands(self, values: Sequence[Any]) -> ScanOperands:
        """The three parts of its operands, or of its body's inputs."""
        consts, carries = self.carried
        split = consts + carries
        return ScanOperands(values[:consts], values[consts:split], values[split:])

    def run(self, step: Any, state: Any, xs: Any, *, against: bool = False) -> tuple[Any, Any]:
        """Run another body over as many elements, in the same direction or against it."""
        return lax.scan(step, state, xs, self.length, self.reverse != against)


class CondOperands(NamedTuple):
    """The operands of a cond: the number of the branch that is taken, and what it is applied to."""

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
        """One branch runs, once."""
        return 1

    def operands(self, values: Sequence[Any]) -> CondOperands:
        """The two parts of its operands."""
        return CondOperands(values[0], values[1:])

    def switch(self, index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
        """Apply the one of other branches that takes the place of the one that is taken."""
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


class WhileOperands(NamedTuple):
    """The operands of a while: the constants of its test and of its body, what is carried."""

    test_consts: Sequence[Any]
    body_consts: Sequence[Any]
    carry: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class WhileRegion(Region):
    """A ``lax.while_loop``.

    Attributes:
        test: the jaxpr that says whether to go on.
        test_consts: the number of the test's constants.
    """

    test: Any = None
    test_consts: int = 0

    def operands(self, values: Sequence[Any]) -> WhileOperands:
        """The three parts of its operands."""
        start = self.test_consts + self.carried[0]
        return WhileOperands(
            values[: self.test_consts], values[self.test_consts : start], values[start:]
        )


def _scan(params: dict[str, Any]) -> ScanRegion:
    layout = compat.scan_layout(params)
    return ScanRegion((params["jaxpr"],), layout, params["length"], params["reverse"])


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
    """What an equation of a jaxpr runs, if it is control flow; None for any other."""
    layout = _REGIONS.get(equation.primitive)
    return layout(equation.params) if layout else None

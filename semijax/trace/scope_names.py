"""Names of modules: patterns that pick them, and ways to shorten them."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

REST = "(rest)"
"""The name of everything that no pattern picks."""

NO_SCOPES = (
    "None of its modules has a name: if it is a model, call it in `with semijax.scopes(model):`."
)
"""The hint for a function without scopes."""


class Given(str):
    """A name that ``semijax.scopes`` gave a module.

    Attributes:
        kind: the name of the module's class, by which its library may call it too.
        of_torch: whether it is a module of PyTorch. Scopes inside without given names are those
            of operations, which torchax enters.
    """

    kind: str
    of_torch: bool

    def __new__(cls, name: str, kind: str = "", of_torch: bool = False) -> Given:
        """Create a name with the name of a class."""
        given = super().__new__(cls, name)
        given.kind, given.of_torch = kind, of_torch
        return given

    def is_called_inside(self, scope: str) -> bool:
        """Tell whether the module enters a scope for itself, as Equinox's do by their class."""
        return not isinstance(scope, Given) and (scope == self.kind or scope.startswith("eqx.nn."))

    def is_called_outside(self, scope: str) -> bool:
        """Tell whether its caller enters a scope for it, as Penzai's do by its place in a list."""
        return not isinstance(scope, Given) and self.endswith(f"/{scope}")


def of_modules(entered: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the names of modules among an equation's scopes, from the outside in.

    It leaves out operations (einsums, PyTorch's), a library's name for a module that already has
    one, and the methods that a module of Linen calls on itself, ``"mlp.encode"`` in ``"mlp"``. A
    scope ``"a/b"`` has two names. Each comes with a key for the time that the scope was entered.
    """
    scopes = [*_without_operations(entered)]
    outer = ""
    for (scope, key), (inner, _) in itertools.zip_longest(scopes, scopes[1:], fillvalue=("", None)):
        if outer and scope.startswith(f"{outer}.") and _is_of_linen(scope[len(outer) + 1 :]):
            continue
        is_second_name = (isinstance(outer, Given) and outer.is_called_inside(scope)) or (
            isinstance(inner, Given) and inner.is_called_outside(scope)
        )
        if not is_second_name:
            names = (name for name in scope.split("/") if name)
            yield from ((name, (key, n)) for n, name in enumerate(names))
        outer = scope


def _is_of_linen(method: str) -> bool:
    """Tell whether a class of Flax Linen's modules has a method of this name."""
    linen, waiting = sys.modules.get("flax.linen"), []
    if linen is not None:
        waiting = [linen.Module]
    while waiting:
        kind = waiting.pop()
        if callable(vars(kind).get(method)):
            return True
        waiting += kind.__subclasses__()
    return False


def _without_operations(entered: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    in_torch = False
    for scope, key in entered:
        given = isinstance(scope, Given)
        in_torch = scope.of_torch if given else in_torch
        if not ("->" in scope or scope.startswith("aten::") or (in_torch and not given)):
            yield scope, key


def enclosing(scope: str) -> list[str]:
    """Return a scope and all that it lies in, from the outside in: ``"a/b"`` is in ``"a"``."""
    return list(itertools.accumulate(scope.split("/"), "{}/{}".format)) if scope else []


def shorten(scope: str, depth: int | None) -> str:
    """Return the outermost ``depth`` names of a scope; all of it for None."""
    return scope if depth is None else "/".join(scope.split("/")[:depth])


OUTSIDE = "(outside)"
"""The component of everything that lies in no module."""


def component(scope: str, depth: int | None) -> str:
    """Return the module at a depth that a scope lies in; one name for scopes that lie in none."""
    return shorten(scope, depth) or OUTSIDE


ITERATION = re.compile(r"\[\d+(, \d+)*\]")
"""The part of a name that tells a loop's iterations apart: the index in ``layers[3]``."""


def without_iterations(scope: str) -> str:
    """Return a scope as it is in all iterations."""
    return ITERATION.sub("", scope)


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a test whether a scope, or one it lies in, matches a glob; ``*`` matches slashes too.

    A scope with an iteration also matches what it matches without one; ``[3]`` in a glob is an
    iteration or, as in any glob, one of the characters in the brackets.
    """
    literal = ITERATION.sub(lambda found: "[[]" + found[0][1:], pattern)
    globs = [re.compile(fnmatch.translate(glob)) for glob in dict.fromkeys([pattern, literal])]

    @functools.cache
    def matches(scope: str) -> bool:
        scopes = dict.fromkeys([scope, without_iterations(scope)])
        names = [outer for each in scopes for outer in enclosing(each)]
        return any(glob.match(name) for glob in globs for name in names)

    return matches


def any_match(pattern: str, scopes: Iterable[str]) -> bool:
    """Tell whether a glob matches any of some scopes, in one iteration of it or in all."""
    if not isinstance(pattern, str):
        return False
    return any(map(matcher(without_iterations(pattern)), scopes)) or any(
        map(matcher(pattern), scopes)
    )


def is_within(scope: str, outer: str) -> bool:
    """Tell whether a scope lies in another, or is it; everything lies in ``""``."""
    return not outer or scope == outer or scope.startswith(outer + "/")


def relative(names: Iterable[str], here: str) -> str:
    """Join scopes as seen from another: without the names that all have in common."""
    split = [name.split("/") for name in names]
    common = _common([*split, here.split("/")])
    return ", ".join("/".join(parts[common:]) for parts in split)


def without_common(scopes: Sequence[str]) -> list[str]:
    """Return scopes without the names that all have in common; ``""`` for one that all lie in."""
    split = [scope.split("/") for scope in scopes]
    common = _common(split)
    return ["/".join(parts[common:]) for parts in split]


def enclosing_all(scopes: Sequence[str]) -> str:
    """Return the innermost scope that all lie in, or ``""``; a scope does not lie in itself."""
    split = [scope.split("/")[:-1] for scope in scopes]
    return "/".join(split[0][: _common(split)]) if split else ""


NUMBERED = re.compile(r"([^\[\],]*?)[_\-\[]?(\d+)\]?")
"""A module's name with a number, or an iteration: ``layer_3``, ``layers[3]``, ``3``."""


def numbered(scopes: Iterable[str]) -> dict[str, str]:
    """Return the outermost numbered modules of which there are several, or else one.

    Returns:
        From labels, such as ``"layer 3"``, to the scopes, in the order of the numbers.
    """
    found: dict[tuple[int, str, str], dict[int, str]] = {}
    for scope in scopes:
        names = scope.split("/")
        for depth, name in enumerate(names):
            if match := NUMBERED.fullmatch(name):
                stem = match[1] or (names[depth - 1] if depth else "")
                key = depth, "/".join(names[:depth]), stem
                found.setdefault(key, {})[int(match[2])] = "/".join(names[: depth + 1])
    if not found:
        return {}
    _, _, stem = best = min(found, key=lambda key: (len(found[key]) < 2, key))
    return {f"{stem} {n}".strip(): found[best][n] for n in sorted(found[best])}


def _common(split: Sequence[Sequence[str]]) -> int:
    """Count the first names that scopes have in common."""
    ranks = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*split, strict=False))
    return len(list(ranks))


def branches(visited: Iterable[str], here: str) -> tuple[str, ...]:
    """Return the modules that scopes lie in, side by side, except the one that ``here`` lies in."""
    names = dict.fromkeys(visited)
    split = [scope.split("/") for scope in (*names, here)]
    common = _common(split)
    outermost = ["/".join(parts[: common + 1]) for parts in split[:-1] if len(parts) > common]
    return tuple(name for name in dict.fromkeys(outermost) if name and not is_within(here, name))


def nearest(pattern: str, names: Iterable[str], n: int = 3) -> list[str]:
    """Return the names that are most like a pattern, or end most like it."""
    wanted = pattern.strip("*/")
    parts = wanted.count("/") + 1

    def likeness(name: str) -> float:
        end = "/".join(name.split("/")[-parts:])
        return max(difflib.SequenceMatcher(None, wanted, x).ratio() for x in (name, end))

    return sorted(names, key=likeness, reverse=True)[:n]


def listed(names: Iterable[str]) -> str:
    """List names in a message."""
    return ", ".join(map(repr, names))


def check_pattern(pattern: str, known: Iterable[str], what: str = "scope") -> Callable[[str], bool]:
    """Return the matcher of a pattern, or raise if it matches none; ``what`` is for messages.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it matches none; the message names the nearest.
    """
    if not isinstance(pattern, str):
        raise TypeError(
            f"A {what} pattern must be a string, got {pattern!r} of type {type(pattern).__name__}."
        )
    matches = matcher(pattern)
    names = list(dict.fromkeys(name for scope in known for name in enclosing(scope)))
    if not any(map(matches, names)):
        likely = listed(nearest(pattern, names))
        hint = f"The nearest are {likely}." if likely else f"The function has no {what}s."
        if what == "scope" and not names:
            hint += f" {NO_SCOPES}"
        raise ValueError(f"No {what} matches {pattern!r}. {hint}")
    return matches

"""Names of modules: patterns that pick them, and how to shorten them."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

REST = "(rest)"
"""The name of all that no pattern picks."""


class Given(str):
    """A name that ``semijax.scopes`` gave a module, which its library may call by its class too."""

    __slots__ = ()


def of_modules(entered: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The names of modules among the scopes that an equation lies in, from the outside in.

    Left out are einsums, and what Equinox calls the class of a module that has a name already. A
    scope ``"a/b"`` has two names. Each comes with a key for the time that the scope was entered.
    """
    outer = ""
    for scope, key in entered:
        is_named_class = isinstance(outer, Given) and scope.startswith("eqx.nn.")
        if "->" not in scope and not is_named_class:
            names = (name for name in scope.split("/") if name)
            yield from ((name, (key, n)) for n, name in enumerate(names))
        outer = scope


def enclosing(scope: str) -> list[str]:
    """A scope and all that it lies in, from the outside in: ``"a/b"`` is in ``"a"``."""
    return list(itertools.accumulate(scope.split("/"), "{}/{}".format)) if scope else []


def shorten(scope: str, depth: int | None) -> str:
    """The outermost ``depth`` names of a scope; all of it for None."""
    return scope if depth is None else "/".join(scope.split("/")[:depth])


OUTSIDE = "(outside)"
"""The component of what lies in no module."""


def component(scope: str, depth: int | None) -> str:
    """The module at a depth that a scope lies in; one name for what lies in none."""
    return shorten(scope, depth) or OUTSIDE


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a scope, or one that it lies in, matches a glob; ``*`` matches slashes too."""
    compiled = re.compile(fnmatch.translate(pattern))

    @functools.cache
    def matches(scope: str) -> bool:
        return any(compiled.match(outer) for outer in enclosing(scope))

    return matches


def is_within(scope: str, outer: str) -> bool:
    """Whether a scope lies in another, or is it; everything lies in ``""``."""
    return not outer or scope == outer or scope.startswith(outer + "/")


def relative(names: Iterable[str], here: str) -> str:
    """Scopes as seen from one of them: without the names that all have in common."""
    split = [name.split("/") for name in names]
    common = _common([*split, here.split("/")])
    return ", ".join("/".join(parts[common:]) for parts in split)


def without_common(scopes: Sequence[str]) -> list[str]:
    """Scopes without the names that all have in common; ``""`` for one that all lie in."""
    split = [scope.split("/") for scope in scopes]
    common = _common(split)
    return ["/".join(parts[common:]) for parts in split]


def _common(split: Sequence[Sequence[str]]) -> int:
    """How many first names scopes have in common."""
    ranks = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*split, strict=False))
    return len(list(ranks))


def branches(visited: Iterable[str], here: str) -> tuple[str, ...]:
    """The modules that some scopes lie in, side by side, but for the one that ``here`` lies in."""
    names = dict.fromkeys(visited)
    split = [scope.split("/") for scope in (*names, here)]
    common = _common(split)
    outermost = ["/".join(parts[: common + 1]) for parts in split[:-1] if len(parts) > common]
    return tuple(name for name in dict.fromkeys(outermost) if name and not is_within(here, name))


def nearest(pattern: str, names: Iterable[str], n: int = 3) -> list[str]:
    """The names that are most like a pattern, or end most like it."""
    wanted = pattern.strip("*/")
    parts = wanted.count("/") + 1

    def likeness(name: str) -> float:
        end = "/".join(name.split("/")[-parts:])
        return max(difflib.SequenceMatcher(None, wanted, x).ratio() for x in (name, end))

    return sorted(names, key=likeness, reverse=True)[:n]


def listed(names: Iterable[str]) -> str:
    """Names in a message."""
    return ", ".join(map(repr, names))


def check_pattern(pattern: str, known: Iterable[str], what: str = "scope") -> Callable[[str], bool]:
    """The matcher of a pattern that matches one of some scopes, or of ``what`` has such names.

    Raises:
        TypeError: if it is no string.
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
        raise ValueError(f"No {what} matches {pattern!r}. {hint}")
    return matches

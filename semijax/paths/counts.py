"""Statistics of paths: how much of them lies in each part of a model, over many examples."""

from __future__ import annotations

import collections
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from semijax import checks
from semijax.paths.path import Node, Path
from semijax.trace import scope_names

Groups = Mapping[str, str] | Callable[[Node], str]
"""Names of groups and the globs that pick their members, or a function from a node to a name."""


def component_counts(
    paths: Sequence[Path] | Sequence[Sequence[Path]],
    depth: int | None = None,
    *,
    groups: Groups | None = None,
    sources: Groups | None = None,
    weighted: bool = True,
) -> Any:
    """Count how many edges of a path lie in each component: the mean over paths and examples.

    A component matters more to a gradient when more edges of its paths lie in it (DuSell). An edge
    lies where the node it leads to was made.

    Args:
        paths: the paths of one example, as ``top_paths`` returns them, or a list of such lists, one
            per example. Every example with a path counts the same.
        depth: the components are modules, told apart by this many names of their scope, taken from
            the outside; by all names by default.
        groups: other components: a mapping from a name to a glob over scopes, the first that
            matches counts; or a function from a ``Node`` to a name.
        sources: groups of what paths start from, such as parameters: a mapping from a name to a
            glob over arguments, as in ``{"kernels": "*kernel*"}``, or a function from a ``Node`` to
            a name. Paths of each group are counted separately, with their own mean; by default all
            are one group.
        weighted: whether an example's paths count in proportion to their ``|weight|``, or
            ``|contribution|`` if they carry something, or all the same.

    Returns:
        A ``pandas.DataFrame``, or without pandas a list of dicts, with a row for each pair of a
        source group and a component, the largest first: ``source``, ``component``, ``edges`` (mean
        number per path), ``share`` (of the edges of a path), ``stderr`` (standard error of
        ``edges`` over examples; NaN for one), ``paths`` and ``examples`` (how many there are).

    Raises:
        ValueError: if ``depth`` is less than 1, or paths are weighted and the weight of one is
            infinite or not a number.
        TypeError: if ``paths`` holds something else.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> paths = sj.top_paths(lambda x: jnp.sin(jnp.cos(x)), k=1)(1.0)
        >>> table = sj.component_counts(paths, groups=lambda node: node.primitive)
        >>> sorted(zip(table["component"], table["edges"], strict=True))
        [('cos', 1.0), ('sin', 1.0)]
    """
    checks.check_depth(depth)
    component = _grouping(groups, lambda node: node.scope) or (
        lambda node: scope_names.shorten(node.scope, depth)
    )
    source = _grouping(sources, lambda node: node.variable) or (lambda node: "")
    # For each source group the mean counts of every example.
    found: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
    sizes: collections.Counter[str] = collections.Counter()
    for example in _examples(paths):
        by_source: dict[str, list[Path]] = collections.defaultdict(list)
        for path in example:
            by_source[source(path.nodes[0])].append(path)
        for name, own in by_source.items():
            found[name].append(_mean_counts(own, component, weighted))
            sizes[name] += len(own)
    rows = []
    for name, examples in found.items():
        total = sum(sum(counts.values()) for counts in examples)
        for part in dict.fromkeys(c for counts in examples for c in counts):
            numbers = np.array([counts.get(part, 0.0) for counts in examples])
            n = len(numbers)
            rows.append(
                {
                    "source": name,
                    "component": part,
                    "edges": float(numbers.mean()),
                    "share": float(numbers.sum() / total) if total else 0.0,
                    "stderr": float(numbers.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan,
                    "paths": sizes[name],
                    "examples": n,
                }
            )
    rows.sort(key=lambda row: (row["source"], -row["edges"]))
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame(rows, columns=COLUMNS)


COLUMNS = ["source", "component", "edges", "share", "stderr", "paths", "examples"]


def _examples(paths: Any) -> list[Sequence[Path]]:
    if all(isinstance(path, Path) for path in paths):
        return [paths] if len(paths) else []
    for example in paths:
        if isinstance(example, Path) or not all(isinstance(path, Path) for path in example):
            raise TypeError("component_counts expects a list of Path, or a list of such lists.")
    return [example for example in paths if len(example)]


def _mean_counts(
    paths: Sequence[Path], component: Callable[[Node], str], weighted: bool
) -> dict[str, float]:
    counts: dict[str, float] = collections.defaultdict(float)
    for path, share in zip(paths, _shares(paths) if weighted else _equal(paths), strict=True):
        for node in path.nodes[1:]:
            counts[component(node)] += share
    return counts


def _shares(paths: Sequence[Path]) -> np.ndarray:
    logs = np.array([path.log_abs_contribution for path in paths])
    if not logs.max() < np.inf:
        weight = next(path.weight for path in paths if not path.log_abs_contribution < np.inf)
        raise ValueError(
            "component_counts counts paths in proportion to their weights, and one of these weighs "
            f"{weight}. Leave it out, or count all the same with weighted=False."
        )
    if logs.max() == -np.inf:
        return _equal(paths)
    sizes = np.exp(logs - logs.max())
    return sizes / sizes.sum()


def _equal(paths: Sequence[Path]) -> np.ndarray:
    return np.full(len(paths), 1 / len(paths))


def _grouping(
    groups: Groups | None, name_of: Callable[[Node], str]
) -> Callable[[Node], str] | None:
    if groups is None or callable(groups):
        return groups
    if not isinstance(groups, Mapping):
        raise TypeError(
            "Groups are a mapping from names to globs or a function from a node to a name, got "
            f"{groups!r}."
        )
    matchers = {name: scope_names.matcher(glob) for name, glob in groups.items()}

    def group(node: Node) -> str:
        text = name_of(node)
        return next((name for name, matches in matchers.items() if matches(text)), scope_names.REST)

    return group

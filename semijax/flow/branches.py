"""The contribution of each consumer of an intermediate array to its semiring gradient."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, pictures, tables
from semijax import elements as el
from semijax.elements import Elements
from semijax.flow import collectors
from semijax.flow.results import (
    Result,
    check_concrete,
    for_each_member,
    fraction,
    is_traced,
    of_what,
    reads_logs,
    result,
    shown,
)
from semijax.semirings import Semiring, as_semiring
from semijax.sites.program import Argnums, Program
from semijax.sites.site import Site
from semijax.trace import scope_names
from semijax.trace.graph import Equation
from semijax.trace.scope_names import REST
from semijax.weighting import DERIVATIVE, Weighting, check_weighting

OUTPUT = "(output)"
"""The name of a consumer: the output of a function, or of one iteration of a loop."""

NOBODY = "(nobody)"
"""The only branch of an array that nothing reads."""

SHOWN = 40
"""The number of rows that are printed."""


@result("elements")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BranchFlow(Result):
    """The contribution of each consumer of some arrays to the semiring gradient there.

    A mapping from the names of the sites to mappings from the names of their branches to arrays, of
    the shape of the site less its last axis. It passes through ``jit`` and ``vmap``, which adds
    axes in front; it prints as a table.

    Attributes:
        elements: the semiring's elements, by site and branch; aggregated over the hidden axis
            unless ``reduce`` is ``"sum"``.
        branches: the names of the branches of each site.
        semiring: whose elements they are.
        granularity: ``"element"`` or ``"op"``.
        reduce: how hidden units were combined, ``"oplus"`` or ``"sum"``.
        weighting: the name of what the edges weigh.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> def f(x):
        ...     x = sj.tap(2 * x, "x")
        ...     return jnp.sum(x + 3 * jnp.sin(x))
        >>> flow = sj.branch_flow(f, sj.AbsSumProduct(), "x")(jnp.zeros((1, 4)))  # 1 token
        >>> print(flow["x"]["add"], flow["x"]["sin"])
        [4.] [12.]
        >>> print(flow.share()["x"]["add"], flow.winner()["x"])
        [0.25] ['sin']
    """

    elements: Mapping[str, Mapping[str, Elements]]
    branches: tuple[tuple[str, tuple[str, ...]], ...]
    semiring: Semiring
    granularity: str
    reduce: str
    weighting: str

    def __getitem__(self, name: str) -> dict[str, Any]:
        own = self.elements[self.checked(name)]
        return {branch: self._read(own[branch]) for branch in dict(self.branches)[name]}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sites."""
        return tuple(site for site, _ in self.branches)

    def share(self) -> dict[str, dict[str, jax.Array]]:
        """Return each branch's fraction, by site and branch: its size over the sum of all sizes.

        The size is the absolute value of a weight; for ``Entropy`` and the expectations the mass,
        for ``PathCount`` the number of paths, see ``Semiring.log_size``. Where there is no path,
        all shares are 0; where the sum is infinite or not a number, they are NaN.

        Raises:
            TypeError: if the semiring has no shares.
        """
        shares = {}
        for site, branches in self.branches:
            logs = self._log_sizes(site)
            total = jax.nn.logsumexp(logs, 0)
            shares[site] = dict(zip(branches, fraction(logs, total), strict=True))
        return shares

    def winner(self) -> dict[str, np.ndarray]:
        """Name the branch with the best paths, by site: an array of names; ``""`` for none.

        The winner is the branch with the largest contribution (for ``MinProduct``, the smallest);
        masses and counts are compared in the same way. Of equal branches, the first wins. For a
        max, the winner attains the gradient's own value: the top path of the best hidden unit goes
        through it. ``winner`` works outside of ``jit`` only, ``only_winners`` inside too.

        No branch is named where no path leads on, or where the numbers cannot be compared, since
        one is NaN or several of the best are infinite. There ``only_winners`` is NaN.
        """
        check_concrete(self.elements, "winner()")
        names = {}
        for site, branches in self.branches:
            best, reached, known = self._best(site)
            chosen = np.array(branches, object)[np.asarray(best)]
            names[site] = np.where(np.asarray(reached & known), chosen, "")
        return names

    def only_winners(self) -> dict[str, dict[str, jax.Array]]:
        """Return the values of the winners alone: 0 for other branches, NaN where none is known.

        That is the branch value of Du et al. 2023, §5: the hidden unit with the largest gradient
        gives its value to the branch it came through, and the others get none.
        """
        kept = {}
        for site in self:
            best, reached, known = self._best(site)
            kept[site] = {
                branch: jnp.where(known, jnp.where((best == n) & reached, value, 0), jnp.nan)
                for n, (branch, value) in enumerate(self[site].items())
            }
        return kept

    @property
    def provenance(self) -> dict[str, str]:
        """The semiring, granularity, weighting, reduction and versions it was computed with."""
        return super().provenance | {"reduce": self.reduce}

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row per number.

        Its columns: ``site``, ``token`` (an index, or a tuple of indices where there are several
        axes), ``branch``, ``value``, and, where the semiring has them, ``share`` and ``winner``.
        """
        import pandas

        return pandas.DataFrame([row for rows in self._rows() for row in rows])

    def plot(self, **options: Any) -> pictures.Picture:
        """Draw the shares as stacked bars: one per site, or per token if there is one site.

        Shares of several tokens are averaged. Needs matplotlib; the options are those of
        ``pictures.stacked_bars``, such as ``groups`` for labels.

        Raises:
            TypeError: if the semiring has no shares.
            ValueError: where shares are not numbers, see ``share``.
        """
        shares = self.share()
        for site, own in shares.items():
            wrong = np.argwhere(np.isnan(next(iter(own.values()))))  # of one branch, if of any
            if len(wrong):
                raise ValueError(
                    f"The branches of {site!r} have no shares at {len(wrong)} of its tokens, the "
                    f"first at index {tuple(wrong[0].tolist())}: their sum is infinite or not "
                    "a number. Print the result to see the values."
                )
        names = self._branch_names()
        if len(self) == 1:
            ((site, own),) = shares.items()
            bars = {branch: np.atleast_1d(np.asarray(own[branch])) for branch in names}
            groups: list[str] = [str(i) for i in np.ndindex(bars[names[0]].shape)]
            groups = [text.strip("(),") for text in groups]
            heights = {branch: values.ravel() for branch, values in bars.items()}
            normalisation = f"per token at {site}, sums to 1"
        else:
            groups = scope_names.without_common([*self])
            heights = {
                branch: np.array([np.mean(own.get(branch, 0.0)) for own in shares.values()])
                for branch in names
            }
            normalisation = "mean over tokens of shares that sum to 1 per token"
        given: dict[str, Any] = {
            "unit": f"share of {of_what(self.semiring)}",
            "normalisation": f"{normalisation}; {self.conditions}",
            "groups": groups,
            "group_label": "token" if len(self) == 1 else "site",
        }
        return pictures.stacked_bars(heights, **(given | options))

    def _branch_names(self) -> list[str]:
        """Return the names of the branches of all sites."""
        return list(dict.fromkeys(branch for _, own in self.branches for branch in own))

    def _table(self) -> tables.Table:
        names = self._branch_names()
        legend = self._legend()
        cells = [*itertools.islice(self._cells(names), SHOWN)]
        more = 0 if is_traced(self.elements) else sum(1 for _ in self._tokens()) - len(cells)
        if more > 0:
            legend = f"… and {more} more\n{legend}"
        right = range(1, len(names) + 2)
        return tables.Table(("site", "token", *names, "winner"), cells, right, legend=legend)

    def _read(self, elements: Elements) -> Any:
        if self.reduce == "oplus":
            return self.semiring.readout(elements)
        # Hidden units that no path leads from add nothing to the others.
        none = self.semiring.is_zero(elements)
        axis = none.ndim - 1

        def total(leaf: jax.Array) -> jax.Array:
            missing = none.reshape(none.shape + (1,) * (leaf.ndim - none.ndim))
            some = jnp.where(missing, 0, leaf).sum(axis)
            return jnp.where(missing.all(axis), leaf.max(axis), some)

        return jax.tree.map(total, self.semiring.readout(elements))

    def _log_size(self, elements: Elements) -> jax.Array:
        """Return the logarithm of a branch's size."""
        sizes = self.semiring.log_size(elements)
        if self.reduce == "oplus":
            return sizes
        if self.semiring.size_of is not None:
            return jax.nn.logsumexp(sizes, -1)
        value = self._read(elements)  # its parts may cancel
        none = self.semiring.is_zero(elements).all(-1) | (value == 0)
        return jnp.where(none, -jnp.inf, jnp.log(jnp.abs(value)))

    def _log_sizes(self, site: str) -> jax.Array:
        """Return the logarithms of all branches' sizes, along a first axis."""
        own = self.elements[site]
        return jnp.stack([self._log_size(own[branch]) for branch in dict(self.branches)[site]])

    def _best(self, site: str) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the winning branch's number, where any path leads on, and where it is known."""
        best = self.semiring.best
        if best == "size":
            scores = self._log_sizes(site)
            reached = scores != -jnp.inf
        else:
            values = jnp.stack([*self[site].values()])
            own = [self.elements[site][branch] for branch in dict(self.branches)[site]]
            none = jnp.stack([self.semiring.is_zero(elements) for elements in own])
            reached = ~(none if self.reduce == "oplus" else none.all(-1))
            scores = jnp.where(reached, values if best == "largest" else -values, -jnp.inf)
        highest = scores.max(0)
        together = ((scores == highest) & reached).sum(0)
        known = ~jnp.isnan(scores).any(0) & (jnp.isfinite(highest) | (together <= 1))
        return scores.argmax(0), reached.any(0), known

    def _tokens(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for site in self:
            shape = np.shape(jax.tree.leaves(next(iter(self[site].values())))[0])
            yield from ((site, index) for index in np.ndindex(shape))

    def _rows(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of every site and token, one per branch."""
        try:
            shares, winners = self.share(), self.winner()
        except TypeError:  # there are values then, and no comparison
            shares, winners = None, None
        values = {site: {b: np.asarray(v) for b, v in self[site].items()} for site in self}
        for site, index in self._tokens():
            rows = []
            for branch, array in values[site].items():
                token = index[0] if len(index) == 1 else index
                row = {"site": site, "token": token, "branch": branch, "value": array[index]}
                if shares is not None and winners is not None:
                    row["share"] = float(shares[site][branch][index])
                    row["winner"] = bool(winners[site][index] == branch)
                rows.append(row)
            yield rows

    def _cells(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        if is_traced(self.elements):
            yield from ((site, "traced", *("" for _ in names), "") for site in self)
            return
        logs = {
            site: np.asarray(self._log_sizes(site)) for site in self if reads_logs(self.semiring)
        }
        for rows in self._rows():
            site, token = rows[0]["site"], rows[0]["token"]
            at = token if isinstance(token, tuple) else (token,)
            sizes = [of[at] for of in logs[site]] if logs else [None] * len(rows)
            values = {
                row["branch"]: shown(row["value"], size)
                for row, size in zip(rows, sizes, strict=True)
            }
            winner = next((row["branch"] for row in rows if row.get("winner")), "")
            own = [values.get(name, "") for name in names]
            yield (site, "" if token == () else str(token), *own, winner)

    def _legend(self) -> str:
        how = "⊕" if self.reduce == "oplus" else "sum"
        return f"{self.semiring}, {how} over the last axis, {self.conditions}"


def branch_flow(
    fun: Callable[..., Any],
    semiring: Any,
    sites: str | Sequence[str],
    branches: Mapping[str, str | Sequence[str]] | None = None,
    reduce: str = "oplus",
    traced: Argnums = None,
    *,
    granularity: str = "element",
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Any]:
    """Split the semiring gradient at an intermediate array by consumer: skip, query, key.

    A branch is a consumer of the array, or a group of consumers. Its value is the ⊕ over the paths
    to the output whose first edge lies in the branch. The ⊕ of all branches is the semiring
    gradient at the array.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semiring: a ``Semiring``, or a tuple, list or dict of them, then computed in one sweep.
        sites: names or globs of arrays, see ``list_sites``: ``"*/layer/*:input"`` are the inputs of
            the layers, ``"hidden"`` a ``tap``.
        branches: how to group the consumers: a mapping from names to globs over the modules that
            read the array, such as ``{"query": "*/query", "key": "*/key", "skip": sj.REST}``, where
            the first match counts. Consumers that no glob matches go to the branch whose glob is
            ``REST``, or else to a branch of that name. By default, each module is a branch, named
            by its path as seen from the array; if there is only one module, each of its equations
            is a branch.
        reduce: how the last axis, the hidden units, is combined: ``"oplus"`` for the ⊕, or
            ``"sum"`` for the sum of what the semiring reads per unit.
        traced: the positions of the arguments that are traced, see ``list_sites``; all by default.
        granularity: ``"element"`` or ``"op"``, see ``semiring_grad``.
        weighting: what the edges weigh, and what a path carries where it starts, see
            ``semiring_grad``.

    Returns:
        A function with the arguments of ``fun`` that returns a ``BranchFlow``; for a container of
        semirings, that container of them. It composes with ``jit`` and ``vmap``.

    Raises:
        TypeError, ValueError, NotImplementedError: as ``site_grads``; ValueError too if a glob of
            ``branches`` matches no consumer, or ``reduce`` is something else.

    Source: Du et al. 2023, §5.1 and §5.2.

    Example:
        The function of the paper's Figure 1: y goes to the difference and to the product.

        >>> import jax.numpy as jnp, semijax as sj
        >>> def f(x, y):
        ...     y = sj.tap(y, "y")
        ...     return jnp.exp(x) + (x - y) * y
        >>> flow = sj.branch_flow(f, sj.SumProduct(), "y")(0.0, 3.0)
        >>> {name: float(value) for name, value in flow["y"].items()}
        {'sub': -3.0, 'mul': -3.0}
    """
    checks.check_callable(fun)
    checked = as_semiring(semiring, granularity)
    check_weighting(weighting)
    if reduce not in ("oplus", "sum"):
        raise ValueError(f"reduce must be 'oplus' or 'sum', got {reduce!r}.")
    if branches is not None and not (
        isinstance(branches, Mapping) and all(isinstance(name, str) for name in branches)
    ):
        raise TypeError(f"branches must be a mapping from names to globs, got {branches!r}.")

    def flow(*args: Any, **kwargs: Any) -> Any:
        call = Program(fun, args, kwargs, traced, caller="branch_flow", weighting=weighting)
        chosen = call.survey.choose(sites)
        grouped = _named if branches is None else _matched(chosen, branches)
        places = [site.place for site in chosen]
        graph = call.graph(places, dict.fromkeys(places))
        parts = call.between(graph, checked, collectors.to_consumers)
        found: dict[Any, Elements] = {}
        for n, site in enumerate(chosen):
            for branch, consumed in grouped(site).items():
                own = [parts[key] for c in consumed if (key := (n, *c)) in parts]
                total = site.place.seen(
                    functools.reduce(checked.add, own)
                    if own
                    else collectors.zero_at(checked, site.place)
                )
                shape = checked.shape(total)
                # A scalar is one hidden unit; a complex number has two nodes.
                tokens = max(len(site.place.shape) - 1, len(site.place.loop_shape))
                units = el.size(shape[tokens:])
                total = el.reshape(total, shape, (*shape[:tokens], units))
                found[site.name, branch] = (
                    checked.sum(total, (tokens,)) if reduce == "oplus" else total
                )

        def build(member: Semiring, elements: dict[Any, Elements]) -> BranchFlow:
            by_site: dict[str, dict[str, Elements]] = {site.name: {} for site in chosen}
            for (name, branch), element in elements.items():
                by_site[name][branch] = element
            names = tuple((name, tuple(own)) for name, own in by_site.items())
            how = granularity, reduce, str(weighting)
            return BranchFlow(by_site, names, member, *how)

        return for_each_member(checked, build, found)

    return flow


Groups = dict[str, list[tuple[int, int]]]
"""The consumers by branch: the position of each, and which of its inputs the array is."""


def _named(site: Site) -> Groups:
    """Make each module that reads the array a branch of its own."""
    equations = dict.fromkeys(equation for equation, *_ in site.consumers if equation)
    scopes = list(dict.fromkeys(equation.scope for equation in equations))
    # As seen from what they have in common; a single one as seen from the array.
    seen_from = [] if len(scopes) > 1 else [site.scope]
    short = dict(zip(scopes, scope_names.without_common([*scopes, *seen_from]), strict=False))
    beside = [equation for equation in equations if not short[equation.scope]]
    names: dict[Equation | None, str] = {None: OUTPUT}
    names |= {equation: short[equation.scope] for equation in equations}
    taken = collections.Counter([*filter(None, short.values()), *(e.name for e in beside)])
    counts: collections.Counter[str] = collections.Counter()
    for equation in beside:  # what all the modules lie in, or the only one
        counts[equation.name] += 1
        several = taken[equation.name] > 1
        names[equation] = f"{equation.name}#{counts[equation.name]}" if several else equation.name
    groups: Groups = collections.defaultdict(list)
    for equation, *consumed in site.consumers:
        groups[names[equation]].append((consumed[0], consumed[1]))
    return groups or {NOBODY: []}


def _matched(
    sites: Sequence[Site], branches: Mapping[str, str | Sequence[str]]
) -> Callable[[Site], Groups]:
    """Return a function that groups the consumers as told."""
    known = {_full_name(equation): None for site in sites for equation, *_ in site.consumers}
    matchers: dict[str, list[Callable[[str], bool]]] = {}
    rest = REST
    for name, globs in branches.items():
        if globs == REST:
            rest = name
            matchers[name] = []
            continue
        given: list[Any] = list(globs) if isinstance(globs, (list, tuple)) else [globs]
        matchers[name] = [scope_names.check_pattern(glob, known, "consumer") for glob in given]

    def branch_of(consumer: str) -> str:
        found = (name for name, own in matchers.items() if any(m(consumer) for m in own))
        return next(found, rest)

    of = {name: branch_of(name) for name in known}
    names: dict[str, None] = dict.fromkeys([*branches, *([rest] if rest in of.values() else [])])

    def grouped(site: Site) -> Groups:
        groups: Groups = {name: [] for name in names}
        for equation, number, i in site.consumers:
            groups[of[_full_name(equation)]].append((number, i))
        return groups

    return grouped


def _full_name(consumer: Equation | None) -> str:
    if consumer is None:
        return OUTPUT
    return f"{consumer.scope}/{consumer.name}" if consumer.scope else consumer.name

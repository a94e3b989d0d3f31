"""Faithfulness: a ranking of components against what happens without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, pictures, tables
from semijax.flow import collectors
from semijax.flow.ablation import check_value, of_sites, replacements, run_ablated
from semijax.flow.results import check_concrete, shown
from semijax.semirings import SumProduct
from semijax.sites.program import Argnums, Program
from semijax.sites.site import Site

GIVEN, GRADIENT, RANDOM = "ranking", "|grad|", "random"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Faithfulness(tables.Printed):
    """Deletion and insertion curves of a ranking, and of others to compare it with.

    Attributes:
        fraction: how many of the components are replaced (deletion) or left (insertion), from 0 to
            1; float ``[steps + 1]``.
        deletion: the function's value when the first components of a ranking are replaced, by
            ranking: ``"ranking"``, ``"|grad|"`` and ``"random"`` (the mean of several); float
            ``[steps + 1]``. The curve of a good ranking falls fast.
        insertion: the function's value when only the first components of a ranking are kept and all
            others are replaced. The curve of a good ranking rises fast.
        stderr: the standard error of the mean over random rankings, by curve: ``"deletion"`` and
            ``"insertion"``.
        components: how many components there are.
        value: what they are replaced with.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: sj.tap(x, "x") @ jnp.array([3.0, 1.0])
        >>> flow = sj.site_flow(f, sj.AbsSumProduct(), "x")(jnp.ones(2))
        >>> curves = sj.faithfulness(f, flow.share(), steps=2)(jnp.ones(2))
        >>> print(curves.fraction, curves.deletion["ranking"])
        [0.  0.5 1. ] [4. 1. 0.]
    """

    fraction: np.ndarray
    deletion: Mapping[str, np.ndarray]
    insertion: Mapping[str, np.ndarray]
    stderr: Mapping[str, np.ndarray]
    components: int
    value: str

    def auc(self) -> dict[str, dict[str, float]]:
        """Return the area under each curve, by curve and ranking: the mean value on the way.

        Source: Petsiuk, Das and Saenko 2018, §3.
        """
        return {
            curve: {name: float(np.trapezoid(y, self.fraction)) for name, y in own.items()}
            for curve, own in (("deletion", self.deletion), ("insertion", self.insertion))
        }

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame``: ``curve``, ``ranking``, ``fraction``, ``value``."""
        import pandas

        return pandas.DataFrame(
            [
                {"curve": curve, "ranking": name, "fraction": x, "value": y}
                for curve, own in (("deletion", self.deletion), ("insertion", self.insertion))
                for name, values in own.items()
                for x, y in zip(self.fraction, values, strict=True)
            ]
        )

    def plot(self, curve: str = "deletion", **options: Any) -> pictures.Picture:
        """Draw one of the curves, ``"deletion"`` or ``"insertion"``, of each ranking."""
        if curve not in ("deletion", "insertion"):
            raise ValueError(f"curve must be 'deletion' or 'insertion', got {curve!r}.")
        what = "replaced" if curve == "deletion" else "left, the others replaced"
        given = {
            "x_label": f"fraction of {self.components} components {what} ({self.value})",
            "unit": "value of the function",
            "normalisation": "random: mean and standard error",
        }
        own = self.deletion if curve == "deletion" else self.insertion
        errors = {RANDOM: self.stderr[curve]}
        return pictures.curves(self.fraction, own, errors=errors, **(given | options))

    def _table(self) -> tables.Table:
        areas = self.auc()
        cells = [
            (name, shown(areas["deletion"][name]), shown(areas["insertion"][name]))
            for name in self.deletion
        ]
        whole, none = self.insertion[GIVEN][-1], self.insertion[GIVEN][0]
        legend = (
            f"{self.components} components replaced by {self.value}; the function's value is "
            f"{shown(whole)} as it is and {shown(none)} without any"
        )
        header = ("", "deletion AUC (low is good)", "insertion AUC (high is good)")
        return tables.Table(header, cells, right=(1, 2), legend=legend)


def faithfulness(
    fun: Callable[..., Any],
    ranking: Mapping[str, Any] | Sequence[str],
    *,
    value: Any = "zero",
    steps: int = 20,
    n_random: int = 10,
    seed: int = 0,
    traced: Argnums = None,
) -> Callable[..., Faithfulness]:
    """Test a ranking of components: replace more and more of them, and measure the value.

    At each step, the function runs with the first components of the ranking replaced (deletion), or
    with all but the first replaced (insertion). The ranking is compared with the ranking by the
    absolute gradient and with random rankings: if its curves are no better than theirs, the ranking
    says nothing new. Whether it depends on what the model has learned is another question, see
    ``randomization_test``.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        ranking: a mapping from names or globs of sites, as for ``ablate``, to scores; the highest
            score comes first. If the score is a number, all arrays of that name are one component.
            If it is an array whose axes are the first axes of the site, such as a number per token,
            each of its elements is a component. A ``SiteValues`` is such a mapping. Or a list of
            names, the most important first.
        value: what to replace with, as for ``ablate``.
        steps: how many steps from nothing to everything; not more than there are components.
        n_random: how many random rankings to average.
        seed: the seed of the random rankings.
        traced: the positions of the arguments that are traced, see ``list_sites``; all by default.

    Returns:
        A function with the arguments of ``fun`` that returns a ``Faithfulness``. All runs are one
        compiled program; it takes ``2 (n_random + 2) (steps + 1)`` of them.

    Raises:
        TypeError, ValueError: as ``ablate``; ValueError too if scores are not numbers, a site is
            named twice, or there are no components.

    Source: the curves are those of Petsiuk, Das and Saenko 2018, §3 (there of pixels).

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.dot(jnp.sin(x), jnp.array([1.0, 4.0, 2.0]))
        >>> x = jnp.ones(3)
        >>> scores = sj.site_flow(f, sj.AbsSumProduct(), "sin")(x)
        >>> curves = sj.faithfulness(f, scores, steps=3)(x)
        >>> [round(float(y), 2) for y in curves.deletion["ranking"]]
        [5.89, 2.52, 0.84, 0.0]
    """
    checks.check_callable(fun)
    check_value(value)
    checks.check_positive("steps", steps)
    checks.check_positive("n_random", n_random)
    if isinstance(ranking, (list, tuple)):
        ranking = {name: -place for place, name in enumerate(ranking)}
    if not isinstance(ranking, Mapping):
        raise TypeError(
            f"A ranking is a mapping from sites to scores, or a list of sites, got {ranking!r}."
        )
    scored = dict(ranking)

    def measured(*args: Any, **kwargs: Any) -> Faithfulness:
        check_concrete((args, kwargs), "faithfulness")
        call = Program(fun, args, kwargs, traced, caller="faithfulness")
        checks.check_scalar(call.out_shapes, "faithfulness")
        parts = [_Part(name, scores, call.survey.choose(name)) for name, scores in scored.items()]
        sites = [site for part in parts for site in part.sites]
        if len({site.place for site in sites}) < len(sites):
            raise ValueError("Two names of the ranking stand for the same array.")
        total = sum(part.size for part in parts)
        if not total:
            raise ValueError("The ranking has no components.")
        gradients = _gradients(call, parts)
        rng = np.random.default_rng(seed)
        orders = [np.concatenate([part.scores.ravel() for part in parts]), gradients]
        ranks = np.stack(
            [_ranks(scores) for scores in orders]
            + [rng.permutation(total) for _ in range(n_random)]
        )
        counts = np.round(np.linspace(0, total, min(steps, total) + 1)).astype(int)
        deletion, insertion = _curves(call, parts, value, ranks, counts)

        def by_name(curves: np.ndarray) -> dict[str, np.ndarray]:
            return {GIVEN: curves[0], GRADIENT: curves[1], RANDOM: curves[2:].mean(0)}

        def error(curves: np.ndarray) -> np.ndarray:
            if n_random == 1:
                return np.full(len(counts), np.nan)
            return curves[2:].std(0, ddof=1) / np.sqrt(n_random)

        return Faithfulness(
            counts / total,
            by_name(deletion),
            by_name(insertion),
            {"deletion": error(deletion), "insertion": error(insertion)},
            total,
            value if isinstance(value, str) else "given values",
        )

    return measured


class _Part:
    """The components of one entry of a ranking: one for each of its scores."""

    def __init__(self, name: str, scores: Any, sites: list[Site]) -> None:
        self.sites = sites
        if np.iscomplexobj(scores):
            raise TypeError(f"The scores of {name!r} are complex.")
        self.scores = np.asarray(scores, np.float64)
        self.size = self.scores.size
        if np.isnan(self.scores).any():
            raise ValueError(f"The scores of {name!r} are not all numbers.")
        for site in sites:
            if site.place.shape[: self.scores.ndim] != self.scores.shape:
                raise ValueError(
                    f"The scores of {name!r} have shape {self.scores.shape}, but the shape "
                    f"{site.place.shape} of site {site.name!r} does not begin with it."
                )


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return the place of each by descending score; equal scores keep their order."""
    ranks = np.empty(len(scores), int)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return ranks


def _gradients(call: Program, parts: Sequence[_Part]) -> np.ndarray:
    """Compute Σ |gradient| over the elements of each component."""
    sites = [site for part in parts for site in part.sites]
    places = [site.place for site in sites]
    graph = call.graph(places, dict.fromkeys(places))
    found = call.between(graph, SumProduct(), collectors.from_sites)
    gradients = [np.abs(g) for g in collectors.at_places(SumProduct(), places, found)]
    of = dict(zip(sites, gradients, strict=True))
    sums = [
        sum(of[site].sum(tuple(range(part.scores.ndim, of[site].ndim))) for site in part.sites)
        for part in parts
    ]
    return np.concatenate([np.ravel(total) for total in sums])


def _curves(
    call: Program, parts: Sequence[_Part], value: Any, ranks: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the function's values, ``[rankings, counts]``, by deletion and by insertion."""
    sites = [site for part in parts for site in part.sites]
    arrays = replacements(call, sites, of_sites(value, sites, "value"))
    ends = np.cumsum([part.size for part in parts])[:-1]

    @jax.jit
    def all_values(ranks: jax.Array, counts: jax.Array) -> jax.Array:
        def one(x: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            ranks, count, inserted = x
            replaced = (ranks < count) != inserted
            masks = [
                mask.reshape(part.scores.shape)
                for part, mask in zip(parts, jnp.split(replaced, ends), strict=True)
                for _ in part.sites
            ]
            return run_ablated(call, sites, arrays, masks)

        return jax.lax.map(one, (ranks, counts, jnp.arange(len(counts)) % 2 == 1))

    # Every ranking, every count, both ways.
    n, m = len(ranks), len(counts)
    values = all_values(np.repeat(ranks, 2 * m, 0), np.tile(np.repeat(counts, 2), n))
    values = np.asarray(values, np.float64).reshape(n, m, 2)
    return values[..., 0], values[..., 1]

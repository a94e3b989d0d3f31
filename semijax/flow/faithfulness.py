"""Is it true? What a ranking of components says, against what happens without them."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from semijax import checks, page, pictures, tables
from semijax.flow import program
from semijax.flow.ablation import _check_value, _of_site, replacements, run_ablated
from semijax.flow.program import Argnums, Program
from semijax.flow.results import shown
from semijax.flow.sites import Site
from semijax.semirings import SumProduct

GIVEN, GRADIENT, RANDOM = "ranking", "|grad|", "random"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Faithfulness:
    """Deletion and insertion curves of a ranking, and of others to compare it with.

    Attributes:
        fraction: how many of the components are replaced (deletion) or left (insertion), from 0 to
            1; float ``[steps + 1]``.
        deletion: the function's value when the first of a ranking are replaced, by ranking:
            ``"ranking"``, ``"|grad|"`` and ``"random"`` (the mean of several); float
            ``[steps + 1]``. It falls fast where the ranking is right.
        insertion: the function's value when only the first of a ranking are left as they are. It
            rises fast where the ranking is right.
        stderr: the standard error of the mean over random rankings, of the two curves.
        components: how many components there are.
        value: what they are replaced with.
    """

    fraction: np.ndarray
    deletion: Mapping[str, np.ndarray]
    insertion: Mapping[str, np.ndarray]
    stderr: tuple[np.ndarray, np.ndarray]
    components: int
    value: str

    def auc(self) -> dict[str, dict[str, float]]:
        """The area under each curve, by curve and ranking: the mean value on the way.

        Source: Petsiuk, Das and Saenko 2018, §3.
        """
        return {
            curve: {name: float(np.trapezoid(y, self.fraction)) for name, y in own.items()}
            for curve, own in (("deletion", self.deletion), ("insertion", self.insertion))
        }

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame``: ``curve``, ``ranking``, ``fraction``, ``value``."""
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
        """One of the curves, ``"deletion"`` or ``"insertion"``, of each ranking."""
        if curve not in ("deletion", "insertion"):
            raise ValueError(f"curve must be 'deletion' or 'insertion', got {curve!r}.")
        what = "replaced" if curve == "deletion" else "left, the others replaced"
        given = {
            "x_label": f"fraction of {self.components} components {what} ({self.value})",
            "unit": "value of the function",
            "normalisation": "none; random: mean and standard error",
        }
        own = self.deletion if curve == "deletion" else self.insertion
        error = self.stderr[curve == "insertion"]
        return pictures.curves(self.fraction, own, errors={RANDOM: error}, **(given | options))

    def __str__(self) -> str:
        return f"{tables.text(_HEADER, self._cells(), right=(1, 2))}\n{self._legend()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = [[page.text(cell) for cell in row] for row in self._cells()]
        return page.table(_HEADER, cells, self._legend())

    def _cells(self) -> list[tuple[str, ...]]:
        areas = self.auc()
        return [
            (name, shown(areas["deletion"][name]), shown(areas["insertion"][name]))
            for name in self.deletion
        ]

    def _legend(self) -> str:
        whole, none = self.insertion[GIVEN][-1], self.insertion[GIVEN][0]
        return (
            f"{self.components} components replaced by {self.value}; the function's value is "
            f"{shown(whole)} as it is and {shown(none)} without any"
        )


_HEADER = ("", "deletion AUC (low is good)", "insertion AUC (high is good)")


def faithfulness(
    fun: Callable[..., Any],
    ranking: Mapping[str, Any],
    *,
    value: Any = "zero",
    steps: int = 20,
    n_random: int = 10,
    seed: int = 0,
    argnums: Argnums = None,
) -> Callable[..., Faithfulness]:
    """Whether what a ranking calls important is: the function's value without it, step by step.

    Components are replaced in the order of the ranking (deletion), or all but the first of it
    (insertion), and the function is run anew at each step. Beside the ranking stand the one by the
    absolute gradient and random ones: a curve that is no better than these says that the ranking is
    no news. Another question is whether it depends on what the model has learned:
    ``randomization_test``.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        ranking: scores, the highest first, by site: names or globs as for ``ablate``, all of whose
            arrays are one component, or as many as the scores have elements: an array whose axes
            are the first of the site's, as a number per token. A ``SiteValues`` is one.
        value: what to replace with, as for ``ablate``.
        steps: how many steps from nothing to everything; not more than there are components.
        n_random: how many random rankings to average.
        seed: of these.
        argnums: which arguments are traced; all floating point numbers by default.

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
    _check_value(value)
    checks.check_positive("steps", steps)
    checks.check_positive("n_random", n_random)
    if not isinstance(ranking, Mapping):
        raise TypeError(f"A ranking is a mapping from sites to scores, got {ranking!r}.")

    def measured(*args: Any, **kwargs: Any) -> Faithfulness:
        call = Program(fun, args, kwargs, argnums, caller="faithfulness")
        checks.check_scalar(call.out_shapes, "faithfulness")
        parts = [_Part(name, scores, call.survey.choose(name)) for name, scores in ranking.items()]
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
            (error(deletion), error(insertion)),
            total,
            value if isinstance(value, str) else "given values",
        )

    return measured


class _Part:
    """The components of one entry of a ranking: one for each of its scores."""

    def __init__(self, name: str, scores: Any, sites: list[Site]) -> None:
        self.sites = sites
        self.scores = np.asarray(scores, np.float64)
        self.size = self.scores.size
        if np.isnan(self.scores).any():
            raise ValueError(f"The scores of {name!r} are not all numbers.")
        for site in sites:
            if site.place.shape[: self.scores.ndim] != self.scores.shape:
                raise ValueError(
                    f"The scores of {name!r} have shape {self.scores.shape}, which is not how the "
                    f"shape {site.place.shape} of site {site.name!r} begins."
                )


def _ranks(scores: np.ndarray) -> np.ndarray:
    """The place of each in the order of descending scores; of equal ones the first is first."""
    ranks = np.empty(len(scores), int)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return ranks


def _gradients(call: Program, parts: Sequence[_Part]) -> np.ndarray:
    """Σ |gradient| over the elements of each component."""
    sites = [site for part in parts for site in part.sites]
    graph = call.graph([site.place for site in sites])
    found = call.between(graph, SumProduct(), program.from_sites)
    sums = []
    numbers = iter(range(len(sites)))
    for part in parts:
        own = np.zeros(part.scores.shape)
        for site in part.sites:
            gradient = np.abs(np.asarray(found.get(next(numbers), np.zeros(site.place.shape))))
            own += gradient.sum(tuple(range(part.scores.ndim, gradient.ndim)))
        sums.append(own.ravel())
    return np.concatenate(sums)


def _curves(
    call: Program, parts: Sequence[_Part], value: Any, ranks: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The function's values, ``[rankings, counts]``, by deletion and by insertion."""
    sites = [site for part in parts for site in part.sites]
    arrays = replacements(call, sites, [_of_site(value, site, "value") for site in sites])
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


@dataclasses.dataclass(frozen=True, repr=False)
class RandomizationTest:
    """How much an analysis has changed when parameters were shuffled.

    Attributes:
        shuffled: the groups of parameters, in the order of shuffling; each with all before it.
        correlation: Spearman's rank correlation with the analysis of the true model, from -1 to 1.
        absolute: the same, of absolute values.
        size: how many numbers were compared.
    """

    shuffled: tuple[str, ...]
    correlation: tuple[float, ...]
    absolute: tuple[float, ...]
    size: int

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame``: ``shuffled``, ``correlation``, ``absolute``."""
        import pandas

        return pandas.DataFrame(
            {
                "shuffled": self.shuffled,
                "correlation": self.correlation,
                "absolute": self.absolute,
            }
        )

    def __str__(self) -> str:
        rows = [
            (name, shown(rho), shown(absolute))
            for name, rho, absolute in zip(
                self.shuffled, self.correlation, self.absolute, strict=True
            )
        ]
        header = ("shuffled, with all above", "rank correlation", "of absolute values")
        legend = f"Spearman, over {self.size} numbers; near 1: the weights do not matter to it"
        return f"{tables.text(header, rows, right=(1, 2))}\n{legend}"

    __repr__ = __str__


def randomization_test(
    analysis: Callable[..., Any],
    params: Any,
    groups: Sequence[str] = ("*",),
    *,
    seed: int = 0,
) -> Callable[..., RandomizationTest]:
    """Whether an analysis depends on what the model has learned: the model parameter randomization.

    The entries of each parameter array are shuffled, group after group, and the analysis is
    compared with that of the true model. One that hardly changes shows the architecture.

    Args:
        analysis: a function of parameters and further arguments that returns numbers: arrays, a
            pytree of such, a ``SiteValues``, ``BranchFlow`` or ``ComponentFlow``.
        params: the parameters, a pytree of arrays.
        groups: globs over the names of parameters, as ``"*['layer_1']*"``, in the order in which
            they are shuffled: from the output to the input. All at once by default.
        seed: of the shuffling.

    Returns:
        A function of the further arguments that returns a ``RandomizationTest``.

    Raises:
        TypeError: if the analysis is not callable.
        ValueError: if a group has no parameters, or there are fewer than two numbers to compare.

    Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim 2018, §3.1.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> loss = lambda w, x: jnp.tanh(x @ w).sum()
        >>> saliency = lambda w, x: jax.grad(loss, 1)(w, x)
        >>> w = jax.random.normal(jax.random.key(0), (20, 5))
        >>> test = sj.randomization_test(saliency, w)(jnp.ones(20))
        >>> -1 <= test.correlation[0] < 0.9
        True
    """
    checks.check_callable(analysis)
    named = jax.tree.leaves(params)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for group in groups:
        if not any(fnmatch.fnmatchcase(name, group) for name in names):
            known = ", ".join(map(repr, names[:8]))
            raise ValueError(f"No parameter matches {group!r}. Their names are {known}, ….")

    def tested(*args: Any, **kwargs: Any) -> RandomizationTest:
        rng = np.random.default_rng(seed)
        leaves = list(named)
        true = _numbers(analysis(params, *args, **kwargs))
        if true.size < 2:
            raise ValueError("A rank correlation needs at least two numbers to compare.")
        signed, absolute = [], []
        for group in groups:
            for n, name in enumerate(names):
                if fnmatch.fnmatchcase(name, group):
                    leaves[n] = _shuffled(rng, leaves[n])
            tree = jax.tree.unflatten(jax.tree.structure(params), leaves)
            other = _numbers(analysis(tree, *args, **kwargs))
            signed.append(_spearman(true, other))
            absolute.append(_spearman(np.abs(true), np.abs(other)))
        return RandomizationTest(tuple(groups), tuple(signed), tuple(absolute), true.size)

    return tested


def _shuffled(rng: np.random.Generator, leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    return jnp.asarray(rng.permutation(array.ravel()).reshape(array.shape))


def _numbers(result: Any) -> np.ndarray:
    """All numbers of a result, in one row."""
    if isinstance(result, Mapping):
        parts = [_numbers(result[key]) for key in result]
    else:
        parts = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(result)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's ρ; NaN where all ranks are equal."""
    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    return float(np.asarray(scipy.stats.spearmanr(a, b))[0])

"""The searches: the k best paths, a greedy trace, a sample."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks
from semijax.elements import Elements
from semijax.paths.call import Call
from semijax.paths.descent import by_chance, descend, largest
from semijax.paths.k_best import k_best
from semijax.paths.labels import Labels
from semijax.paths.levels import Labelling, Told, check_level
from semijax.paths.path import Path, Paths
from semijax.paths.run import Array
from semijax.paths.scores import GRADIENT, LARGEST, MASS, SMALLEST, STRONGEST, Order, Scores
from semijax.paths.stories import Suffixes, best_stories
from semijax.paths.storytellers import best_storytellers
from semijax.paths.sweeps import read_out
from semijax.semirings import AbsSumProduct, Semiring, as_semiring
from semijax.sites.axis_names import StatedAxes
from semijax.sites.program import Argnums
from semijax.weighting import DERIVATIVE, Weighting, check_weighting


def top_paths(
    fun: Callable[..., Any],
    k: int = 1,
    *,
    by: str = "abs",
    argnums: int | Sequence[int] = 0,
    source: Any = None,
    through: str | None = None,
    distinct: Any = None,
    semiring: Any = None,
    axes: StatedAxes = None,
    traced: Argnums = None,
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Paths]:
    """Find the k best paths of ``fun``, exactly.

    A path leads from an element of an argument, or of an array named as ``source``, along the edges
    of the computation graph to the output. Its weight is the product of the local derivatives along
    it. There are far too many paths to list, but the search need not list them. A backward sweep
    computes, for every node, how good the best way on from there is. Paths are then extended
    forward, and at most k are kept. Each of these can be completed to a path as good as the sweep
    says, and the completed paths are all different; so a beginning that ranks below them cannot
    lead to one of the k best.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        k: how many; there may be fewer.
        by: what is best. ``"abs"``: the largest ``|weight|`` (Lu et al. 2021's influence paths,
            without the approximation). ``"max"``: the largest weight, with its sign: the top
            gradient path (Du et al. 2023, App. A). ``"min"``: the smallest.
        argnums: the positional argument(s) where paths start.
        source: where they start in place of all of these arguments:

            * at arrays, given by one or several names or globs, see ``list_sites``: an intermediate
              array, such as ``"*/embed"``, ``"Net/shared#2"`` or a ``tap``'s name, or an argument's
              leaf, ``"[0]['w']"``. The arguments may then be integers. Paths start at every element
              of each of these arrays, and a path that starts in one may pass through another;
            * at one element, by a pair of such a name and the index in the array. A leaf of the
              arguments may be named by its keys too: ``(0, (2, 5))``, ``((0, "w"), 3)``. For an
              array in a loop the first index is that of the iteration;
            * where a mask is true, a pytree of boolean arrays like the argument(s).
        through: a glob. Only paths that pass a node made in a scope that matches it are considered:
            ``"*/attention/self/key"``, or ``"layers[3]/attention"`` for one iteration of a loop;
            ``*`` matches slashes too. If no scope matches, the glob stands for sites, and paths
            must pass a node of one: ``"Net/shared#2"``, a ``tap``'s name, ``"*/mlp/tanh"``.
        distinct: the level at which paths must differ. The result is then the k best *stories*,
            each with its best path. A story is the sequence of the labels of a path's nodes, in
            which consecutive equal labels count as one. The level may be:

            * ``"module"``: the scope in which a node was made; where the path starts, the array's
              name;
            * an integer: this many first names of the scope;
            * ``"token"``, ``"head"``, or another name of an axis: the index along the first axis
              of this name, if there is one;
            * a function from a ``Node`` to a label that can be hashed, or to None for a node that
              tells nothing. It is called for every node of every array;
            * several of these, in a tuple: labels are tuples then.
        semiring: with ``distinct``, the semiring whose statistic is computed over all paths that
            tell a story; or several, see ``semiring_grad``. By default ``AbsSumProduct``, their
            mass.
        axes: names for axes, if ``distinct`` uses a name that is not known: a dict from an array's
            name, as in ``source``, to a tuple, such as ``{"[0]": ("token", None)}``. The names then
            hold for all arrays computed from that array. Two names are known without being stated:
            ``"token"``, for embeddings looked up in a table, and ``"head"``, for the axis that
            queries and keys share.
        traced: the positions of the arguments that are traced, see ``list_sites``; all by default.
        weighting: what the edges weigh, see ``semiring_grad``. Where a path carries something at
            the start, such as the difference between two runs, what it contributes is compared in
            place of its weight.

    Returns:
        A function with the arguments of ``fun`` that returns ``Paths``, a list of different
        ``Path``, best first. Weights that agree to ten digits count as equal. Equally good paths
        are ordered by index: first by the element they start from, then, where they part, by the
        earlier array and by the index in it. If no path leads from the source to the output, the
        list is empty, and says so when printed. With ``distinct``, each path has its ``story`` and,
        as ``together``, the statistic of all paths that tell it; equally good stories are in no
        particular order.

    Raises:
        ValueError: if ``k`` is less than 1, ``by`` is something else, nothing has the name of the
            source or of the scope, no axis is known by a name in ``distinct``, or the source is the
            name of several arrays, one of which is computed from another, as in a module that is
            used twice.
        IndexError: if the source's index is out of range.
        TypeError: as ``semiring_grad``.
        FloatingPointError: if a derivative on a path is infinite or not a number.
        jax.errors.ConcretizationTypeError: under ``jit``, ``vmap`` or ``grad``.

    Source: the Viterbi algorithm in the k-best semiring (Goodman 1999), with back pointers.

    Example:
        The function of the paper's Figure 1, whose paths from x weigh eˣ = 1 and y = 3:

        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x, y: jnp.exp(x) + (x - y) * y
        >>> sj.top_paths(f, k=2)(0.0, 3.0)
        1. Path(weight=3, 3 edges: [0] → sub → mul → add)
        2. Path(weight=1, 2 edges: [0] → exp → add)

        Twelve paths tell two stories; ``together`` is the mass of all paths that tell a story:

        >>> g = lambda x: (x + jnp.tanh(x @ jnp.ones((3, 3)))).sum()
        >>> made_by = lambda node: node.primitive or None
        >>> for path in sj.top_paths(g, k=2, distinct=made_by)(jnp.ones(3)):
        ...     print(" → ".join(path.story), round(path.together, 3))
        add → reduce_sum 3.0
        dot_general → tanh → add → reduce_sum 0.089
    """
    checks.check_callable(fun)
    check_weighting(weighting)
    k = checks.check_positive("k", k)
    if not isinstance(by, str) or by not in ORDERS:
        raise ValueError(f"by must be one of {', '.join(map(repr, ORDERS))}, got {by!r}.")
    order = ORDERS[by]
    if distinct is not None:
        check_level(distinct)
    elif semiring is not None:
        raise TypeError("semiring needs distinct, which says at which level paths must differ.")
    of_all = as_semiring(AbsSumProduct() if semiring is None else semiring)

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))
    def paths(*args: Any, **kwargs: Any) -> Paths:
        where = argnums, source, through, traced
        how = {"axes": axes, "caller": "top_paths", "weighting": weighting}
        call = Call(fun, args, kwargs, *where, **how)
        search = Search(call, order)
        if search.scores is None or not search.sources:
            return Paths([], search.explanation)
        if distinct is None:
            found = k_best(search.scores, k, search.sources)
            return Paths(Labels(call).paths(found), search.explanation)
        level = distinct if isinstance(distinct, tuple) else (distinct,)
        level = None if any(map(callable, level)) else level
        found = told_stories(search, k, Told(call, distinct), level, of_all)
        return Paths([_with_statistic(p, of_all, e) for p, e in found], search.explanation)

    return paths


def trace_gradient(
    fun: Callable[..., Any],
    *,
    argnums: int | Sequence[int] = 0,
    source: Any,
    traced: Argnums = None,
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Path]:
    """Trace gradients as DuSell does: from one element, always on to where the gradient is largest.

    Backpropagate as usual; then start at the element and step from each node v to the successor u
    with the largest ``|∂L/∂u · ∂u/∂v|``, until the output L. The trace is greedy: ∂L/∂u sums over
    all paths from u, so the trace follows the crowd and misses the strongest path where that goes
    alone; ``top_paths`` finds it.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        argnums: the positional argument(s) that a mask is like.
        source: the element where the trace starts, as for ``top_paths``. A mask or an array must
            have exactly one element with a path to the output.
        traced: as for ``top_paths``.
        weighting: as for ``top_paths``.

    Returns:
        A function with the arguments of ``fun`` that returns a ``Path``. Of equally large
        contributions the first is followed: the earlier array, then the lower index.

    Raises:
        ValueError: if there is not one source, or no path from it to the output.
        IndexError, TypeError, FloatingPointError, jax.errors.ConcretizationTypeError: as
            ``top_paths``.

    Example:
        Five paths of weight 1 through the tanh, one of weight 3 around it:

        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sum(jnp.ones(5) * jnp.tanh(x)) + 3 * x
        >>> sj.trace_gradient(f, source=(0, ()))(0.0).weight
        1.0
        >>> sj.top_paths(f)(0.0)[0].weight
        3.0
    """
    checks.check_callable(fun)
    check_weighting(weighting)

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))
    def path(*args: Any, **kwargs: Any) -> Path:
        where = argnums, source, None, traced
        call = Call(fun, args, kwargs, *where, caller="trace_gradient", weighting=weighting)
        search = Search(call, GRADIENT)
        if search.scores is None or not search.sources:
            raise ValueError(f"There is nothing to trace: {search.explanation}.")
        sources = {a: a.positions if i is None else i for a, i in search.sources.items()}
        starts = sum(map(len, sources.values()))
        if starts != 1:
            raise ValueError(
                f"trace_gradient starts from one element, and the source {call.text} has {starts} "
                "with a path to the output."
            )
        found = descend(search.scores, largest, sources)
        return Labels(call).paths(found)[0]

    return path


def sample_paths(
    fun: Callable[..., Any],
    n: int,
    key: jax.Array | None = None,
    *,
    argnums: int | Sequence[int] = 0,
    source: Any = None,
    through: str | None = None,
    traced: Argnums = None,
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Paths]:
    """Draw independent samples of the paths of ``fun``, each with probability ``|weight| / Z``.

    Z is the sum of ``|weight|`` over all paths considered, as ``AbsSumProduct`` computes it; with a
    weighting, the sum of ``|contribution|``. The samples are exact: a backward sweep computes how
    much mass lies ahead of every node, and a walk forward chooses each edge with the probability
    that a path from its node takes it.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        n: how many samples.
        key: a JAX random key, such as ``jax.random.key(0)``, for the same samples at every call;
            without one, the function that is returned takes a key before the arguments.
        argnums: as for ``top_paths``.
        source: as for ``top_paths``.
        through: as for ``top_paths``.
        traced: as for ``top_paths``.
        weighting: as for ``top_paths``.

    Returns:
        A function of the key, unless it is given here, and of the arguments of ``fun``. It returns
        a list of n ``Path`` in random order, possibly with repetitions; the list is empty if no
        path has a weight other than 0. Equal keys and arguments give equal paths.

    Raises:
        ValueError: if ``n`` is less than 1; and as ``top_paths``.
        IndexError, TypeError, FloatingPointError, jax.errors.ConcretizationTypeError: as
            ``top_paths``.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sum(x * jnp.array([1.0, 3.0]))
        >>> paths = sj.sample_paths(f, 1000)(jax.random.key(0), jnp.ones(2))
        >>> 700 < sum(path.weight == 3 for path in paths) < 800
        True
    """
    checks.check_callable(fun)
    check_weighting(weighting)
    n = checks.check_positive("n", n)

    def paths(*args: Any, **kwargs: Any) -> Paths:
        own_key, *arguments = args if key is None else (key, *args)
        where = argnums, source, through, traced
        given = fun, tuple(arguments), kwargs
        call = Call(*given, *where, caller="sample_paths", weighting=weighting)
        rng = np.random.default_rng(_seed(own_key))
        search = Search(call, MASS)
        sources = _drawn(search, n, rng)
        if search.scores is None or not sources:
            return Paths([], search.explanation)
        drawn = Labels(call).paths(descend(search.scores, by_chance(rng), sources))
        return Paths([drawn[i] for i in rng.permutation(n)], search.explanation)

    return paths


def told_stories(
    search: Search,
    k: int,
    told: Labelling,
    level: tuple[str | int, ...] | None,
    of_all: Semiring,
) -> list[tuple[Path, Elements]]:
    """Find the best path of each of the k best stories, and the elements of all paths that tell it.

    Args:
        search: which paths are meant.
        k: how many; there may be fewer.
        told: what is told of every node.
        level: what that is, see ``Path``.
        of_all: the semiring of these elements.
    """
    assert search.scores is not None
    call, scores = search.call, search.scores
    how = told, search.sources, call.passes
    suffixes = Suffixes(scores.run, scores.end, scores.order, of_all, *how)
    stories, labels, paths = best_stories(suffixes, k), Labels(call), []
    tellers = (path for own in best_storytellers(suffixes, stories) for path in labels.paths(own))
    for story, path in zip(stories, tellers, strict=True):
        said = tuple(told.labels[number] for number in story)
        whole = suffixes.whole(story)
        assert whole is not None  # this path tells it
        paths.append((dataclasses.replace(path, story=said, level=level), whole[1]))
    return paths


def _with_statistic(path: Path, semiring: Semiring, elements: Elements) -> Path:
    together = jax.tree.map(_plain, read_out(semiring, elements))
    return dataclasses.replace(path, together=together, semiring=str(semiring))


def _plain(statistic: Any) -> Any:
    """Return a number, or an array where there are several."""
    found = np.asarray(statistic)
    return found if found.ndim else found.item()


ORDERS = {
    "abs": STRONGEST,
    "max": LARGEST,
    "min": SMALLEST,
}


class Search:
    """The paths that a search is for.

    Attributes:
        call: the call whose paths they are.
        scores: of every node; None where no path reaches the output.
        sources: the positions in each array that they start from; None for all.
        explanation: what was looked for.
    """

    def __init__(self, call: Call, order: Order) -> None:
        via = "" if call.through is None else f" through {call.through!r}"
        weight = " and weighs more than 0" if order is MASS else ""
        self.call = call
        self.explanation: str = f"no path leads from {call.text}{via} to the output{weight}"
        self.sources: dict[Array, np.ndarray | None] = {}
        self.scores: Scores | None = None
        if call.end is None:
            return
        self.scores = Scores(call.run, call.end, order, call.passes)
        for array, index in call.sources.items():
            positions = array.positions if index is None else index
            state = self.scores.starting(array, positions)
            score = self.scores.at(array, positions, state=state)
            kept = score != -np.inf
            if order is MASS:
                kept &= array.carried_at(index) != 0
            if not kept.any():
                continue
            if not kept.all():
                index = np.flatnonzero(kept) if index is None else index[kept]
                score = score[kept]
            if not np.isfinite(score).all():
                raise FloatingPointError(where_infinite(self.scores))
            self.sources[array] = index


def _drawn(search: Search, n: int, rng: np.random.Generator) -> dict[Array, np.ndarray]:
    """Draw sources, each with a probability in proportion to the mass ahead of it."""
    if search.scores is None or not search.sources:
        return {}
    logs = []
    for array, index in search.sources.items():
        positions = array.positions if index is None else index
        state = search.scores.starting(array, positions)
        ahead = search.scores.at(array, positions, state=state)
        logs.append(ahead + np.log(np.abs(array.carried_at(positions))))
    largest = max(log.max() for log in logs)
    masses = [np.exp(log - largest) for log in logs]
    sums = np.array([mass.sum() for mass in masses])
    counts = rng.multinomial(n, sums / sums.sum())
    found = {}
    for (array, index), mass, count in zip(search.sources.items(), masses, counts, strict=True):
        if count:
            drawn = rng.choice(len(mass), count, p=mass / mass.sum())
            found[array] = drawn if index is None else index[drawn]
    return found


def where_infinite(scores: Scores) -> str:
    """Say what made something infinite or not a number: the last equation on the way."""
    where = ""
    for array in reversed(scores.run.arrays):
        score = scores.at(array, None)
        if not np.isfinite(score[score != -np.inf]).all():
            for step, _ in scores.run.readers[array.number]:
                if step.equation is not None and not where:
                    where = f": that of '{step.equation.name}' {step.equation.where()}"
            break
    return (
        "A local derivative is infinite or not a number, or their products are too large for "
        f"float64{where}. Where the function itself avoids such a point, guard the argument too, "
        "as in jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0); start elsewhere; or close "
        "arrays to paths with semijax.freeze."
    )


def _seed(key: Any) -> np.ndarray:
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise TypeError(f"key must be a JAX random key, such as jax.random.key(0); got {key!r}.")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    numbers = np.asarray(key)
    if numbers.ndim != 1:
        raise TypeError(f"key must be one JAX random key, got an array of shape {key.shape}.")
    return numbers

"""A test whether an analysis depends on what the model has learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, tables
from semijax.flow.results import shown
from semijax.trace import scope_names


@dataclasses.dataclass(frozen=True, repr=False)
class RandomizationTest(tables.Printed):
    """The change of an analysis when parameters are shuffled.

    Attributes:
        shuffled: the groups of parameters, in the order of shuffling; each with all before it.
        correlation: Spearman's rank correlation with the analysis of the true model, from -1 to 1;
            NaN where one of the two has only equal numbers.
        absolute: the same, of absolute values.
        size: how many numbers were compared.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> loss = lambda p, x: jnp.tanh(x @ p["w"]).sum()
        >>> params = {"w": jax.random.normal(jax.random.key(0), (20, 5))}
        >>> edges_only = lambda p, x: jnp.abs(jnp.diff(x, append=0.0))  # looks at no parameter
        >>> test = sj.randomization_test(edges_only, params, "w")(jnp.sin(jnp.arange(20.0)))
        >>> test.shuffled, round(test.correlation[0], 3)
        (('w',), 1.0)
    """

    shuffled: tuple[str, ...]
    correlation: tuple[float, ...]
    absolute: tuple[float, ...]
    size: int

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame``: ``shuffled``, ``correlation``, ``absolute``."""
        import pandas

        names = ("shuffled", "correlation", "absolute")
        return pandas.DataFrame({name: getattr(self, name) for name in names})

    def _table(self) -> tables.Table:
        columns = zip(self.shuffled, self.correlation, self.absolute, strict=True)
        cells = [(name, shown(rho), shown(absolute)) for name, rho, absolute in columns]
        header = ("shuffled, with all above", "rank correlation", "of absolute values")
        legend = f"Spearman, over {self.size} numbers; near 1: the weights do not matter to it"
        return tables.Table(header, cells, right=(1, 2), legend=legend)


def randomization_test(
    analysis: Callable[..., Any],
    params: Any,
    groups: str | Sequence[str] = "*",
    *,
    seed: int = 0,
) -> Callable[..., RandomizationTest]:
    """Test by model parameter randomization whether an analysis depends on what was learned.

    The entries of each parameter array are shuffled, one group after another, and after each group
    the analysis is compared with that of the true model. An analysis that hardly changes reflects
    the architecture, not what was learned.

    Args:
        analysis: a function of parameters and further arguments that returns numbers: arrays,
            ``SiteValues``, ``BranchFlow`` or ``ComponentFlow``, or a pytree of these.
        params: the parameters, a pytree; only its floating point arrays are shuffled.
        groups: globs over the names of parameters, which are their keys joined by ``/``, as in
            ``"params/layer_1/kernel"``; a glob may match just the first keys of a name:
            ``"params/layer_1"``. They are shuffled in this order: give them from the output to the
            input. All at once by default.
        seed: of the shuffling.

    Returns:
        A function of the further arguments that returns a ``RandomizationTest``.

    Raises:
        TypeError: if the analysis is not callable, a group no string, or a result not real.
        ValueError: if a group has no parameters, there are fewer than two numbers to compare, or
            their number depends on the parameters.

    Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim 2018, §3.1.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> loss = lambda p, x: jnp.tanh(x @ p["w"]).sum()
        >>> saliency = lambda p, x: jax.grad(loss, 1)(p, x)
        >>> params = {"w": jax.random.normal(jax.random.key(0), (20, 5))}
        >>> test = sj.randomization_test(saliency, params, "w")(jnp.ones(20))
        >>> -1 <= test.correlation[0] < 0.9
        True
    """
    checks.check_callable(analysis)
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    keys = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)
    names = [key or "(all)" for key in keys]
    given = [groups] if isinstance(groups, str) else list(groups)
    for group in given:
        if isinstance(group, str) and "['" in group:
            raise ValueError(f"Keys of parameters are joined by /, as in 'a/b', got {group!r}.")
    matchers = [scope_names.check_pattern(group, names, "parameter") for group in given]

    def tested(*args: Any, **kwargs: Any) -> RandomizationTest:
        rng = np.random.default_rng(seed)
        shuffled = [leaf for _, leaf in leaves]
        true = _numbers(analysis(params, *args, **kwargs))
        if true.size < 2:
            raise ValueError("A rank correlation needs at least two numbers to compare.")
        signed, absolute = [], []
        for matches in matchers:
            for n, name in enumerate(names):
                if matches(name):
                    shuffled[n] = _shuffled(rng, shuffled[n])
            other = _numbers(analysis(tree.unflatten(shuffled), *args, **kwargs))
            if other.size != true.size:
                raise ValueError(
                    f"The analysis returned {true.size} numbers for the true parameters and "
                    f"{other.size} for shuffled ones."
                )
            signed.append(_spearman(true, other))
            absolute.append(_spearman(np.abs(true), np.abs(other)))
        return RandomizationTest(tuple(given), tuple(signed), tuple(absolute), true.size)

    return tested


def _shuffled(rng: np.random.Generator, leaf: Any) -> Any:
    is_array = isinstance(leaf, (jax.Array, np.ndarray))
    if not is_array or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return leaf
    array = np.asarray(leaf)
    return jnp.asarray(rng.permutation(array.ravel()).reshape(array.shape))


def _numbers(result: Any) -> np.ndarray:
    """Return all numbers of a result, in one row."""
    parts = []
    for node in jax.tree.leaves(result, is_leaf=lambda node: isinstance(node, Mapping)):
        if isinstance(node, Mapping):
            parts += [_numbers(node[key]) for key in node]
        else:
            array = np.asarray(node)
            if np.iscomplexobj(array):
                raise TypeError("An analysis must return real numbers, got complex ones.")
            parts.append(array.astype(np.float64).ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    import scipy.stats  # JAX has it; it takes long to import

    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    return float(np.asarray(scipy.stats.spearmanr(a, b))[0])

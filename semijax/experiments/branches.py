"""The branch that the strongest path takes where a layer begins, by layer and kind of token."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

import semijax as sj
from semijax.experiments.claims import estimate

LAYERS = "*/layer/*:input"
"""The arrays that branch, in a BERT: the inputs of its layers."""

BRANCHES = {"key": "*/key", "query": "*/query", "value": "*/value", "skip": sj.REST}
"""The branches, by globs over what reads these arrays."""

GRANULARITIES = ("element", "op")
"""The granularities of Eq. 5 of the paper, and of its code."""

ALL = "all tokens"
"""The kind of all tokens together."""

Quantity = Callable[[Any, Any], jax.Array]
"""A function of a model and an example, to be differentiated: a real scalar."""


def branch_study(
    model: nnx.Module,
    quantity: Quantity,
    batches: Iterable[Any],
    kinds: Callable[[Any], Any],
    *,
    granularities: Sequence[str] = GRANULARITIES,
    layers: str = LAYERS,
    branches: Mapping[str, str] = BRANCHES,
    **options: Any,
) -> sj.Study:
    """Compute mean branch values, by layer and kind of token.

    Where a layer begins, the strongest path from each hidden unit to the quantity goes on by one of
    the branches. The hidden unit of a token with the largest max-gradient gives its value to its
    branch, the other branches get 0 (Du et al. 2023, §5.1); these values are averaged over tokens.

    Args:
        model: a Flax NNX model. Models that differ in their parameters only are compiled once.
        quantity: a function of the model and one example that returns a real scalar.
        batches: pytrees of arrays ``[batch, ...]``: examples of the same length, which standard
            errors take for independent. Where batches are padded (``pad``, with ``axis=1``), an
            example must hold its own mask: a boolean leaf is padded with False.
        kinds: a function of a batch that returns what each token is, str ``[batch, length]``;
            ``""`` is none.
        granularities: of ``semiring_grad``: ``"element"``, ``"op"`` or both.
        layers: a glob of the arrays that branch.
        branches: globs of what reads them, as for ``branch_flow``.
        **options: of ``run_study``, such as ``checkpoint`` and ``progress``.

    Returns:
        A study of statistics ``"granularity/layer/branch"``, grouped by kind; all tokens together
        are a group, too.
    """
    structure, state = nnx.split(model)
    asked = tuple(granularities), layers, tuple(branches.items())

    def branch_values(batch: Any, mask: Any = None) -> dict[str, list[dict[str, jax.Array]]]:
        return _branch_values(structure, quantity, asked, state, batch)  # examples have masks

    def kinds_of(batch: Any) -> np.ndarray:
        return np.asarray(kinds(batch), object)

    # Every token is counted twice: as one of its kind and as one of all.
    def kind_of_value(batch: Any) -> np.ndarray:
        found = kinds_of(batch)
        own = found[found != ""]
        return np.concatenate([own, np.full(own.shape, ALL, object)])

    def example_of_value(batch: Any) -> np.ndarray:
        own, _ = np.nonzero(kinds_of(batch) != "")
        return np.concatenate([own, own])

    def per_token(granularity: str) -> Callable[[Any, Any], dict[str, np.ndarray]]:
        def values(output: Any, batch: Any) -> dict[str, np.ndarray]:
            is_token = kinds_of(batch) != ""
            return {
                f"{layer}/{branch}": np.tile(found[branch][is_token], 2)
                for layer, found in enumerate(output[granularity])
                for branch in sorted(found, key=[*branches, *found].index)
            }

        return values

    reducers = {granularity: per_token(granularity) for granularity in granularities}
    with sj.scopes(model):
        return sj.run_study(
            branch_values,
            batches,
            reducers=reducers,
            group_by=kind_of_value,
            cluster_by=example_of_value,
            jit=False,
            **options,
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _branch_values(
    structure: Any, quantity: Quantity, asked: Any, state: Any, batch: Any
) -> dict[str, list[dict[str, jax.Array]]]:
    """Compute values by granularity and layer: a list, since JAX sorts the keys of dicts."""
    granularities, layers, branches = asked
    model = nnx.merge(structure, state)

    def of_one(example: Any) -> Any:
        return {
            granularity: [*flow(granularity)(example).only_winners().values()]
            for granularity in granularities
        }

    def flow(granularity: str) -> Callable[[Any], sj.BranchFlow]:
        return sj.branch_flow(
            functools.partial(quantity, model),
            sj.MaxProduct(),
            layers,
            dict(branches),
            granularity=granularity,
        )

    return jax.vmap(of_one)(batch)


def branch_table(study: sj.Study) -> Any:
    """Make a ``pandas.DataFrame`` of what ``branch_study`` found.

    Its columns: ``granularity``, ``layer``, ``kind`` (of token; ``"all tokens"`` too), ``branch``,
    ``count`` (of tokens), ``examples`` (how many they come from), ``mean``, ``stderr`` (clustered
    by example), ``dropped`` (how many values were NaN), and ``share``, the mean over the sum of the
    branches' means.
    """
    import pandas

    numbers = ["count", "examples", "mean", "stderr", "dropped"]
    rows = []
    for statistic, groups in study.statistics.items():
        granularity, layer, branch = statistic.split("/")
        for kind in sorted(groups, key=lambda kind: kind == ALL):  # the kinds first
            own = [getattr(groups[kind], number) for number in numbers]
            rows.append((granularity, int(layer), kind, branch, *own))
    columns = ["granularity", "layer", "kind", "branch", *numbers]
    table = pandas.DataFrame(rows, columns=columns)
    totals = table.groupby(columns[:3])["mean"].transform("sum").to_numpy()
    shares = np.divide(table["mean"], totals, out=np.full(len(table), np.nan), where=totals > 0)
    return table.assign(share=shares)


def over_seeds(values: Any) -> Any:
    """Average branch values over models of several seeds.

    Args:
        values: rows of ``branch_table`` for several seeds, told apart by a column ``seed``.

    Returns:
        A ``pandas.DataFrame`` that ``branch_bars`` and ``branch_curves`` draw with intervals over
        seeds: ``granularity``, ``layer``, ``kind``, ``branch``, ``mean``, ``half_width`` (of the
        95% confidence interval, by Student's t) and ``seeds`` (how many).
    """
    import pandas

    columns = ["granularity", "layer", "kind", "branch"]
    rows = []
    for names, own in values.groupby(columns, sort=False):
        found = estimate(own["mean"].to_numpy())
        rows.append((*names, found.mean, found.half_width, found.n))
    return pandas.DataFrame(rows, columns=[*columns, "mean", "half_width", "seeds"])


def branch_bars(values: Any, kinds: Sequence[str], **options: Any) -> sj.pictures.Picture:
    """Draw the branch values of one layer, as in Fig. 2 of the paper: bars by kind of token.

    Args:
        values: rows of a ``branch_table``, or of ``over_seeds``, of one granularity and one layer.
        kinds: of token, in this order.
        **options: of ``pictures.grouped_bars``, such as ``title``.
    """
    means, errors = _by_branch(values, "kind", kinds)
    options = {"errors": errors, "group_label": "kind of token", **_labels(values), **options}
    return sj.pictures.grouped_bars(means, groups=kinds, **options)


def branch_curves(values: Any, **options: Any) -> sj.pictures.Picture:
    """Draw the branch values of one kind of token over the layers, as in Fig. 4 of the paper.

    Args:
        values: rows of a ``branch_table``, or of ``over_seeds``, of one granularity and one kind of
            token.
        **options: of ``pictures.curves``, such as ``title``.
    """
    layers = sorted(set(values["layer"]))
    means, errors = _by_branch(values, "layer", layers)
    options = {"errors": errors, "x_label": "layer", **_labels(values), **options}
    return sj.pictures.curves(layers, means, **options)


def _by_branch(values: Any, column: str, order: Sequence[Any]) -> Any:
    """Return the means of each branch, and half the widths of their 95% confidence intervals."""
    branches = list(dict.fromkeys(values["branch"]))
    if "half_width" not in values:
        values = values.assign(half_width=1.96 * values["stderr"])
    means, errors = (
        values.pivot(index="branch", columns=column, values=statistic)[list(order)].loc[branches]
        for statistic in ("mean", "half_width")
    )
    return (
        {branch: means.loc[branch].to_numpy() for branch in branches},
        {branch: errors.loc[branch].to_numpy() for branch in branches},
    )


def _labels(values: Any) -> dict[str, str]:
    (granularity,) = set(values["granularity"])
    over = f"over {max(values['seeds'])} seeds" if "seeds" in values else "clustered by example"
    return {
        "unit": "mean branch value [output per unit of the layer's input]",
        "normalisation": f"granularity {granularity!r}; 95% confidence, {over}",
    }

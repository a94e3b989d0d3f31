"""What the table says over seeds: means with intervals, and who leads."""

from __future__ import annotations

from typing import Any

import numpy as np

from semijax.experiments.circuits.benchmark import EXACT, MEASURES, OURS, RANDOM
from semijax.experiments.circuits.measures import interval
from semijax.experiments.claims import p_of_mean


def means(table: Any) -> Any:
    """Compute means over seeds and half the widths of their 95% intervals.

    Args:
        table: as `benchmark.read` returns it.

    Returns:
        A ``pandas.DataFrame``: a row for each model and method; for each measure the columns
        ``mean`` and ``half``, see `measures.interval`.
    """
    import pandas

    rows = {
        key: {
            (measure, part): number
            for measure in MEASURES
            for part, number in zip(
                ("mean", "half"), interval(own[measure].to_numpy()), strict=True
            )
        }
        for key, own in table.groupby(["model", "method"], sort=False)
    }
    found = pandas.DataFrame.from_dict(rows, orient="index")
    found.index = pandas.MultiIndex.from_tuples(rows, names=["model", "method"])
    return found


def shown(table: Any, model: str) -> Any:
    """Return one model's means and intervals as text: a row for each method, the best first."""
    found = means(table).loc[model]
    order = found[("edge_auroc", "mean")].sort_values(ascending=False, kind="stable").index
    text = {
        measure: [_cell(*found.loc[method, measure]) for method in order] for measure in MEASURES
    }
    import pandas

    return pandas.DataFrame(text, index=order)


def contest(table: Any) -> Any:
    """Compare the best method of semijax with the best of the others, by model and measure.

    Both are those with the best mean, so that both look a little better than they are. Those that
    measure the effects, and chance, do not take part.

    Returns:
        A ``pandas.DataFrame``: for each model and measure the two methods, the numbers of methods
        that they are the best of, their means, the mean difference on the same seeds, in favour of
        semijax, half the width of its 95% interval, its ``p`` by a paired t-test, and the
        ``verdict``: ``"ours"``, ``"others"``, or ``"tie"`` if they cannot be told apart at 5% after
        Benjamini and Yekutieli's correction for all rows. Seeds for which a measure is not defined
        are left out.
    """
    import pandas
    from scipy import stats

    rows = []
    for model, own in table.groupby("model", sort=False):
        for measure, sign in MEASURES.items():
            by_seed = own.pivot(index="seed", columns="method", values=measure)
            by_seed = by_seed.drop(columns=[*EXACT, RANDOM], errors="ignore").dropna(
                axis=1, how="all"
            )
            averages = sign * by_seed.mean()
            is_ours = np.array([OURS in method for method in by_seed.columns])
            best, other = (averages[chosen].idxmax() for chosen in (is_ours, ~is_ours))
            leads = (sign * (by_seed[best] - by_seed[other])).dropna().to_numpy()
            lead, half = interval(leads)
            rows.append(
                {
                    "model": model,
                    "measure": measure,
                    "ours": best,
                    "other": other,
                    "candidates of ours": is_ours.sum(),
                    "candidates of others": (~is_ours).sum(),
                    "mean of ours": by_seed[best].mean(),
                    "mean of other": by_seed[other].mean(),
                    "lead": lead,
                    "half": half,
                    "p": p_of_mean(leads),
                }
            )
    found = pandas.DataFrame(rows)
    settled = stats.false_discovery_control(found["p"], method="by") < 0.05
    leader = np.where(found["lead"] > 0, "ours", "others")
    return found.assign(verdict=np.where(settled, leader, "tie"))


def _cell(mean: float, half: float) -> str:
    if np.isnan(mean):
        return ""
    return f"{mean:.2f}" if np.isnan(half) else f"{mean:.2f} ± {half:.2f}"

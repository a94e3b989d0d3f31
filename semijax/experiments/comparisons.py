"""Rankings compared with their rivals over training seeds, and the verdicts corrected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semijax.experiments.claims import OPEN, estimate

RIVALS = ("|grad|", "gradient × activation", "random")
"""The rankings that each is compared with."""

LEVEL = 0.05
"""The rate of false discoveries among all comparisons that are decided."""

BETTER, WORSE = "better", "worse"


def gains(areas: Any, data: str, rival: str) -> Any:
    """Compute by how much each ranking is more faithful than a rival, model by model.

    Args:
        areas: a row per ``data``, ``seed``, ``curve``, ``replacement`` and ``ranking``, with its
            ``area``.
        data: one of its ``data``.
        rival: a ranking.

    Returns:
        A ``pandas.DataFrame`` in units of the quantity: the area gained, positive where the ranking
        is better; a row for each seed, columns ``(curve, replacement, ranking)``.
    """
    names = ["curve", "replacement", "ranking"]
    own = areas[areas["data"] == data]
    better = own["area"].where(own["curve"] == "insertion", -own["area"])
    wide = own.assign(better=better).pivot(index="seed", columns=names, values="better")
    wide = wide[[*own.groupby(names, sort=False).groups]]  # in the order of the table
    return wide - wide[[(*name[:2], rival) for name in wide.columns]].to_numpy()


def comparisons(areas: Any) -> Any:
    """Compare each ranking with each rival, paired over seeds, corrected over all comparisons.

    One trained model is one draw: a comparison is a t-test of the mean gain over seeds. False
    discoveries are controlled over data × curves × replacements × rankings × rivals, by Benjamini
    and Yekutieli's procedure, which allows for any dependence: all are tested on the same models.

    Args:
        areas: as for `gains`.

    Returns:
        A ``pandas.DataFrame`` with a row per comparison: ``data``, ``rival``, ``curve``,
        ``replacement``, ``ranking``, the ``mean`` gain, the ``half_width`` of its 95% interval by
        Student's t (not corrected), the number of ``seeds``, ``p``, the corrected ``q``, and the
        ``verdict``: ``"better"``, ``"worse"``, or ``"inconclusive"`` where q ≥ 0.05.
    """
    import pandas
    from scipy import stats

    rows = []
    for data in dict.fromkeys(areas["data"]):
        for rival in RIVALS:
            for (curve, replacement, ranking), own in gains(areas, data, rival).items():
                if ranking not in (rival, "random"):
                    values = own.to_numpy()
                    found = estimate(values)
                    test: Any = stats.ttest_1samp(values, 0) if np.ptp(values) else None
                    p = 1.0 if test is None else float(test.pvalue)
                    numbers = found.mean, found.half_width, found.n, p
                    rows.append((data, rival, curve, replacement, ranking, *numbers))
    columns = ["data", "rival", "curve", "replacement", "ranking", "mean", "half_width", "seeds"]
    table = pandas.DataFrame(rows, columns=[*columns, "p"])
    q = stats.false_discovery_control(table["p"], method="by")
    decided = np.where(table["mean"] > 0, BETTER, WORSE)
    return table.assign(q=q, verdict=np.where(q < LEVEL, decided, OPEN))


def verdicts(compared: Any, data: str, rival: str) -> Any:
    """Table the verdicts over one rival: a row per ranking, a column per curve and replacement."""
    own = compared[(compared["data"] == data) & (compared["rival"] == rival)]
    table = own.pivot(index="ranking", columns=["curve", "replacement"], values="verdict")
    return table.loc[[*dict.fromkeys(own["ranking"])]]


def unanimous(
    compared: Any, verdict: str, *, among: Sequence[str], over: Sequence[str]
) -> dict[tuple[str, str], list[str]]:
    """Name the rankings with one verdict over all of some rivals, whatever the replacement.

    Args:
        compared: the table of `comparisons`.
        verdict: such as ``"better"``.
        among: the rankings.
        over: the rivals; a ranking is not compared with itself.

    Returns:
        The rankings by data and curve.
    """
    chosen = compared[compared["ranking"].isin(among) & compared["rival"].isin(over)]
    names = ["data", "curve", "ranking"]
    same = chosen.assign(same=chosen["verdict"] == verdict)
    same = same.groupby(names, sort=False)["same"].all()
    return {
        of: [ranking for (*_, ranking), found in own.items() if found]
        for of, own in same.groupby(names[:2], sort=False)
    }

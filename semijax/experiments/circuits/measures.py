"""How well scores agree with the truth, and how faithful the circuits are that they choose."""

from __future__ import annotations

import numpy as np
from scipy import stats

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The sizes of circuits, as fractions of all edges: those of Mueller et al. 2025."""


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Compute the probability that a true component scores higher than a false one.

    A tie counts half.

    Args:
        scores: float ``[n]``.
        truth: bool ``[n]``.

    Returns:
        The area under the receiver operating characteristic; NaN if all or none are true, or a
        score is not a number.
    """
    true, false = scores[truth], scores[~truth]
    if not len(true) or not len(false) or np.isnan(scores).any():
        return np.nan
    wins = stats.mannwhitneyu(true, false, method="asymptotic").statistic
    return float(wins / (len(true) * len(false)))


def pearson(scores: np.ndarray, effects: np.ndarray) -> float:
    """Compute the correlation, float; NaN where one is constant or not a number."""
    if np.isnan(scores).any() or np.ptp(scores) == 0 or np.ptp(effects) == 0:
        return np.nan
    return float(np.corrcoef(scores, effects)[0, 1])


def spearman(scores: np.ndarray, effects: np.ndarray) -> float:
    """Compute the correlation of ranks, ties at their mean rank; NaN as for `pearson`."""
    if np.isnan(scores).any():
        return np.nan
    return pearson(stats.rankdata(scores), stats.rankdata(effects))


def largest(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the components with the largest scores, for each of ``FRACTIONS``.

    Of n components ⌊fraction · n⌋ are chosen; ties are broken at random.

    Returns:
        bool ``[fractions, n]``.
    """
    order = np.lexsort((rng.random(len(scores)), -scores))
    ranks = np.argsort(order)
    sizes = np.array([int(fraction * len(scores)) for fraction in FRACTIONS])
    return ranks < sizes[:, None]


def area_under(faithfulness: np.ndarray) -> float:
    """Compute the integrated circuit performance ratio (CPR): higher is better.

    It is the area under the faithfulness f over the sizes of circuits in ``FRACTIONS``, by the
    trapezoidal rule, with f = (m(circuit) − m(∅)) / (m(model) − m(∅)) and m the mean difference of
    logits. Circuits are those of the largest scores, signs included. A circuit as faithful as the
    model at all sizes has 0.999, as sizes start at 0.001; circuits that leave out what works
    against the answer may have more.

    Source: Mueller et al. 2025 (arXiv 2504.13151), §3.1, and their code.
    """
    return float(np.trapezoid(faithfulness, FRACTIONS))


def distance_from_1(faithfulness: np.ndarray) -> float:
    """Compute the integrated circuit-model distance (CMD): 0 is best.

    It is the area between the faithfulness and 1, see `area_under`, by the trapezoidal rule on
    |1 − f|. Circuits are those of the largest absolute scores.

    Source: Mueller et al. 2025 (arXiv 2504.13151), §3.1.
    """
    return float(np.trapezoid(np.abs(1 - faithfulness), FRACTIONS))


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the mean over seeds and half the width of its interval by Student's t.

    Values that are not numbers are left out. Without two, the half width is NaN.
    """
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return float(known.mean()) if len(known) else np.nan, np.nan
    error = known.std(ddof=1) / len(known) ** 0.5
    return float(known.mean()), float(stats.t.ppf((1 + confidence) / 2, len(known) - 1) * error)

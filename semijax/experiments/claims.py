"""What a claim comes to over training seeds: an estimate, its control, and a verdict.

One trained model is one draw. A claim about "the trained model" is put as a number per model that
is positive where the claim holds; its mean over models trained from different seeds, with an
interval, is the evidence, beside the same number of models that have learned nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

CONFIRMED = "confirmed"
ARCHITECTURE = "the control shows it too"
REVERSED = "the opposite"
OPEN = "inconclusive"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95% confidence interval, by Student's t distribution.

    ``f"{estimate:.2f}"`` formats the mean and the half-width of its interval, each with the given
    format: ``0.31 ± 0.05``.

    Attributes:
        mean: over the seeds.
        half_width: of the interval; infinite for fewer than two seeds.
        n: the number of seeds.
    """

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half_width

    def __format__(self, spec: str) -> str:
        error = f"± {self.half_width:{spec}}" if self.n > 1 else "(one seed)"
        return f"{self.mean:{spec}} {error}"


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """Estimate a mean from one value per seed.

    Args:
        values: float ``[seeds]``.

    Raises:
        ValueError: if there is none, or one is not finite.

    Example:
        >>> f"{estimate([1.0, 2.0, 3.0]):.2f}"
        '2.00 ± 2.48'
    """
    from scipy import stats

    found = np.asarray(values, np.float64)
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise ValueError(f"An estimate needs one finite value per seed, got {values!r}.")
    n = len(found)
    if n == 1:
        return Estimate(float(found[0]), math.inf, 1)
    half_width = stats.t.ppf(0.975, n - 1) * found.std(ddof=1) / math.sqrt(n)
    return Estimate(float(found.mean()), float(half_width), n)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper, put as a number per trained model that is positive where it holds.

    Attributes:
        where: it is made, such as ``"Fig. 4"``.
        statement: the claim.
        measure: what the number is, with its unit.
        paper: what the paper reports, in words.
        values: the number for each trained model, float ``[seeds]``.
        control: the same for untrained models, float ``[seeds]``; None where there is nothing to
            compare with.
        shuffled: the same for models with the trained weights in random order; None where there are
            none.
        digits: how many decimals to show.
    """

    where: str
    statement: str
    measure: str
    paper: str
    values: Sequence[float] | np.ndarray
    control: Sequence[float] | np.ndarray | None = None
    shuffled: Sequence[float] | np.ndarray | None = None
    digits: int = dataclasses.field(default=2, kw_only=True)

    @property
    def ours(self) -> Estimate:
        """The estimate over the trained models."""
        return estimate(self.values)

    @property
    def verdict(self) -> str:
        """What can be said at 95% confidence.

        Returns:
            ``"confirmed"`` if the interval is above 0, and above each control's mean by Welch's
            interval of the difference; ``"the control shows it too"`` if it is above 0 and a
            control's interval is, too, and not clearly below; ``"the opposite"`` if the interval is
            below 0; else ``"inconclusive"``.
        """
        ours = self.ours
        if ours.high < 0:
            return REVERSED
        if ours.low <= 0:
            return OPEN
        as_large = [control for control in self._controls if not self._exceeds(control)]
        if not as_large:
            return CONFIRMED
        return ARCHITECTURE if any(estimate(own).low > 0 for own in as_large) else OPEN

    @property
    def _controls(self) -> list[np.ndarray]:
        known = (own for own in (self.control, self.shuffled) if own is not None)
        return [np.asarray(own, np.float64) for own in known]

    def _exceeds(self, control: np.ndarray) -> bool:
        values = np.asarray(self.values, np.float64)
        return values.mean() > control.mean() and p_of_difference(values, control) < 0.05

    @property
    def p(self) -> float:
        """The p-value of the verdict, two-sided: the largest one where it rests on several tests.

        These are Student's, of the mean against 0, and where the mean is positive Welch's, of its
        difference from each control's. 1 for fewer than two models.
        """
        values = np.asarray(self.values, np.float64)
        found = [p_of_mean(values)]
        if values.mean() > 0:
            found += [p_of_difference(values, control) for control in self._controls]
        return max(found)

    def record(self) -> dict[str, str]:
        """Return the claim as a row of a table of texts."""
        spec = f".{self.digits}f"
        held, n = sum(value > 0 for value in self.values), len(self.values)
        return {
            "where": self.where,
            "claim": self.statement,
            "measure": self.measure,
            "paper": self.paper,
            "here": f"{self.ours:{spec}}" + f" ({held} of {n} seeds)" * (n > 1),
            "control": "" if self.control is None else f"{estimate(self.control):{spec}}",
            "shuffled": "" if self.shuffled is None else f"{estimate(self.shuffled):{spec}}",
            "verdict": self.verdict,
        }


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def p_of_mean(values: np.ndarray) -> float:
    """Return the two-sided p of Student's t-test that a mean is 0.

    Args:
        values: float ``[seeds]``.

    Returns:
        The p-value; 1 for fewer than two values; of one number over and over, 1 if it is 0, else 0.
    """
    from scipy import stats

    if len(values) < 2:
        return 1.0
    if _is_constant(values):
        return float(not values.any())
    test: Any = stats.ttest_1samp(values, 0)
    return float(test.pvalue)


def p_of_difference(values: np.ndarray, control: np.ndarray) -> float:
    """Return the two-sided p of Welch's t-test that two means are equal.

    Args:
        values: float ``[seeds]``.
        control: float ``[seeds]``, of others; one number over and over is taken as exact.

    Returns:
        The p-value; 1 for fewer than two values.
    """
    from scipy import stats

    if len(values) < 2 or _is_constant(control):
        return p_of_mean(values - control.mean())
    moments = [(own.mean(), own.std(ddof=1), len(own)) for own in (values, control)]
    test: Any = stats.ttest_ind_from_stats(*moments[0], *moments[1], equal_var=False)
    return float(test.pvalue)


def overturned(claims: Sequence[Claim]) -> list[Claim]:
    """Return the claims whose verdict does not survive a correction for the number of claims.

    They are those that are confirmed or found to be the opposite, and no longer at a false
    discovery rate of 5% (Benjamini and Yekutieli 2001).
    """
    from scipy import stats

    corrected = stats.false_discovery_control([claim.p for claim in claims], method="by")
    return [
        claim
        for claim, q in zip(claims, corrected, strict=True)
        if claim.verdict in (CONFIRMED, REVERSED) and q >= 0.05
    ]


def claims_table(claims: Iterable[Claim]) -> Any:
    """Make a ``pandas.DataFrame`` of claims, a row each: the columns of `Claim.record`."""
    import pandas

    return pandas.DataFrame([claim.record() for claim in claims])


def as_markdown(claims: Iterable[Claim], again: Iterable[Claim] = ()) -> str:
    """Make a Markdown table of claims, without the columns that have no text.

    Args:
        claims: a row each.
        again: the same claims about models that were trained again; if given, a column has their
            estimates and verdicts.
    """
    records = [claim.record() for claim in claims]
    if again := [*again]:
        for record, claim in zip(records, again, strict=True):
            record["trained again"] = f"{claim.record()['here']}: {claim.verdict}"
    if not records:
        return ""
    used = [name for name in records[0] if any(record[name] for record in records)]
    rows = [{name: record[name] for name in used} for record in records]
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([*row.values()] for row in rows)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in own)} |" for own in lines
    )

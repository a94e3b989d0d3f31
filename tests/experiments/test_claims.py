"""Claims over seeds: estimates, verdicts and the tables that quote them."""

import numpy as np
import pytest
import scipy.stats

from semijax.experiments import claims
from semijax.experiments.claims import Claim, estimate


def test_the_interval_is_students():
    values = np.random.default_rng(0).normal(1, 2, 12)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.n == 12 and f"{found:.1f}" == f"{found.mean:.1f} ± {found.half_width:.1f}"


def test_one_seed_says_nothing_of_others():
    assert estimate([3.0]).low == -np.inf
    assert claim([3.0]).verdict == claims.OPEN and f"{estimate([3.0]):.1f}" == "3.0 (one seed)"


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [[1.0]], [np.inf]])
def test_values_that_are_no_numbers_are_refused(values):
    with pytest.raises(ValueError, match="one finite value per seed"):
        estimate(values)


def claim(values, control=None, shuffled=None):
    return Claim("Fig. 1", "It grows.", "growth", "3", values, control, shuffled)


@pytest.mark.parametrize(
    ("values", "control", "verdict"),
    [
        ([1, 1.1, 0.9], None, claims.CONFIRMED),
        ([1, 1.1, 0.9], [0, 0.1, -0.1], claims.CONFIRMED),
        ([1, 1.1, 0.9], [0.2, 0.3, 0.25], claims.CONFIRMED),  # more than the control's
        ([1, 1.1, 0.9], [1, 1.2, 0.9], claims.ARCHITECTURE),
        ([1, 1.1, 0.9], [9, -8, 1], claims.OPEN),  # a control that says nothing
        ([-1, -1.1, -0.9], None, claims.REVERSED),
        ([-1, 1, 2], None, claims.OPEN),
        ([1, 1, 1], [1, 1, 1], claims.ARCHITECTURE),
        ([1, 1, 1], [0, 0, 0], claims.CONFIRMED),
    ],
)
def test_verdicts(values, control, verdict):
    assert claim(values, control).verdict == verdict
    assert claim(values, None, control).verdict == verdict  # either control is enough to doubt it
    if control is not None:
        nothing = [0, 0.1, -0.1]
        assert claim(values, control, nothing).verdict == verdict
        assert claim(values, nothing, control).verdict == verdict


@pytest.mark.parametrize(
    ("values", "control", "p"),
    [
        ([1, 1.1, 0.9], None, scipy.stats.ttest_1samp([1, 1.1, 0.9], 0).pvalue),
        ([1, 1.1, 0.9], [1, 1.2, 0.9], scipy.stats.ttest_ind([1, 1.1, 0.9], [1, 1.2, 0.9]).pvalue),
        ([-1, -1.1, -0.9], [0, 9, 1], scipy.stats.ttest_1samp([1, 1.1, 0.9], 0).pvalue),
        ([1, 1, 1], [0, 0, 0], 0),
        ([1, 1, 1], [1, 1, 1], 1),
        ([3], None, 1),
    ],
)
def test_the_p_value_is_that_of_the_weakest_test(values, control, p):
    assert claim(values, control).p == pytest.approx(p, rel=0.05)
    assert claim(values, [-9, -9, -9], control).p == pytest.approx(p, rel=0.05)


def test_a_verdict_may_not_survive_among_many():
    weak, strong = claim([1.0, 2.0, 1.5, 0.3]), claim([1.0, 1.1, 0.9, 1.0])
    assert weak.verdict == strong.verdict == claims.CONFIRMED
    assert claims.overturned([weak, strong]) == [weak] and not claims.overturned([strong])
    assert claims.overturned([strong] + [claim([-1.0, 1.0, 0.5])] * 20) == []


def test_a_table_of_claims_says_all_of_each():
    table = claims.claims_table([claim([1.0, 2.0, -0.5], [0.0, 0.1, 0.2])])
    (row,) = table.to_dict("records")
    assert row["here"].endswith("(2 of 3 seeds)") and row["control"].startswith("0.10 ± ")
    assert row["shuffled"] == ""
    both = claim([1.0, 2.0, 1.5], [0.0, 0.1, 0.2], [0.3, 0.3, 0.3]).record()
    assert both["shuffled"] == "0.30 ± 0.00"
    text = claims.as_markdown([Claim("§1", "a|b", "m", "p", [1.0, 2.0])])
    assert text.splitlines()[0] == "| where | claim | measure | paper | here | verdict |"
    assert text.splitlines()[1] == "| --- | --- | --- | --- | --- | --- |"
    assert "a&#124;b" in text

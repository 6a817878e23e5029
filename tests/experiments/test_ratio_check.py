"""The check of sample ratios warns and alarms where it should."""

import pytest
from scipy.stats import binomtest, chisquare
from statsmodels.stats.proportion import proportions_ztest

from models.errors import InvalidInput
from training.experiments.ratio_check import check_ratio

EVEN = {"control": 0.5, "treated": 0.5}


def test_two_variants_are_tested_exactly_while_few() -> None:
    """Below a thousand customers the p-value is the binomial one."""
    assert check_ratio({"control": 60, "treated": 90}, EVEN).p_value == pytest.approx(binomtest(90, 150).pvalue)


def test_many_customers_are_tested_by_the_normal_approximation() -> None:
    """From a thousand on it is statsmodels' z-test, but for the correction for continuity."""
    found = check_ratio({"control": 50_000, "treated": 51_000}, EVEN)
    theirs = proportions_ztest(51_000, 101_000, 0.5, prop_var=0.5)[1]
    assert found.p_value == pytest.approx(theirs, rel=0.02)


def test_more_variants_are_tested_together() -> None:
    """Three variants take the chi-squared test of all, with shares that need not sum to 1."""
    found = check_ratio({"a": 1000, "b": 1050, "c": 2100}, {"a": 1, "b": 1, "c": 2})
    assert found.p_value == pytest.approx(chisquare([1000, 1050, 2100], [1037.5, 1037.5, 2075]).pvalue)


def test_a_handful_over_many_variants_is_no_mismatch() -> None:
    """Three customers who all came to a rare variant of three are odd, not a mismatch; a chi-squared test would alarm."""
    counts, shares = {"a": 0, "b": 0, "c": 2}, {"a": 0.49, "b": 0.49, "c": 0.02}
    assert chisquare(list(counts.values()), [2 * share for share in shares.values()]).pvalue < 1e-6
    assert not check_ratio(counts, shares).is_mismatch


@pytest.mark.parametrize(
    ("treated", "is_warning", "is_mismatch"),
    [(50_000, False, False), (50_350, False, False), (50_450, True, False), (51_500, True, True)],
)
def test_alarms_grow_with_the_deviation(treated: int, is_warning: bool, is_mismatch: bool) -> None:
    """It warns below 0.01 and tells a mismatch below 0.001."""
    found = check_ratio({"control": 100_000 - treated, "treated": treated}, EVEN)
    assert (found.is_warning, found.is_mismatch) == (is_warning, is_mismatch)


def test_a_deviation_too_small_to_matter_is_no_mismatch() -> None:
    """Among very many customers a deviation below a thousandth of them warns, and does not refuse the experiment."""
    found = check_ratio({"control": 50_000_000, "treated": 50_080_000}, EVEN)
    assert found.p_value < 0.001
    assert found.is_warning
    assert not found.is_mismatch


def test_nobody_yet_is_no_mismatch() -> None:
    """Before the first customer there is nothing to tell."""
    found = check_ratio({"control": 0, "treated": 0}, EVEN)
    assert (found.p_value, found.is_warning, found.is_mismatch) == (1.0, False, False)


def test_a_variant_without_customers_is_a_mismatch() -> None:
    """All customers in one of two variants is told at once."""
    assert check_ratio({"control": 40, "treated": 0}, EVEN).is_mismatch


@pytest.mark.parametrize(
    ("counts", "expected", "field"),
    [
        ({"control": 1}, {"control": 1.0}, "expected"),
        ({"control": 1}, EVEN, "counts.treated"),
        ({"control": 1, "treated": 1, "other": 1}, EVEN, "expected.other"),
        ({"control": -1, "treated": 1}, EVEN, "counts.control"),
        ({"control": 1, "treated": 1}, {"control": 1.0, "treated": 0.0}, "expected.treated"),
        ({"control": 1, "treated": 1}, {"control": 1.0, "treated": float("nan")}, "expected.treated"),
    ],
)
def test_a_mistake_is_told_by_its_field(counts: dict[str, int], expected: dict[str, float], field: str) -> None:
    """Variants that do not match, negative counts and shares that are none are refused."""
    with pytest.raises(InvalidInput) as caught:
        check_ratio(counts, expected)
    assert [violation.field for violation in caught.value.violations] == [field]

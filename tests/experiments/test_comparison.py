"""Comparisons agree with other libraries, and refuse what they cannot defend."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tea_tasting as tt
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW
from tea_tasting.aggr import Aggregates

from models.errors import InvalidInput
from tests.experiments.samples import draw, figures, shares_of
from training.experiments.comparison import (
    LARGEST_VALUE,
    LEAST_CUSTOMERS,
    LEAST_EVENTS,
    Problem,
    Sample,
    compare,
    compare_daily,
    measure_baseline,
)
from training.experiments.worlds import CLICKS, CONVERSION, DAYS, REVENUE, UNEVEN, Metric


def _aggregates(sample: Sample) -> Aggregates:
    columns = {
        name: array
        for name, array in (("y", sample.values), ("w", sample.weights), ("x", sample.covariate))
        if array is not None
    }
    return Aggregates(
        count_=len(sample.values),
        mean_={name: float(array.mean()) for name, array in columns.items()},
        var_={name: float(array.var(ddof=1)) for name, array in columns.items()},
        cov_={(a, b): float(np.cov(columns[a], columns[b])[0, 1]) for a in columns for b in columns},
    )


@pytest.mark.parametrize("shares", [(0.5, 0.5), UNEVEN])
@pytest.mark.parametrize("is_adjusted", [False, True])
@pytest.mark.parametrize("metric", [REVENUE, CLICKS], ids=lambda metric: metric.name)
def test_agrees_with_tea_tasting(metric: Metric, is_adjusted: bool, shares: tuple[float, float]) -> None:
    """Means, ratios by the delta method, and both after CUPED are those of tea-tasting."""
    control, treated = draw(metric, is_adjusted=is_adjusted, shares=shares)
    ours = compare(control, treated, alpha=0.1)
    theirs = tt.RatioOfMeans(
        "y",
        "w" if control.weights is not None else None,
        "x" if is_adjusted else None,
        confidence_level=0.9,
    ).analyze_aggregates(_aggregates(control), _aggregates(treated))
    assert ours.is_adjusted is is_adjusted
    for mine, its in (
        (ours.control_mean, theirs.control),
        (ours.treated_mean, theirs.treatment),
        (ours.difference, theirs.effect_size),
        (ours.low, theirs.effect_size_ci_lower),
        (ours.high, theirs.effect_size_ci_upper),
        (ours.p_value, theirs.pvalue),
        (ours.lift, theirs.rel_effect_size),
    ):
        assert mine == pytest.approx(its, rel=1e-8)


@pytest.mark.parametrize("metric", [REVENUE, CLICKS], ids=lambda metric: metric.name)
def test_interval_of_a_lift_is_close_to_that_of_logarithms(metric: Metric) -> None:
    """Where the control is well measured, the interval of a lift is within a tenth of its width of tea-tasting's, which is of log means."""
    control, treated = draw(metric, customers=20_000)
    ours = compare(control, treated)
    theirs = tt.RatioOfMeans("y", "w" if control.weights is not None else None).analyze_aggregates(
        _aggregates(control), _aggregates(treated)
    )
    width = ours.lift_high - ours.lift_low
    assert ours.lift_low == pytest.approx(theirs.rel_effect_size_ci_lower, abs=width / 10)
    assert ours.lift_high == pytest.approx(theirs.rel_effect_size_ci_upper, abs=width / 10)


def test_agrees_with_statsmodels_on_means() -> None:
    """A mean's p-value and interval are those of statsmodels' Welch test."""
    control, treated = draw(REVENUE)
    ours = compare(control, treated)
    theirs = CompareMeans(DescrStatsW(treated.values), DescrStatsW(control.values))
    assert ours.p_value == pytest.approx(theirs.ttest_ind(usevar="unequal")[1], rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx(theirs.tconfint_diff(usevar="unequal"), rel=1e-9)


def test_agrees_with_statsmodels_on_proportions() -> None:
    """The interval of two shares is statsmodels' Wald interval, but for t in the place of z and n - 1 in that of n."""
    ours = compare(shares_of(400, 8000), shares_of(460, 8000))
    theirs = confint_proportions_2indep(460, 8000, 400, 8000, method="wald", compare="diff")
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=1e-3 * (ours.high - ours.low))


def test_cuped_narrows_the_interval() -> None:
    """A covariate that tells something makes the interval narrower, by about sqrt(1 - correlation^2)."""
    control, treated = draw(REVENUE, is_adjusted=True, customers=40_000)
    plain = compare(replace(control, covariate=None), replace(treated, covariate=None))
    adjusted = compare(control, treated)
    assert control.covariate is not None
    correlation = float(np.corrcoef(control.values, control.covariate)[0, 1])
    narrowing = (adjusted.high - adjusted.low) / (plain.high - plain.low)
    assert narrowing == pytest.approx(math.sqrt(1 - correlation**2), rel=0.05)


def test_the_lift_after_cuped_holds_the_truth_where_the_covariate_tells_nearly_all() -> None:
    """A lift over an adjusted control is as uncertain as the mean of the covariate: 95 % intervals hold a true lift of 100 % in 95 % of 300 experiments, within 3.5 errors."""
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(300):
        before = rng.normal(10.0, 3.0, 400)
        after = before + rng.normal(0.0, 0.1, 400)
        found = compare(
            Sample(values=after[:200], covariate=before[:200]),
            Sample(values=after[200:] + 10.0, covariate=before[200:]),
        )
        held += found.lift_low <= 1.0 <= found.lift_high
    assert abs(held / 300 - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / 300)


def test_a_constant_covariate_adjusts_nothing() -> None:
    """A covariate that is the same for all leaves the comparison as it is without."""
    control, treated = draw(CLICKS)
    constant = compare(
        replace(control, covariate=np.full(len(control.values), 0.1)),
        replace(treated, covariate=np.full(len(treated.values), 0.1)),
    )
    assert constant == compare(control, treated)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), lift=st.floats(-0.3, 0.3), is_adjusted=st.booleans())
def test_lift_and_difference_conclude_alike(seed: int, lift: float, is_adjusted: bool) -> None:
    """Intervals of lift and difference leave 0 out together, as p-values do; always-valid ones hold the fixed ones; each holds its estimate."""
    control, treated = draw(CLICKS, lift=lift, customers=1500, is_adjusted=is_adjusted, seed=seed)
    found = compare(control, treated)
    assert found.problem == ""
    is_found = not found.low <= 0 <= found.high
    assert is_found == (not found.lift_low <= 0 <= found.lift_high) == (found.p_value < found.alpha)
    is_always_found = not found.always_low <= 0 <= found.always_high
    assert is_always_found == (not found.always_lift_low <= 0 <= found.always_lift_high)
    assert is_always_found == (found.always_p_value < found.alpha)
    assert found.always_low < found.low < found.difference < found.high < found.always_high
    assert found.always_lift_low < found.lift_low < found.lift < found.lift_high < found.always_lift_high


def test_units_do_not_matter() -> None:
    """In micros or in units, lift and p-values are the same, and the difference is in the unit given."""
    control, treated = draw(REVENUE)
    units = compare(control, treated)
    micros = compare(replace(control, values=control.values * 1e6), replace(treated, values=treated.values * 1e6))
    assert micros.lift_low == pytest.approx(units.lift_low, rel=1e-9)
    assert micros.always_p_value == pytest.approx(units.always_p_value, rel=1e-9)
    assert micros.always_high == pytest.approx(units.always_high * 1e6, rel=1e-9)


def test_there_is_no_lift_over_a_control_around_nothing() -> None:
    """Where the control's mean may be 0 or is negative there is a difference, and no lift."""
    rng = np.random.default_rng(3)
    for mean in (0.0, 1e-9, -2.0):
        found = compare(Sample(values=rng.normal(mean, 1.0, 1000)), Sample(values=rng.normal(1.0, 1.0, 1000)))
        assert found.problem == ""
        assert found.low < found.difference < found.high
        assert math.isnan(found.lift)
        assert math.isnan(found.lift_low)
        assert math.isnan(found.always_lift_high)


def test_a_lift_below_minus_one_is_told_in_order() -> None:
    """Where the treated variant loses money, the lift is below -1 and its interval still goes from low to high."""
    rng = np.random.default_rng(3)
    found = compare(Sample(values=rng.normal(1.0, 1.0, 1000)), Sample(values=rng.normal(-1.0, 1.0, 1000)))
    assert found.always_lift_low < found.lift_low < found.lift < found.lift_high < found.always_lift_high < -1


ZEROS, ONES = np.zeros(5000), np.ones(5000)
NOISE = np.random.default_rng(5).normal(10.0, 1.0, 5000)


@pytest.mark.parametrize(
    ("control", "treated", "problem"),
    [
        (Sample(values=ZEROS[:0]), Sample(values=ZEROS[:0]), Problem.TOO_FEW_CUSTOMERS),
        (Sample(values=NOISE), Sample(values=NOISE[: LEAST_CUSTOMERS - 1]), Problem.TOO_FEW_CUSTOMERS),
        (Sample(values=ZEROS), Sample(values=ZEROS), Problem.TOO_FEW_EVENTS),
        (shares_of(24, 5000), shares_of(25, 5000), Problem.TOO_FEW_EVENTS),
        (shares_of(4976, 5000), shares_of(4975, 5000), Problem.TOO_FEW_EVENTS),
        (shares_of(60, 8000), shares_of(10, 2000), Problem.TOO_FEW_EVENTS),
        (Sample(values=ONES), Sample(values=ONES), Problem.TOO_FEW_EVENTS),
        (Sample(values=ONES * 0.1), Sample(values=ONES * 0.1), Problem.NO_VARIANCE),
        (Sample(values=ONES * 0.1), Sample(values=NOISE), Problem.NO_VARIANCE),
        (Sample(values=NOISE, weights=NOISE * 3), Sample(values=NOISE, weights=NOISE * 2), Problem.NO_VARIANCE),
        (Sample(values=ZEROS, weights=ZEROS), Sample(values=ZEROS, weights=ZEROS), Problem.TOO_FEW_EVENTS),
        (Sample(values=NOISE, weights=ZEROS), Sample(values=NOISE, weights=ONES), Problem.TOO_FEW_EVENTS),
        (Sample(values=np.append(NOISE, 1e12)), Sample(values=NOISE[:500]), Problem.TOO_SKEWED),
    ],
)
def test_nothing_is_concluded_from_what_cannot_carry_it(control: Sample, treated: Sample, problem: Problem) -> None:
    """Too few customers or events, nothing that varies, and skewed values in unequal variants are refused by name, without figures."""
    found = compare(control, treated)
    assert found.problem == problem
    assert all(math.isnan(figure) for figure in figures(found))
    assert (found.control_count, found.treated_count) == (len(control.values), len(treated.values))


def test_just_enough_is_enough() -> None:
    """At the least counts there are figures."""
    found = compare(shares_of(LEAST_EVENTS, 5000), shares_of(LEAST_EVENTS, 5000))
    assert found.problem == ""
    assert not any(math.isnan(figure) for figure in figures(found)[:3])


def test_one_enormous_customer_shows_nothing() -> None:
    """In equal variants one customer a million times as large as the rest widens the intervals over 0, rather than winning."""
    values = NOISE.copy()
    values[17] = 1e7
    found = compare(Sample(values=NOISE), Sample(values=values))
    assert found.low < 0 < found.high
    assert found.always_low < 0 < found.always_high


def _with(array: np.ndarray, entry: float) -> np.ndarray:
    changed = array.copy()
    changed[3] = entry
    return changed


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        (lambda: Sample(values=_with(NOISE, math.nan)), "values", "entry 3 is not finite"),
        (lambda: Sample(values=_with(NOISE, -math.inf)), "values", "entry 3 is not finite"),
        (lambda: Sample(values=_with(NOISE, 2 * LARGEST_VALUE)), "values", "larger units"),
        (lambda: Sample(values=NOISE.reshape(50, 100)), "values", "shape (50, 100)"),
        (lambda: Sample(values=NOISE.astype(np.float32)), "values", "float32"),
        (lambda: Sample(values=NOISE, weights=-NOISE), "weights", "negative"),
        (lambda: Sample(values=NOISE, covariate=NOISE[:10]), "covariate", "10 entries where values has 5000"),
        (lambda: Sample(values=NOISE, covariate=_with(NOISE, math.nan)), "covariate", "entry 3"),
        (lambda: Sample(values=NOISE, times=NOISE), "times", "ascending"),
        (lambda: compare(Sample(values=NOISE), Sample(values=NOISE), alpha=0.0), "alpha", "between 0 and 1"),
        (lambda: compare(Sample(values=NOISE), Sample(values=NOISE), alpha=math.nan), "alpha", "between 0 and 1"),
        (lambda: compare(Sample(values=NOISE), Sample(values=NOISE), tightest_at=0), "tightest_at", "count"),
        (lambda: compare(Sample(values=NOISE, weights=ONES), Sample(values=NOISE)), "weights", "one sample only"),
        (lambda: compare(Sample(values=NOISE), Sample(values=NOISE, covariate=ONES)), "covariate", "one sample only"),
        (lambda: compare_daily(Sample(values=NOISE), Sample(values=NOISE), days=[1.0]), "times", "missing"),
        (
            lambda: compare_daily(
                Sample(values=NOISE, times=ZEROS), Sample(values=NOISE, times=ZEROS), days=[math.nan]
            ),
            "days",
            "not finite",
        ),
    ],
)
def test_a_mistake_is_told_by_its_field(make: Callable[[], object], field: str, words: str) -> None:
    """What is no sample, or no comparison, is refused with the field and the way out."""
    with pytest.raises(InvalidInput) as caught:
        make()
    assert [violation.field for violation in caught.value.violations] == [field]
    assert words in str(caught.value)


def test_each_day_is_judged_by_what_counted_by_then() -> None:
    """A daily look is the comparison of the entries up to that day, and the last is that of all."""
    control, treated = draw(CLICKS, is_adjusted=True)
    looks = compare_daily(control, treated, days=DAYS)
    assert control.times is not None
    assert treated.times is not None
    early = compare(
        control.first(int(np.count_nonzero(control.times <= 7))),
        treated.first(int(np.count_nonzero(treated.times <= 7))),
    )
    assert looks[6] == early
    assert looks[-1] == compare(control, treated)


def test_an_entry_counts_on_its_day() -> None:
    """What counts at the very end of a day is in that day's look."""
    sample = Sample(values=NOISE, times=np.repeat(np.arange(1.0, 6.0), 1000))
    looks = compare_daily(sample, sample, days=[1, 2.5])
    assert [look.control_count for look in looks] == [1000, 2000]


def test_first_days_of_a_rare_event_are_refused() -> None:
    """Days before enough events came have no figures, later ones have."""
    looks = compare_daily(*draw(CONVERSION, customers=20_000), days=DAYS)
    assert looks[0].problem == Problem.TOO_FEW_EVENTS
    assert looks[-1].problem == ""


def test_a_baseline_is_what_planning_asks_for() -> None:
    """Mean and deviation are those of values, of the linearised values of a ratio, and smaller after CUPED."""
    revenue, _ = draw(REVENUE, is_adjusted=True)
    plain = measure_baseline(replace(revenue, covariate=None))
    assert plain.mean == pytest.approx(revenue.values.mean())
    assert plain.deviation == pytest.approx(revenue.values.std(ddof=1))
    assert measure_baseline(revenue).deviation < plain.deviation
    clicks, _ = draw(CLICKS)
    ratio = _aggregates(clicks)
    assert measure_baseline(clicks).mean == pytest.approx(ratio.mean("y") / ratio.mean("w"))
    assert measure_baseline(clicks).deviation == pytest.approx(math.sqrt(ratio.ratio_var("y", "w")))
    assert math.isnan(measure_baseline(Sample(values=ZEROS, weights=ZEROS)).deviation)

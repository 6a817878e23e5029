"""One metric in two variants: difference, lift and p-value, at one look fixed beforehand and at every look.

Every metric becomes a mean of one value a customer, and all figures come from these values z:

    mean            z = y
    ratio           z = R + (y - R w) / mean(w), R = sum(y) / sum(w): the delta method, linearised at its own variant's R
    after CUPED     z - theta (x - mean(x)), theta = cov(z, x) / var(x), with theta and mean(x) of both variants together

The difference of means of z is tested by Welch's t-test (scipy) at a look that was fixed beforehand, and by the always-valid sequence
(training.experiments.always_valid) at any. A lift r - 1 is in its interval where m_t - r m_c is within the same number of standard errors of 0, with

    var(m_t - r m_c) = v_t + r^2 v_c + (1 - r)^2 theta^2 var(x) / n

(Fieller); the last term is there because adjusted means share mean(x). So the interval of the lift leaves 0 out exactly where that of the difference does, it holds at
every look where that of the difference does, and it may be unbounded: then the control is not positive enough to divide by, and there is no lift.

Nothing is concluded (`Comparison.problem`) from fewer customers or events than LEAST_CUSTOMERS and LEAST_EVENTS, where a variant does not vary, and where unequal
variants meet values so skewed that normal intervals fail: the skewness of the difference, skew(z) (1/n_t^2 - 1/n_c^2) / (1/n_t + 1/n_c)^1.5, is beyond MOST_SKEW. In equal
variants skewness cancels. Both gates look at both variants together, since an unlucky small variant looks tamer than it is.

Sources: Deng, Knoblich & Lu (2018), "Applying the Delta Method in Metric Analytics"; Deng, Xu, Kohavi & Walker (2013), "Improving the Sensitivity of
Online Controlled Experiments by Utilizing Pre-Experiment Data"; Fieller (1954), "Some Problems in Interval Estimation"; Hall (1992), "The Bootstrap and Edgeworth
Expansion", for skewness; Kohavi, Deng, Longbotham & Xu (2014), "Seven Rules of Thumb for Web Site Experimenters", rule 7.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from scipy.stats import ttest_ind

from models.errors import InvalidInput, Violation
from training.experiments.always_valid import TIGHTEST_AT, critical_value, p_value

FloatArray = NDArray[np.float64]

LEAST_CUSTOMERS = 100
"""In each variant."""
LEAST_EVENTS = 25
"""In the smaller variant, had both the same rate: customers whose value is not 0, nor (for a share near 1) the whole of its denominator."""
MOST_SKEW = 0.25
"""Skewness of the difference, in absolute value; where it is met, a 5 % test has errors of about 6 %."""
LARGEST_VALUE = 1e50
"""Beyond it squares of squares overflow."""
_ROUNDING = 1e-12
"""Of the largest value: a smaller standard deviation is rounding."""


class Problem(StrEnum):
    """Why nothing may be concluded; empty where something may."""

    NONE = ""
    TOO_FEW_CUSTOMERS = "too_few_customers"
    TOO_FEW_EVENTS = "too_few_events"
    NO_VARIANCE = "no_variance"
    TOO_SKEWED = "too_skewed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One metric in one variant: one entry a customer, in the order in which customers count (their windows close)."""

    values: FloatArray
    """Shape (n,): the numerator of a ratio, or what is averaged."""
    weights: FloatArray | None = None
    """Shape (n,), 0 or more: the denominator of a ratio. None: a mean per customer."""
    covariate: FloatArray | None = None
    """Shape (n,): of before the exposure, for CUPED; the same figure for all who were not there before. None: none."""
    times: FloatArray | None = None
    """Shape (n,), ascending: days since the experiment's start at which each entry counts. None: only one look is wanted."""

    def __post_init__(self) -> None:
        """Refuse what is no sample."""
        violations = [
            Violation(field=name, description=problem)
            for name, array in self._arrays()
            if (problem := self._flaw(array))
        ]
        if not violations and self.weights is not None and self.weights.size and self.weights.min() < 0:
            violations.append(
                Violation(field="weights", description="has a negative entry; a denominator is 0 or more")
            )
        if not violations and self.times is not None and np.any(np.diff(self.times) < 0):
            violations.append(Violation(field="times", description="is not ascending; sort all entries by time"))
        if violations:
            raise InvalidInput(violations, "sample")

    def _arrays(self) -> list[tuple[str, FloatArray]]:
        named = {"values": self.values, "weights": self.weights, "covariate": self.covariate, "times": self.times}
        return [(name, array) for name, array in named.items() if array is not None]

    def _flaw(self, array: FloatArray) -> str:
        if array.ndim != 1 or array.dtype != np.float64:
            return f"has shape {array.shape} and type {array.dtype}; give one float64 a customer"
        if array.shape != self.values.shape:
            return f"has {len(array)} entries where values has {len(self.values)}; give one a customer"
        if not np.all(np.isfinite(array)):
            return (
                f"entry {int(np.argmin(np.isfinite(array)))} is not finite; leave that customer out, or give a number"
            )
        if array.size and np.abs(array).max() > LARGEST_VALUE:
            return f"has an entry beyond {LARGEST_VALUE:g}; give it in larger units"
        return ""

    def first(self, count: int) -> "Sample":
        """Return the sample of the first `count` customers."""
        return Sample(**{name: array[:count] for name, array in self._arrays()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a metric says of two variants; where there is a problem, all but means and counts is nan.

    Means and all that follows from them are after CUPED where it was used. A lift is relative to control, 0.1 is ten per cent; it is nan where control is not positive enough
    to divide by.
    """

    control_mean: float
    treated_mean: float
    difference: float
    low: float
    high: float
    lift: float
    lift_low: float
    lift_high: float
    always_low: float
    always_high: float
    always_lift_low: float
    always_lift_high: float
    p_value: float
    always_p_value: float
    control_count: int
    treated_count: int
    is_adjusted: bool
    problem: str
    alpha: float = 0.05


def compare(control: Sample, treated: Sample, *, alpha: float = 0.05, tightest_at: int = TIGHTEST_AT) -> Comparison:
    """Compare a metric of the treated variant with control.

    Parameters
    ----------
    alpha : in (0, 1); intervals are at 1 - alpha.
    tightest_at : customers of both variants together at which the always-valid interval is tightest; chosen before the data are seen, the same at every look.

    Raises
    ------
    InvalidInput: alpha or `tightest_at` is out of range, or only one sample has weights, or a covariate.
    """
    _check(control, treated, alpha, tightest_at)
    return _compare(control, treated, alpha, tightest_at)


def compare_daily(
    control: Sample, treated: Sample, *, alpha: float = 0.05, days: Sequence[float], tightest_at: int = TIGHTEST_AT
) -> list[Comparison]:
    """Compare with what counted by each of the days, given in days since the experiment's start.

    Raises
    ------
    InvalidInput: as of `compare`; or a sample has no times, or days are not finite.
    """
    _check(control, treated, alpha, tightest_at)
    if control.times is None or treated.times is None:
        raise InvalidInput(
            [Violation(field="times", description="is missing; looks by day need it in both samples")], "sample"
        )
    if not np.all(np.isfinite(days)):
        raise InvalidInput([Violation(field="days", description="has an entry that is not finite")], "comparison")
    cuts = zip(
        np.searchsorted(control.times, days, side="right"),
        np.searchsorted(treated.times, days, side="right"),
        strict=True,
    )
    return [_compare(control.first(int(c)), treated.first(int(t)), alpha, tightest_at) for c, t in cuts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a metric is without the treatment: what planning starts from."""

    mean: float
    deviation: float
    """Standard deviation between customers, of linearised values for a ratio; after CUPED where the sample has a covariate."""


def measure_baseline(sample: Sample) -> Baseline:
    """Return mean and deviation of a metric, such as before the experiment; nan where there is nothing to measure."""
    if len(sample.values) < 2 or (sample.weights is not None and not sample.weights.any()):
        return Baseline(mean=_plain_mean(sample), deviation=math.nan)
    nobody = sample.first(0)
    (z, _), _ = _adjust(sample, nobody, _linearise(sample), nobody.values)
    return Baseline(mean=float(z.mean()), deviation=float(z.std(ddof=1)))


def _check(control: Sample, treated: Sample, alpha: float, tightest_at: int) -> None:
    violations = []
    if not 0 < alpha < 1:
        violations.append(Violation(field="alpha", description=f"is {alpha}; give a number between 0 and 1"))
    if tightest_at < 1:
        violations.append(Violation(field="tightest_at", description=f"is {tightest_at}; give a count of customers"))
    for name in ("weights", "covariate"):
        if (getattr(control, name) is None) != (getattr(treated, name) is None):
            violations.append(Violation(field=name, description="is in one sample only; give it in both or in neither"))
    if violations:
        raise InvalidInput(violations, "comparison")


def _compare(control: Sample, treated: Sample, alpha: float, tightest_at: int) -> Comparison:
    refused = _refusal(control, treated, alpha)
    if refused.problem:
        return refused
    (control_z, treated_z), shared = _adjust(control, treated, _linearise(control), _linearise(treated))
    if problem := _shape_problem(control_z, treated_z):
        return replace(refused, problem=problem)
    return _conclude(control_z, treated_z, shared, alpha, tightest_at)


def _refusal(control: Sample, treated: Sample, alpha: float) -> Comparison:
    """Return a comparison without conclusions, with what counts already forbid."""
    nan = math.nan
    return Comparison(
        control_mean=_plain_mean(control),
        treated_mean=_plain_mean(treated),
        **dict.fromkeys(("difference", "low", "high", "lift", "lift_low", "lift_high"), nan),
        **dict.fromkeys(("always_low", "always_high", "always_lift_low", "always_lift_high"), nan),
        **dict.fromkeys(("p_value", "always_p_value"), nan),
        control_count=len(control.values),
        treated_count=len(treated.values),
        is_adjusted=False,
        problem=_count_problem(control, treated),
        alpha=alpha,
    )


def _plain_mean(sample: Sample) -> float:
    total = float(len(sample.values)) if sample.weights is None else float(sample.weights.sum())
    return float(sample.values.sum()) / total if total > 0 else math.nan


def _count_problem(control: Sample, treated: Sample) -> Problem:
    smaller = min(len(control.values), len(treated.values))
    if smaller < LEAST_CUSTOMERS:
        return Problem.TOO_FEW_CUSTOMERS
    share = smaller / (len(control.values) + len(treated.values))
    if min(a + b for a, b in zip(_events(control), _events(treated), strict=True)) * share < LEAST_EVENTS:
        return Problem.TOO_FEW_EVENTS
    for sample in (control, treated):
        if sample.weights is not None and np.count_nonzero(sample.weights) < LEAST_EVENTS:
            return Problem.TOO_FEW_EVENTS
    return Problem.NONE


def _events(sample: Sample) -> tuple[int, int]:
    """Return how many customers have more than nothing, and how many something else than the whole."""
    whole = 1.0 if sample.weights is None else sample.weights
    return int(np.count_nonzero(sample.values)), int(np.count_nonzero(sample.values != whole))


def _linearise(sample: Sample) -> FloatArray:
    if sample.weights is None:
        return sample.values
    ratio = sample.values.sum() / sample.weights.sum()
    linear: FloatArray = ratio + (sample.values - ratio * sample.weights) / sample.weights.mean()
    return linear


def _adjust(
    control: Sample, treated: Sample, control_z: FloatArray, treated_z: FloatArray
) -> tuple[tuple[FloatArray, FloatArray], float | None]:
    """Return both after CUPED, and the variance that their means share; None where nothing was adjusted."""
    if control.covariate is None or treated.covariate is None:
        return (control_z, treated_z), None
    covariate = np.concatenate([control.covariate, treated.covariate])
    centred = covariate - covariate.mean()
    square = float(centred @ centred)
    if math.sqrt(square / len(centred)) <= _ROUNDING * np.abs(covariate).max():
        return (control_z, treated_z), None
    theta = float(centred @ _linearise(_join(control, treated))) / square
    adjusted_control = control_z - theta * centred[: len(control_z)]
    adjusted_treated = treated_z - theta * centred[len(control_z) :]
    return (adjusted_control, adjusted_treated), theta**2 * square / len(centred) / (len(centred) - 1)


def _join(control: Sample, treated: Sample) -> Sample:
    if control.weights is None or treated.weights is None:
        return Sample(values=np.concatenate([control.values, treated.values]))
    return Sample(
        values=np.concatenate([control.values, treated.values]),
        weights=np.concatenate([control.weights, treated.weights]),
    )


def _shape_problem(control: FloatArray, treated: FloatArray) -> Problem:
    for z in (control, treated):
        if z.std() <= _ROUNDING * np.abs(z).max():
            return Problem.NO_VARIANCE
    if abs(_difference_skew(control, treated)) > MOST_SKEW:
        return Problem.TOO_SKEWED
    return Problem.NONE


def _difference_skew(control: FloatArray, treated: FloatArray) -> float:
    """Return the skewness of the difference of means, with one skewness of both variants' deviations from their means."""
    deviations = np.concatenate([control - control.mean(), treated - treated.mean()])
    deviations /= np.abs(deviations).max()
    squares = deviations * deviations
    skew = float((squares @ deviations) / len(deviations) / squares.mean() ** 1.5)
    a, b = 1 / len(treated), 1 / len(control)
    return skew * float((a * a - b * b) / (a + b) ** 1.5)


def _conclude(
    control: FloatArray, treated: FloatArray, shared: float | None, alpha: float, tightest_at: int
) -> Comparison:
    count = len(control) + len(treated)
    welch = ttest_ind(treated, control, equal_var=False)
    low, high = welch.confidence_interval(1 - alpha)
    means = float(control.mean()), float(treated.mean())
    variances = float(control.var(ddof=1)) / len(control), float(treated.var(ddof=1)) / len(treated)
    difference, error = means[1] - means[0], math.sqrt(sum(variances))
    always = critical_value(count, alpha, tightest_at)
    lift_low, lift_high = _lift_interval(means, variances, shared or 0.0, float(student.isf(alpha / 2, welch.df)))
    always_lift_low, always_lift_high = _lift_interval(means, variances, shared or 0.0, always)
    return Comparison(
        control_mean=means[0],
        treated_mean=means[1],
        difference=difference,
        low=float(low),
        high=float(high),
        lift=math.nan if math.isnan(lift_low) else difference / means[0],
        lift_low=lift_low,
        lift_high=lift_high,
        always_low=difference - always * error,
        always_high=difference + always * error,
        always_lift_low=always_lift_low,
        always_lift_high=always_lift_high,
        p_value=float(welch.pvalue),
        always_p_value=p_value(difference / error, count, alpha, tightest_at),
        control_count=len(control),
        treated_count=len(treated),
        is_adjusted=shared is not None,
        problem=Problem.NONE,
        alpha=alpha,
    )


def _lift_interval(
    means: tuple[float, float], variances: tuple[float, float], shared: float, critical: float
) -> tuple[float, float]:
    """Return all r - 1 with |m_t - r m_c| <= k sqrt(v_t + r^2 v_c + (1 - r)^2 s), as an interval; nan where it is none."""
    (control, treated), square = means, critical * critical
    a = control * control - square * (variances[0] + shared)
    b = treated * control - square * shared
    c = treated * treated - square * (variances[1] + shared)
    if control <= 0 or a <= 0:
        return math.nan, math.nan
    root = math.sqrt(max(0.0, b * b - a * c))
    return (b - root) / a - 1, (b + root) / a - 1

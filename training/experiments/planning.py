"""How many customers an experiment needs, and what it can detect.

At one look fixed beforehand: the power of the test of two means (tea-tasting), by its normal form, since the noncentral t of scipy fails from about a
million customers; below 1,000 it is about two customers too few. At daily looks by the always-valid interval, and a decision by the last: the effect must be k(n) + z
standard errors, k(n) of `training.experiments.always_valid` and z the normal quantile of the power. Earlier looks add a little power, so this is on the safe side.
The ruling (`training.experiments.ruling`) decides by always-valid figures: plan with `is_daily`. It divides alpha among success metrics: plan with alpha over their number.
"""

import math

import tea_tasting as tt
from scipy.stats import norm
from tea_tasting.aggr import Aggregates

from models.errors import InvalidInput, Violation
from training.experiments.always_valid import TIGHTEST_AT, critical_value
from training.experiments.comparison import LEAST_CUSTOMERS

MOST_CUSTOMERS = 10**10
"""More than there are people: beyond it no experiment can show the effect."""


def needed_customers(
    mean: float,
    deviation: float,
    lift: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    shares: tuple[float, float] = (0.5, 0.5),
    treated_deviation: float | None = None,
    is_daily: bool = False,
    tightest_at: int = TIGHTEST_AT,
) -> int:
    """Return how many customers, of both variants together, show a lift with that power; never fewer than `compare` asks for.

    Parameters
    ----------
    mean : of control, per customer; not 0.
    deviation : standard deviation between customers, positive; that of linearised values for a ratio, times sqrt(1 - correlation^2) with CUPED.
    lift : relative to the mean, not 0; 0.1 is ten per cent.
    shares : of control and treated, positive; they need not sum to 1.
    treated_deviation : standard deviation in the treated variant; None: the same. A lift that multiplies values multiplies their deviation too, and without it the plan
        of a large lift is too small.
    is_daily : looks are daily, by the always-valid interval.

    Raises
    ------
    InvalidInput: a figure is out of range, or more than MOST_CUSTOMERS would be needed.
    """
    _check(mean, deviation, lift, alpha, power, shares, treated_deviation)
    effect = abs(mean * lift) / _common_deviation(deviation, treated_deviation, shares)
    least = math.ceil(LEAST_CUSTOMERS * sum(shares) / min(shares))
    if _power(effect, least, alpha, shares, tightest_at, is_daily) >= power:
        return least
    if _power(effect, MOST_CUSTOMERS, alpha, shares, tightest_at, is_daily) < power:
        problem = f"is {lift}: to show it, more than {MOST_CUSTOMERS:g} customers are needed"
        raise InvalidInput([Violation(field="lift", description=problem)], "plan")
    low, high = least, MOST_CUSTOMERS
    while high - low > 1:
        middle = (low + high) // 2
        if _power(effect, middle, alpha, shares, tightest_at, is_daily) >= power:
            high = middle
        else:
            low = middle
    return high


def detectable_lift(
    mean: float,
    deviation: float,
    customers: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    shares: tuple[float, float] = (0.5, 0.5),
    treated_deviation: float | None = None,
    is_daily: bool = False,
    tightest_at: int = TIGHTEST_AT,
) -> float:
    """Return the smallest lift, as a positive number, that so many customers of both variants together show with that power: the inverse of `needed_customers`.

    Raises
    ------
    InvalidInput: a figure is out of range, or there are fewer customers than `compare` asks for.
    """
    _check(mean, deviation, 1.0, alpha, power, shares, treated_deviation)
    least = math.ceil(LEAST_CUSTOMERS * sum(shares) / min(shares))
    if customers < least:
        problem = f"is {customers}; at least {least} are needed for {LEAST_CUSTOMERS} in each variant"
        raise InvalidInput([Violation(field="customers", description=problem)], "plan")
    if is_daily:
        reach = critical_value(customers, alpha, tightest_at) + float(norm.ppf(power))
        effect = reach * _error(customers, shares)
    else:
        metric = tt.Mean("y", use_t=False, alpha=alpha, ratio=shares[1] / shares[0], power=power, n_obs=customers)
        effect = float(metric.solve_power_from_aggregates(_STANDARD, "effect_size")[0].effect_size)
    return effect * _common_deviation(deviation, treated_deviation, shares) / abs(mean)


_STANDARD = Aggregates(count_=2, mean_={"y": 1.0}, var_={"y": 1.0})
"""A metric of variance 1, so that effects are in standard deviations; its count and mean are not used."""


def _error(count: float, shares: tuple[float, float]) -> float:
    """Return the standard error of a difference, in standard deviations."""
    return sum(shares) / math.sqrt(count * shares[0] * shares[1])


def _power(
    effect: float, count: int, alpha: float, shares: tuple[float, float], tightest_at: int, is_daily: bool
) -> float:
    if is_daily:
        return float(norm.cdf(effect / _error(count, shares) - critical_value(count, alpha, tightest_at)))
    z = effect / _error(count, shares)
    if z > 40:
        return 1.0
    metric = tt.Mean("y", use_t=False, alpha=alpha, ratio=shares[1] / shares[0], effect_size=effect, n_obs=count)
    return float(metric.solve_power_from_aggregates(_STANDARD, "power")[0].power)


def _common_deviation(control: float, treated: float | None, shares: tuple[float, float]) -> float:
    """Return the deviation that, in both variants, gives a difference the same standard error."""
    if treated is None:
        return control
    parts = 1 / shares[0], 1 / shares[1]
    return math.sqrt((control**2 * parts[0] + treated**2 * parts[1]) / sum(parts))


def _check(
    mean: float,
    deviation: float,
    lift: float,
    alpha: float,
    power: float,
    shares: tuple[float, float],
    treated_deviation: float | None,
) -> None:
    other = deviation if treated_deviation is None else treated_deviation
    refused = {
        "mean": (mean, math.isfinite(mean) and mean != 0, "give a finite number that is not 0"),
        "deviation": (deviation, 0 < deviation < math.inf, "give a positive number"),
        "treated_deviation": (other, 0 < other < math.inf, "give a positive number"),
        "lift": (lift, math.isfinite(lift) and lift != 0, "give a finite number that is not 0; 0.1 is ten per cent"),
        "alpha": (alpha, 0 < alpha < 1, "give a number between 0 and 1"),
        "power": (power, alpha < power < 1, "give a number between alpha and 1"),
        "shares": (shares, all(0 < share < math.inf for share in shares), "give two positive numbers"),
    }
    violations = [
        Violation(field=name, description=f"is {value}; {way}")
        for name, (value, is_good, way) in refused.items()
        if not is_good
    ]
    if violations:
        raise InvalidInput(violations, "plan")

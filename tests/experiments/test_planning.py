"""The planner agrees with statsmodels and with itself."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import NormalIndPower, TTestIndPower

from models.errors import InvalidInput
from training.experiments.comparison import LEAST_CUSTOMERS
from training.experiments.planning import detectable_lift, needed_customers

SHARES = st.sampled_from([(0.5, 0.5), (0.8, 0.2), (0.1, 0.2)])


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2)])
def test_agrees_with_statsmodels(shares: tuple[float, float]) -> None:
    """For one look it asks for what statsmodels asks for, by the normal test, and by the t-test but for a few customers."""
    ours = needed_customers(0.05, 0.218, 0.1, alpha=0.05, power=0.8, shares=shares)
    for theirs in (NormalIndPower(), TTestIndPower()):
        control = theirs.solve_power(0.005 / 0.218, alpha=0.05, power=0.8, ratio=shares[1] / shares[0])
        assert ours == pytest.approx(control / shares[0], abs=4)


@settings(max_examples=40, deadline=None)
@given(lift=st.floats(0.01, 0.5), shares=SHARES, is_daily=st.booleans(), power=st.floats(0.5, 0.99))
def test_detectable_lift_is_the_inverse(lift: float, shares: tuple[float, float], is_daily: bool, power: float) -> None:
    """As many customers as a lift needs detect it, and one fewer do not; unless it needs fewer than any comparison."""
    needed = needed_customers(2.0, 5.0, lift, power=power, shares=shares, treated_deviation=6.0, is_daily=is_daily)

    def detected(customers: int) -> float:
        return detectable_lift(
            2.0, 5.0, customers, power=power, shares=shares, treated_deviation=6.0, is_daily=is_daily
        )

    assert detected(needed) <= lift * (1 + 1e-9)
    if needed > LEAST_CUSTOMERS * sum(shares) / min(shares) + 1:
        assert detected(needed - 1) > lift * (1 - 1e-9)


def test_daily_looks_cost_customers() -> None:
    """The always-valid interval needs about twice as many for the same power; worse as well as better lifts cost the same."""
    once = needed_customers(0.05, 0.218, 0.1)
    daily = needed_customers(0.05, 0.218, 0.1, is_daily=True)
    assert 1.5 * once < daily < 2.5 * once
    assert daily == needed_customers(0.05, 0.218, -0.1, is_daily=True)


def test_a_more_varied_treated_variant_costs_customers() -> None:
    """In equal variants the mean of both variances counts."""
    common = needed_customers(1.0, math.sqrt((1 + 4) / 2), 0.1)
    assert needed_customers(1.0, 1.0, 0.1, treated_deviation=2.0) == common


def test_even_an_enormous_lift_needs_as_many_as_a_comparison() -> None:
    """No plan is below the least counts."""
    assert needed_customers(1.0, 0.1, 10.0) == 2 * LEAST_CUSTOMERS
    assert needed_customers(1.0, 0.1, 10.0, shares=(0.9, 0.1)) == 10 * LEAST_CUSTOMERS


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mean": 0.0}, "mean"),
        ({"mean": math.nan}, "mean"),
        ({"deviation": 0.0}, "deviation"),
        ({"treated_deviation": -1.0}, "treated_deviation"),
        ({"lift": 0.0}, "lift"),
        ({"lift": 1e-9}, "lift"),
        ({"alpha": 1.0}, "alpha"),
        ({"power": 0.01}, "power"),
        ({"shares": (0.5, 0.0)}, "shares"),
    ],
)
def test_a_mistake_is_told_by_its_field(change: dict[str, float], field: str) -> None:
    """Figures out of range, and lifts that nobody could show, are refused."""
    arguments = {"mean": 1.0, "deviation": 1.0, "lift": 0.1, **change}
    with pytest.raises(InvalidInput) as caught:
        needed_customers(**arguments)  # type: ignore[arg-type]  # a plain dict of all kinds of arguments
    assert [violation.field for violation in caught.value.violations if violation.field == field]


def test_too_few_customers_detect_nothing() -> None:
    """Fewer customers than a comparison asks for are refused."""
    with pytest.raises(InvalidInput, match=r"customers: is 199; at least 200"):
        detectable_lift(1.0, 1.0, 199)

"""Budgets: their periods, their pace, and the shadow price."""

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.budget import (
    Period,
    Spending,
    charged,
    pace,
    period_of,
    shadow_price,
    shadow_price_of,
    state_of,
    update_price,
)
from models.context import Reason
from models.decide import Evaluation, decide, evaluate
from models.eligibility import find_eligible
from models.rules import Budget, BudgetPeriod, QuietHours
from tests.unit.examples import DAY, HOUR, NIGHT, NOW, RUBLE, RULES, budget, bundle_of, with_channels

CAP = 1_000 * RUBLE
MONTH = Budget(name="sms", amount=CAP, period="month", channel="sms")
BEGIN = datetime(2026, 10, 31, 21, 0, tzinfo=UTC)
"""Midnight of 1 November in Moscow."""
END = datetime(2026, 11, 30, 21, 0, tzinfo=UTC)
MOMENTS = st.floats(0, 1).map(lambda part: datetime(2001, 1, 1, tzinfo=UTC) + part * timedelta(days=36_000))
ZONES = st.sampled_from(["Europe/Moscow", "America/New_York", "Australia/Lord_Howe", "Pacific/Kiritimati", "UTC"])
CLOCKS = st.times().map(lambda clock: clock.replace(second=0, microsecond=0))
SPENT = st.integers(0, 2 * CAP)
WITHIN = st.floats(0, 1).map(lambda part: BEGIN + part * (END - BEGIN - timedelta(microseconds=1)))


def spending(spent: int, held: float = 0.0, at: datetime = BEGIN) -> Spending:
    return Spending(committed_micros=spent, held_price=held, price_time=at)


def price(spent: int, now: datetime, held: float = 0.0) -> float:
    return shadow_price(MONTH, RULES, spending(spent, held, now), now)


# --- periods


@given(moment=MOMENTS, zone=ZONES, kind=st.sampled_from([p for p in get_args(BudgetPeriod) if p != "total"]))
def test_periods_follow_each_other_without_gaps(moment: datetime, zone: str, kind: BudgetPeriod) -> None:
    """A calendar period holds its moment, begins at midnight in the rules' zone, and ends where the next one begins."""
    rules = replace(RULES, time_zone=zone)
    calendar = Budget(name="b", amount=CAP, period=kind)

    found = period_of(calendar, rules, moment)

    assert found.holds(moment)
    assert period_of(calendar, rules, found.end).start == found.end
    assert period_of(calendar, rules, found.end - timedelta(microseconds=1)) == found


def test_days_are_as_long_as_the_clock_makes_them() -> None:
    """Where clocks change a day has 23 or 25 hours."""
    rules = replace(RULES, time_zone="America/New_York")
    day = Budget(name="b", amount=CAP, period="day")

    lengths = [period_of(day, rules, datetime(2026, m, d, 12, tzinfo=UTC)) for m, d in ((3, 8), (11, 1), (11, 2))]

    assert [(p.end - p.start) / HOUR for p in lengths] == [23, 25, 24]


def test_a_total_has_its_own_days_whenever_it_is_asked_for() -> None:
    """A total's period lasts from the midnight before its first day to that after its last one."""
    total = Budget(name="b", amount=CAP, period="total", start_date=date(2026, 11, 1), end_date=date(2026, 11, 30))

    assert period_of(total, RULES, NOW) == period_of(total, RULES, NOW + 365 * DAY) == Period(start=BEGIN, end=END)


# --- pace


@given(moments=st.tuples(WITHIN, WITHIN), quiet=st.none() | st.builds(QuietHours, start=CLOCKS, end=CLOCKS))
def test_pace_runs_from_nothing_to_everything(moments: tuple[datetime, datetime], quiet: QuietHours | None) -> None:
    """The part of the demand that has passed grows from 0 to 1, whatever hours are quiet."""
    rules = replace(RULES, quiet_hours=None if quiet is not None and quiet.start == quiet.end else quiet)
    period = Period(start=BEGIN, end=END)

    early, late = (pace(period, rules, moment) for moment in sorted(moments))

    assert 0 <= early <= late <= 1
    assert (pace(period, rules, BEGIN), pace(period, rules, END)) == (0, 1)


@pytest.mark.parametrize(
    ("quiet", "hour", "expected"),
    [
        (None, 12, 0.5),
        (NIGHT, 9, 0.0),
        (NIGHT, 15.25, 0.5),
        (NIGHT, 22, 1.0),
        (QuietHours(start=time(1), end=time(7)), 1, 1 / 18),
        (QuietHours(start=time(1), end=time(7)), 6, 1 / 18),
        (QuietHours(start=time(1), end=time(7)), 16, 10 / 18),
    ],
)
def test_demand_is_even_over_hours_that_are_not_quiet(quiet: QuietHours | None, hour: float, expected: float) -> None:
    """Nothing of the demand passes in quiet hours, and the rest evenly."""
    day = period_of(Budget(name="b", amount=CAP, period="day"), RULES, NOW)

    assert pace(day, replace(RULES, quiet_hours=quiet), day.start + hour * HOUR) == pytest.approx(expected)


# --- the shadow price


@given(spent=SPENT, now=WITHIN, last=WITHIN, held=st.floats(0, 100))
def test_the_price_is_never_negative_and_always_finite(spent: int, now: datetime, last: datetime, held: float) -> None:
    """Whatever was spent and whenever it is asked for, the price is a number of at least 0."""
    found = shadow_price(MONTH, RULES, spending(spent, held, last), now)

    assert 0 <= found < 1e6


@given(spent=st.floats(0, 1), now=WITHIN)
def test_a_loose_budget_has_no_price(spent: float, now: datetime) -> None:
    """As long as spending is behind its pace, money is worth its face."""
    due = pace(Period(start=BEGIN, end=END), RULES, now)

    assert price(int(spent * due * CAP), now) == 0


@given(spents=st.tuples(SPENT, SPENT), now=WITHIN, held=st.floats(0, 100))
def test_the_price_rises_with_what_is_spent(spents: tuple[int, int], now: datetime, held: float) -> None:
    """At one moment, more spent never means a lower price."""
    less, more = (price(spent, now, held) for spent in sorted(spents))

    assert less <= more


def test_spending_ahead_of_the_pace_has_a_price() -> None:
    """A fifth of the month in, half of the budget gone costs, and more so the next day if nothing changes the lead."""
    early = price(CAP // 2, BEGIN + 6 * DAY)

    assert early > 1
    assert price(CAP * 9 // 10, BEGIN + 6 * DAY) > 2 * early


@given(spent=SPENT, held=st.floats(0, 100), moments=st.lists(WITHIN, min_size=1, max_size=6))
def test_the_price_falls_while_nothing_is_spent(spent: int, held: float, moments: list[datetime]) -> None:
    """Once spending is behind its pace, waiting never makes the charged price higher."""
    known = spending(spent, held)
    due = [now for now in sorted(moments) if pace(Period(start=BEGIN, end=END), RULES, now) * CAP >= spent]
    prices = []
    for now in due:
        known = update_price(MONTH, RULES, known, now)
        prices.append(shadow_price(MONTH, RULES, known, now))

    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(prices))


@given(spent=SPENT, held=st.floats(0, 100), last=WITHIN, now=WITHIN)
def test_asking_does_not_change_the_price(spent: int, held: float, last: datetime, now: datetime) -> None:
    """Bringing the price up to date and asking again at the same moment, or for an earlier one, gives the same."""
    known = spending(spent, held, last)

    updated = update_price(MONTH, RULES, known, now)

    assert update_price(MONTH, RULES, updated, now) == updated
    assert shadow_price(MONTH, RULES, updated, now) == shadow_price(MONTH, RULES, known, now)
    if now <= last:
        assert updated == known


@pytest.mark.parametrize("worth", [0.3, 1.0, 3.0])
def test_a_steady_demand_settles_at_the_price_that_spends_the_budget(worth: float) -> None:
    """Where half of the demand earns `worth` times its price on top and the budget pays for a quarter, the money lasts, and is used."""
    rng = np.random.default_rng(0)
    known, bought, late = spending(0), 0, 0
    moments = [BEGIN + part * (END - BEGIN) for part in np.linspace(0.001, 0.999, 4000)]
    for number, now in enumerate(moments):
        known = update_price(MONTH, RULES, known, now)
        gain = rng.uniform(0, 2 * worth)
        is_affordable = known.spent_micros + RUBLE <= CAP
        if is_affordable and gain > shadow_price(MONTH, RULES, known, now):
            known = replace(known, committed_micros=known.committed_micros + RUBLE)
            bought += 1
            late += number > 3600

    assert 950 <= bought <= 1000
    assert 50 <= late <= 150
    assert known.held_price == pytest.approx(1.5 * worth, rel=0.25)


# --- in a decision


def test_a_send_pays_for_every_budget_that_counts_it() -> None:
    """The shadow price of a channel is the sum over its budgets and those of all channels."""
    budgets = (budget("*", 0.5), budget("sms", 1.0), budget("viber", 4.0))

    assert shadow_price_of(budgets, "sms") == 1.5
    assert shadow_price_of(budgets, "push") == 0.5
    assert shadow_price_of((), "sms") == 0


def test_what_is_set_aside_is_gone() -> None:
    """Charging takes from the budgets that are named alone."""
    left = charged((budget("sms", name="a"), budget("*", name="b")), {"a": 3 * RUBLE})

    assert [b.left_micros for b in left] == [997 * RUBLE, 1_000 * RUBLE]


def test_a_channel_whose_budget_cannot_pay_is_suppressed_until_the_next_period() -> None:
    """BUDGET_EXHAUSTED comes with the figures and the next period; what costs less stays eligible."""
    context = replace(with_channels("sms", "viber", "push"), budgets=(budget("*", left=5 * RUBLE, name="day"),))

    found = find_eligible(context, RULES)

    assert [c.channel for c in found.eligible] == ["viber", "push"]
    assert [(s.channel, s.reason, s.retry_time) for s in found.suppressed] == [
        ("sms", Reason.BUDGET_EXHAUSTED, NOW + DAY)
    ]
    assert found.suppressed[0].detail == "costs 5.30, budget day has 5.00 of 1000.00 left"


def test_a_state_says_what_is_left_and_until_when() -> None:
    """Reserved money is not left; a calendar budget comes back with its next period."""
    found = state_of(MONTH, RULES, replace(spending(300 * RUBLE), reserved_micros=100 * RUBLE), NOW)

    assert (found.left_micros, found.retry_time) == (600 * RUBLE, END)
    assert found.shadow_price == shadow_price(MONTH, RULES, spending(400 * RUBLE), NOW)


@given(
    chances=st.tuples(*[st.floats(0.001, 0.5)] * 3),
    left=st.tuples(st.integers(0, 12 * RUBLE), st.integers(0, 12 * RUBLE)),
    prices=st.tuples(st.floats(0, 20), st.floats(0, 20)),
)
def test_more_budget_never_lowers_the_value(
    chances: tuple[float, float, float], left: tuple[int, int], prices: tuple[float, float]
) -> None:
    """With more money left, at no higher a shadow price, the best plan of a message is worth no less."""
    names = ("push", "sms", "viber")
    bundle, rules = bundle_of(dict(zip(names, chances, strict=True))), RULES

    def best(money: int, shadow: float) -> float:
        context = replace(with_channels(*names), budgets=(budget("*", shadow, left=money),))
        found = evaluate(context, rules, bundle)
        assert isinstance(found, Evaluation)
        return max(0.0, float(found.distribution.table.plan_micros.max()))

    little, much = best(min(left), max(prices)), best(max(left), min(prices))

    assert little <= much + 1e-6 * RUBLE


def test_a_dear_budget_takes_paid_sends_out_first() -> None:
    """As the shadow price rises a paid send gives way to a free one, and then is not even explored."""
    bundle, rules = bundle_of({"push": 0.02, "sms": 0.05}), replace(RULES, cascade=replace(RULES.cascade, max_steps=1))

    def share(shadow: float) -> float:
        context = replace(with_channels("push", "sms"), budgets=(budget("sms", shadow),))
        found = decide(context, rules, bundle).distribution
        assert found is not None
        return float(
            sum(p for a, p in zip(found.table.actions, found.probabilities, strict=True) if a.channel == "sms")
        )

    shares = [share(shadow) for shadow in (0.0, 2.0, 5.0, 50.0)]

    assert shares[0] > 0.5 > shares[2] > 0
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(shares))
    assert shares[3] == 0

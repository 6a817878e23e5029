"""Budgets: what may be spent in a period, and the shadow price that makes it last.

A budget's shadow price l is the dual variable of its limit: a send is made where it earns more than its price x (1 + l). It follows the
budget's spending by dual ascent. With f the part of the period's demand that has passed and s the part of the budget that is spent or reserved,

    e = log((1 - f + r) / (1 - s + r))      how far spending is ahead of its pace, measured by what is left of both
    h' = max(0, h + K G (e_0 + e_1) / 2 (f_1 - f_0))      the price held: ascent over the part of the demand since it was last brought up to date
    l = max(0, h + G e)                     the price that is charged

so that l is 0 where the budget is loose, rises with every send that is ahead of the pace, and grows so fast as the money runs out that there is
some left until the end. h is what it converges to, and what the next period begins with.

The demand is taken to be even over the hours in which messages may be sent: the wall clock of the rules' zone without their quiet hours.
The hours of a day are not learned: over a week or a month they average out, and a day's budget is spent a little early where the demand is late.

Sources: Balseiro, Lu & Mirrokni (2020), "Dual Mirror Descent for Online Allocation Problems" (ascent on the dual price by what is spent against an
even pace, with a Euclidean reference function); what is left in place of what is spent is re-solving, as in Balseiro, Besbes & Pizarro (2023), "Survey
of Dynamic Resource-Constrained Reward Collection Problems".
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from models.local_time import zone
from models.rules import EVERY, Budget, QuietHours, Rules

GRACE = timedelta(hours=1)
"""How long after a send's window its reservation waits to hear of it."""
GAIN = 10.0
"""G: by how much the price rises with a lead of 1 % in what is left, times 100."""
LEARNING = 4.0
"""K: how many times in a period the held price follows the charged one."""
ROOM = 0.02
"""r: the part of a period or budget at its end that is not told from nothing."""
_HOURS = 24.0
_KEPT_PERIODS = 1024
_DAY_ZERO = date(2000, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A stretch of time [start, end) that a budget is for."""

    start: datetime
    end: datetime

    def holds(self, moment: datetime) -> bool:
        """Tell whether a moment lies in it."""
        return self.start <= moment < self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What became of a budget in a period so far, in micros, and the price held at `price_time`."""

    reserved_micros: int = 0
    committed_micros: int = 0
    held_price: float = 0.0
    price_time: datetime

    @property
    def spent_micros(self) -> int:
        """What is spent or set aside."""
        return self.reserved_micros + self.committed_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """A budget that counts a message, as known when it is decided."""

    name: str
    channel: str
    cap_micros: int
    left_micros: int
    shadow_price: float
    retry_time: datetime | None = None
    """When there is money again; None: never."""

    def counts(self, channel: str) -> bool:
        """Tell whether sends through that channel count."""
        return self.channel in (EVERY, channel)

    def refuses(self, channel: str, price_micros: int) -> bool:
        """Tell whether there is too little left for a send through that channel."""
        return self.counts(channel) and price_micros > self.left_micros


def shadow_price_of(budgets: Iterable[BudgetState], channel: str) -> float:
    """Return the shadow price of a send through a channel: it pays for every budget that counts it."""
    return math.fsum(budget.shadow_price for budget in budgets if budget.counts(channel))


def charged(budgets: Iterable[BudgetState], spent: Mapping[str, int]) -> tuple[BudgetState, ...]:
    """Return the budgets after so many micros more are set aside, by name."""
    return tuple(replace(b, left_micros=b.left_micros - spent.get(b.name, 0)) for b in budgets)


def period_of(budget: Budget, rules: Rules, moment: datetime) -> Period:
    """Return the calendar period in the rules' zone that holds a moment; of a total its own, which need not hold it."""
    return _period(*_days(budget, moment.astimezone(zone(rules.time_zone)).date()), rules.time_zone)


@lru_cache(maxsize=_KEPT_PERIODS)
def _period(first: date, after: date, zone_name: str) -> Period:
    start, end = (datetime.combine(day, time(), zone(zone_name)).astimezone(UTC) for day in (first, after))
    return Period(start=start, end=end)


def _days(budget: Budget, day: date) -> tuple[date, date]:
    """Return the first day of the period, and the first one after it."""
    if budget.start_date is not None and budget.end_date is not None:
        return budget.start_date, budget.end_date + timedelta(days=1)
    if budget.period == "month":
        first = day.replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)
    if budget.period == "week":
        first = day - timedelta(days=day.weekday())
        return first, first + timedelta(days=7)
    return day, day + timedelta(days=1)


def state_of(budget: Budget, rules: Rules, spending: Spending, now: datetime) -> BudgetState:
    """Return a budget as a decision made now finds it; outside the dates of a total nothing may be spent."""
    period = period_of(budget, rules, now)
    is_open = period.holds(now)
    again = period.start if now < period.start else None
    if is_open and budget.period != "total":
        again = period.end
    return BudgetState(
        name=budget.name,
        channel=budget.channel,
        cap_micros=budget.amount,
        left_micros=max(0, budget.amount - spending.spent_micros) if is_open else 0,
        shadow_price=shadow_price(budget, rules, spending, now) if is_open else 0.0,
        retry_time=again,
    )


def shadow_price(budget: Budget, rules: Rules, spending: Spending, now: datetime) -> float:
    """Return the price that is charged for a unit of a budget now, at least 0."""
    held = update_price(budget, rules, spending, now).held_price
    due = pace(period_of(budget, rules, now), rules, now)
    return max(0.0, held + GAIN * _lead(budget, spending, due))


def update_price(budget: Budget, rules: Rules, spending: Spending, now: datetime) -> Spending:
    """Return the spending with its price brought up to date; to be done before the spending changes. A time before the last does nothing."""
    if now <= spending.price_time:
        return spending
    period = period_of(budget, rules, now)
    before, due = (pace(period, rules, max(moment, period.start)) for moment in (spending.price_time, now))
    lead = (_lead(budget, spending, before) + _lead(budget, spending, due)) / 2
    held = max(0.0, spending.held_price + LEARNING * GAIN * lead * (due - before))
    return replace(spending, held_price=held, price_time=now)


def _lead(budget: Budget, spending: Spending, due: float) -> float:
    """Return how far spending is ahead of the part that is due; negative where it is behind."""
    spent = min(1.0, spending.spent_micros / budget.amount)
    return math.log((1 - due + ROOM) / (1 - spent + ROOM))


def pace(period: Period, rules: Rules, now: datetime) -> float:
    """Return the part of a period's demand that has passed, 0 to 1: of the hours in which messages may be sent."""
    begin, end = _loud_bounds(period, rules.time_zone, rules.quiet_hours)
    passed = _loud_hours(now.astimezone(zone(rules.time_zone)), rules.quiet_hours)
    return min(1.0, max(0.0, (passed - begin) / (end - begin)))


@lru_cache(maxsize=_KEPT_PERIODS)
def _loud_bounds(period: Period, zone_name: str, quiet: QuietHours | None) -> tuple[float, float]:
    begin, end = (_loud_hours(moment.astimezone(zone(zone_name)), quiet) for moment in (period.start, period.end))
    return begin, end


def _loud_hours(moment: datetime, quiet: QuietHours | None) -> float:
    """Return how many hours of the wall clock before a moment are not quiet, counted from a day long ago."""
    days = (moment.date() - _DAY_ZERO).days
    hour = _hour(moment.time())
    if quiet is None:
        return days * _HOURS + hour
    start, end = _hour(quiet.start), _hour(quiet.end)
    if start < end:
        return days * (_HOURS - end + start) + min(hour, start) + max(0.0, hour - end)
    return days * (start - end) + min(max(0.0, hour - end), start - end)


def _hour(clock: time) -> float:
    return clock.hour + clock.minute / 60 + clock.second / 3600

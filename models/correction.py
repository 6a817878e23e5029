"""What has been seen since the bundle was trained: factors on the stages of the funnel, learned within hours.

Each send is a set of small trials. A trial of a stage has an expectation e by the bundle and becomes an observation o, 0 or 1:

    deliver       one trial, over two hours after the send
    notice        one trial for each group of hours after the send, e its cumulative hazard h, while the send was still unnoticed and nothing
                  had ended the message; in the group of the notice e is what passes on average until it, 1 - h / (exp(h) - 1);
                  over an hour after the group, so that a caller has time to report
    click         one trial when it was noticed, over within two hours
    unsubscribe   one trial when it was noticed, over within two hours
    order         one trial when it was clicked within the window in which the bundle was taught to look for orders, over at its end; any order
                  of the customer from the click on counts, whatever it is credited to, as it does in training

Sums of o and e by stage, channel, kind of message, step (1, or 2 for later ones) and hour in which the trials were over are sufficient. They are integers of
millionths, so that those of several replicas add up to the same whatever their order. For what is true at time t, sums of earlier hours h count
2^(-(t - h) / half-life). With Gamma priors of mean 1 and strength a, the factor of a channel and of a kind (or step) within it are

    f_c = (a + O_c) / (a + E_c),      f = f_c x (a + O_ck) / (a + f_c E_ck) x (a + O_cs) / (a + f_c E_cs),

posterior means of rates that multiply what the bundle says, each with a strength a of its own and relative variance 1 / (a + O); the variances of the
three are added. Where a likelihood ratio says that a channel's rate has changed at some hour, sums from before it no longer count:

    LR(tau) = L(O_before, E_before) + L(O_after, E_after) - L(O, E),      L(O, E) = O log(O / E) - O,

largest over tau, above a threshold. Sources: Gelman et al., "Bayesian Data Analysis", 2.6 (Gamma-Poisson); Siegmund & Venkatraman (1995),
"Using the Generalized Likelihood Ratio Statistic for Sequential Detection of a Change-Point".
"""

import bisect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
DELIVER, NOTICE, CLICK, ORDER, UNSUBSCRIBE = "deliver", "notice", "click", "order", "unsubscribe"
TRIAL_STAGES = (DELIVER, NOTICE, CLICK, ORDER, UNSUBSCRIBE)
GROUP_EDGES = (1, 2, 3, 6, 12, 24, 48, 72)
"""Hours after the send at which the groups of the stage notice end."""
REPORT_HOURS = 1
"""How long after a group its trial is over. What is reported later looks like an outage until it comes."""
SETTLE_HOURS = 2
LATER_STEP = 2
"""Stands for this step and all later ones."""
ORDER_HOURS = 72
"""The window of orders, from the decision, of bundles that do not say theirs; in forecasts that do not, from the click."""
UNIT = 1_000_000
_HALF_LIFE_HOURS = 24.0 * 14
_STRENGTH = {DELIVER: 20.0, NOTICE: 20.0, CLICK: 20.0, ORDER: 20.0, UNSUBSCRIBE: 20.0}
_FINER_STRENGTH = 40.0
_CHANGED = 10.0
"""The log likelihood ratio from which a rate is taken to have changed. Of streams without a change, looked at every hour for 600 hours, fewer than
one in twenty reach it; a rate that falls to nothing does after about so many expected observations."""
_LEAST_EXPECTED = 1e-3
"""So that one event of a kind that the bundle all but rules out is no change."""
_LEAST, _MOST = 0.02, 5.0
REACTIONS = ("clicked", "unsubscribe", "complaint")
"""What ends a message: notices of its other sends no longer say anything of them."""
ORDERS = ("order", "store_purchase")
_NOTICES = ("seen", "opened", "clicked")
_ROOM_HOURS = 240
"""Hours by which the sums grow at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the bundle alone expects of one send; hours count from 1970. Tuples have one entry for each group of hours."""

    send_hour: int
    deliver: float
    notice: tuple[float, ...]
    click: tuple[float, ...]
    """P(click | noticed within the group)."""
    order: tuple[float, ...]
    """P(order | clicked within the group)."""
    unsubscribe: float
    order_until: int | None = None
    """The last hour in which an order counts: the end of the window in which training looked for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happenings:
    """What is known of one send; hours since 1970."""

    is_not_sent: bool = False
    is_undelivered: bool = False
    noticed_hour: int | None = None
    clicked_hour: int | None = None
    is_ordered: bool = False
    """Whether an order came within the window after the click."""
    is_unsubscribed: bool = False
    ended_hour: int | None = None
    """When the customer reacted to another send of the same message."""


def happenings(
    outcomes: Iterable[tuple[str, int]],
    others: Iterable[tuple[str, int]] = (),
    orders: Iterable[int] = (),
    order_until: int | None = None,
) -> Happenings:
    """Return what is known of one send; NOT_SENT counts for nothing where SENT came too.

    Parameters
    ----------
    outcomes : of this send, as (type, hour since 1970), without those that machines made.
    others : likewise of the other sends of its message.
    orders : hours since 1970 in which the customer ordered, whatever the orders are credited to.
    order_until : as the send's forecast has it.
    """
    first: dict[str, int] = {}
    for kind, hour in outcomes:
        first[kind] = min(first.get(kind, hour), hour)
    clicked = first.get("clicked")
    return Happenings(
        is_not_sent="not_sent" in first and "sent" not in first,
        is_undelivered="undelivered" in first,
        noticed_hour=min((first[kind] for kind in _NOTICES if kind in first), default=None),
        clicked_hour=clicked,
        is_ordered=clicked is not None
        and any(clicked <= hour <= orders_until(clicked, order_until) for hour in orders),
        is_unsubscribed="unsubscribe" in first or "complaint" in first,
        ended_hour=min((hour for kind, hour in others if kind in REACTIONS), default=None),
    )


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One sum: a stage of one bundle's sends through a channel, by kind of message, step (1 or 2) and the hour in which trials were over."""

    bundle: str
    stage: str
    channel: str
    kind: str
    step: int
    hour: int


@dataclass(frozen=True, slots=True)
class Sums:
    """Observed and expected, in millionths."""

    observed: int = 0
    expected: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.observed + other.observed, self.expected + other.expected)

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(self.observed - other.observed, self.expected - other.expected)


def orders_until(clicked_hour: int, order_until: int | None) -> int:
    """Return the last hour in which an order counts for a click, where a forecast says this of it."""
    return clicked_hour + ORDER_HOURS if order_until is None else order_until


Trials = dict[tuple[str, int], Sums]
"""Sums by stage and hour."""


def trials(forecast: Forecast, happened: Happenings) -> Trials:
    """Return the sums that one send adds: a function of what is known, in whatever order it came to be known."""
    found: Trials = {}

    def add(stage: str, hour: int, observed: float, expected: float) -> None:
        key = (stage, hour)
        found[key] = found.get(key, Sums()) + Sums(round(observed * UNIT), round(expected * UNIT))

    if happened.is_not_sent:
        return found
    noticed = None if happened.noticed_hour is None else max(happened.noticed_hour, forecast.send_hour)
    is_lost = happened.is_undelivered and noticed is None
    add(DELIVER, forecast.send_hour + SETTLE_HOURS, 0.0 if is_lost else 1.0, forecast.deliver)
    if is_lost:
        return found
    age = 0 if noticed is None else noticed - forecast.send_hour
    group = None if noticed is None else _group(age)
    end = None if happened.ended_hour is None else happened.ended_hour - forecast.send_hour
    for place, hazard in enumerate(forecast.notice):
        open_share = 1.0 if end is None else _share_before(place, end)
        if open_share == 0.0 or (group is not None and place > group):
            break
        is_here = group == place and (end is None or age <= end)
        expected = _until_notice(hazard) if is_here else hazard * open_share
        add(NOTICE, forecast.send_hour + GROUP_EDGES[place] + REPORT_HOURS, float(is_here), expected)
    if noticed is None or group is None or not forecast.click:
        return found
    place = min(group, len(forecast.click) - 1)
    add(CLICK, noticed + SETTLE_HOURS, float(happened.clicked_hour is not None), forecast.click[place])
    if happened.clicked_hour is None:
        add(UNSUBSCRIBE, noticed + SETTLE_HOURS, float(happened.is_unsubscribed), forecast.unsubscribe)
        return found
    until = orders_until(max(happened.clicked_hour, noticed), forecast.order_until)
    if happened.clicked_hour <= until:
        add(ORDER, until, float(happened.is_ordered), forecast.order[place])
    return found


def change(forecast: Forecast, before: Happenings | None, after: Happenings) -> Trials:
    """Return what is to be added to the sums where what is known of a send goes from one to another; None: the send was not booked."""
    found = trials(forecast, after)
    if before is not None:
        for key, sums in trials(forecast, before).items():
            found[key] = found.get(key, Sums()) - sums
    return {key: sums for key, sums in found.items() if sums != Sums()}


def cells(bundle: str, channel: str, kind: str, step: int, changed: Trials) -> list[tuple[Cell, Sums]]:
    """Return what a send through a channel, of a kind of message, at a step of its cascade, adds to which sums."""
    return [
        (Cell(bundle, stage, channel, kind, min(step, LATER_STEP), hour), sums)
        for (stage, hour), sums in sorted(changed.items())
    ]


def epoch_hour(moment: datetime) -> int:
    """Return the whole hour since 1970 in UTC that holds a moment."""
    return math.floor(moment.timestamp() / 3600)


def _group(age: int) -> int:
    """Return the place of the group of an age in hours; one past the last for an age of which no forecast tells."""
    return bisect.bisect_right(GROUP_EDGES, age)


def _share_before(place: int, age: int) -> float:
    """Return how much of a group of hours lies before an age."""
    begin, end = (0, *GROUP_EDGES)[place], GROUP_EDGES[place]
    return min(max((age - begin) / (end - begin), 0.0), 1.0)


def _until_notice(hazard: float) -> float:
    """Return the mean cumulative hazard until an event of which is known that it came before this much had passed."""
    return hazard / 2 if hazard < 1e-3 else 1 - hazard / math.expm1(hazard)


@dataclass(frozen=True, slots=True)
class Factor:
    """What multiplies a stage of one channel, and the relative standard deviation of that."""

    value: float = 1.0
    deviation: float = 0.0


Factors = Mapping[str, Mapping[str, Factor]]
"""By stage and channel."""


def factors_of(factors: Factors, channels: Iterable[str]) -> Factors:
    """Return the factors of these channels alone, without stages that have none."""
    wanted = set(channels)
    kept = {stage: {c: f for c, f in found.items() if c in wanted} for stage, found in factors.items()}
    return {stage: found for stage, found in kept.items() if found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What the sums of one stage and channel, over all kinds of message and steps, come to: weighted by age, without those before a change."""

    stage: str
    channel: str
    factor: Factor
    observed: float
    expected: float


class Corrections:
    """The sums of one bundle, and the factors that follow from them. Not safe for threads.

    The factors for an hour are a function of the sums: it does not matter in which order or how late they were added.
    """

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self._tables: dict[tuple[str, str], _Table] = {}
        self._hour: int | None = None
        self._summaries: dict[tuple[str, str], _Summary] = {}
        self._factors: dict[tuple[str, int], Factors] = {}

    def add(self, cells: Iterable[tuple[Cell, Sums]]) -> None:
        """Add sums to what is known; those of other bundles are left out."""
        for cell, sums in cells:
            if cell.bundle == self.bundle:
                table = self._tables.setdefault((cell.stage, cell.channel), _Table())
                table.add((cell.kind, cell.step), cell.hour, sums)
                if self._hour is not None and cell.hour <= self._hour:
                    self._hour = None

    def factors(self, hour: int, kind: str, step: int) -> Factors:
        """Return the factors for a kind of message and a step (1, or 2 for later ones), from trials over when an hour since 1970 begins."""
        self._summarise(hour)
        asked = (kind, min(step, LATER_STEP))
        if asked not in self._factors:
            found: dict[str, dict[str, Factor]] = {}
            for (stage, channel), summary in self._summaries.items():
                found.setdefault(stage, {})[channel] = summary.factor(*asked)
            self._factors[asked] = found
        return self._factors[asked]

    def corrections(self, hour: int) -> list[Correction]:
        """Return what the sums come to when an hour begins, by stage and channel in order."""
        self._summarise(hour)
        return [
            Correction(
                stage=stage,
                channel=channel,
                factor=Factor(value=_limited(summary.coarse), deviation=summary.deviation),
                observed=summary.observed,
                expected=summary.expected,
            )
            for (stage, channel), summary in sorted(self._summaries.items())
        ]

    def _summarise(self, hour: int) -> None:
        if hour == self._hour:
            return
        self._hour = hour
        self._factors = {}
        self._summaries = {}
        for key, table in self._tables.items():
            summary = table.summary(hour, _STRENGTH[key[0]])
            if summary is not None:
                self._summaries[key] = summary


@dataclass(frozen=True, slots=True, kw_only=True)
class _Summary:
    """Weighted sums of one stage and channel, in units, by kind and step."""

    coarse: float
    deviation: float
    observed: float
    expected: float
    by_kind: Mapping[str, tuple[float, float]]
    by_step: Mapping[int, tuple[float, float]]

    def factor(self, kind: str, step: int) -> Factor:
        value, variance = self.coarse, self.deviation**2
        for observed, expected in (self.by_kind.get(kind, (0.0, 0.0)), self.by_step.get(step, (0.0, 0.0))):
            value *= (_FINER_STRENGTH + observed) / (_FINER_STRENGTH + self.coarse * expected)
            variance += 1 / (_FINER_STRENGTH + max(observed, 0.0))
        return Factor(value=_limited(value), deviation=round(math.sqrt(variance), 4))


def _limited(value: float) -> float:
    return round(min(max(value, _LEAST), _MOST), 4)


class _Table:
    """Sums by kind and step and by hour: an array that grows, in millionths."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], int] = {}
        self._first = 0
        self._sums = np.zeros((4, 0, 2), dtype=np.int64)

    def add(self, key: tuple[str, int], hour: int, sums: Sums) -> None:
        row = self._rows.setdefault(key, len(self._rows))
        self._reach(row, hour)
        self._sums[row, hour - self._first] += (sums.observed, sums.expected)

    def _reach(self, row: int, hour: int) -> None:
        """Make room for a row and an hour."""
        rows, hours, _ = self._sums.shape
        if hours == 0:
            self._first = hour
        before = max(self._first - hour, 0)
        after = max(hour - self._first + 1 - hours, 0)
        if before or after:
            after = after and after + _ROOM_HOURS
            self._sums = np.pad(self._sums, ((0, 0), (before, after), (0, 0)))
            self._first -= before
        if row >= rows:
            self._sums = np.pad(self._sums, ((0, row + 1), (0, 0), (0, 0)))

    def summary(self, now: int, strength: float) -> _Summary | None:
        known = self._sums[: len(self._rows), : max(now - self._first + 1, 0)]
        if not known.any():
            return None
        table, total = known / UNIT, known.sum(axis=0) / UNIT
        begin = find_change(total[:, 0], total[:, 1])
        hours = self._first + np.arange(table.shape[1])
        weight = np.exp2(-(now - hours) / _HALF_LIFE_HOURS)
        weight[:begin] = 0.0
        by_key = np.tensordot(table, weight, axes=(1, 0))
        by_kind: dict[str, tuple[float, float]] = {}
        by_step: dict[int, tuple[float, float]] = {}
        for (kind, step), row in sorted(self._rows.items()):
            o, e = (float(x) for x in by_key[row])
            by_kind[kind] = (by_kind.get(kind, (0.0, 0.0))[0] + o, by_kind.get(kind, (0.0, 0.0))[1] + e)
            by_step[step] = (by_step.get(step, (0.0, 0.0))[0] + o, by_step.get(step, (0.0, 0.0))[1] + e)
        observed = sum(o for o, _ in by_step.values())
        expected = sum(e for _, e in by_step.values())
        return _Summary(
            coarse=(strength + observed) / (strength + expected),
            deviation=round(1 / math.sqrt(strength + max(observed, 0.0)), 4),
            observed=observed,
            expected=expected,
            by_kind=by_kind,
            by_step=by_step,
        )


def find_change(observed: FloatArray, expected: FloatArray) -> int:
    """Return from which hour on the sums tell of today: 0, or the hour at which the rate most likely changed; arrays by hour in order."""
    if len(observed) < 2:
        return 0
    o, e = np.cumsum(observed), np.cumsum(expected)
    ratio = _likelihood(o[:-1], e[:-1]) + _likelihood(o[-1] - o[:-1], e[-1] - e[:-1]) - _likelihood(o[-1:], e[-1:])
    best = int(ratio.argmax())
    return best + 1 if ratio[best] > _CHANGED else 0


def _likelihood(observed: FloatArray, expected: FloatArray) -> FloatArray:
    """Return max over rates of the Poisson log likelihood, up to what does not depend on the split."""
    o, e = np.maximum(observed, 0.0), np.maximum(expected, _LEAST_EXPECTED)
    found: FloatArray = np.where(o > 0, o * np.log(np.maximum(o, 1e-12) / e), 0.0) - o
    return found

"""Who took part in an experiment, and what each of them did, bought and cost within the window after their first exposure.

Every customer counts from the first decision that exposed them, in the variant of that decision, for as long as the experiment's window,
whatever they were sent afterwards (intention to treat). Customers whose window is still open are counted, and left out of all figures;
so are those of two variants, who were one person before anybody knew.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from models.errors import LogUnusable
from models.features import NO_SEND
from models.record import from_micros, to_micros
from models.rules import Experiment, Rules, Variant
from service.store.engine import asking
from service.store.store import ACTIVE, ENGAGED, PURCHASES

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
HOLDOUT = "holdout"
"""The name under which the global holdout is reported as an experiment."""
PROGRAMME = "programme"
_EVERYBODY = "everybody"
_DAY = 86_400_000_000
_UNIT = 1_000_000

_NEWEST = "SELECT max(t) FROM (SELECT max(decide_time) t FROM decisions UNION ALL SELECT max(receive_time) FROM outcomes) newest"
_EXPOSED = """
SELECT e.customer_key, e.variant, e.probability, e.expose_time, e.decision_id, e.rules_name, e.is_mixed, d.context
FROM exposures e LEFT JOIN decisions d ON d.decision_id = e.decision_id AND d.step = 1
WHERE e.experiment = :experiment AND e.expose_time <= :until ORDER BY e.expose_time, e.customer_key
"""
_DECIDED = """
SELECT d.customer_key, d.decision_id, d.step, d.decide_time, d.send_time, d.verdict, d.channel, d.price_micros,
  d.order_margin_micros, d.policy, d.bundle_version, d.rules_name, d.choice
FROM decisions d WHERE d.mode = 'live' AND d.decide_time <= :until {whose} ORDER BY d.customer_key, d.decide_time, d.step
"""
_HAPPENED = """
SELECT o.customer_key, o.decision_id, o.step, o.type, o.occur_time, o.value_micros, o.cost_micros, o.revenue_micros,
  o.csat, o.nps, (SELECT d.order_margin_micros FROM decisions d WHERE d.decision_id = o.decision_id AND d.step = 1)
FROM outcomes o WHERE o.customer_key != '' AND NOT o.machine_generated AND o.receive_time <= :until {whose}
ORDER BY o.customer_key, o.occur_time, o.event_id
"""
_WHOSE = (
    "AND EXISTS (SELECT 1 FROM exposures e WHERE e.experiment = :experiment AND e.customer_key = {alias}.customer_key)"
)
_IDENTITIES = "SELECT customer_key, count(*) FROM identities GROUP BY customer_key"
_KNOWN = "SELECT customer_key FROM customers WHERE create_time < :until ORDER BY customer_key"
_MARKETED = """
SELECT customer_key, decide_time, verdict, decision_id, rules_name, context FROM decisions
WHERE mode = 'live' AND step = 1 AND decide_time <= :until AND context != '' ORDER BY decide_time, decision_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one rules file drew customers by, and when the first of them were exposed."""

    rules_name: str
    begin: datetime
    probabilities: Mapping[str, float]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The contacts before an order: (channel, engaged or not) in order, and what the order earned."""

    variant: int
    channels: tuple[str, ...]
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """What became of cascades that had planned a paid step after a free one, of one variant."""

    planned: int = 0
    """Cascades with a paid step after the first."""
    ordered_before: int = 0
    """Of them, those whose customer ordered before the first paid send."""
    clicked_before: int = 0
    """Those of the others whose customer clicked before it."""
    paid_sent: int = 0
    """Those of which a paid step was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Customers of an experiment whose window is over, in the order in which it ended; arrays have shape (n,).

    Money is in units of the currency. Windows are `window_days` long and begin with the first exposure.
    """

    experiment: Experiment
    until: datetime
    variant: IntArray
    """Place of the variant in the experiment."""
    expose_day: FloatArray
    """Days from the experiment's start to the first exposure."""
    figures: Mapping[str, FloatArray]
    """What each of them did, by name: see FIGURES."""
    before: Mapping[str, FloatArray]
    """The same of as long a time before the exposure, as far as the log goes back."""
    segments: Mapping[str, tuple[str, ...]]
    """Labels of each, by what they are divided by."""
    messages: Mapping[str, FloatArray]
    """Messages sent, by channel."""
    spend: Mapping[str, FloatArray]
    """What they cost, by channel."""
    first_order_days: FloatArray
    """Days from exposure to the first order, nan where there was none."""
    by_day: Mapping[int, tuple[FloatArray, FloatArray]]
    """By variant: sums over customers and sums of squares of net value by whole day since the exposure, each of shape (days,)."""
    paths: tuple[Path, ...]
    funnels: tuple[Funnel, ...]
    """By variant."""
    exposed: Mapping[str, int]
    """All who were exposed and are of one variant, by variant; those of an open window too."""
    daily: Mapping[str, IntArray]
    """Those by whole day since the experiment's start."""
    open_windows: int
    mixed: int
    """Customers of two variants."""
    allocations: tuple[Allocation, ...]
    bundles: Mapping[str, Mapping[str, int]]
    """Decisions by bundle version, by variant."""
    policies: Mapping[str, Mapping[str, int]]

    def mask(self, place: int) -> BoolArray:
        """Return who is in a variant."""
        return np.asarray(self.variant == place)

    @property
    def window_end(self) -> FloatArray:
        """Days from the experiment's start to the end of each window."""
        return self.expose_day + self.experiment.window_days


FIGURES = (
    "orders",
    "store_orders",
    "margin",
    "revenue",
    "revenue_orders",
    "returns",
    "spend",
    "messages",
    "paid_messages",
    "unsubscribed",
    "complained",
    "active_late",
    "engaged",
    "crossed",
    "store_after_contact",
    "contacted",
    "csat_sum",
    "csat_count",
    "nps_score",
    "nps_count",
    "identities",
    "net",
)
"""orders, store_orders: how many; margin of both less returns; revenue of revenue_orders orders that said theirs; active_late: 1 where they did
something in the second half of the window; engaged: 1 where they saw or clicked a message; crossed: 1 where they then ordered after a message of another channel or in
a shop; store_after_contact: 1 where they bought in a shop after a message was sent; nps_score: promoters less detractors."""


@dataclass(slots=True)
class _Person:
    """One customer while they are read."""

    variant: int
    begin: int
    kind: str
    stage: str
    zone: str
    country: str
    figures: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    before: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    messages: Counter[str] = field(default_factory=Counter)
    spend: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    days: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    first_order: float = float("nan")
    purchases: list[tuple[int, float, str]] = field(default_factory=list)
    """(time, margin, where) within the window."""
    engaged: list[tuple[int, str, int]] = field(default_factory=list)
    clicks: list[tuple[int, str, int]] = field(default_factory=list)


def holdout_experiment(rules: Rules, window_days: float, since: datetime, until: datetime) -> Experiment:
    """Return the global holdout as an experiment: nothing sent against the whole programme.

    Raises
    ------
    LogUnusable: the rules have no holdout.
    """
    share = rules.holdout.share
    if not 0 < share < 1:
        raise LogUnusable("the rules have no holdout: set holdout.share, and wait until customers have been held out")
    return Experiment(
        name=HOLDOUT,
        variants=(Variant(name=HOLDOUT, weight=share), Variant(name=PROGRAMME, weight=1 - share)),
        start_time=since,
        end_time=until,
        window_days=window_days,
    )


def read_people(url: str, experiment: Experiment, rules: Rules, until: datetime | None = None) -> People:
    """Read who took part and what they did.

    Parameters
    ----------
    until : the log is read as it was then; its newest row by default, so that the same log gives the same report.

    Raises
    ------
    LogUnusable: nobody was exposed. StoreInvalid: the database cannot be opened.
    """
    with asking(url) as connection:
        newest = connection.execute(text(_NEWEST)).scalar()
        if newest is None:
            raise LogUnusable(f"the log {url} is empty; nobody was exposed to {experiment.name}")
        last = int(newest) if until is None else min(int(newest), to_micros(until))
        reading = _Reading(connection, experiment, rules, last)
        exposures = reading.marketed() if experiment.name == HOLDOUT else reading.exposed()
        return reading.people(exposures)


def newest_time(url: str) -> datetime | None:
    """Return the time of the newest row of a log, None where it is empty."""
    with asking(url) as connection:
        newest = connection.execute(text(_NEWEST)).scalar()
    return None if newest is None else from_micros(int(newest))


def read_period(url: str, rules: Rules, begin: datetime, days: float) -> People | None:
    """Read what all customers did in some days, as one variant; None where nobody was known by their end."""
    end = begin + timedelta(days=days)
    everybody = Experiment(
        name=_EVERYBODY,
        variants=(Variant(name=_EVERYBODY, weight=1.0),),
        start_time=begin,
        end_time=end,
        window_days=days,
    )
    with asking(url) as connection:
        reading = _Reading(connection, everybody, rules, to_micros(end))
        known = list(reading.known(to_micros(begin)))
        return reading.people(iter(known)) if known else None


class _Reading:
    def __init__(self, connection: Connection, experiment: Experiment, rules: Rules, until: int) -> None:
        self._connection = connection
        self._experiment = experiment
        self._rules = rules
        self._until = until
        self._harm = rules.harm.unsubscribe / _UNIT
        self._window = round(experiment.window_days * _DAY)
        self._start = to_micros(experiment.start_time)
        self._places = {variant.name: place for place, variant in enumerate(experiment.variants)}
        self._people: dict[str, _Person] = {}
        self._open = 0
        self._mixed = 0
        self._daily: dict[str, Counter[int]] = {variant.name: Counter() for variant in experiment.variants}
        self._allocations: dict[str, list[Any]] = {}
        self._bundles: dict[str, Counter[str]] = {variant.name: Counter() for variant in experiment.variants}
        self._policies: dict[str, Counter[str]] = {variant.name: Counter() for variant in experiment.variants}
        self._funnels = [Counter[str]() for _ in experiment.variants]
        self._paths: list[Path] = []
        self._costs: dict[tuple[str, int], int] = {}
        self._not_sent: set[tuple[str, int]] = set()

    def people(self, exposures: Iterator[tuple[Any, ...]]) -> People:
        for row in exposures:
            self._enrol(*row)
        if not self._people and not self._open:
            raise LogUnusable(
                f"nobody was exposed to {self._experiment.name} until {from_micros(self._until):%Y-%m-%d %H:%M} UTC; "
                "check its start_time, exposure and eligibility, and that the service runs with this rules file"
            )
        self._read_outcomes()
        self._read_decisions()
        for key, count in self._rows(_IDENTITIES):
            if key in self._people:
                self._people[key].figures["identities"] = count
        return self._gathered()

    def _rows(self, statement: str, **values: Any) -> Iterator[Any]:
        streaming = self._connection.execution_options(stream_results=True, yield_per=5_000)
        return iter(streaming.execute(text(statement), values))

    def _asked(self, statement: str, alias: str) -> Iterator[Any]:
        if self._experiment.name in (HOLDOUT, _EVERYBODY):
            return self._rows(statement.format(whose=""), until=self._until)
        whose = _WHOSE.format(alias=alias)
        return self._rows(statement.format(whose=whose), until=self._until, experiment=self._experiment.name)

    def exposed(self) -> Iterator[tuple[Any, ...]]:
        """Return first exposures, each with the context of its decision."""
        return self._rows(_EXPOSED, until=self._until, experiment=self._experiment.name)

    def known(self, begin: int) -> Iterator[tuple[Any, ...]]:
        """Return all customers known by the end, as if exposed at one time."""
        for (key,) in self._rows(_KNOWN, until=self._until):
            yield key, _EVERYBODY, 1.0, begin, "", "", False, None

    def marketed(self) -> Iterator[tuple[Any, ...]]:
        """Return the first marketing decision of each customer, in the form of exposures."""
        weights = {variant.name: variant.weight for variant in self._experiment.variants}
        first: dict[str, list[Any]] = {}
        for key, moment, verdict, decision_id, rules_name, context in self._rows(_MARKETED, until=self._until):
            if moment < self._start or json.loads(context)["message"]["category"] != "marketing":
                continue
            variant = HOLDOUT if verdict == "holdout" else PROGRAMME
            known = first.get(key)
            if known is None:
                first[key] = [key, variant, weights[variant], moment, decision_id, rules_name, False, context]
            elif known[1] != variant:
                known[6] = True
        return (tuple(row) for row in first.values())

    def _enrol(
        self,
        key: str,
        variant: str,
        probability: float,
        moment: int,
        decision_id: str,
        rules_name: str,
        is_mixed: bool,
        context: str | None,
    ) -> None:
        if is_mixed:
            self._mixed += 1
            return
        if variant not in self._places:
            raise LogUnusable(
                f"customers were exposed to variant {variant} of {self._experiment.name}, which the rules file does not have; "
                "report with the rules file that the experiment ran with"
            )
        seen = self._allocations.setdefault(rules_name, [moment, {}, Counter()])
        seen[1].setdefault(variant, probability)
        seen[2][variant] += 1
        self._daily[variant][(moment - self._start) // _DAY] += 1
        if moment + self._window > self._until:
            self._open += 1
            return
        found = json.loads(context) if context else {}
        message, customer = found.get("message", {}), found.get("customer", {})
        self._people[key] = _Person(
            variant=self._places[variant],
            begin=moment,
            kind=message.get("kind", ""),
            stage=message.get("journey_stage", ""),
            zone=str(found.get("features", {}).get("city", "")) or customer.get("time_zone", ""),
            country=customer.get("country", ""),
        )

    def _read_outcomes(self) -> None:
        for row in self._asked(_HAPPENED, "o"):
            key, decision_id, step, kind, moment, value, cost, revenue, csat, nps, message_margin = row
            if kind == "not_sent":
                self._not_sent.add((decision_id, step))
            if kind in ("sent", "undelivered") and cost is not None:
                self._costs[decision_id, step] = cost
            person = self._people.get(key)
            if person is None:
                continue
            after = moment - person.begin
            if -self._window <= after < 0:
                self._count_purchase(person.before, kind, value, message_margin, revenue)
            if not 0 <= after < self._window:
                continue
            figures = person.figures
            earned = self._count_purchase(figures, kind, value, message_margin, revenue)
            if earned:
                person.days[after // _DAY] += earned
            if kind in PURCHASES:
                person.purchases.append((moment, earned, kind))
                if person.first_order != person.first_order:
                    person.first_order = after / _DAY
            if kind == "unsubscribe":
                if not figures["unsubscribed"]:
                    person.days[after // _DAY] -= self._harm
                figures["unsubscribed"] = 1.0
            if kind == "complaint":
                figures["complained"] = 1.0
            if kind in ACTIVE and 2 * after >= self._window:
                figures["active_late"] = 1.0
            if kind in ENGAGED:
                figures["engaged"] = 1.0
                person.engaged.append((moment, decision_id, step))
            if kind == "clicked":
                person.clicks.append((moment, decision_id, step))
            if csat is not None:
                figures["csat_sum"] += csat
                figures["csat_count"] += 1
            if nps is not None:
                figures["nps_score"] += (nps >= 9) - (nps <= 6)
                figures["nps_count"] += 1

    @staticmethod
    def _count_purchase(
        figures: dict[str, float], kind: str, value: int | None, message_margin: int | None, revenue: int | None
    ) -> float:
        """Add an order or return to figures, and return what it earned."""
        margin = ((value if value is not None else message_margin) or 0) / _UNIT
        if kind == "return":
            figures["returns"] += 1
            figures["margin"] -= margin
            figures["revenue"] -= (revenue or 0) / _UNIT
            return -margin
        if kind not in PURCHASES:
            return 0.0
        figures["orders" if kind == "order" else "store_orders"] += 1
        figures["margin"] += margin
        if revenue is not None:
            figures["revenue"] += revenue / _UNIT
            figures["revenue_orders"] += 1
        return margin

    def _read_decisions(self) -> None:
        key, rows = "", list[Any]()
        for row in self._asked(_DECIDED, "d"):
            if row[0] != key:
                self._count_decisions(key, rows)
                key, rows = row[0], []
            rows.append(row)
        self._count_decisions(key, rows)

    def _count_decisions(self, key: str, rows: list[Any]) -> None:
        person = self._people.get(key)
        if person is None:
            return
        contacts: list[tuple[int, str, str, int]] = []
        name = self._experiment.variants[person.variant].name
        for _, decision_id, step, decide_time, send_time, verdict, channel, price, _, policy, bundle, _, _ in rows:
            after = decide_time - person.begin
            if not 0 <= after < self._window:
                continue
            if step == 1:
                self._bundles[name][bundle] += 1
                self._policies[name][policy] += 1
            if verdict != "send" or channel == NO_SEND or (decision_id, step) in self._not_sent:
                continue
            cost = self._costs.get((decision_id, step), price) / _UNIT
            person.messages[channel] += 1
            person.spend[channel] += cost
            person.figures["messages"] += 1
            person.figures["contacted"] = 1.0
            person.figures["paid_messages"] += (
                self._rules.channels[channel].paid if channel in self._rules.channels else 0
            )
            person.figures["spend"] += cost
            person.days[after // _DAY] -= cost
            contacts.append((send_time or decide_time, channel, decision_id, step))
        contacts.sort()
        self._follow(person, contacts)
        self._follow_cascades(person, rows)

    def _follow(self, person: _Person, contacts: list[tuple[int, str, str, int]]) -> None:
        """Count orders by the contacts before them."""
        channels = {(decision_id, step): channel for _, channel, decision_id, step in contacts}
        for moment, margin, where in person.purchases:
            before = tuple(channel for sent, channel, _, _ in contacts if sent <= moment)
            if before:
                self._paths.append(Path(variant=person.variant, channels=before, margin=margin))
                if where == "store_purchase":
                    person.figures["store_after_contact"] = 1.0
            looked = {channels.get((d, s)) for seen, d, s in person.engaged if seen <= moment} - {None}
            if looked and (where == "store_purchase" or (before and before[-1] not in looked)):
                person.figures["crossed"] = 1.0

    def _follow_cascades(self, person: _Person, rows: list[Any]) -> None:
        """Count what became of cascades that had planned a paid step after their first."""
        cascades: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            cascades[row[1]].append(row)
        counts = self._funnels[person.variant]
        for decision_id, steps in cascades.items():
            first = steps[0]
            if not 0 <= first[3] - person.begin < self._window or first[5] != "send" or not first[12]:
                continue
            planned = [s["channel"] for s in json.loads(first[12]).get("steps", ())]
            if not any(self._is_paid(channel) for channel in planned[1:]) or self._is_paid(first[6]):
                continue
            counts["planned"] += 1
            paid = [
                row[4] or row[3]
                for row in steps
                if row[5] == "send" and self._is_paid(row[6]) and (decision_id, row[2]) not in self._not_sent
            ]
            if paid:
                counts["paid_sent"] += 1
                continue
            begin = first[4] or first[3]
            if any(begin <= moment for moment, _, _ in person.purchases):
                counts["ordered_before"] += 1
            elif any(d == decision_id for _, d, _ in person.clicks):
                counts["clicked_before"] += 1

    def _is_paid(self, channel: str) -> bool:
        return channel in self._rules.channels and self._rules.channels[channel].paid

    def _gathered(self) -> People:
        people = sorted(self._people.values(), key=lambda person: person.begin)
        n_days = int(np.ceil(self._experiment.window_days))
        for person in people:
            figures = person.figures
            figures["net"] = figures["margin"] - figures["spend"] - self._harm * figures["unsubscribed"]
            person.before["net"] = person.before["margin"]
        variant = np.array([person.variant for person in people], dtype=np.int64)
        by_day = {}
        for place in range(len(self._experiment.variants)):
            sums, squares = np.zeros(n_days), np.zeros(n_days)
            for person in people:
                if person.variant == place:
                    for day, value in person.days.items():
                        sums[day] += value
                        squares[day] += value * value
            by_day[place] = (sums, squares)
        channels = [key for key in self._rules.channels if any(person.messages[key] for person in people)]
        last_day = max((day for counts in self._daily.values() for day in counts), default=0)
        worth = _thirds([person.before["margin"] for person in people])
        return People(
            experiment=self._experiment,
            until=from_micros(self._until),
            variant=variant,
            expose_day=np.array([(person.begin - self._start) / _DAY for person in people]),
            figures={name: _column(people, name, "figures") for name in FIGURES},
            before={
                name: _column(people, name, "before") for name in ("net", "margin", "revenue", "orders", "store_orders")
            },
            segments={
                "journey_stage": tuple(person.stage or "?" for person in people),
                "kind": tuple(person.kind or "?" for person in people),
                "customer_value": worth,
                "zone": tuple(person.zone or "?" for person in people),
            },
            messages={key: np.array([float(person.messages[key]) for person in people]) for key in channels},
            spend={key: np.array([person.spend[key] for person in people]) for key in channels},
            first_order_days=np.array([person.first_order for person in people]),
            by_day=by_day,
            paths=tuple(self._paths),
            funnels=tuple(Funnel(**counts) for counts in self._funnels),
            exposed={name: sum(counts.values()) for name, counts in self._daily.items()},
            daily={
                name: np.array([counts[day] for day in range(last_day + 1)], dtype=np.int64)
                for name, counts in self._daily.items()
            },
            open_windows=self._open,
            mixed=self._mixed,
            allocations=tuple(
                Allocation(rules_name=name, begin=from_micros(begin), probabilities=probabilities, counts=counts)
                for name, (begin, probabilities, counts) in self._allocations.items()
            ),
            bundles=self._bundles,
            policies=self._policies,
        )


def _column(people: list[_Person], name: str, table: Literal["figures", "before"]) -> FloatArray:
    return np.array([float(getattr(person, table)[name]) for person in people], dtype=np.float64)


def _thirds(before: list[float]) -> tuple[str, ...]:
    """Return each customer's value before the experiment: none, lower or upper half of those who had bought."""
    bought = sorted(margin for margin in before if margin > 0)
    if not bought:
        return tuple("none" for _ in before)
    middle = bought[len(bought) // 2]
    return tuple("none" if margin <= 0 else "lower" if margin < middle else "upper" for margin in before)

"""What the bandit libraries of the comparison share: which actions they choose among, what they are told, what they learn from.

A rival is asked as the service is. It chooses among no send and each eligible channel at few moments; with `steps` above 1 it is asked again
after the rules' wait, as a caller of such a library would do who has no planner. Each step is a decision of its own with a reward of its own,

    reward = margin of an order that followed a click on this step - price - harm of an unsubscribe by it,

told as soon as there was an order or an unsubscribe, else when the outcome window has closed. Orders that followed no click are nobody's:
they come alike with and without a send, and told of them the rivals earn less. Orders are rare. A rival taught by clicks is told of a click at
once, as the order's margin times the share of clicks on messages of this kind that an order followed, counted from log and outcomes so far.
"""

import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.context import Context, FeatureValue
from models.eligibility import find_eligible
from models.features import FEATURES, NO_SEND, Action, Clock, Facts, category_name, feature_values
from models.local_time import zone
from models.rules import Rules
from training.simulate import WINDOW
from training.world.protocol import Outcome, Reply, Result

FloatArray = NDArray[np.float64]
Timing = Literal["now", "daytime", "both"]
_DAY_BEGINS, _DAY_ENDS = 10, 19
_OF_ACTION = [feature for feature in FEATURES if feature.of_context is None and feature.name != "channel"]
_FARTHEST = 4.0
_PRIOR_CLICKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An action that a rival may choose, with its price in roubles."""

    action: Action
    price: float = 0.0


NOTHING = Offer(action=Action(channel=NO_SEND))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A decision whose reward is not known yet: the offer chosen is that at `place`."""

    context: Context
    offers: tuple[Offer, ...]
    place: int
    propensity: float

    @property
    def offer(self) -> Offer:
        return self.offers[self.place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A decision with its reward, in roubles."""

    decision: Pending
    reward: float


class Learner(Protocol):
    """What wraps a library."""

    @property
    def name(self) -> str:
        """Name, as tables show it."""
        ...

    def propensities(self, context: Context, offers: Sequence[Offer]) -> FloatArray:
        """Return the chance of each offer, shape (n_offers,), summing to 1; a library that draws within itself gives its draw 1."""
        ...

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Learn from decisions, in the order in which their rewards became known; the first ones set the scales of features."""
        ...


def find_offers(context: Context, rules: Rules, timing: Timing) -> tuple[Offer, ...]:
    """Return no send, and each eligible channel as soon as it may be sent, at the next daytime (10 to 19 local), or at both."""
    where = zone(context.customer.time_zone)
    found = [NOTHING]
    for channel in find_eligible(context, rules).eligible:
        first = channel.slots[0].start
        days = (s.start for s in channel.slots if _DAY_BEGINS <= s.start.astimezone(where).hour < _DAY_ENDS)
        daytime = next(days, first)
        moments = {"now": [first], "daytime": [daytime], "both": [first, daytime]}[timing]
        for moment in dict.fromkeys(moments):
            action = Action(channel=channel.channel, send_time=moment)
            found.append(Offer(action=action, price=channel.price_micros / 1e6))
    return tuple(found)


class Clicks:
    """How often an order follows a click, by kind of message; shares are drawn to that of all kinds by the weight of 10 clicks."""

    def __init__(self, clicks: Counter[str] | None = None, orders: Counter[str] | None = None) -> None:
        self._clicks, self._orders = clicks or Counter(), orders or Counter()

    def add(self, kind: str, *, is_order: bool) -> None:
        """Count a click, or the order that followed one."""
        (self._orders if is_order else self._clicks)[kind] += 1

    def share(self, kind: str) -> float:
        """Return the share of a kind's clicks that an order follows."""
        overall = (self._orders.total() + 1) / (self._clicks.total() + _PRIOR_CLICKS)
        return (self._orders[kind] + _PRIOR_CLICKS * overall) / (self._clicks[kind] + _PRIOR_CLICKS)


def clicks_of_log(log: Result) -> Clicks:
    """Return the clicks of a finished log and the orders that followed them."""
    kinds = {(step.context.decision_id, step.context.step): step.context.message.kind for step in log.steps}
    found = Clicks()
    for outcome in log.outcomes:
        kind = kinds.get((outcome.decision_id, outcome.step))
        if kind is not None and outcome.type in ("clicked", "order"):
            found.add(kind, is_order=outcome.type == "order")
    return found


class Ledger:
    """Decisions that wait for their rewards.

    With `clicks` a click is the reward, and orders only tell what clicks are worth: they are counted unless `is_counting` is off.
    """

    def __init__(self, rules: Rules, clicks: Clicks | None = None, *, is_counting: bool = True) -> None:
        self._harm = rules.harm.unsubscribe / 1e6
        self._clicks, self._is_counting = clicks, is_counting
        self._clicked: dict[tuple[str, int], str] = {}
        self._pending: dict[tuple[str, int], Pending] = {}
        self._closing: deque[tuple[datetime, tuple[str, int]]] = deque()
        self._known: list[Lesson] = []

    def open(self, decision: Pending) -> None:
        """Add a decision; they come in order of time."""
        key = (decision.context.decision_id, decision.context.step)
        self._pending[key] = decision
        self._closing.append((decision.context.decide_time + WINDOW, key))

    def observe(self, outcome: Outcome) -> None:
        """Note an outcome: an order or an unsubscribe settles its step; a send that was not made is no decision."""
        key = (outcome.decision_id, outcome.step)
        if self._clicks is not None and outcome.type in ("clicked", "order"):
            self._observe_click(key, self._clicks, is_order=outcome.type == "order")
        elif outcome.type == "order":
            self._settle(key, (outcome.value_micros or 0) / 1e6)
        elif outcome.type == "unsubscribe":
            self._settle(key, -self._harm)
        elif outcome.type == "not_sent":
            self._pending.pop(key, None)

    def close(self, now: datetime) -> list[Lesson]:
        """Return decisions whose rewards became known since the last call; where the window has closed, nothing came of them."""
        while self._closing and self._closing[0][0] <= now:
            self._settle(self._closing.popleft()[1], 0.0)
        known, self._known = self._known, []
        return known

    def _observe_click(self, key: tuple[str, int], clicks: Clicks, *, is_order: bool) -> None:
        if is_order and key in self._clicked:
            kind = self._clicked.pop(key)
        elif not is_order and key in self._pending:
            message = self._pending[key].context.message
            kind = self._clicked[key] = message.kind
            self._settle(key, message.order_margin_micros / 1e6 * clicks.share(kind))
        else:
            return
        if self._is_counting:
            clicks.add(kind, is_order=is_order)

    def _settle(self, key: tuple[str, int], value: float) -> None:
        decision = self._pending.pop(key, None)
        if decision is not None:
            self._known.append(Lesson(decision=decision, reward=value - decision.offer.price))


def lessons_of_log(log: Result, rules: Rules, timing: Timing, clicks: Clicks | None = None) -> list[Lesson]:
    """Return the decisions of a finished log in order of time, with their rewards and logged propensities.

    The offers are those that the rival would have had, with the logged action added where it is none of them. With `clicks` those are the
    reward, as the whole log values them.
    """
    ledger = Ledger(rules, clicks, is_counting=False)
    for step in log.steps:
        offers = find_offers(step.context, rules, timing)
        chosen = Offer(action=step.reply.action, price=step.price_micros / 1e6)
        if chosen not in offers:
            offers = (*offers, chosen)
        propensity = step.reply.propensity
        ledger.open(Pending(context=step.context, offers=offers, place=offers.index(chosen), propensity=propensity))
    for outcome in log.outcomes:
        ledger.observe(outcome)
    lessons = ledger.close(log.steps[-1].context.decide_time + WINDOW)
    return sorted(lessons, key=lambda lesson: lesson.decision.context.decide_time)


class Rival:
    """A library's learner as a policy of the world; it learns what is known whenever `batch` has passed since it last did."""

    def __init__(
        self,
        learner: Learner,
        rules: Rules,
        *,
        timing: Timing = "now",
        steps: int = 1,
        batch: timedelta = timedelta(),
        clicks: Clicks | None = None,
    ) -> None:
        self.name = learner.name + (", taught by clicks" if clicks is not None else "")
        self._learner, self._rules = learner, rules
        self._timing, self._steps, self._batch = timing, steps, batch
        self._ledger = Ledger(rules, clicks)
        self._learned: datetime | None = None

    def decide(self, context: Context) -> Reply:
        self._catch_up(context.decide_time)
        if context.step > self._steps:
            return Reply(action=NOTHING.action)
        offers = find_offers(context, self._rules, self._timing)
        chances = self._learner.propensities(context, offers)
        place = int(np.random.default_rng(context.seed).choice(len(offers), p=chances))
        propensity, action = float(chances[place]), offers[place].action
        self._ledger.open(Pending(context=context, offers=offers, place=place, propensity=propensity))
        if action.send_time is None or context.step == self._steps:
            return Reply(action=action, propensity=propensity)
        wait = self._rules.channels[action.channel].wait
        return Reply(action=action, propensity=propensity, ask_time=action.send_time + wait)

    def observe(self, outcome: Outcome) -> None:
        self._ledger.observe(outcome)

    def _catch_up(self, now: datetime) -> None:
        if self._learned is not None and now - self._learned < self._batch:
            return
        self._learned = now
        lessons = self._ledger.close(now)
        if lessons:
            self._learner.learn(lessons)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Mean and spread of the logarithm of 1 + a number, and what parts its values into equal shares."""

    mean: float = 0.0
    spread: float = 1.0
    edges: tuple[float, ...] = ()


class Encoding:
    """Features as linear learners like them: numbers as standardised logarithms and by the fifth they are in, categories by name.

    What is missing has no term. Scales are those of the rows given.
    """

    def __init__(self, rows: Iterable[Mapping[str, FeatureValue]], parts: int = 5) -> None:
        numbers: dict[str, list[float]] = {}
        for row in rows:
            for name, value in row.items():
                if not isinstance(value, str):
                    numbers.setdefault(name, []).append(_shrink(value))
        self._scales = {name: _scale(np.array(found), parts) for name, found in numbers.items()}

    def terms(self, values: Mapping[str, FeatureValue]) -> dict[str, float]:
        """Return terms by name."""
        found: dict[str, float] = {}
        for name, value in values.items():
            if isinstance(value, str):
                found[f"{name}={category_name(value)}"] = 1.0
                continue
            scale = self._scales.get(name, _Scale())
            x = _shrink(value)
            found[name] = min(max((x - scale.mean) / scale.spread, -_FARTHEST), _FARTHEST)
            if scale.edges:
                found[f"{name}#{bisect_right(scale.edges, x)}"] = 1.0
        return found


def context_values(context: Context) -> dict[str, FeatureValue]:
    """Return the service's features that are the same for all offers of a decision, by name."""
    return {name: value for name, value in feature_values(context, NOTHING.action).items() if name != "channel"}


def offer_values(facts: Facts, offer: Offer) -> dict[str, FeatureValue]:
    """Return the service's features of an offer in a context beside its channel's name, and its price, by name."""
    found: dict[str, FeatureValue] = {"price": offer.price}
    channel, moment = offer.action.channel, offer.action.send_time
    if moment is None:
        return found
    for feature in _OF_ACTION:
        value = feature.of_channel(facts, channel) if feature.of_channel is not None else None
        if feature.of_time is not None:
            value = feature.of_time(Clock.of(facts.context), moment)
        if value is not None:
            found[feature.name] = value
    return found


def encoding_of(lessons: Sequence[Lesson], parts: int = 5) -> Encoding:
    """Return the encoding whose scales are those of some decisions' chosen offers."""
    decisions = [lesson.decision for lesson in lessons]
    return Encoding(
        ({**context_values(d.context), **offer_values(Facts.of(d.context), d.offer)} for d in decisions), parts
    )


def _shrink(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value)


def _scale(found: FloatArray, parts: int) -> _Scale:
    edges = np.unique(np.quantile(found, np.arange(1, parts) / parts)) if parts > 1 else np.empty(0)
    return _Scale(mean=float(found.mean()), spread=float(found.std()) or 1.0, edges=tuple(edges.tolist()))

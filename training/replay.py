"""A period of a log lived through again under another policy, by the code that decides in production.

Each logged LIVE message is decided again at its own time by `models.decide.decide`, with what the caller sent and the customer was then, and with what the replay itself has done since the
period began in place of what was logged: its contacts count in caps, its sends are paid out of budgets, its cascades go on by what comes of their steps. So customers are coupled, by
budgets, and messages of a customer by caps; what comes out is a simulation, and its intervals, by drawing customers anew, hold neither an error of the response model nor the coupling.

**What comes of a step.** Where the replay does what was logged, and did so in all steps before, what was logged of it happened: deliveries, notices, clicks, orders, refusals, cost. Else it is
drawn from the response model (`training.response`), with random numbers of the message and step, the same under every policy.

**Orders that come anyway** are those of the log. One that followed a click on a message whose logged step is not repeated was caused by it with chance gain / (organic + gain) by the
model, and is taken away then. An order before the send cancels the send, which costs nothing, and ends the cascade.

**Value** is the increment over no send: margin x P(order caused) of the response model for a step that was drawn; for one that was logged, margin x the model's mean gain of a click where it was clicked. So
neither has the noise of orders, and both say the same on average if the model is right. Cost is the price of what was sent, as reported where the log tells. A
policy named `logged` is valued alike, by its own steps.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count

import numpy as np
from numpy.typing import NDArray

from models.budget import BudgetState, Spending, period_of, state_of, update_price
from models.bundle import Bundle
from models.cascade import Event, Progress, find_end, max_steps
from models.context import Contact, Context, Verdict
from models.decide import Choice, decide, make_seed
from models.features import NO_SEND, Action
from models.rules import EVERY, Budget, Rules
from service.customers import contact_memory
from training.replay_log import LoggedMessage, LoggedStep, ReplayLog
from training.response import SEEN, Expected, Happened, expect, happen
from training.targets import Target

FloatArray = NDArray[np.float64]
_MOST_DEFERRALS = 20
_REFUSED = ("unsubscribe", "complaint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a policy did and earned, by message. Arrays have shape (n,), money in units of the currency; `sends` and `costs` are by channel."""

    policy: str
    customer: NDArray[np.intp]
    """Number of the customer, by when they first appear."""
    is_owed: NDArray[np.bool_]
    margin: FloatArray
    """Expected margin of the orders caused."""
    cost: FloatArray
    unsubscribes: FloatArray
    sends: dict[str, FloatArray]
    costs: dict[str, FloatArray]
    steps: int
    """Steps decided, and"""
    steps_as_logged: int
    """those that did what was logged, so that nothing had to be drawn."""

    def __len__(self) -> int:
        return len(self.margin)


@dataclass(slots=True)
class _Totals:
    """What is summed for one message."""

    customer: str
    is_owed: bool
    margin: float = 0.0
    cost: float = 0.0
    unsubscribes: float = 0.0
    sends: dict[str, int] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Sent:
    """A send that the replay made or is to make, with when it was seen and clicked."""

    contact: Contact
    seen: datetime | None
    clicked: datetime | None
    cancelled: datetime | None = None

    def known(self, now: datetime) -> Contact:
        """Return the contact as it is known at a time."""
        return replace(
            self.contact,
            seen_time=self.seen if self.seen is not None and self.seen <= now else None,
            click_time=self.clicked if self.clicked is not None and self.clicked <= now else None,
        )


@dataclass(slots=True)
class _Person:
    """What the replay has done to a customer."""

    sent: list[_Sent] = field(default_factory=list)
    caused: list[datetime] = field(default_factory=list)
    """Orders."""
    dropped: set[datetime] = field(default_factory=set)
    """Orders of the log that logged messages caused, and that therefore did not come."""
    refused: dict[str, datetime] = field(default_factory=dict)
    """Channels that they unsubscribed from, and when."""


@dataclass(slots=True)
class _Life:
    """A message on its way."""

    message: LoggedMessage
    totals: _Totals
    is_as_logged: bool = True
    made: int = 0
    tried: list[str] = field(default_factory=list)
    clicked: datetime | None = None
    refused: datetime | None = None
    last_send: datetime | None = None
    last_wait: timedelta = timedelta(0)
    deferrals: int = 0


class _Ledger:
    """The budgets of rules in memory, as the service keeps them in its store; each period begins with its full amount."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._spending: dict[tuple[str, datetime], Spending] = {}
        self._latest: dict[str, Spending] = {}

    def states(self, campaign: str, now: datetime) -> tuple[BudgetState, ...]:
        """Return the budgets that count a campaign, as they are now."""
        return tuple(
            state_of(budget, self._rules, self._of(budget, now), now)
            for budget in self._rules.budgets
            if budget.campaign in (EVERY, campaign)
        )

    def add(
        self, channel: str, campaign: str, now: datetime, reserved: int, committed: int, booked: datetime | None = None
    ) -> None:
        """Add to what is reserved and committed of the budgets that count a send, in the periods in which it was `booked`, by default now."""
        for budget in self._rules.budgets:
            if not budget.counts(channel, campaign):
                continue
            moment = now if booked is None else booked
            spending = self._of(budget, moment)
            if period_of(budget, self._rules, moment).holds(now):
                spending = update_price(budget, self._rules, spending, now)
            spending = replace(
                spending,
                reserved_micros=spending.reserved_micros + reserved,
                committed_micros=spending.committed_micros + committed,
            )
            self._spending[budget.name, period_of(budget, self._rules, moment).start] = spending
            if booked is None:
                self._latest[budget.name] = spending

    def _of(self, budget: Budget, moment: datetime) -> Spending:
        """Return what became of a budget in the period of a moment; a new one begins with the price that the last one held."""
        begin = period_of(budget, self._rules, moment).start
        known = self._spending.get((budget.name, begin))
        if known is not None:
            return known
        last = self._latest.get(budget.name)
        return Spending(held_price=0.0 if last is None else last.held_price, price_time=begin)


def replay(
    log: ReplayLog,
    target: Target,
    response: Bundle,
    rules: Rules,
    seed: int = 0,
    progress: Callable[[int], object] = lambda _: None,
) -> Replayed:
    """Live through the log under a policy; `rules` are those that the logging policy's own prices and harm are taken from."""
    return _Replay(log, target, response, rules, seed, progress).run()


class _Replay:
    """One run of one policy."""

    def __init__(
        self,
        log: ReplayLog,
        target: Target,
        response: Bundle,
        rules: Rules,
        seed: int,
        progress: Callable[[int], object],
    ) -> None:
        self._log, self._target, self._response = log, target, response
        self._rules = target.rules or rules
        self._memory = contact_memory(self._rules)
        self._seed, self._progress = seed, progress
        self._ledger = _Ledger(self._rules)
        self._people: dict[str, _Person] = {}
        self._queue: list[tuple[datetime, int, Callable[[datetime], None]]] = []
        self._numbers = count()
        self._all: list[_Totals] = []
        self._steps = self._steps_as_logged = 0

    def run(self) -> Replayed:
        for message in self._log.messages():
            while self._queue and self._queue[0][0] <= message.context.decide_time:
                self._next()
            totals = _Totals(customer=message.customer_key, is_owed=message.context.message.is_owed)
            self._all.append(totals)
            life = _Life(message=message, totals=totals)
            if self._target.rules is None:
                self._value_logged(life)
            else:
                self._ask(life, message.context.decide_time)
            self._progress(1)
        while self._queue:
            self._next()
        return self._replayed()

    def _next(self) -> None:
        moment, _, run = heapq.heappop(self._queue)
        run(moment)

    def _later(self, moment: datetime, run: Callable[[datetime], None]) -> None:
        heapq.heappush(self._queue, (moment, next(self._numbers), run))

    def _person(self, life: _Life) -> _Person:
        return self._people.setdefault(life.message.customer_key, _Person())

    # --- one step -----------------------------------------------------------------------------------------------------------

    def _ask(self, life: _Life, now: datetime) -> None:
        """Decide the next step of a message, or end it."""
        context = self._context(life, now)
        if life.made and find_end(context, self._rules, self._progress_of(life, now)) is not None:
            return
        if context.step > max_steps(context, self._rules):
            return
        choice = decide(context, self._rules, self._target.bundle).choice
        if choice.verdict is Verdict.DEFER:
            again = choice.retry_time
            life.deferrals += 1
            if again is not None and now < again < context.message.expire_time and life.deferrals < _MOST_DEFERRALS:
                self._later(again, lambda moment: self._ask(life, moment))
            return
        self._steps += 1
        logged = self._as_logged(life, choice)
        self._steps_as_logged += logged is not None
        if logged is None and life.is_as_logged:
            life.is_as_logged = False
            self._drop_caused(life, context.step)
        if choice.verdict is Verdict.SEND and choice.action is not None and choice.slot is not None:
            self._send(life, context, choice, logged)

    def _as_logged(self, life: _Life, choice: Choice) -> LoggedStep | None:
        """Return the logged step that a choice repeats, None where it does something else."""
        logged = self._logged_step(life)
        chosen = choice.action if choice.verdict is Verdict.SEND and choice.action else Action(channel=NO_SEND)
        return logged if logged is not None and logged.action == chosen else None

    def _logged_step(self, life: _Life) -> LoggedStep | None:
        """Return what was logged of the next step, None where the replay has left what was logged."""
        is_there = life.is_as_logged and life.made < len(life.message.steps)
        return life.message.steps[life.made] if is_there else None

    def _send(self, life: _Life, context: Context, choice: Choice, logged: LoggedStep | None) -> None:
        """Make a send: pay for it, find out what comes of it, and plan the next question."""
        action, slot = choice.action, choice.slot
        assert action is not None  # a choice to send has both
        assert slot is not None
        send = slot.start
        expected = expect(self._response, context, action, self._rules)
        happened = (
            happen(expected, action, self._rules.channels[action.channel].wait, self._chance(life, context.step))
            if logged is None
            else _logged_happened(logged)
        )
        self._earn(life, context, expected, logged)
        message, person = context.message, self._person(life)
        contact = Contact(
            decision_id=context.decision_id,
            channel=action.channel,
            topic=message.topic,
            category=message.category,
            start=send,
            end=slot.end,
            step=context.step,
        )
        sent = _Sent(contact=contact, seen=happened.seen, clicked=happened.clicked)
        person.sent.append(sent)
        life.made += 1
        life.tried.append(action.channel)
        life.last_send = send
        life.last_wait = choice.steps[0].wait if choice.steps else self._rules.channels[action.channel].wait
        self._ledger.add(action.channel, message.campaign, context.decide_time, choice.price_micros, 0)
        price, decided = choice.price_micros, context.decide_time
        self._later(send, lambda moment: self._settle(life, sent, happened, price, logged, decided, moment))
        if len(choice.steps) > 1:
            waited = send + life.last_wait
            ask = waited if happened.undelivered is None else min(waited, happened.undelivered)
            following = self._logged_step(life)
            if following is not None:
                ask = max(ask, following.decide_time)
            self._later(ask, lambda moment: self._ask(life, moment))

    def _settle(
        self,
        life: _Life,
        sent: _Sent,
        happened: Happened,
        price: int,
        logged: LoggedStep | None,
        decide_time: datetime,
        now: datetime,
    ) -> None:
        """Send it, unless an order came before; then nothing comes of it and it costs nothing."""
        channel, campaign = sent.contact.channel, life.message.context.message.campaign
        decided = life.message.context.decide_time
        is_cancelled = (
            any(decided <= moment <= now for moment in self._orders(life)) and not life.totals.is_owed
            if logged is None
            else _is_not_sent(logged)
        )
        if is_cancelled:
            sent.cancelled = now
            sent.seen = sent.clicked = None
            self._ledger.add(channel, campaign, now, -price, 0, decide_time)
            return
        cost = price if logged is None or logged.cost_micros is None else logged.cost_micros
        self._ledger.add(channel, campaign, now, -price, cost, decide_time)
        _book(life.totals, channel, cost)
        person = self._person(life)
        if happened.undelivered is not None:
            sent.cancelled = happened.undelivered
        if happened.ordered is not None:
            person.caused.append(happened.ordered)
        life.clicked = _earliest(life.clicked, happened.clicked)
        if happened.unsubscribed is not None:
            life.refused = _earliest(life.refused, happened.unsubscribed)
            person.refused.setdefault(channel, happened.unsubscribed)

    def _earn(self, life: _Life, context: Context, expected: Expected, logged: LoggedStep | None) -> None:
        """Book what a send is worth."""
        margin = context.message.order_margin_micros / 1e6
        if logged is None:
            life.totals.margin += margin * expected.orders
            life.totals.unsubscribes += expected.unsubscribes
            return
        is_clicked = logged.first(*expected.works_through) is not None
        life.totals.margin += margin * (expected.orders if expected.click is None else is_clicked * expected.gain)
        life.totals.unsubscribes += logged.first(*_REFUSED) is not None

    def _value_logged(self, life: _Life) -> None:
        """Book what the logging policy's own steps were worth and cost."""
        for logged in life.message.steps:
            self._steps += 1
            self._steps_as_logged += 1
            if logged.action.send_time is None:
                continue
            context = logged.context
            self._earn(life, context, expect(self._response, context, logged.action, self._rules), logged)
            if not _is_not_sent(logged):
                cost = logged.price_micros if logged.cost_micros is None else logged.cost_micros
                _book(life.totals, logged.action.channel, cost)

    # --- what is known ------------------------------------------------------------------------------------------------------

    def _context(self, life: _Life, now: datetime) -> Context:
        """Return what a step is decided from: the logged context, with what the replay has done in place of what was logged."""
        first, person = life.message.context, self._person(life)
        step, logged = life.made + 1, self._logged_step(life)
        known = logged.context if logged is not None and step > 1 else first
        earlier = [c for c in first.customer.contacts if c.decision_id not in self._log.ids]
        own = [
            sent.known(now)
            for sent in person.sent
            if sent.contact.start > now - self._memory and not (sent.cancelled is not None and sent.cancelled <= now)
        ]
        orders = {t for t in first.customer.order_times if t not in person.dropped}
        orders |= {t for t in self._orders(life) if t <= now}
        customer = replace(
            known.customer,
            contacts=tuple(sorted([*earlier, *own], key=lambda c: (c.start, c.decision_id, c.step))),
            order_times=tuple(sorted(orders)),
        )
        options = tuple(
            replace(o, has_consent=False) if person.refused.get(o.channel, now) < now else o for o in known.options
        )
        is_first_time = step == 1 and not life.deferrals
        return replace(
            known,
            step=step,
            decide_time=now,
            not_before=first.not_before if is_first_time else max(now, first.message.earliest_time),
            customer=customer,
            options=options,
            seed=_seed(life, step),
            tried=tuple(dict.fromkeys(life.tried)),
            overdue=(),
            factors=known.factors if self._is_own_bundle(life) else {},
            reserved=(),
            budgets=self._ledger.states(first.message.campaign, now),
        )

    def _is_own_bundle(self, life: _Life) -> bool:
        bundle = self._target.bundle
        return bundle is not None and bundle.version == life.message.bundle_version

    def _progress_of(self, life: _Life, now: datetime) -> Progress:
        decided = life.message.context.decide_time
        ordered = min((t for t in self._orders(life) if decided <= t <= now), default=None)
        seen = {Event.ORDERED: ordered, Event.CLICKED: life.clicked, Event.UNSUBSCRIBED: life.refused}
        assert life.last_send is not None  # a step was made
        return Progress(
            events={event: moment for event, moment in seen.items() if moment is not None and moment <= now},
            last_send_time=life.last_send,
            last_wait=life.last_wait,
            steps_made=life.made,
        )

    def _orders(self, life: _Life) -> Iterator[datetime]:
        """Yield when the customer orders in the replay, as far as is known: orders of the log that were not taken away, and those caused."""
        person = self._person(life)
        for moment in self._log.orders.get(life.message.customer_key, ()):
            if moment not in person.dropped:
                yield moment
        yield from person.caused

    def _drop_caused(self, life: _Life, step: int) -> None:
        """Take away orders that the logged steps from this one on caused, since these are not repeated."""
        for logged in life.message.steps[step - 1 :]:
            seen = logged.first(*SEEN)
            if seen is None or logged.action.send_time is None or not self._ordered(life, seen):
                continue
            expected = expect(self._response, logged.context, logged.action, self._rules)
            clicked = logged.first(*expected.works_through)
            after = [] if clicked is None else self._ordered(life, clicked)
            caused = expected.gain / max(expected.organic + expected.gain, 1e-12)
            for moment, chance in zip(after, self._chance(life, -logged.step).random(len(after)), strict=True):
                if chance < caused:
                    self._person(life).dropped.add(moment)

    def _ordered(self, life: _Life, begin: datetime) -> list[datetime]:
        """Return when the customer ordered by the log from a time on, within the window of the message."""
        end = life.message.context.decide_time + self._log.window
        return [t for t in self._log.orders.get(life.message.customer_key, ()) if begin <= t <= end]

    def _chance(self, life: _Life, step: int) -> np.random.Generator:
        name = f"{self._seed}\x1f{life.message.context.decision_id}\x1f{step}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))

    def _replayed(self) -> Replayed:
        numbers: dict[str, int] = {}
        customer = [numbers.setdefault(totals.customer, len(numbers)) for totals in self._all]
        channels = sorted({channel for totals in self._all for channel in totals.sends})
        return Replayed(
            policy=self._target.name,
            customer=np.array(customer, dtype=np.intp),
            is_owed=np.array([totals.is_owed for totals in self._all]),
            margin=np.array([totals.margin for totals in self._all]),
            cost=np.array([totals.cost for totals in self._all]),
            unsubscribes=np.array([totals.unsubscribes for totals in self._all]),
            sends={c: np.array([float(t.sends.get(c, 0)) for t in self._all]) for c in channels},
            costs={c: np.array([t.costs.get(c, 0.0) for t in self._all]) for c in channels},
            steps=self._steps,
            steps_as_logged=self._steps_as_logged,
        )


def _seed(life: _Life, step: int) -> int:
    """Return the seed of a step's draw: that of the service, and another for each time that the first step was put off."""
    if life.deferrals:
        return make_seed(f"{life.message.request_id}\x1f{life.deferrals}", step)
    return life.message.context.seed if step == 1 else make_seed(life.message.request_id, step)


def _book(totals: _Totals, channel: str, cost_micros: int) -> None:
    totals.sends[channel] = totals.sends.get(channel, 0) + 1
    totals.costs[channel] = totals.costs.get(channel, 0.0) + cost_micros / 1e6
    totals.cost += cost_micros / 1e6


def _earliest(known: datetime | None, other: datetime | None) -> datetime | None:
    return min((t for t in (known, other) if t is not None), default=None)


def _is_not_sent(logged: LoggedStep) -> bool:
    return logged.first("not_sent") is not None and logged.first("sent") is None


def _logged_happened(logged: LoggedStep) -> Happened:
    return Happened(
        undelivered=logged.first("undelivered"),
        seen=logged.first(*SEEN),
        clicked=logged.first("clicked"),
        unsubscribed=logged.first(*_REFUSED),
    )


def totals_by_customer(of_message: Sequence[FloatArray], customer: NDArray[np.intp]) -> FloatArray:
    """Return sums by customer of figures by message, shape (len(of_message), customers)."""
    return np.array([np.bincount(customer, weights=column) for column in of_message])

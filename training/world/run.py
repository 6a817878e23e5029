"""The world in motion: messages arrive, a policy acts, customers live, outcomes come back late.

All chance is drawn beforehand, by message, channel and repetition, so that two policies on one world see common random numbers: where
they send the same message through the same channel at the same hour to a customer as tired, the same follows. Organic orders that lie
ahead are the same under every policy; a caused order takes the place of one that would have followed.

A policy's gain is counted twice: as it came out, and as the exact expectation of each step given all that was known when it was decided
(`expected` with the step less `expected` without it). The latter sums to the same mean with far less noise.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from models.context import MOST_ACTIVE_HOURS, Contact, Context
from models.features import Action
from models.prices import send_price
from models.rules import Rules
from training.world.clock import EPOCH_HOURS, HALF_HOUR, to_hour, to_time
from training.world.contexts import make_context
from training.world.draws import Draws
from training.world.messages import Messages
from training.world.people import CHANNELS, Population
from training.world.protocol import (
    Ended,
    JointPolicy,
    Outcome,
    OutcomeType,
    Policy,
    Reply,
    Result,
    Start,
    Step,
    request_name,
)
from training.world.scenarios import Scenario, scenario_rules
from training.world.truth import (
    ORDER_DELAY_HOURS,
    ORGANIC_BEFORE,
    OWN_STEP_TIREDNESS,
    Case,
    Curves,
    Expected,
    Happened,
    Send,
    Truth,
    tiredness,
)
from training.world.visits import make_visits

FloatArray = NDArray[np.float64]
MAX_STEPS = 3
_REPEATS = 3
CONTACT_MEMORY = timedelta(days=60)
"""Contacts that began longer ago are forgotten, as the service forgets them."""
RETURN_HOURS = (5 * 24, 14 * 24)
"""An order that comes back does so from, and before, so many hours after it was made."""
_INDEX = {name: index for index, name in enumerate(CHANNELS)}
_DELIVERED, _NOTICED, _REACTED, _ORDERED, _DELAY = range(5)


@dataclass(slots=True)
class _Life:
    """A message on its way."""

    case: Case
    made: list[Happened] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    """Of what was made, and then of what is planned, one send each."""
    planned: Send | None = None
    asked: int = 0
    deferrals: int = 0
    """How often the first step was put off; each time a caller makes a new request."""
    is_over: bool = False
    is_known_over: bool = False
    ask_hour: int | None = None
    events: int = 0
    """How many are still to come."""
    steps: list[tuple[int, Step]] = field(default_factory=list)
    """With their places in the order of all that was decided and told."""
    outcomes: list[tuple[int, Outcome]] = field(default_factory=list)


class World:
    """A retailer for some time, on which any policy can be run again and again."""

    def __init__(
        self,
        people: Population,
        messages: Messages,
        scenario: Scenario,
        rules: Rules,
        seed: int,
        start: Start | None = None,
        name: str | None = None,
        return_share: float = 0.0,
    ) -> None:
        """Make a world in which a share of orders comes back; ids of decisions begin with its name, by default of seed and first hour."""
        first = int(messages.arrive[0]) if len(messages) else 0
        self.people = people
        self.messages = messages
        self.rules = scenario_rules(rules, scenario)
        self.truth = Truth(people, messages, scenario, rules.harm.unsubscribe / 1e6, return_share)
        self.start = start or Start()
        self.name = name or f"world-{seed}-{first}"
        self.visits = make_visits(people, int(messages.arrive[-1]) + messages.lifetime.max() if len(messages) else 0)
        self._chance = Draws([seed, 3, first], len(messages), (len(CHANNELS), _REPEATS, 5))
        rest = self._chance.rest()
        self._intent = rest.random(len(messages))
        self._organic = rest.random((len(messages), 2))
        self._returned = np.random.default_rng([seed, 6, first]).random((len(messages), 2))

    def intent(self, case: Case) -> int:
        """Return the intent that was drawn for a message."""
        return int(np.searchsorted(np.cumsum(case.prior)[:-1], self._intent[case.index], side="right"))

    def organic_hour(self, case: Case) -> int | None:
        """Return the hour in which the customer would order without any message, None for never."""
        has, when = self._organic[case.index]
        if has >= case.organic[self.intent(case)]:
            return None
        return case.arrive + int(np.searchsorted(ORGANIC_BEFORE[1:], when, side="right"))

    def return_delay(self, case: Case) -> int | None:
        """Return how many hours after an order it comes back, None for never; the same under every policy."""
        chance, when = self._returned[case.index]
        return None if chance >= case.returned else RETURN_HOURS[0] + int(when * (RETURN_HOURS[1] - RETURN_HOURS[0]))

    def decision_id(self, index: int) -> str:
        return f"{self.name}-{index}"

    def index_of(self, decision_id: str) -> int:
        """Return the number of the message that a decision is about."""
        return int(decision_id.rpartition("-")[2])

    def context(self, index: int, start: Start | None = None) -> Context:
        """Return the context of a message's first step, from where the run begins."""
        return _Run(self, None, start or self.start).context(index, 1, int(self.messages.arrive[index]))

    def run(self, policy: Policy, budget: float | None = None) -> Result:
        """Let a policy act on all messages, within a budget in roubles.

        A send whose price is more than what is left after all that was sent and is planned is refused: it is reported as NOT_SENT in
        the hour in which it was decided. What a send cost is told with SENT.
        """
        return self.run_to(policy, budget)[0]

    def run_to(self, policy: Policy, budget: float | None = None) -> tuple[Result, Start]:
        """Let a policy act as `run` does; return also where it ended, for another world to begin there."""
        run = _Run(self, policy, self.start, budget)
        return run.go(), run.end()

    def play(self, policy: Policy) -> Iterator[Ended]:
        """Let a policy act on all messages, and yield each once nothing more of it will be known; no other is kept."""
        return map(_ended, _Run(self, policy, self.start).play())

    def chance(self, index: int, channel: int, repeat: int) -> FloatArray:
        """Return the uniform draws of a send, shape (5,)."""
        return np.asarray(self._chance.of(index)[channel, min(repeat, _REPEATS - 1)])


def _ended(life: _Life) -> Ended:
    return Ended(
        index=life.case.index,
        steps=tuple(step for _, step in life.steps),
        outcomes=tuple(outcome for _, outcome in life.outcomes),
    )


class _Run:
    """One run of one policy: what is known and booked so far."""

    def __init__(self, world: World, policy: Policy | None, start: Start, budget: float | None = None) -> None:
        self.world, self.policy = world, policy
        self.joint = policy if isinstance(policy, JointPolicy) else None
        self.left = None if budget is None else round(budget * 1e6)
        """Micros that may still be planned to be spent; None: no limit."""
        self.refused = 0
        self.spend_by_day: dict[int, float] = {}
        self.joined: set[int] = set()
        """Messages that were asked for together with one before, of the same hour."""
        self.contacts = {person: list(found) for person, found in start.contacts.items()}
        self.withdrawn = set(start.withdrawn)
        self.orders = {person: list(found) for person, found in start.orders.items()}
        self.reactions = {person: list(found) for person, found in start.reactions.items()}
        self.lives: dict[int, _Life] = {}
        self.queue: list[tuple[int, int, int, int, str, tuple[int, ...]]] = []
        self.count = 0
        self.sends = dict.fromkeys(CHANNELS, 0)
        self.owed = 0
        self.unsent: set[int] = set()
        """Owed messages of which nothing was sent yet."""
        self.expected = Expected()
        self.realised = Expected()
        self.by_message = np.zeros(len(world.messages))

    def push(self, hour: int, rank: int, what: str, *details: int) -> None:
        step = details[1] if len(details) > 1 else 0
        self.lives[details[0]].events += 1
        heapq.heappush(self.queue, (hour, rank, step, self.next_place(), what, details))

    def next_place(self) -> int:
        self.count += 1
        return self.count

    def go(self) -> Result:
        ended = list(self.play())
        steps = sorted(chain.from_iterable(life.steps for life in ended), key=itemgetter(0))
        outcomes = sorted(chain.from_iterable(life.outcomes for life in ended), key=itemgetter(0))
        return Result(
            expected=self.expected,
            realised=self.realised,
            by_message=self.by_message,
            sends=self.sends,
            steps=tuple(step for _, step in steps),
            outcomes=tuple(outcome for _, outcome in outcomes),
            owed=self.owed,
            owed_unsent=len(self.unsent),
            spend_by_day=self.daily_spend(),
            refused=self.refused,
        )

    def daily_spend(self) -> tuple[float, ...]:
        if not self.spend_by_day:
            return ()
        first = int(self.world.messages.arrive[0]) // 24
        return tuple(self.spend_by_day.get(day, 0.0) for day in range(first, max(self.spend_by_day) + 1))

    def play(self) -> Iterator[_Life]:
        """Let everything happen in the order of time, and yield each message's life when it has no event left."""
        self.await_arrival(0)
        while self.queue:
            hour, _, _, _, what, details = heapq.heappop(self.queue)
            index = details[0]
            if what == "arrive":
                self.await_arrival(index + 1)
            else:
                self.lives[index].events -= 1
            getattr(self, f"on_{what}")(hour, *details)
            if self.lives[index].events == 0:
                yield self.lives.pop(index)

    def await_arrival(self, index: int) -> None:
        """Put the next arrival into the queue; arrivals come last in their hour."""
        if index < len(self.world.messages):
            hour = int(self.world.messages.arrive[index])
            heapq.heappush(self.queue, (hour, 3, 0, self.next_place(), "arrive", (index,)))

    def on_arrive(self, hour: int, index: int) -> None:
        if index in self.joined:
            self.joined.discard(index)
            return
        group = [index] if self.joint is None else self.rivals(index)
        for one in group:
            self.begin(one)
        if len(group) > 1:
            self.joined.update(group[1:])
            self.ask_together(hour, group)
        else:
            self.ask(hour, index)

    def rivals(self, index: int) -> list[int]:
        """Return a message and those after it to the same person that arrive in the same hour."""
        messages = self.world.messages
        end = int(np.searchsorted(messages.arrive, messages.arrive[index], side="right"))
        return [index + int(i) for i in np.flatnonzero(messages.person[index:end] == messages.person[index])]

    def begin(self, index: int) -> None:
        life = _Life(case=self.world.truth.case(index))
        self.lives[index] = life
        organic = self.world.organic_hour(life.case)
        if organic is not None:
            self.push(organic + 1, 0, "organic", index)
        if life.case.is_owed:
            self.owed += 1
            self.unsent.add(index)

    def on_ask(self, hour: int, index: int, number: int) -> None:
        life = self.lives[index]
        if life.is_known_over or life.planned is not None or life.asked != number or life.ask_hour != hour:
            return
        if hour < life.case.arrive + life.case.lifetime and number < MAX_STEPS:
            self.ask(hour, index)

    def ask(self, hour: int, index: int) -> None:
        """Ask the policy for a message's next step, and book what it answers."""
        life = self.lives[index]
        assert self.policy is not None  # a run without a policy makes contexts only
        context = self.context(index, life.asked + 1, hour)
        self.accept(hour, index, context, self.policy.decide(context))

    def ask_together(self, hour: int, group: list[int]) -> None:
        """Ask the policy for the first steps of messages to one person, and book what it answers in their order."""
        assert self.joint is not None  # only then are they grouped
        contexts = [self.context(index, 1, hour) for index in group]
        for index, context, reply in zip(group, contexts, self.joint.decide_together(contexts), strict=True):
            self.accept(hour, index, context, reply)

    def accept(self, hour: int, index: int, context: Context, reply: Reply) -> None:
        """Book what a policy answered to a context, and note when to ask again."""
        life, history = self.lives[index], tuple(self.lives[index].made)
        if reply.is_deferred:
            life.deferrals += life.asked == 0
        else:
            life.asked += 1
        gain, price = Expected(), 0
        if reply.action.send_time is not None:
            gain, price = self.book(hour, index, context, reply.action)
        self.expected = self.expected + gain
        self.by_message[index] += gain.net
        step = Step(context=context, reply=reply, price_micros=price, gain=gain, history=history)
        life.steps.append((self.next_place(), step))
        if reply.ask_time is not None:
            life.ask_hour = max(to_hour(reply.ask_time), hour + 1)
            self.push(life.ask_hour, 2, "ask", index, life.asked)

    def book(self, hour: int, index: int, context: Context, action: Action) -> tuple[Expected, int]:
        """Plan a send and return what it is expected to add, with its price."""
        life, world = self.lives[index], self.world
        assert action.send_time is not None
        channel, at = _INDEX[action.channel], max(to_hour(action.send_time), hour)
        if at >= life.case.arrive + life.case.lifetime:
            return Expected(), 0
        price = send_price(context, world.rules, context.option(action.channel)) or 0
        if self.left is not None:
            if price > self.left:
                self.refused += 1
                self.report(index, life.asked, "not_sent", hour)
                return Expected(), 0
            self.left -= price
        known_now = self.contacts.get(life.case.person, ())
        others = sorted((c for c in known_now if c.decision_id != context.decision_id), key=lambda c: c.start)
        booked = np.array([float(to_hour(c.start)) for c in others])
        tired = float(tiredness(booked, np.array([float(at)]))[0]) + OWN_STEP_TIREDNESS * len(life.made)
        life.planned = Send(channel=channel, hour=at, tiredness=tired, price=price / 1e6)
        known = [*life.curves, world.truth.curves_of(life.case, [life.planned])]
        gain = world.truth.expected(life.case, [life.planned], life.made, hour, Curves.join(known))
        if life.made:
            gain = gain - world.truth.expected(life.case, [], life.made, hour, Curves.join(life.curves))
        life.curves = known
        message = context.message
        self.contacts.setdefault(life.case.person, []).append(
            Contact(
                decision_id=context.decision_id,
                channel=action.channel,
                topic=message.topic,
                category=message.category,
                start=to_time(at),
                end=to_time(at) + world.rules.channels[action.channel].slip,
            )
        )
        if at == hour:
            self.on_send(at, index, life.asked)
        else:
            self.push(at, 1, "send", index, life.asked)
        return gain, price

    def on_send(self, hour: int, index: int, number: int) -> None:
        """Send what was planned, unless the message is over or its channel was refused since."""
        life = self.lives[index]
        send, life.planned = life.planned, None
        assert send is not None
        case = life.case
        if life.is_known_over or (case.person, send.channel) in self.withdrawn:
            life.curves.pop()
            if self.left is not None:
                self.left += round(send.price * 1e6)
            self.unbook(case.person, index, send)
            self.report(index, number, "not_sent", hour)
            return
        repeat = sum(1 for past in life.made if past.send.channel == send.channel)
        chance = self.world.chance(index, send.channel, repeat)
        curves = life.curves[-1]
        is_delivered = bool(chance[_DELIVERED] < curves.delivered[0])
        row = len(life.made)
        life.made.append(Happened(send=send))
        self.sends[CHANNELS[send.channel]] += 1
        self.unsent.discard(index)
        self.realised = self.realised + Expected(spend=send.price)
        self.spend_by_day[hour // 24] = self.spend_by_day.get(hour // 24, 0.0) + send.price
        self.report(index, number, "sent", hour, cost_micros=round(send.price * 1e6))
        self.push(hour + 1, 0, "receipt", index, number, row, int(is_delivered))
        if not is_delivered:
            return
        intent = self.world.intent(case)
        share = np.cumsum(curves.noticed[0, intent]) / curves.delivered[0]
        cell = int(np.searchsorted(share, chance[_NOTICED], side="right"))
        if cell >= case.lifetime:
            return
        q, r = curves.q[0, intent, cell], curves.r[0, intent, cell]
        reaction = 1 if chance[_REACTED] < q else 2 if chance[_REACTED] < q + r else 0
        buys = int(chance[_ORDERED] < curves.order[0, intent, cell])
        delay = int(-6 * np.log1p(-chance[_DELAY] * (1 - np.exp(-ORDER_DELAY_HOURS / 6)))) + 1
        seen = case.arrive + cell
        self.push(seen + 1, 0, "notice", index, number, row, seen, reaction, buys, min(delay, ORDER_DELAY_HOURS))

    def on_receipt(self, hour: int, index: int, number: int, row: int, is_delivered: int) -> None:
        life = self.lives[index]
        is_lost = life.made[row].send.channel == self.world.truth.scenario.lost_channel
        is_silent = is_lost and hour > self.world.truth.scenario.change_hour
        if is_delivered:
            if not is_silent:
                self.report(index, number, "delivered", hour)
            return
        life.made[row] = replace(life.made[row], is_undelivered=True)
        self.unbook(life.case.person, index, life.made[row].send)
        self.report(index, number, "undelivered", hour)
        if life.ask_hour is not None and life.asked == number:
            life.ask_hour = hour
            self.push(hour, 2, "ask", index, number)

    def on_notice(
        self, hour: int, index: int, number: int, row: int, seen: int, reaction: int, buys: int, delay: int
    ) -> None:
        """A customer notices a message; the first reaction ends it."""
        life = self.lives[index]
        if life.is_over:
            return
        self.engage(index, row, seen, is_click=reaction == 1)
        self.report(index, number, "seen", hour, to_time(seen) + HALF_HOUR)
        if reaction == 0:
            life.made[row] = replace(life.made[row], seen_hour=seen)
            return
        life.is_over = life.is_known_over = True
        case, channel = life.case, life.made[row].send.channel
        if reaction == 2:
            self.realised = self.realised + Expected(harm=self.world.truth.harm, unsubscribes=1)
            self.withdrawn.add((case.person, channel))
            self.report(index, number, "unsubscribe", hour)
            return
        self.report(index, number, "clicked", hour, to_time(seen) + HALF_HOUR)
        if case.is_owed:
            in_time = float(life.curves[row].order[0, 0, seen - case.arrive])
            self.realised = self.realised + Expected(harm=-case.worth * in_time)
            return
        has_organic = self.world.organic_hour(case) is not None
        if has_organic or buys:
            self.push(hour + delay, 0, "order", index, number, int(not has_organic))

    def on_order(self, hour: int, index: int, number: int, is_caused: int) -> None:
        if is_caused:
            self.realised = self.realised + Expected(caused_margin=self.lives[index].case.margin, caused_orders=1)
        self.keep_order(hour, index, number, is_caused=bool(is_caused))

    def on_organic(self, hour: int, index: int) -> None:
        life = self.lives[index]
        if life.is_over:
            return
        life.is_over = life.is_known_over = True
        self.keep_order(hour, index, 0, is_caused=False)

    def keep_order(self, hour: int, index: int, number: int, *, is_caused: bool) -> None:
        delay = self.world.return_delay(self.lives[index].case)
        if delay is not None:
            self.push(hour + delay, 0, "return", index, number, int(is_caused))
        person = self.lives[index].case.person
        self.orders.setdefault(person, []).append(to_time(hour))
        self.reactions.setdefault(person, []).append(EPOCH_HOURS + hour)
        self.report(index, number, "order", hour)

    def on_return(self, hour: int, index: int, number: int, is_caused: int) -> None:
        if is_caused:
            self.realised = self.realised + Expected(caused_margin=-self.lives[index].case.margin)
        self.report(index, number, "return", hour)

    def report(
        self,
        index: int,
        number: int,
        kind: OutcomeType,
        hour: int,
        occur_time: datetime | None = None,
        cost_micros: int | None = None,
    ) -> None:
        """Tell the policy of an outcome, in the hour in which a caller would know of it."""
        case = self.lives[index].case
        outcome = Outcome(
            event_id=f"{self.world.name}-{index}-{number}-{kind}",
            decision_id=self.world.decision_id(index),
            step=number,
            type=kind,
            occur_time=occur_time or to_time(hour),
            customer_id=f"customer-{case.person}",
            value_micros=round(case.margin * 1e6) if kind in ("order", "return") else None,
            cost_micros=cost_micros,
        )
        self.lives[index].outcomes.append((self.next_place(), outcome))
        if self.policy is not None:
            self.policy.observe(outcome)

    def unbook(self, person: int, index: int, send: Send) -> None:
        """Take back a contact that was none: not sent, or not delivered."""
        start, name = to_time(send.hour), self.world.decision_id(index)
        kept = [c for c in self.contacts[person] if not (c.decision_id == name and c.start == start)]
        self.contacts[person] = kept

    def context(self, index: int, step: int, hour: int) -> Context:
        """Return what the service would know when it decides a step of a message."""
        world, life = self.world, self.lives.get(index)
        person, name = int(world.messages.person[index]), world.decision_id(index)
        self.forget(person, hour)
        return make_context(
            world.people,
            world.messages,
            index,
            decision_id=name,
            request_id=request_name(name, life.deferrals if life is not None else 0),
            step=step,
            hour=hour,
            contacts=self.contacts.get(person, ()),
            orders=self.orders.get(person, ()),
            active_hours=self.active_hours(person, hour),
            withdrawn=self.withdrawn,
            tried=tuple(dict.fromkeys(CHANNELS[past.send.channel] for past in life.made)) if life is not None else (),
        )

    def forget(self, person: int, hour: int) -> None:
        """Drop the contacts that the service would not remember."""
        oldest = to_time(hour) - CONTACT_MEMORY
        known = self.contacts.get(person, ())
        if any(contact.start < oldest for contact in known):
            self.contacts[person] = [contact for contact in known if contact.start >= oldest]

    def active_hours(self, person: int, hour: int) -> tuple[int, ...]:
        """Return the hours, since 1970, in which the service knows a customer to have been active."""
        visited = self.world.visits.of(person, hour)
        return tuple(sorted({*visited, *self.reactions.get(person, ())})[-MOST_ACTIVE_HOURS:])

    def engage(self, index: int, row: int, seen: int, *, is_click: bool) -> None:
        """Note in a contact when it was seen or clicked, and that the customer was active then."""
        life, name = self.lives[index], self.world.decision_id(index)
        moment = to_time(seen) + HALF_HOUR
        start = to_time(life.made[row].send.hour)
        person = life.case.person
        self.contacts[person] = [
            replace(c, seen_time=moment, click_time=moment if is_click else None)
            if c.decision_id == name and c.start == start
            else c
            for c in self.contacts[person]
        ]
        self.reactions.setdefault(person, []).append(EPOCH_HOURS + seen)

    def end(self) -> Start:
        """Return where this run ended, for another to begin there."""
        return Start(
            contacts={person: tuple(found) for person, found in self.contacts.items()},
            withdrawn=frozenset(self.withdrawn),
            orders={person: tuple(found) for person, found in self.orders.items()},
            reactions={person: tuple(found[-MOST_ACTIVE_HOURS:]) for person, found in self.reactions.items()},
        )

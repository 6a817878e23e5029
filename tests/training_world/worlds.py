"""Small worlds, and samplers that draw what the truth states without its sums."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.context import Context
from models.features import NO_SEND, Action
from training.world.clock import to_time
from training.world.messages import make_messages
from training.world.people import CHANNELS, Population, make_population
from training.world.protocol import Outcome, Reply
from training.world.run import World
from training.world.scenarios import NEVER, Scenario, make_scenario, world_rules, zone_shares
from training.world.truth import INTENTS, ORGANIC_BEFORE, Case, Send, Truth
from training.world.zones import next_change_day

FloatArray = NDArray[np.float64]
STATIONARY = make_scenario("stationary", NEVER)


def small_world(count: int = 200, seed: int = 1, scenario: Scenario = STATIONARY, customers: int = 400) -> World:
    """Return a world of a few messages within a week."""
    people = make_population(customers, seed)
    messages = make_messages(people, count, 0, 7 * 24, seed)
    return World(people, messages, scenario, world_rules(), seed)


def clock_change_world(count: int = 700, seed: int = 1, customers: int = 400) -> World:
    """Return a world of two weeks in whose first Europe's clocks change, and in whose second America's do."""
    begin = next_change_day(0) - 4 * 24
    people = make_population(customers, seed, zone_shares("clock_change"))
    messages = make_messages(people, count, begin, 14 * 24, seed)
    return World(people, messages, make_scenario("clock_change", begin + 4 * 24), world_rules(), seed)


def clones_of(world: World, index: int, count: int, seed: int = 7) -> World:
    """Return a world of many copies of one message, each to a copy of its customer."""
    person = int(world.messages.person[index])
    people: Population = world.people.take(np.full(count, person))
    messages = replace(world.messages.take(np.full(count, index)), person=np.arange(count))
    return World(people, messages, world.truth.scenario, world_rules(), seed)


def sample_net(truth: Truth, case: Case, sends: Sequence[Send], count: int, rng: np.random.Generator) -> FloatArray:
    """Draw what a cascade brings, shape (count,): intent, organic order, each send's noticing and reaction, one after another."""
    curves = truth.curves(
        case,
        np.array([s.channel for s in sends]),
        np.array([s.hour for s in sends]),
        np.array([s.tiredness for s in sends]),
    )
    intent = rng.choice(INTENTS, size=count, p=case.prior)
    has_organic = rng.random(count) < case.organic[intent]
    organic = np.where(has_organic, np.searchsorted(ORGANIC_BEFORE[1:], rng.random(count), side="right"), 10**6)
    never = 10**6
    cells = np.full((len(sends), count), never)
    clicks = np.zeros((len(sends), count), dtype=bool)
    for k in range(len(sends)):
        for z in range(INTENTS):
            mine = np.flatnonzero(intent == z)
            share = np.append(np.cumsum(curves.noticed[k, z]), 1.0)
            cell = np.searchsorted(share, rng.random(len(mine)), side="right")
            seen = cell < case.lifetime
            where = np.minimum(cell, case.lifetime - 1)
            u = rng.random(len(mine))
            is_click = seen & (u < curves.q[k, z, where])
            is_reaction = seen & (u < curves.q[k, z, where] + curves.r[k, z, where])
            cells[k, mine] = np.where(is_reaction, cell, never)
            clicks[k, mine] = is_click
    net = np.zeros(count)
    over = organic.copy()  # the last cell in which a reaction is still possible
    first = np.full(count, never)
    by = np.full(count, -1)
    for k, send in enumerate(sends):
        start = send.hour - case.arrive
        made = (first >= start) & (organic >= start)
        net -= made * send.price
        wins = made & (cells[k] < first)
        first, by = np.where(wins, cells[k], first), np.where(wins, k, by)
    reacted = (by >= 0) & (first <= over)
    for k in range(len(sends)):
        mine = np.flatnonzero(reacted & (by == k))
        click = mine[clicks[k, mine]]
        chance = curves.order[k, intent[click], first[click]]
        buys = (rng.random(len(click)) < chance) & ~has_organic[click]
        net[click[buys]] += case.margin
        net[mine[~clicks[k, mine]]] -= truth.harm
    return net


@dataclass
class FixedPlan:
    """A policy that makes the same sends of every message, as long as it is asked."""

    sends: Sequence[Send]
    name: str = "fixed plan"

    def decide(self, context: Context) -> Reply:
        if context.step > len(self.sends):
            return Reply(action=Action(channel=NO_SEND))
        send = self.sends[context.step - 1]
        later = to_time(self.sends[context.step].hour) if context.step < len(self.sends) else None
        return Reply(action=Action(channel=CHANNELS[send.channel], send_time=to_time(send.hour)), ask_time=later)

    def observe(self, outcome: Outcome) -> None:
        """Ignore the outcome."""


@dataclass
class Nosy:
    """A policy that uses receipts: an SMS where push was not delivered or not seen, in-app where it was seen and left."""

    name: str = "nosy"
    seen: set[str] = field(default_factory=set)

    def decide(self, context: Context) -> Reply:
        hour = context.decide_time
        later = to_time(0) + (hour - to_time(0)) + (to_time(5) - to_time(0))
        channel = ("email", "in_app" if context.decision_id in self.seen else "sms", "whatsapp")[context.step - 1]
        return Reply(action=Action(channel=channel, send_time=hour), ask_time=later)

    def observe(self, outcome: Outcome) -> None:
        if outcome.type == "seen":
            self.seen.add(outcome.decision_id)

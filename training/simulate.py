"""The starter world: a small one that makes a decision log under any rules, several times faster than the retailer.

The starter bundle is trained on its log, so that it knows every channel of the rules. Customers differ in how they use the app, read
mail and order; messages in kind and margin. A message is seen with a chance that depends on channel, customer and local hour, then leads to
a click and an order with a chance that depends on customer and kind, and may annoy. Customers order without any message too. Actions are drawn
evenly from what the rules make eligible, no send among them, so that the log has exact propensities. Everything follows from the seed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from models.context import ChannelOption, Content, Context, CustomerState, FeatureValue, Message
from models.decide import make_seed
from models.eligibility import find_eligible
from models.features import NO_SEND, Action, feature_values
from models.rules import Rules
from models.sms import measure_length
from service.store.rows import new_decision_id
from training.journal import LoggedDecision, LoggedOutcome, customer_hash, customer_key
from training.memory import Memory

WINDOW = timedelta(hours=72)
START = datetime(2026, 9, 1, 9, tzinfo=UTC)
_ZONES = ("Europe/Kaliningrad", "Europe/Moscow", "Asia/Yekaterinburg", "Asia/Novosibirsk", "Asia/Vladivostok")
_ZONE_SHARES = (0.08, 0.5, 0.2, 0.14, 0.08)
_KINDS = {"abandoned_cart": (0.10, 900.0), "price_drop": (0.05, 700.0), "newsletter": (0.02, 500.0)}
"""Chance of an order after the message was seen, for an average customer; margin of an order in units of the currency."""
_SEEN = {
    "in_app": 0.35,
    "push": 0.30,
    "web_push": 0.18,
    "email": 0.28,
    "telegram": 0.55,
    "vk": 0.40,
    "viber": 0.60,
    "whatsapp": 0.70,
    "sms": 0.75,
    "call": 0.45,
}
_CONSENT = {"in_app": 0.7, "push": 0.55, "web_push": 0.3, "email": 0.75, "telegram": 0.2, "vk": 0.2}
_CONSENT_OF_OTHERS = 0.5
CLICK_ANYWAY = 0.08
"""P(clicked | seen, nothing ordered because of it); who orders because of a message has clicked it."""
_DAYS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A simulated customer: what the service is told of them, and what it is not."""

    customer_id: str
    time_zone: str
    consents: frozenset[str]
    sessions: float
    opens: float
    orders: float
    interest: float
    """Not told: factor of the chance to order."""
    night_owl: float
    """Not told: hours by which the day is shifted."""


def make_people(count: int, rules: Rules, seed: int) -> list[Person]:
    """Make customers."""
    rng = np.random.default_rng([seed, 1])
    people = []
    for number in range(count):
        app, mail = rng.gamma(1.0, 1.0), rng.gamma(1.0, 1.0)
        interest = float(rng.lognormal(-0.3, 0.8))
        consents = [c for c in rules.channels if rng.random() < _CONSENT.get(c, _CONSENT_OF_OTHERS)]
        people.append(
            Person(
                customer_id=f"simulated-{number}",
                time_zone=_ZONES[int(rng.choice(len(_ZONES), p=_ZONE_SHARES))],
                consents=frozenset(consents or ["email"]),
                sessions=float(rng.poisson(6 * app)),
                opens=float(rng.poisson(5 * mail)),
                orders=float(rng.poisson(1.5 * interest)),
                interest=interest,
                night_owl=float(rng.normal(0, 1.5)),
            )
        )
    return people


def simulate_log(
    decisions: int, rules: Rules, key: bytes, seed: int, progress: Callable[[int], object]
) -> tuple[list[bytes], Iterator[LoggedDecision]]:
    """Return the identities of the customers, and the decisions of the log in order of time."""
    people = make_people(max(100, decisions // 4), rules, seed)
    hashes = [customer_hash(key, person.customer_id) for person in people]
    return hashes, _decisions(people, hashes, decisions, rules, seed, progress)


def _decisions(
    people: list[Person], hashes: list[bytes], count: int, rules: Rules, seed: int, progress: Callable[[int], object]
) -> Iterator[LoggedDecision]:
    rng = np.random.default_rng([seed, 2])
    moments = np.sort(rng.uniform(0, _DAYS * 24 * 60, size=count))
    memories: dict[int, Memory] = {}
    for number, minutes in enumerate(moments):
        which = int(rng.integers(len(people)))
        moment = START + timedelta(minutes=round(float(minutes)))
        memory = memories.setdefault(which, Memory(rules))
        context = _context(people[which], hashes[which], number, moment, memory, rng, seed)
        logged = _decide(context, people[which], rules, f"simulated-{seed}-{number}", rng)
        memory.keep(logged)
        progress(1)
        yield logged


def _context(
    person: Person,
    identity_hash: bytes,
    number: int,
    moment: datetime,
    memory: Memory,
    rng: np.random.Generator,
    seed: int,
) -> Context:
    kind = str(rng.choice(list(_KINDS)))
    request_id = f"simulated-{seed}-{number}"
    features: dict[str, FeatureValue] = {
        "app_sessions_30d": person.sessions,
        "email_opens_90d": person.opens,
        "orders_365d": person.orders,
    }
    return Context(
        decision_id=new_decision_id(moment, request_id),
        step=1,
        decide_time=moment,
        not_before=moment,
        customer=memory.fill(
            CustomerState(key=customer_key(identity_hash), time_zone=person.time_zone, country="RU"), moment
        ),
        message=Message(
            campaign=f"simulated-{kind}",
            kind=kind,
            category="marketing",
            journey_stage="active" if person.orders else "new",
            order_margin_micros=round(_KINDS[kind][1] * 1e6),
            earliest_time=moment,
            expire_time=moment + timedelta(hours=48),
            content=Content(size=measure_length(60, "ucs2")),
        ),
        options=tuple(
            ChannelOption(channel=channel, is_reachable=True, has_consent=True) for channel in sorted(person.consents)
        ),
        seed=make_seed(request_id, 1),
        features=features,
    )


def _decide(
    context: Context, person: Person, rules: Rules, request_id: str, rng: np.random.Generator
) -> LoggedDecision:
    """Draw a channel evenly, no send among them, then one of its slots; then let the customer live."""
    eligible = find_eligible(context, rules).eligible
    place = int(rng.integers(len(eligible) + 1))
    propensity = 1 / (len(eligible) + 1)
    action, price = Action(channel=NO_SEND), 0
    if place < len(eligible):
        chosen = eligible[place]
        slot = chosen.slots[int(rng.integers(len(chosen.slots)))]
        action = Action(channel=chosen.channel, send_time=slot.start)
        propensity /= len(chosen.slots)
        price = chosen.price_micros
    return LoggedDecision(
        request_id=request_id,
        context=context,
        action=action,
        propensity=propensity,
        price_micros=price,
        policy="uniform",
        outcomes=_live(context, person, action, rng),
        trainable=bool(eligible),
    )


def _live(context: Context, person: Person, action: Action, rng: np.random.Generator) -> tuple[LoggedOutcome, ...]:
    found: list[LoggedOutcome] = []
    moment = context.decide_time
    if rng.random() < 0.02 * person.interest:
        found.append(LoggedOutcome(type="order", occur_time=moment + timedelta(hours=float(rng.exponential(16)) + 0.1)))
    if action.send_time is not None:
        p_seen, p_order, p_annoyed = chances(context, person, action)
        drawn = rng.random(3)
        seen, annoyed = drawn[0] < p_seen, drawn[2] < p_annoyed
        clicked, ordered = drawn[1] < p_order + CLICK_ANYWAY * (1 - p_order), drawn[1] < p_order
        delay = timedelta(hours=float(rng.exponential(3)) + 0.05)
        if seen:
            found.append(LoggedOutcome(type="seen", occur_time=action.send_time + delay))
        if seen and clicked:
            found.append(LoggedOutcome(type="clicked", occur_time=action.send_time + delay + timedelta(minutes=1)))
        if seen and ordered:
            wait = timedelta(hours=float(rng.exponential(4)) + 0.1)
            found.append(LoggedOutcome(type="order", occur_time=action.send_time + delay + wait))
        if annoyed:
            found.append(LoggedOutcome(type="unsubscribe", occur_time=action.send_time + delay))
    return tuple(found)


def chances(context: Context, person: Person, action: Action) -> tuple[float, float, float]:
    """Return the true P(seen), P(order | seen) and P(unsubscribe) of a send."""
    values = feature_values(context, action)
    hour = (float(values["local_hour"]) - person.night_owl) % 24
    awake = 0.25 + 0.75 * np.exp(-0.5 * (min(abs(hour - 13), abs(hour - 20)) / 3.0) ** 2)
    use = {"in_app": person.sessions / 6, "push": person.sessions / 6, "email": person.opens / 5}.get(
        action.channel, 1.0
    )
    tired = 0.85 ** float(values["contacts_7d"])
    seen = _SEEN.get(action.channel, 0.3) * awake * min(1.6, 0.2 + 0.8 * use) * tired
    lag = float(values["lag_hours"])
    order = _KINDS[context.message.kind][0] * person.interest * 0.5 ** (lag / 24)
    annoyed = 0.0015 * (1 + float(values["contacts_7d"])) * (3 if action.channel in ("sms", "call") else 1)
    return min(seen, 0.95), min(order, 0.9), min(annoyed, 0.5)

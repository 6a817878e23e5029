"""The built-in world: exact propensities, the same log from the same seed, and features that are what happened."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from models.eligibility import EligibleChannel, find_eligible
from models.features import NO_SEND, feature_values
from models.rules import Rules, read_rules
from tests.training.examples import KEY, RULES
from training.journal import LoggedDecision, customer_hash, customer_key
from training.simulate import CLICK_ANYWAY, START, WINDOW, Person, chances, make_people, simulate_log

DECISIONS = 3000
SMALLEST_P_VALUE = 1e-4
"""A correct draw fails one seed in ten thousand; the seed is fixed, so that it fails never or always."""


def simulate(rules: Rules = RULES, seed: int = 0, decisions: int = DECISIONS) -> list[LoggedDecision]:
    _, made = simulate_log(decisions, rules, KEY, seed, lambda _: None)
    return list(made)


@pytest.fixture(scope="module")
def default_rules(root: Path) -> Rules:
    return read_rules(root / "service" / "rules" / "default.toml")


@pytest.fixture(scope="module")
def log(default_rules: Rules) -> list[LoggedDecision]:
    """A log under the service's own rules, with caps, quiet hours and strict free-first."""
    return simulate(default_rules)


@pytest.fixture(scope="module")
def eligible(log: list[LoggedDecision], default_rules: Rules) -> list[tuple[EligibleChannel, ...]]:
    """What the rules allowed of each decision, asked again of the context in the log."""
    return [find_eligible(logged.context, default_rules).eligible for logged in log]


def probability(logged: LoggedDecision, allowed: Sequence[EligibleChannel], channel: str, at: datetime | None) -> float:
    """What a decision's propensity would have been, had it been of that action: the log's, moved to the other action."""
    slots = {entry.channel: len(entry.slots) for entry in allowed} | {NO_SEND: 1}
    own = logged.propensity * slots[logged.action.channel]
    return own / slots[channel]


def test_propensities_sum_to_one_over_what_was_eligible(
    log: list[LoggedDecision], eligible: list[tuple[EligibleChannel, ...]]
) -> None:
    """Over every eligible channel and slot and no send, the probabilities of each decision sum to one."""
    for logged, allowed in zip(log, eligible, strict=True):
        total = probability(logged, allowed, NO_SEND, None)
        total += sum(probability(logged, allowed, c.channel, slot.start) for c in allowed for slot in c.slots)
        assert total == pytest.approx(1.0)


def test_only_what_was_eligible_was_done(
    log: list[LoggedDecision], eligible: list[tuple[EligibleChannel, ...]]
) -> None:
    """Each send is through an eligible channel, at one of its slots, at its price."""
    for logged, allowed in zip(log, eligible, strict=True):
        if logged.action.send_time is None:
            assert (logged.action.channel, logged.price_micros) == (NO_SEND, 0)
            continue
        entry = next(c for c in allowed if c.channel == logged.action.channel)
        assert logged.action.send_time in [slot.start for slot in entry.slots]
        assert logged.price_micros == entry.price_micros


def test_channels_are_as_frequent_as_their_propensities(
    log: list[LoggedDecision], eligible: list[tuple[EligibleChannel, ...]]
) -> None:
    """Of each channel, the number of sends differs from the sum of its probabilities by no more than chance explains."""
    expected: Counter[str] = Counter()
    variance: Counter[str] = Counter()
    for logged, allowed in zip(log, eligible, strict=True):
        channels = {c.channel: probability(logged, allowed, c.channel, None) * len(c.slots) for c in allowed}
        for channel, p in {**channels, NO_SEND: probability(logged, allowed, NO_SEND, None)}.items():
            expected[channel] += p  # type: ignore[assignment]  # a Counter adds floats as well
            variance[channel] += p * (1 - p)  # type: ignore[assignment]  # as above
    seen = Counter(logged.action.channel for logged in log)

    assert len(expected) >= 6
    for channel, sum_of_p in expected.items():
        z = (seen[channel] - sum_of_p) / np.sqrt(variance[channel])
        assert 2 * stats.norm.sf(abs(z)) > SMALLEST_P_VALUE, channel


def test_slots_are_drawn_evenly(log: list[LoggedDecision], eligible: list[tuple[EligibleChannel, ...]]) -> None:
    """Within a channel every slot is as likely as any other: places scaled to [0, 1) are uniform."""
    places: list[float] = []
    rng = np.random.default_rng(0)
    for logged, allowed in zip(log, eligible, strict=True):
        if logged.action.send_time is not None:
            slots = next(c.slots for c in allowed if c.channel == logged.action.channel)
            index = [slot.start for slot in slots].index(logged.action.send_time)
            places.append((index + rng.random()) / len(slots))

    assert stats.kstest(places, "uniform").pvalue > SMALLEST_P_VALUE


def test_same_seed_makes_the_same_log() -> None:
    """A log follows from its seed, to the last outcome; another seed makes another."""
    one, two, other = simulate(decisions=200), simulate(decisions=200), simulate(decisions=200, seed=1)

    assert one == two
    assert [logged.action for logged in one] != [logged.action for logged in other]


def test_longer_log_keeps_its_customers() -> None:
    """Customers follow from the seed alone: with more of them the first ones stay the same."""
    few, many = make_people(100, RULES, 0), make_people(150, RULES, 0)

    assert many[:100] == few


def test_decisions_are_in_order_of_time(log: list[LoggedDecision]) -> None:
    """Decisions come in order of time, over sixty days from the start, each under an id of its own."""
    moments = [logged.context.decide_time for logged in log]

    assert moments == sorted(moments)
    assert moments[0] >= START
    assert moments[-1] <= START + timedelta(days=60)
    assert (
        len({logged.request_id for logged in log}) == len({logged.context.decision_id for logged in log}) == DECISIONS
    )


def test_outcomes_come_after_what_they_follow(log: list[LoggedDecision]) -> None:
    """Nothing is seen, clicked, or unsubscribed before it was sent."""
    for logged in log:
        for outcome in logged.outcomes:
            assert outcome.occur_time > logged.context.decide_time
            if outcome.type in ("seen", "clicked", "unsubscribe"):
                assert logged.action.send_time is not None
                assert outcome.occur_time > logged.action.send_time


@pytest.fixture(scope="module")
def people(default_rules: Rules) -> dict[str, Person]:
    """Who the customers of the log are, by the key under which the log knows them."""
    made = make_people(max(100, DECISIONS // 4), default_rules, 0)
    return {customer_key(customer_hash(KEY, person.customer_id)): person for person in made}


def test_true_uplift_is_positive(log: list[LoggedDecision], people: dict[str, Person]) -> None:
    """Every send adds to the chance of an order: the chances that it is seen, ordered from and annoys are probabilities above zero."""
    sends = [logged for logged in log if logged.action.send_time is not None]

    found = np.array([chances(x.context, people[x.context.customer.key], x.action) for x in sends])

    assert len(found) > DECISIONS / 2
    assert np.all(found > 0)
    assert np.all(found < 1)


def test_log_agrees_with_its_truth(log: list[LoggedDecision], people: dict[str, Person]) -> None:
    """Messages seen and clicked, orders (those of nobody's doing with them) and unsubscribes are as many as the true chances say.

    Each count is a sum of independent draws; four of its standard deviations are allowed.
    """
    truth: dict[str, list[float]] = {"seen": [], "clicked": [], "order": [], "unsubscribe": []}
    for logged in log:
        person = people[logged.context.customer.key]
        truth["order"].append(0.02 * person.interest)
        if logged.action.send_time is not None:
            seen, ordered, annoyed = chances(logged.context, person, logged.action)
            truth["seen"].append(seen)
            truth["clicked"].append(seen * (ordered + CLICK_ANYWAY * (1 - ordered)))
            truth["order"].append(seen * ordered)
            truth["unsubscribe"].append(annoyed)
    counts = Counter(outcome.type for logged in log for outcome in logged.outcomes)

    for kind, chance in truth.items():
        p = np.array(chance)
        assert counts[kind] == pytest.approx(p.sum(), abs=4 * np.sqrt((p * (1 - p)).sum())), kind


def test_interest_and_use_raise_the_chances(log: list[LoggedDecision]) -> None:
    """Who reads mail sees mail, who is interested orders, who was written to often sees less and leaves more."""
    sent = next(x for x in log if x.action.channel == "email" and feature_values(x.context, x.action)["contacts_7d"])
    reader = Person(
        customer_id="r",
        time_zone=sent.context.customer.time_zone,
        consents=frozenset(["email"]),
        sessions=0.0,
        opens=5.0,
        orders=0.0,
        interest=1.0,
        night_owl=0.0,
    )

    seen, ordered, annoyed = chances(sent.context, reader, sent.action)

    assert chances(sent.context, replace(reader, opens=0.0), sent.action)[0] < seen
    assert chances(sent.context, replace(reader, interest=2.0), sent.action)[1] == pytest.approx(2 * ordered)
    quiet = replace(sent.context, customer=replace(sent.context.customer, contacts=()))
    before = chances(quiet, reader, sent.action)
    assert before[0] > seen
    assert before[2] < annoyed


def test_features_are_what_happened(log: list[LoggedDecision]) -> None:
    """Contacts and orders in the features are those of the same customer's earlier entries of the log, counted by hand."""
    sends: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    orders: dict[str, list[datetime]] = defaultdict(list)
    compared = 0
    for logged in log:
        now, key = logged.context.decide_time, logged.context.customer.key
        values = feature_values(logged.context, logged.action)
        past = [(moment, channel) for moment, channel in sends[key] if moment <= now]
        week = [moment for moment, _ in past if moment > now - timedelta(days=7)]
        bought = [moment for moment in orders[key] if moment <= now]
        assert values["contacts_7d"] == len(week)
        assert values["orders_90d"] == len([m for m in bought if m > now - timedelta(days=90)])
        assert values.get("hours_since_contact") == hours_since(now, [moment for moment, _ in past])
        assert values.get("hours_since_order") == hours_since(now, bought)
        if logged.action.send_time is not None:
            own = [moment for moment, channel in past if channel == logged.action.channel]
            assert values["channel_contacts_30d"] == len([m for m in own if m > now - timedelta(days=30)])
            assert values["lag_hours"] == (logged.action.send_time - now).total_seconds() / 3600
            sends[key].append((logged.action.send_time, logged.action.channel))
        orders[key].extend(o.occur_time for o in logged.outcomes if o.type == "order")
        compared += bool(past) and bool(bought)
    assert compared > 20


def hours_since(now: datetime, moments: list[datetime]) -> float | None:
    return (now - max(moments)).total_seconds() / 3600 if moments else None


def test_callers_features_are_the_customers(log: list[LoggedDecision], people: dict[str, Person]) -> None:
    """What the service is told of a customer is their use of app and mail and their orders, and nothing that it is not."""
    for logged in log:
        person = people[logged.context.customer.key]
        told = {"app_sessions_30d": person.sessions, "email_opens_90d": person.opens, "orders_365d": person.orders}
        assert logged.context.features == told
        assert logged.context.customer.time_zone == person.time_zone


def test_channels_offered_are_those_consented_to(log: list[LoggedDecision], people: dict[str, Person]) -> None:
    """A customer is only ever offered what they consented to, and all of that."""
    for logged in log:
        assert {option.channel for option in logged.context.options} == people[logged.context.customer.key].consents


def test_orders_fall_into_the_window(log: list[LoggedDecision]) -> None:
    """The window of the world is long enough: nineteen of twenty orders that follow a decision fall into it."""
    lags = [o.occur_time - logged.context.decide_time for logged in log for o in logged.outcomes if o.type == "order"]

    assert np.mean([lag <= WINDOW for lag in lags]) > 0.95

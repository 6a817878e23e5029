"""The world in motion: common random numbers, changes at their time, and outcomes as a caller would report them."""

from datetime import timedelta

import numpy as np
import pytest

from models.context import MOST_ACTIVE_HOURS, Context, latest_hours
from models.features import Action
from models.rules import parse_rules
from tests.training_world.worlds import small_world
from training.world.clock import EPOCH_HOURS, HOUR, to_hour, to_time
from training.world.log import log_customers, logged_decisions
from training.world.people import CHANNELS, EMAIL, VIBER
from training.world.policies import NoSend, Oracle, RepeatedSms, RuleOrder, Uniform
from training.world.protocol import Outcome, Policy, Reply, Result
from training.world.run import World
from training.world.scenarios import NEVER, make_scenario, scenario_rules_text, world_rules
from training.world.truth import Send


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(count=500)


def policies(world: World) -> list[Policy]:
    rules = world.rules
    return [Uniform(rules, steps=3), RepeatedSms(rules), RuleOrder(("push", "email", "sms"), rules), Oracle(world)]


def test_the_same_seed_gives_the_same_world_and_run(world: World) -> None:
    """Two worlds of one seed and policy agree in every outcome; another seed does not."""
    again, other = small_world(count=500), small_world(count=500, seed=2)

    outcomes = [w.run(Uniform(w.rules, steps=3)).outcomes for w in (world, again, other)]

    assert outcomes[0] == outcomes[1]
    assert outcomes[0] != outcomes[2]


def test_organic_orders_are_those_of_the_world_without_messages(world: World) -> None:
    """Every order under any policy is organic, at its hour, or follows a click; what no message touched orders as without any."""
    nothing = {o.decision_id: o.occur_time for o in world.run(NoSend()).outcomes if o.type == "order"}
    assert len(nothing) > 5

    for policy in policies(world):
        result = world.run(policy)
        clicked = {o.decision_id for o in result.outcomes if o.type == "clicked"}
        ended = clicked | {o.decision_id for o in result.outcomes if o.type == "unsubscribe"}
        orders = {o.decision_id: o.occur_time for o in result.outcomes if o.type == "order"}
        untouched = {name: moment for name, moment in orders.items() if name not in ended}
        assert untouched == {name: moment for name, moment in nothing.items() if name not in ended}, policy.name


def test_equal_sends_have_equal_ends(world: World) -> None:
    """Where two policies send the same message in the same way, the receipts and reactions to its first step are the same."""
    first = world.run(RuleOrder(("email",), world.rules))
    second = world.run(RuleOrder(("email", "sms"), world.rules))

    def receipts(result: Result) -> dict[str, tuple[str, ...]]:
        kinds = ("delivered", "undelivered")
        return {
            step.context.decision_id: tuple(
                o.type
                for o in result.outcomes
                if o.decision_id == step.context.decision_id and o.step == 1 and o.type in kinds
            )
            for step in result.steps[:150]
            if step.context.step == 1 and step.reply.action.channel == "email"
        }

    mine, theirs = receipts(first), receipts(second)
    common = set(mine) & set(theirs)
    assert len(common) > 30
    assert all(mine[name] == theirs[name] for name in common)


def test_outcomes_come_in_order_and_within_three_days(world: World) -> None:
    """Outcomes are told in the order of the hours in which they are known, none before its send, all within 73 hours of arrival."""
    result = world.run(Uniform(world.rules, steps=3))

    known = [to_hour(o.occur_time) for o in result.outcomes]
    assert known == sorted(known)
    for outcome in result.outcomes:
        arrive = to_time(int(world.messages.arrive[world.index_of(outcome.decision_id)]))
        assert timedelta(0) <= outcome.occur_time - arrive <= 73 * HOUR
    ids = [o.event_id for o in result.outcomes]
    assert len(ids) == len(set(ids))


def test_the_cascade_stops_on_click_order_and_unsubscribing(world: World) -> None:
    """After one of these is known, nothing more of the message is sent."""
    result = world.run(RepeatedSms(world.rules))

    over: dict[str, object] = {}
    for outcome in result.outcomes:
        if outcome.type == "sent":
            assert outcome.decision_id not in over
        if outcome.type in ("clicked", "order", "unsubscribe"):
            over[outcome.decision_id] = outcome.type
    assert over


def test_withdrawn_consent_is_kept() -> None:
    """Who unsubscribed from a channel is offered it no more."""
    world = small_world(count=1500, customers=60)

    result = world.run(RuleOrder(("push", "email"), world.rules))

    gone = {(o.customer_id, o.decision_id, o.step): o.occur_time for o in result.outcomes if o.type == "unsubscribe"}
    channels = {(s.context.decision_id, s.context.step): s.reply.action.channel for s in result.steps}
    assert gone
    for (customer, decision, step), moment in gone.items():
        channel = channels[decision, step]
        for other in result.steps:
            if other.context.customer.key == customer and other.context.decide_time >= moment:
                assert not other.context.option(channel).has_consent


def test_uniform_propensities_are_those_it_draws_with(world: World) -> None:
    """1 over the channels and no send, over the channel's slots; the mean of 1 / propensity of no send counts all decisions."""
    result = world.run(Uniform(world.rules))

    n = len(result.steps)
    weights = np.array([1 / s.reply.propensity if s.reply.action.send_time is None else 0.0 for s in result.steps])
    assert all(0 < s.reply.propensity <= 1 for s in result.steps)
    assert abs(weights.mean() - 1) < 4.5 * weights.std() / np.sqrt(n)


def test_an_outage_begins_at_its_hour_and_nobody_says_so() -> None:
    """Push is noticed before the change and not after it; no receipts come either way of it, UNDELIVERED least of all."""
    change = 84
    world = small_world(count=2000, scenario=make_scenario("push_outage", change), customers=1500)

    result = world.run(RuleOrder(("push",), world.rules))

    seen = [o.occur_time for o in result.outcomes if o.type == "seen"]
    assert len([t for t in seen if t <= to_time(change)]) > 5
    assert not [t for t in seen if t > to_time(change)]
    receipts = [o.occur_time for o in result.outcomes if o.type == "delivered"]
    assert max(receipts) <= to_time(change)


def test_a_block_begins_at_its_hour_and_is_reported() -> None:
    """Every Viber message sent after the change is UNDELIVERED, and worth nothing."""
    change = 84
    world = small_world(count=2000, scenario=make_scenario("viber_blocked", change), customers=1500)

    result = world.run(RuleOrder(("viber",), world.rules))

    undelivered = {o.decision_id for o in result.outcomes if o.type == "undelivered"}
    sent = {o.decision_id: o.occur_time for o in result.outcomes if o.type == "sent"}
    after = [name for name, moment in sent.items() if moment >= to_time(change)]
    before = [name for name, moment in sent.items() if moment < to_time(change)]
    assert set(after) <= undelivered
    assert 0 < sum(name in undelivered for name in before) < len(before) / 2
    index = world.index_of(after[0])
    case = world.truth.case(index)
    assert (
        world.truth.expected(case, [Send(channel=VIBER, hour=max(case.arrive, change), tiredness=0.0, price=0.0)]).net
        == 0
    )


def test_a_price_doubles_on_its_day() -> None:
    """An SMS costs twice as much from midnight of the change on, in process and in the rules file for a server."""
    change = 72
    scenario = make_scenario("sms_price_doubled", change)
    world = small_world(count=600, scenario=scenario)

    result = world.run(RepeatedSms(world.rules, times=1))

    per_segment = {False: set[int](), True: set[int]()}
    for step in result.steps:
        if step.price_micros:
            size = step.context.message.content.size
            per_segment[step.context.decide_time >= to_time(change)].add(step.price_micros // size.segments)
    assert per_segment == {False: {5_300_000}, True: {10_600_000}}
    assert parse_rules(scenario_rules_text(scenario)).prices == world.rules.prices


def test_a_new_season_moves_interest_and_hours() -> None:
    """Before the change the worth of sends is that of the stationary world, after it not."""
    change = 84
    plain, shifted = small_world(), small_world(scenario=make_scenario("seasonal_shift", change))

    for index in range(0, 200, 5):
        case, other = plain.truth.case(index), shifted.truth.case(index)
        send = Send(channel=EMAIL, hour=case.arrive, tiredness=0.0, price=0.0)
        same = plain.truth.expected(case, [send]) == shifted.truth.expected(other, [send])
        if case.arrive + case.lifetime <= change:
            assert same
        if case.arrive >= change:
            assert not same


def test_deferred_steps_are_asked_for_again(world: World) -> None:
    """A policy that defers is asked for the same step at the time it named."""

    class Late:
        name = "late"

        def decide(self, context: Context) -> Reply:
            nothing = Action(channel="none")
            arrive = context.message.earliest_time
            if context.decide_time < arrive + 3 * HOUR:
                return Reply(action=nothing, ask_time=arrive + 3 * HOUR, is_deferred=True)
            return Reply(action=nothing)

        def observe(self, outcome: Outcome) -> None:
            pass

    result = world.run(Late())

    asked = [(s.context.step, s.context.decide_time - s.context.message.earliest_time) for s in result.steps]
    ended = {o.decision_id for o in result.outcomes if o.type == "order"}
    assert asked.count((1, timedelta(0))) == len(world.messages)
    assert asked.count((1, 3 * HOUR)) >= len(world.messages) - len(ended)


def test_the_log_holds_every_decision_with_its_outcomes(world: World) -> None:
    """A run becomes logged decisions: one for each step, keyed as the service keys customers."""
    result = world.run(Uniform(world.rules))

    logged = list(logged_decisions(world, result))

    assert len(logged) == len(result.steps)
    assert len(log_customers(world.people)) == len(world.people)
    assert sum(len(decision.outcomes) for decision in logged) == len(result.outcomes)


def test_visits_come_at_each_customers_own_rate(world: World) -> None:
    """Hours with a visit in four weeks are as many as activity and rhythm make likely, in order, and known only once they are over."""
    people = world.people
    counts = np.array([len(world.visits.of(person, 0)) for person in range(len(people))])
    rate = (people.activity / 24)[:, None] * people.rhythm
    mean = np.minimum(4 * (1 - np.exp(-rate)).sum(axis=1), MOST_ACTIVE_HOURS)

    assert abs(counts.sum() - mean.sum()) < 5 * np.sqrt(mean.sum())
    assert all(world.visits.of(p, 0) == sorted(set(world.visits.of(p, 0))) for p in range(len(people)))
    assert max(world.visits.of(0, 5)) < EPOCH_HOURS + 5


def test_a_context_tells_when_a_message_was_seen_and_the_customer_active(world: World) -> None:
    """Contacts carry when they were seen and clicked, before the decision; active hours hold those moments."""
    result = world.run(Uniform(world.rules))
    seen = {(o.decision_id, o.step): o.occur_time for o in result.outcomes if o.type == "seen"}

    told = [(step.context, c) for step in result.steps for c in step.context.customer.contacts if c.seen_time]

    assert len(told) > 20
    assert any(contact.click_time for _, contact in told)
    for context, contact in told:
        assert contact.seen_time == seen[contact.decision_id, 1]
        assert contact.seen_time < context.decide_time
        assert latest_hours([contact.seen_time])[0] in context.customer.active_hours


def test_a_stationary_scenario_never_changes() -> None:
    """Its rules are the world's rules, and its change is never."""
    scenario = make_scenario("stationary", 5)

    assert scenario.change_hour == NEVER
    assert world_rules().prices == small_world().rules.prices
    assert set(world_rules().channels) == set(CHANNELS)

"""Messages that are owed, and orders that come back: told, counted and exactly expected."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from tests.training_world.worlds import STATIONARY, FixedPlan, clones_of, sample_net, small_world
from training.world.log import logged_decisions
from training.world.messages import CATEGORIES, IS_OWED, make_messages
from training.world.oracle import best_plan, enumerate_plans, find_candidates
from training.world.people import EMAIL, SMS, make_population
from training.world.policies import NoSend, Oracle, RuleOrder, ServiceCore, Uniform
from training.world.run import World
from training.world.scenarios import world_rules
from training.world.truth import OWN_STEP_TIREDNESS, Send

SIGMAS = 4.5


@pytest.fixture(scope="module")
def world() -> World:
    """A world in which half the messages are owed and a fifth of the orders comes back."""
    people = make_population(300, 2)
    messages = make_messages(people, 600, 0, 7 * 24, 2, owed_share=0.5)
    return World(people, messages, STATIONARY, world_rules(), 2, return_share=0.2)


def owed_of(world: World) -> list[int]:
    return [int(i) for i in np.flatnonzero(IS_OWED[world.messages.kind])]


def test_by_default_nothing_is_owed_or_returned() -> None:
    """Without the options all messages are marketing and no order comes back."""
    plain = small_world()
    result = plain.run(Uniform(plain.rules))

    assert not owed_of(plain)
    assert {s.context.message.category for s in result.steps} == {"marketing"}
    assert "return" not in {o.type for o in result.outcomes}
    assert (result.owed, result.owed_unsent) == (0, 0)


def test_half_of_the_messages_are_owed(world: World) -> None:
    """Owed messages are as many as asked for, of both categories, told with it and without a margin."""
    count = len(owed_of(world))

    assert abs(count - 300) < SIGMAS * np.sqrt(600 / 4)
    told = Counter(world.context(index).message.category for index in range(600))
    assert set(told) == {"marketing", "service", "transactional"}
    for index in owed_of(world):
        message = world.context(index).message
        assert message.is_owed
        assert message.order_margin_micros == 0
        assert message.category == CATEGORIES[world.messages.kind[index]]


def test_what_is_owed_is_sent(world: World) -> None:
    """Logging policy, rule cascade, service and oracle send all that a channel is open for; a policy that sends nothing is found out."""
    rules = world.rules
    closed = sum(len(find_candidates(world.context(i), rules)) == 0 for i in owed_of(world))

    for policy in (Uniform(rules), RuleOrder(("in_app", "push", "email", "viber", "sms"), rules), Oracle(world)):
        result = world.run(policy)
        assert result.owed == len(owed_of(world))
        cancelled = {o.decision_id for o in result.outcomes if o.type == "not_sent"}
        assert result.owed_unsent <= closed + len(cancelled) + 4, policy.name
    assert world.run(ServiceCore(rules, None)).owed_unsent <= closed + 4
    assert world.run(NoSend()).owed_unsent == len(owed_of(world))


def test_owed_messages_pass_marketing_caps() -> None:
    """Where contacts fill the day's cap, an owed message may still go out at once, and a marketing one may not."""
    people = make_population(100, 4)
    messages = make_messages(people, 400, 0, 2 * 24, 4, owed_share=0.3)
    world = World(people, replace(messages, person=messages.person % 3), STATIONARY, world_rules(), 4)
    steps = world.run(Uniform(world.rules)).steps

    def share_open(category: str) -> float:
        mine = [s for s in steps if s.context.message.category == category and len(s.context.customer.contacts) > 8]
        assert len(mine) > 20
        return float(np.mean([len(find_candidates(s.context, world.rules)) > 0 for s in mine]))

    assert share_open("transactional") == 1.0
    assert share_open("marketing") < 0.9


def test_owed_messages_tire(world: World) -> None:
    """A contact counts for tiredness whatever its category."""
    index = next(
        i
        for i in range(600)
        if not IS_OWED[world.messages.kind[i]] and len(find_candidates(world.context(i), world.rules))
    )
    context = world.context(index)
    contact = next(
        s for s in world.run(Uniform(world.rules)).steps if s.context.customer.contacts
    ).context.customer.contacts[0]
    start = context.decide_time - timedelta(hours=5)
    told = replace(
        context.customer, contacts=(replace(contact, category="service", decision_id="x", start=start, end=start),)
    )

    tired = find_candidates(replace(context, customer=told), world.rules)

    assert min(tired.tiredness) > 0
    assert max(find_candidates(context, world.rules).tiredness) == 0


def test_expectations_of_owed_messages_are_exact(world: World) -> None:
    """Harm that a cascade spares is the mean of 200,000 samples, of a run of 2,000 clones, and of the oracle's enumeration."""
    index = max(owed_of(world), key=lambda i: float(world.people.attention[world.messages.person[i], SMS]))
    case = world.truth.case(index)
    sends = [
        Send(channel=EMAIL, hour=case.arrive + 2, tiredness=0.0, price=0.0),
        Send(channel=SMS, hour=case.arrive + 6, tiredness=OWN_STEP_TIREDNESS, price=5.3),
    ]
    expected = world.truth.expected(case, sends)

    net = sample_net(world.truth, case, sends, 200_000, np.random.default_rng(1))
    clones = clones_of(world, index, 2000)
    result = clones.run(FixedPlan(sends))

    assert expected.caused_orders == expected.caused_margin == expected.unsubscribes == 0
    assert expected.harm < 0 < expected.net
    assert abs(net.mean() - expected.net) < SIGMAS * net.std() / np.sqrt(len(net))
    assert abs(result.realised.harm / 2000 - expected.harm) < SIGMAS * case.margin / np.sqrt(2000)
    assert result.expected.harm / 2000 == pytest.approx(expected.harm, abs=SIGMAS * case.margin / np.sqrt(2000))
    candidates = find_candidates(world.context(index), world.rules)
    plans = enumerate_plans(world.truth, case, candidates)
    for row in range(1, len(plans.gross), max(1, len(plans.gross) // 20)):
        members = [int(i) for i in plans.steps[row] if i >= 0]
        exact = world.truth.expected(case, [candidates.send(i, k) for k, i in enumerate(members, start=1)])
        assert plans.gross[row] - plans.spend[row] == pytest.approx(exact.net, abs=1e-9)


def test_late_telling_spares_less(world: World) -> None:
    """The later the same channel tells what is owed, in hours of equal attention, the less harm is spared; never less than none."""
    index = owed_of(world)[0]
    case = world.truth.case(index)

    spared = [
        -world.truth.expected(case, [Send(channel=SMS, hour=case.arrive + g, tiredness=0.0, price=0.0)]).harm
        for g in (0, case.lifetime - 1)
    ]

    assert spared[0] > spared[1] >= 0
    assert spared[0] < case.margin


def test_the_oracle_sends_what_is_owed_even_at_a_loss(world: World) -> None:
    """Where the only channel costs more than it spares, the oracle still sends an owed message, once."""
    index = owed_of(world)[0]
    case, context = replace(world.truth.case(index), margin=0.0), world.context(index)
    candidates = find_candidates(context, world.rules)
    plans = enumerate_plans(world.truth, case, candidates)

    plan = best_plan(plans, candidates, context, world.rules)

    assert len(plan.sends) >= 1


def test_orders_come_back_as_often_as_expected() -> None:
    """Returns follow orders by 5 to 14 days, of the share of their products, with the order's value; never twice."""
    people = make_population(2000, 5)
    big = World(people, make_messages(people, 6000, 0, 14 * 24, 5), STATIONARY, world_rules(), 5, return_share=0.2)
    result = big.run(NoSend())
    orders = {o.decision_id: o for o in result.outcomes if o.type == "order"}
    returns = {o.decision_id: o for o in result.outcomes if o.type == "return"}
    chances = np.array([big.truth.case(big.index_of(name)).returned for name in orders])

    assert len(orders) > 60
    assert abs(len(returns) - chances.sum()) < SIGMAS * np.sqrt((chances * (1 - chances)).sum())
    assert len(returns) == sum(o.type == "return" for o in result.outcomes)
    for name, back in returns.items():
        assert timedelta(days=5) <= back.occur_time - orders[name].occur_time < timedelta(days=14)
        assert back.value_micros == orders[name].value_micros
        assert back.step == orders[name].step
    assert chances.max() > 3 * chances.min()


def test_caused_margin_is_net_of_returns(world: World) -> None:
    """With returns a send earns exactly the share of its margin that is kept, spends the same and causes as many orders."""
    index = next(i for i in range(600) if not IS_OWED[world.messages.kind[i]])
    plain = replace(world.truth, return_share=0.0)
    case = world.truth.case(index)
    send = Send(channel=SMS, hour=case.arrive + 1, tiredness=0.0, price=5.3)

    kept, whole = world.truth.expected(case, [send]), plain.expected(plain.case(index), [send])

    assert kept.caused_margin == pytest.approx(whole.caused_margin * (1 - case.returned))
    assert (kept.spend, kept.caused_orders, kept.harm) == (whole.spend, whole.caused_orders, whole.harm)


def test_realised_margin_is_net_of_returns() -> None:
    """Over 3,000 clones of a message, what came out is what is expected once returned orders are taken off."""
    base = small_world()
    index = int(
        np.argmax(
            [base.truth.case(i).prior[2] * (base.people.kind[base.truth.case(i).person] == 0) for i in range(200)]
        )
    )
    clones = clones_of(base, index, 3000)
    world = World(clones.people, clones.messages, STATIONARY, world_rules(), 7, return_share=0.4)
    case = world.truth.case(0)

    result = world.run(FixedPlan([Send(channel=SMS, hour=case.arrive, tiredness=0.0, price=5.3)]))

    orders = result.realised.caused_orders
    assert orders > 20
    assert result.realised.caused_margin < orders * case.margin
    bound = SIGMAS * case.margin * np.sqrt(orders)
    assert abs(result.realised.caused_margin - result.expected.caused_margin) < bound


def test_the_log_holds_returns() -> None:
    """Every return is logged with its value, as an outcome of the decision of its order."""
    people = make_population(1000, 5)
    world = World(people, make_messages(people, 2000, 0, 7 * 24, 5), STATIONARY, world_rules(), 5, return_share=0.45)
    result = world.run(Uniform(world.rules))

    logged = [d.outcomes for d in logged_decisions(world, result) if "return" in {o.type for o in d.outcomes}]

    assert len(logged) == sum(o.type == "return" for o in result.outcomes) > 0
    for outcomes in logged:
        values = {o.type: o.value_micros for o in outcomes}
        assert values["return"] == values["order"]

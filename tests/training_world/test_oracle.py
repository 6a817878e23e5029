"""The oracles are the best there is under the rules, and money is worth to them what it costs."""

from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest

from models.rules import Rules
from tests.training_world.worlds import small_world
from training.world.clock import to_hour, to_time
from training.world.oracle import (
    Candidates,
    Plan,
    Plans,
    allocate,
    best_plan,
    enumerate_plans,
    find_candidates,
    frontier,
)
from training.world.people import CHANNELS, SMS
from training.world.policies import Oracle, Uniform, eligible_of, plan_under_budget
from training.world.run import World
from training.world.truth import Case, Send

COUNT = 120


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(count=COUNT)


@pytest.fixture(scope="module")
def found(world: World) -> list[tuple[Case, Candidates, Plans]]:
    return [enumerated(world, index, world.rules) for index in range(COUNT)]


def enumerated(world: World, index: int, rules: Rules) -> tuple[Case, Candidates, Plans]:
    case = world.truth.case(index)
    candidates = find_candidates(world.context(index), rules)
    return case, candidates, enumerate_plans(world.truth, case, candidates)


def test_enumeration_is_exact(world: World, found: list[tuple[Case, Candidates, Plans]]) -> None:
    """What matrix products say of any plan is what the sums of the truth say, to 1e-9 roubles."""
    rng = np.random.default_rng(0)
    for case, candidates, plans in found[:40]:
        for row in rng.choice(len(plans.gross), size=min(20, len(plans.gross)), replace=False):
            members = [int(i) for i in plans.steps[row] if i >= 0]
            sends = [candidates.send(i, step) for step, i in enumerate(members, start=1)]

            expected = world.truth.expected(case, sends)

            assert plans.spend[row] == pytest.approx(expected.spend, abs=1e-9)
            assert plans.gross[row] - plans.spend[row] == pytest.approx(expected.net, abs=1e-9)


def test_enumeration_after_a_history_is_exact(world: World) -> None:
    """What may follow sends without reaction so far is worth what the truth says it adds to them, to 1e-9 roubles."""
    rng = np.random.default_rng(1)
    checked = 0
    for step in world.run(Uniform(world.rules, steps=3)).steps:
        if not step.history:
            continue
        case = world.truth.case(world.index_of(step.context.decision_id))
        now = to_hour(step.context.decide_time)
        candidates = find_candidates(step.context, world.rules)
        left = 3 - len(step.history)
        plans = enumerate_plans(world.truth, case, candidates, left, history=step.history, now=now)
        nothing = world.truth.expected(case, [], step.history, now)
        for row in rng.choice(len(plans.gross), size=min(10, len(plans.gross)), replace=False):
            members = [int(i) for i in plans.steps[row] if i >= 0]
            places = range(1 + len(step.history), 4)
            sends = [candidates.send(i, place) for i, place in zip(members, places, strict=False)]

            added = world.truth.expected(case, sends, step.history, now) - nothing

            assert plans.spend[row] == pytest.approx(added.spend, abs=1e-9)
            assert plans.gross[row] - plans.spend[row] == pytest.approx(added.net, abs=1e-9)
            checked += len(members)
    assert checked > 100


def test_every_ordered_sequence_is_enumerated(found: list[tuple[Case, Candidates, Plans]]) -> None:
    """All sequences of up to three sends, each later than the one before and through another channel, are there, once."""
    _, candidates, plans = min(found, key=lambda f: abs(len(f[1]) - 12))
    count = len(candidates)
    expected = {(-1, -1, -1)}
    for size in (1, 2, 3):
        for members in permutations(range(count), size):
            channels = {int(candidates.channel[i]) for i in members}
            later = all(candidates.hour[b] >= candidates.hour[a] + 1 for a, b in pairwise(members))
            if len(channels) == size and later and candidates.is_first[members[0]]:
                expected.add((*members, *[-1] * (3 - size)))  # type: ignore[arg-type]  # three of them

    listed = [tuple(int(i) for i in row) for row in plans.steps]

    assert set(listed) == expected
    assert len(listed) == len(expected)


def test_more_steps_are_never_worse(world: World, found: list[tuple[Case, Candidates, Plans]]) -> None:
    """Best of three steps >= best of two >= best single send >= every single send, and no send."""
    for index, (case, candidates, plans) in enumerate(found):
        context = world.context(index)
        best = [
            best_plan(enumerate_plans(world.truth, case, candidates, steps), candidates, context, world.rules).net()
            for steps in (1, 2, 3)
        ]

        assert best[2] >= best[1] - 1e-9
        assert best[1] >= best[0] - 1e-9
        singles = (plans.steps[:, 0] >= 0) & (plans.steps[:, 1] < 0)
        net = plans.gross - plans.spend
        assert best[0] >= max(0.0, float(net[singles].max(initial=0.0))) - 1e-9


def test_plans_keep_the_rules(world: World, found: list[tuple[Case, Candidates, Plans]]) -> None:
    """Each first step of the oracle is eligible for the service at that hour; no step is made after the deadline."""
    for index, (case, candidates, plans) in enumerate(found):
        context = world.context(index)
        plan = best_plan(plans, candidates, context, world.rules)
        if plan.sends:
            first = plan.sends[0]
            open_now = eligible_of(context, world.rules, CHANNELS)
            assert to_time(first.hour) in [slot.start for slot in open_now[CHANNELS[first.channel]].slots]
        assert all(send.hour < case.arrive + case.lifetime for send in plan.sends)


def expected_sms(world: World, case: Case, plan: Plan) -> float:
    """Return how many SMS a plan is expected to send."""
    priced = [replace(send, price=1.0 if send.channel == SMS else 0.0) for send in plan.sends]
    return world.truth.expected(case, priced).spend


def test_a_dearer_channel_is_not_used_more(world: World) -> None:
    """With each rise of the SMS price the oracle's expected number of SMS, over the messages, falls or stays."""
    uses, values = [], []
    for factor in (0, 1, 2, 4):
        prices = tuple(replace(p, price=p.price * factor) if p.channel == "sms" else p for p in world.rules.prices)
        rules = replace(world.rules, prices=prices)
        used = value = 0.0
        for index in range(COUNT):
            case, candidates, plans = enumerated(world, index, rules)
            plan = best_plan(plans, candidates, world.context(index), rules)
            used += expected_sms(world, case, plan)
            value += plan.net()
        uses.append(used)
        values.append(value)

    assert all(a >= b - 1e-9 for a, b in pairwise(uses))
    assert uses[0] > uses[-1]
    assert all(a >= b - 1e-9 for a, b in pairwise(values))


def test_budgets_are_kept_and_more_is_never_worse(found: list[tuple[Case, Candidates, Plans]]) -> None:
    """Expected spending keeps within every budget, value grows with it, and without a binding budget the dual price is 0."""
    frontiers = [frontier(plans) for _, _, plans in found]
    candidates = [known for _, known, _ in found]
    free = allocate(frontiers, candidates, 1e9)
    budgets = [0.0, *(free.spend * share for share in (0.1, 0.3, 0.6, 0.9, 1.0))]

    chosen = [allocate(frontiers, candidates, budget) for budget in budgets]

    assert all(c.spend <= budget + 1e-9 for c, budget in zip(chosen, budgets, strict=True))
    assert all(a.net <= b.net + 1e-9 for a, b in pairwise(chosen))
    assert all(a.dual_price >= b.dual_price for a, b in pairwise(chosen))
    assert free.dual_price == 0
    assert chosen[0].spend == 0
    best = sum(float((plans.gross - plans.spend).max()) for _, _, plans in found)
    assert free.net == pytest.approx(best)


def test_the_frontier_holds_the_best_at_every_dual_price(found: list[tuple[Case, Candidates, Plans]]) -> None:
    """No plan that the frontier leaves out is better than all it keeps, at any dual price."""
    for _, _, plans in found[:40]:
        kept = frontier(plans)
        for price in (0.0, 0.3, 1.0, 5.0, 50.0):
            everything = (plans.gross - (1 + price) * plans.spend).max()
            assert (kept.gross - (1 + price) * kept.spend).max() == pytest.approx(everything, abs=1e-9)


def test_no_margin_means_no_paid_send(world: World) -> None:
    """A message that earns nothing is never sent through a paid channel, nor at all."""
    for index in range(20):
        case = replace(world.truth.case(index), margin=0.0)
        candidates = find_candidates(world.context(index), world.rules)
        plans = enumerate_plans(world.truth, case, candidates)

        assert best_plan(plans, candidates, world.context(index), world.rules) == Plan()


def test_expected_of_no_send_is_nothing(world: World) -> None:
    """No send is worth exactly nothing, and a send at the deadline as well."""
    case = world.truth.case(0)
    late = Send(channel=SMS, hour=case.arrive + case.lifetime, tiredness=0.0, price=5.3)

    assert world.truth.expected(case, []).net == 0
    assert world.truth.expected(case, [late]).net == 0


def test_a_world_is_planned_under_a_budget(world: World) -> None:
    """Planned over a whole world, half the money earns less than all of it and more than none, and single sends earn less."""
    free = plan_under_budget(world, 1e9)
    half, nothing = plan_under_budget(world, free.spend / 2), plan_under_budget(world, 0.0)
    single = plan_under_budget(world, free.spend / 2, max_steps=1)

    assert half.spend <= free.spend / 2
    assert nothing.spend == 0
    assert nothing.net < half.net < free.net
    assert single.net < half.net
    assert world.run(Oracle(world, dual_price=half.dual_price)).expected.spend < world.run(Oracle(world)).expected.spend


def test_a_channel_less_is_never_worth_more(found: list[tuple[Case, Candidates, Plans]]) -> None:
    """The best plan without SMS is worth no more than the best of all."""
    for _, candidates, plans in found:
        channel = np.append(candidates.channel, -1)
        without = ~(channel[plans.steps] == SMS).any(axis=1)
        net = plans.gross - plans.spend

        assert net[without].max() <= net.max()

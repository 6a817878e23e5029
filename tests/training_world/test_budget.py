"""Budgets: the world never lets a policy spend more, and says what was spent when."""

from dataclasses import replace
from datetime import timedelta

import pytest

from models.budget import period_of
from models.context import Context
from tests.training_world.worlds import small_world
from training.world.budget import BudgetRow, budget_of, budget_rows
from training.world.clock import to_time
from training.world.policies import NoSend, Oracle, RepeatedSms, RuleOrder, ServiceCore, Uniform
from training.world.protocol import Outcome, Reply
from training.world.run import World
from training.world.under_budget import Table, to_markdown

BUDGET = 300.0


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(count=400)


class Watching:
    """Another policy's decisions, with what the outcomes say of spending."""

    def __init__(self, inner: RepeatedSms) -> None:
        self.name, self._inner = inner.name, inner
        self.spent = 0
        self.outcomes: list[Outcome] = []

    def decide(self, context: Context) -> Reply:
        return self._inner.decide(context)

    def observe(self, outcome: Outcome) -> None:
        self.spent += outcome.cost_micros or 0
        self.outcomes.append(outcome)


@pytest.mark.parametrize("budget", [0.0, 5.0, BUDGET, 1e9])
def test_no_policy_spends_more_than_the_budget(world: World, budget: float) -> None:
    """Whatever a policy asks for, what is spent keeps within the budget to the last kopeck, and days sum to it."""
    for policy in (RepeatedSms(world.rules), Uniform(world.rules, steps=3), RuleOrder(("sms", "viber"), world.rules)):
        result = world.run(policy, budget)

        assert result.spend <= budget + 1e-6
        assert sum(result.spend_by_day) == pytest.approx(result.spend)
        assert result.expected.spend <= budget + 1e-6
        assert (result.refused > 0) == (budget <= BUDGET)


def test_a_budget_that_does_not_bind_changes_nothing(world: World) -> None:
    """With more than enough money a run is that without a budget."""
    free, rich = world.run(Uniform(world.rules, steps=3)), world.run(Uniform(world.rules, steps=3), 1e9)

    assert (free.steps, free.outcomes, free.expected) == (rich.steps, rich.outcomes, rich.expected)
    assert rich.refused == 0


def test_little_money_stops_paid_sends_alone(world: World) -> None:
    """Free sends go on when the money is gone; a refused one is reported as not sent and costs nothing."""
    result = world.run(RuleOrder(("sms", "email"), world.rules), 50.0)

    not_sent = {(o.decision_id, o.step) for o in result.outcomes if o.type == "not_sent"}
    assert result.sends["sms"] < 12
    assert result.sends["email"] > 50
    assert len(not_sent) >= result.refused > 0
    refused = [s for s in result.steps if (s.context.decision_id, s.context.step) in not_sent and not s.price_micros]
    assert len(refused) >= result.refused
    assert all(step.gain.net == 0 for step in refused)


def test_a_policy_is_told_what_it_spent(world: World) -> None:
    """What SENT outcomes cost sums to what the run spent, so that a policy can reckon what is left."""
    policy = Watching(RepeatedSms(world.rules))

    result = world.run(policy, BUDGET)

    assert policy.spent / 1e6 == pytest.approx(result.spend)
    assert BUDGET - result.spend < 60
    assert all((o.cost_micros is None) == (o.type != "sent") for o in policy.outcomes)


def test_cancelled_sends_give_their_money_back() -> None:
    """Money planned for a send that was not made is there for others: a budget of what was sent is spent, though more was planned."""
    world = small_world(count=1500, customers=800)
    policy = Uniform(world.rules, steps=3)
    free = world.run(policy)
    planned = sum(step.price_micros for step in free.steps) / 1e6

    result = world.run(policy, free.spend)

    assert planned > free.spend
    assert free.spend - 60 < result.spend <= free.spend


def test_spending_is_counted_by_day(world: World) -> None:
    """Each day's spending is that of its SENT outcomes, from the first message's day on."""
    result = world.run(RepeatedSms(world.rules))
    first = world.messages.arrive[0] // 24

    by_day = [0.0] * len(result.spend_by_day)
    for outcome in result.outcomes:
        if outcome.type == "sent":
            assert outcome.cost_micros is not None
            day = (outcome.occur_time.timestamp() - 1_788_739_200) // 86400 - first
            by_day[int(day)] += outcome.cost_micros / 1e6

    assert by_day == pytest.approx(list(result.spend_by_day))
    assert world.run(NoSend()).spend_by_day == ()


def test_the_budgeted_oracle_is_the_best_row(world: World) -> None:
    """Rows keep the budget, shares are of the budgeted oracle, which beats hand-written rules and earns less than with all the money."""
    free = world.run(Oracle(world))
    budget = free.spend / 3

    rows = budget_rows(world, [RepeatedSms(world.rules), Uniform(world.rules)], budget)

    assert all(row.spend <= budget + 1e-6 for row in rows)
    assert rows[-1].share == 1
    assert max(row.share for row in rows) == 1
    assert 0 < rows[-1].net < free.expected.net
    assert rows[0].share == pytest.approx(rows[0].net / rows[-1].net)


@pytest.mark.parametrize("is_paced", [True, False])
def test_the_service_keeps_within_a_budget_by_itself(world: World, is_paced: bool) -> None:
    """The service's core closes what it cannot pay for before it asks, so that the world never has to refuse it."""
    rules = replace(world.rules, cascade=replace(world.rules.cascade, order=("viber", "sms")))
    rules = replace(rules, channels={key: replace(c, paid=True) for key, c in rules.channels.items()})
    free, kept = ServiceCore(rules, None), ServiceCore(rules, None, budget=budget_of(world, BUDGET), is_paced=is_paced)

    unlimited, result = world.run(free), world.run(kept, BUDGET)

    assert unlimited.spend > 2 * BUDGET
    assert result.refused == 0
    assert BUDGET - 60 < result.spend <= BUDGET


def test_a_budget_of_a_world_is_for_its_days(world: World) -> None:
    """The budget that the service paces itself by is a total from the day of the first message to that of the last one."""
    found = budget_of(world, BUDGET)
    first, last = (to_time(int(world.messages.arrive[place])) for place in (0, -1))

    period = period_of(found, world.rules, first)

    assert found.amount == BUDGET * 1e6
    assert period.holds(first)
    assert period.holds(last)
    assert first - period.start < timedelta(days=1)
    assert period.end - last <= timedelta(days=1)


def test_the_table_says_whether_the_goal_is_reached() -> None:
    """A budget's goal is reached where the mean share is high enough and nobody spent more than the budget."""

    def table(seed: int, share: float, spend: float) -> Table:
        rows = [
            BudgetRow(policy=name, share=s, net=100 * s, spend=spend, refused=0)
            for name, s in (("a", share), ("b", 1.0))
        ]
        return Table(seed=seed, share=0.25, budget=50.0, rows=tuple(rows))

    good = to_markdown([table(0, 0.8, 50.0), table(1, 0.9, 25.0)])

    assert "| 25% | a | 85.0 ± 7.1 | 85 | 75.0 | 100.00 |" in good
    assert "| 25% | best cascade of 3 within the budget (oracle) | 100.0 ± 0.0 | 100 | 75.0 | 100.00 |" in good
    assert good.endswith("| 85.0 % | yes |")
    assert to_markdown([table(0, 0.8, 50.0)]).endswith("| 80.0 % | no |")
    assert to_markdown([table(0, 0.9, 50.1)]).endswith("| 90.0 % | no |")

"""Policies and the draw: what is logged is what is drawn from."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from models.best_of import best_of
from models.decide import make_seed
from models.engagement import Engagement, count_engagement, engagement_rates
from models.policies import (
    EpsilonGreedy,
    Greedy,
    GreedyFloor,
    InverseGap,
    MostEngaged,
    Policy,
    RuleCascade,
    Thompson,
    draw,
    expected_loss,
    make_policy,
)
from models.rules import PolicyName
from tests.unit.examples import CONTEXT, DAY, HOUR, NOW, RUBLE, RULES, contact, table_of, with_contacts

FloatArray = NDArray[np.float64]
SMALLEST_P_VALUE = 1e-4
"""A correct sampler fails one seed in ten thousand; the seeds are fixed, so that it fails none or always."""

NET_VALUES = st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=60)
FLOORS = st.tuples(st.floats(1e-9, 1), st.floats(1e-9, 1)).filter(lambda pair: pair[0] <= pair[1])


def distribution_of(net_micros: list[float], floor: float = 0.01, limit: float = 0.1) -> FloatArray:
    return GreedyFloor(floor, limit).distribution(table_of(net_micros))


class FixedGenerator:
    """A generator that draws one number."""

    def __init__(self, uniform: float) -> None:
        self.uniform = uniform

    def random(self) -> float:
        return self.uniform


def test_best_action_takes_what_the_floors_leave() -> None:
    """Each other action keeps the floor and the best one has the rest."""
    assert distribution_of([0, 5, 9]) == pytest.approx([0.01, 0.01, 0.98])


def test_floors_together_stay_within_the_limit() -> None:
    """Where many actions would explore more than the limit together, each keeps an equal part of it."""
    probabilities = distribution_of([0.0] * 99 + [1.0], floor=0.01, limit=0.1)

    assert probabilities[:99] == pytest.approx([0.001] * 99)
    assert probabilities[99] == pytest.approx(0.901)


def test_exact_ties_share_alike() -> None:
    """Actions of exactly the greatest value have equal probabilities; a value less by the least is no tie."""
    almost = float(np.nextafter(9.0, 0.0))

    probabilities = distribution_of([9, 9, almost, 0])

    assert probabilities[0] == probabilities[1] == pytest.approx(0.49)
    assert probabilities[2] == probabilities[3] == pytest.approx(0.01)


def test_zero_and_negative_zero_tie() -> None:
    """A net value of minus zero is as good as no send."""
    assert distribution_of([0.0, -0.0]) == pytest.approx([0.5, 0.5])


def test_only_action_is_certain() -> None:
    """A single action is drawn with certainty."""
    assert distribution_of([-5.0]).tolist() == [1.0]


@given(net_micros=NET_VALUES, floors=FLOORS)
def test_greedy_floor_is_a_distribution_that_keeps_its_floor(
    net_micros: list[float], floors: tuple[float, float]
) -> None:
    """Probabilities sum to 1, none is below the floor, and explorations together stay within the limit."""
    floor, limit = floors
    n = len(net_micros)
    kept = min(floor, limit / n)

    probabilities = distribution_of(net_micros, floor, limit)

    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert (probabilities >= kept).all()
    assert (probabilities <= 1.0).all()
    best = np.array(net_micros) == max(net_micros)
    assert probabilities[~best].sum() <= limit * (1 + 1e-12)
    assert len(set(probabilities[best].tolist())) == 1


@given(net_micros=NET_VALUES, floors=FLOORS, which=st.integers(0, 59), loss=st.floats(0, 1e15))
def test_action_worth_less_is_never_likelier(
    net_micros: list[float], floors: tuple[float, float], which: int, loss: float
) -> None:
    """Lowering the value of one action never raises its probability."""
    which %= len(net_micros)
    lower = [value - loss if index == which else value for index, value in enumerate(net_micros)]

    before, after = distribution_of(net_micros, *floors), distribution_of(lower, *floors)

    assert after[which] <= before[which]


def test_rule_cascade_takes_the_first_eligible_channel_of_its_order() -> None:
    """The channel that comes first in the order is certain, at its first slot."""
    table = table_of([0, 1, 2, 3, 4], ["sms", "email", "push", "push"])

    assert RuleCascade(("push", "email", "sms")).distribution(table).tolist() == [0, 0, 0, 1, 0]
    assert RuleCascade(("viber", "email", "push")).distribution(table).tolist() == [0, 0, 1, 0, 0]


def test_rule_cascade_takes_channels_outside_its_order_last() -> None:
    """A channel that the order does not name is used where no other is left."""
    table = table_of([0, 1, 2], ["fax", "sms"])

    assert RuleCascade(("sms",)).distribution(table).tolist() == [0, 0, 1]
    assert RuleCascade(()).distribution(table).tolist() == [0, 1, 0]


def test_rule_cascade_without_sends_does_not_send() -> None:
    """Where there is nothing to send through, no send is certain."""
    assert RuleCascade(("push",)).distribution(table_of([0])).tolist() == [1]


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_same_seed_draws_the_same_action(seed: int) -> None:
    """A draw is a function of probabilities and seed."""
    probabilities = np.full(7, 1 / 7)

    assert {draw(probabilities, seed) for _ in range(5)} == {draw(probabilities, seed)}


@given(
    weights=st.lists(st.sampled_from([0.0, 0.0, 1e-300, 1e-12, 0.1, 1.0]), min_size=1, max_size=20),
    uniform=st.sampled_from([0.0, 5e-324, 0.5, 1 - 2**-53]) | st.floats(0, 1, exclude_max=True),
)
def test_action_without_probability_is_never_drawn(weights: list[float], uniform: float) -> None:
    """Whatever number the generator gives, its least and greatest among them, the action drawn has positive probability."""
    assume(any(weights))
    probabilities = np.array(weights) / sum(weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.random, "default_rng", lambda seed: FixedGenerator(uniform))
        index = draw(probabilities, 1)

    assert probabilities[index] > 0


def p_value(probabilities: list[float], seeds: Iterable[int]) -> float:
    """Draw once with each seed, and return the p-value of chi-square that the probabilities made these frequencies."""
    chances = np.array(probabilities)
    counts = np.bincount([draw(chances, seed) for seed in seeds], minlength=len(chances))
    positive = chances > 0
    assert counts[~positive].sum() == 0
    return float(stats.chisquare(counts[positive], chances[positive] * counts.sum()).pvalue)


@pytest.mark.parametrize("probabilities", [[0.25] * 4, [0.005] * 19 + [0.905], [0.0, 0.5, 0.0, 0.5]])
@pytest.mark.parametrize("first_seed", [0, 2**62])
def test_neighbouring_seeds_are_drawn_as_often_as_their_probabilities_say(
    probabilities: list[float], first_seed: int
) -> None:
    """Over 20,000 seeds that differ by one, frequencies fit the probabilities: chi-square, p > 1e-4."""
    assert p_value(probabilities, range(first_seed, first_seed + 20_000)) > SMALLEST_P_VALUE


def test_steps_of_one_request_are_drawn_apart() -> None:
    """Whether two steps of a request draw alike is chance: binomial, within 4.5 standard deviations at 20,000 requests."""
    even = np.array([0.5, 0.5])
    n = 20_000

    alike = sum(draw(even, make_seed(f"r{number}", 1)) == draw(even, make_seed(f"r{number}", 2)) for number in range(n))

    assert abs(alike - n / 2) < 4.5 * (n / 4) ** 0.5


def test_about_as_good_a_free_send_goes_before_a_paid_one() -> None:
    """A send with a price must be better by more than the caution to be chosen over a free one."""
    policy = GreedyFloor(0.01, 0.1, 0.05)
    table = replace(table_of([0.0, 96.0, 100.0], ["push", "sms"]), price_micros=np.array([0.0, 0.0, 5.0]))
    dearer = replace(table, plan_micros=np.array([0.0, 94.0, 100.0]))

    assert policy.distribution(table).argmax() == 1
    assert policy.distribution(dearer).argmax() == 2


def test_greedy_explores_nothing() -> None:
    """The best action is certain, and actions that tie exactly share alike."""
    assert Greedy().distribution(table_of([0, 5, 9])).tolist() == [0, 0, 1]
    assert Greedy().distribution(table_of([9, 5, 9])).tolist() == [0.5, 0, 0.5]


def test_each_channels_floors_shrink_to_what_its_part_of_the_budget_pays() -> None:
    """Where the floors of a channel would lose more than its part of the budget, they are taken down by the one factor that loses just that."""
    table = table_of([0, 4, 6, 10], ["push", "push", "sms"])

    free, bounded = (GreedyFloor(0.1, 1.0, 0.0, budget).distribution(table) for budget in (np.inf, 1.5))

    assert free == pytest.approx([0.1, 0.1, 0.1, 0.7])
    assert bounded == pytest.approx([0.05, 0.05, 0.05, 0.85])
    assert expected_loss(table.plan_micros, bounded) == pytest.approx(1.0)
    assert GreedyFloor(0.1, 1.0, 0.0, 2.4).distribution(table) == pytest.approx([0.08, 0.08, 0.08, 0.76])


def test_caution_does_not_grow_smaller_with_the_price() -> None:
    """A rouble more of price takes a rouble off what a send counts for, not nine tenths of one: caution is a share of what it brings before its price."""
    table = replace(table_of([0.0, 10.0, 12.5], ["push", "sms"]), price_micros=np.array([0.0, 0.0, 8.0]))
    dearer = replace(table, plan_micros=np.array([0.0, 9.5, 12.0]), price_micros=np.array([0.0, 0.0, 8.5]))

    before, after = (Greedy(0.1).exploration_cost(t, np.array([0.0, 1.0, 0.0])) for t in (table, dearer))

    assert before == pytest.approx(12.5 - 0.1 * 20.5 - 10.0)
    assert after == pytest.approx(before)


def test_epsilon_is_shared_by_channels_and_then_by_slots() -> None:
    """A channel is explored as often with one slot as with many."""
    table = table_of([0, 1, 1, 1, 9], ["push", "push", "push", "sms"])

    assert EpsilonGreedy(0.3).distribution(table) == pytest.approx([0.1, 0.1 / 3, 0.1 / 3, 0.1 / 3, 0.8])


def test_thompson_sends_a_channel_as_often_as_it_may_be_the_best() -> None:
    """The best slot of each channel has the chance that it is the best of these, and every action its floor beside it."""
    table = table_of([0.0, 5.0, 3.0, 6.0], ["push", "push", "sms"])
    table = replace(table, deviation_micros=np.array([0.0, 2.0, 9.0, 3.0]))
    chances = best_of(np.array([0.0, 5.0, 6.0]), np.array([0.0, 2.0, 3.0]))

    probabilities = Thompson(0.01, 1.0).distribution(table)

    assert probabilities[[0, 1, 3]] == pytest.approx(0.01 + 0.96 * chances)
    assert probabilities[2] == pytest.approx(0.01)


def test_thompson_without_uncertainty_is_greedy_with_a_floor() -> None:
    """Where every value is taken as certain, the best action has all but the floors."""
    table = table_of([0.0, 5.0, 5.0, 4.0], ["push", "push", "sms"])

    assert Thompson(0.01, 1.0).distribution(table) == pytest.approx(GreedyFloor(0.01, 1.0).distribution(table))


def test_more_slots_do_not_make_a_channel_likelier_under_thompson() -> None:
    """Ten slots of equal worth share what one slot would have."""
    one = replace(table_of([0.0, 5.0, 5.0], ["push", "sms"]), deviation_micros=np.array([0.0, 2.0, 2.0]))
    ten = table_of([0.0, *[5.0] * 10, 5.0], [*["push"] * 10, "sms"])
    ten = replace(ten, deviation_micros=np.array([0.0, *[2.0] * 11]))
    policy = Thompson(1e-9, 1.0)

    assert policy.distribution(ten)[11] == pytest.approx(policy.distribution(one)[2], abs=1e-7)
    assert policy.distribution(ten)[1:11] == pytest.approx([policy.distribution(one)[1] / 10] * 10, abs=1e-7)


def test_inverse_gap_weighs_channels_by_what_they_lose() -> None:
    """With one slot a channel, p = 1 / (k + gamma gap) with gamma = (k - 1) / half the budget, and the best has the rest."""
    probabilities = InverseGap(2.0).distribution(table_of([0.0, 5.0, 9.0], ["push", "sms"]))

    assert probabilities[:2] == pytest.approx([1 / (3 + 2 * 9), 1 / (3 + 2 * 4)])
    assert probabilities.sum() == pytest.approx(1)


def test_inverse_gap_weighs_the_slots_of_a_channel_apart() -> None:
    """Slots share their channel's probability by what they lose against its best slot, and leave the other channels alone."""
    one = InverseGap(2.0).distribution(table_of([0.0, 5.0, 9.0], ["push", "sms"]))
    two = InverseGap(2.0).distribution(table_of([0.0, 5.0, 2.0, 9.0], ["push", "push", "sms"]))

    assert two[[0, 3]] == pytest.approx(one[[0, 2]])
    assert two[1:3] == pytest.approx(one[1] * np.array([1 - 1 / (2 + 3), 1 / (2 + 3)]))


def test_inverse_gap_explores_evenly_where_nothing_is_lost() -> None:
    """Channels of equal worth are drawn evenly under any budget, since that costs nothing."""
    table = table_of([0.0, 0.0, 0.0, 0.0], ["push", "push", "sms"])

    assert InverseGap(1e-3).distribution(table) == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 3])


@given(net_micros=NET_VALUES, budgets=st.tuples(st.floats(1e-3, 1e12), st.floats(1e-3, 1e12)))
def test_greater_budget_never_explores_less(net_micros: list[float], budgets: tuple[float, float]) -> None:
    """With more money the best action is never likelier."""
    table = table_of(net_micros)
    best = np.array(net_micros) == max(net_micros)

    for make in (InverseGap, lambda budget: GreedyFloor(0.01, 0.1, 0.0, budget), lambda b: EpsilonGreedy(0.1, 0.0, b)):
        little, much = (make(budget).distribution(table)[best].sum() for budget in sorted(budgets))
        assert much <= little + 1e-12


def engaged(**counts: tuple[int, int]) -> dict[str, Engagement]:
    return {channel: Engagement(sent=sent, engaged=engaged) for channel, (sent, engaged) in counts.items()}


def most_engaged(counts: dict[str, Engagement], channels: list[str], zone: str = "Europe/Moscow") -> list[float]:
    policy = MostEngaged(counts, ("push", "email", "sms"), zone)
    found: list[float] = policy.distribution(table_of([0.0] * (len(channels) + 1), channels)).tolist()
    return found


def test_most_engaged_channel_is_certain() -> None:
    """The channel that the customer engages with most is sent, though it is worth least and last in the order."""
    assert most_engaged(engaged(push=(20, 2), sms=(10, 6)), ["push", "email", "sms"]) == [0, 0, 0, 1]


def test_one_lucky_message_is_not_the_most_engaged_channel() -> None:
    """A rate of few messages is drawn towards the customer's own mean."""
    counts = engaged(push=(40, 30), sms=(1, 1))

    rates = engagement_rates(counts, ["push", "sms", "email"])

    assert rates == pytest.approx({"push": (30 + 310 / 41) / 50, "sms": (1 + 310 / 41) / 11, "email": 31 / 41})
    assert engagement_rates(engaged(push=(400, 390), sms=(1, 0)), ["push", "sms"])["push"] > 0.97


def test_without_history_the_order_of_the_rules_decides() -> None:
    """A customer who has got nothing is sent the first channel of the order; one outside the order comes last."""
    assert most_engaged({}, ["sms", "email", "push"]) == [0, 0, 0, 1]
    assert most_engaged({}, ["fax", "sms"]) == [0, 0, 1]


def test_most_engaged_channel_goes_in_the_daytime() -> None:
    """The first slot from 10 to 19 local is taken, the first of all where there is none in it."""
    hours = ["push"] * 3

    assert most_engaged({}, hours) == [0, 1, 0, 0]
    assert most_engaged({}, hours, "Europe/London") == [0, 0, 1, 0]
    assert most_engaged({}, hours, "America/New_York") == [0, 1, 0, 0]


def test_contacts_that_were_seen_or_clicked_are_engaged_with() -> None:
    """A message counts when it was sent by now, and as engaged with when it was seen or clicked."""
    contacts = (
        replace(contact(NOW - DAY, channel="push"), seen_time=NOW - HOUR),
        replace(contact(NOW - DAY, channel="push"), seen_time=NOW - HOUR, click_time=NOW),
        contact(NOW - HOUR, channel="push"),
        replace(contact(NOW - HOUR, channel="sms"), click_time=NOW),
        contact(NOW + HOUR, channel="sms"),
        contact(NOW + HOUR, channel="email"),
    )

    assert count_engagement(contacts, NOW) == engaged(push=(3, 2), sms=(1, 1))


MADE: dict[PolicyName, Policy] = {
    "greedy": Greedy(0.05),
    "greedy_floor": GreedyFloor(0.01, 0.1, 0.05, 0.5 * RUBLE),
    "epsilon_greedy": EpsilonGreedy(0.1, 0.05, 0.5 * RUBLE),
    "thompson": Thompson(0.01, 0.1, 0.05, 0.5 * RUBLE),
    "inverse_gap": InverseGap(0.5 * RUBLE, 0.05),
    "rule_cascade": RuleCascade(RULES.cascade.order),
    "most_engaged": MostEngaged(engaged(push=(1, 0)), RULES.cascade.order, "Europe/Moscow"),
}


@pytest.mark.parametrize("name", MADE)
def test_policy_of_the_rules_is_made_with_their_numbers(name: PolicyName) -> None:
    """The policy that the rules name has its floor, limit, caution and a thousandth of the budget, under that name."""
    rules = replace(RULES, policy=replace(RULES.policy, name=name, exploration_budget=500 * RUBLE))

    made = make_policy(rules, with_contacts(contact(NOW - DAY, channel="push")))

    assert made == MADE[name]
    assert made.name == name


def test_rules_without_a_budget_set_no_limit_in_money() -> None:
    """Where the rules name neither policy nor budget, the greedy floor is kept whatever it costs."""
    assert make_policy(RULES, CONTEXT) == GreedyFloor(0.01, 0.1, 0.05, np.inf)

"""What every policy keeps: one suite for all of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from models.actions import ActionTable
from models.decide import make_seed
from models.engagement import Engagement
from models.features import NO_SEND
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
    pick,
)
from tests.unit.examples import RUBLE, table_of

FloatArray = NDArray[np.float64]
SMALLEST_P_VALUE = 1e-4
"""A correct sampler fails one seed in ten thousand; the seeds are fixed, so that it fails none or always."""
ORDER = ("in_app", "push", "email", "viber", "sms")
ENGAGED = {"push": Engagement(sent=9, engaged=2), "email": Engagement(sent=4, engaged=3)}
BUDGET = 0.3 * RUBLE
"""What a decision's exploration may cost where a policy has a budget."""

BOUNDED: list[Policy] = [
    GreedyFloor(0.02, 0.3, 0.1, BUDGET),
    EpsilonGreedy(0.3, 0.1, BUDGET),
    Thompson(0.02, 0.3, 0.1, BUDGET),
    InverseGap(BUDGET, 0.1),
]
FLOORED: list[Policy] = [GreedyFloor(0.02, 0.3, 0.1), EpsilonGreedy(0.3, 0.1), Thompson(0.02, 0.3, 0.1)]
CERTAIN: list[Policy] = [Greedy(0.1), RuleCascade(ORDER), MostEngaged(ENGAGED, ORDER, "Europe/Moscow")]
POLICIES = [*BOUNDED, *FLOORED, *CERTAIN]
BY_VALUE = [policy for policy in POLICIES if not isinstance(policy, RuleCascade | MostEngaged)]


def named(policy: Policy) -> str:
    is_free = getattr(policy, "budget_micros", 0) == np.inf
    return policy.name + (" without a budget" if is_free else "")


every = pytest.mark.parametrize("policy", POLICIES, ids=named)
by_value = pytest.mark.parametrize("policy", BY_VALUE, ids=named)


def table_from(rows: Sequence[tuple[str, float, float, float]]) -> ActionTable:
    """Return no send, and a send an hour of (channel, plan value, its deviation, price)."""
    table = table_of([0.0, *(value for _, value, _, _ in rows)], [channel for channel, _, _, _ in rows])
    deviations, prices = [deviation for _, _, deviation, _ in rows], [price for _, _, _, price in rows]
    return replace(table, deviation_micros=np.array([0.0, *deviations]), price_micros=np.array([0.0, *prices]))


def reordered(table: ActionTable, order: Sequence[int]) -> ActionTable:
    """Return the table with its actions in another order."""
    places = list(order)
    columns = ("plan_micros", "deviation_micros", "price_micros", "is_paid")
    arrays = {name: getattr(table, name)[places] for name in columns}
    return replace(table, actions=tuple(table.actions[place] for place in places), **arrays)


RUBLES = st.sampled_from([0.0, 1.0, 5.0]) | st.floats(-20, 50)
VALUES = RUBLES.map(lambda value: value * RUBLE) | st.floats(-1e15, 1e15)
DEVIATIONS = st.sampled_from([0.0, 1e5, 1e7]) | st.floats(-6, 9).map(lambda power: 10.0**power)
ROWS = st.lists(
    st.tuples(st.sampled_from(ORDER), VALUES, DEVIATIONS, st.sampled_from([0.0, 5.3 * RUBLE])), min_size=0, max_size=12
)


@every
@given(rows=ROWS)
def test_policy_gives_a_distribution_under_its_name(
    policy: Policy, rows: list[tuple[str, float, float, float]]
) -> None:
    """Each action of the table, and nothing else, has a probability; none is negative, and they sum to 1 within 1e-12."""
    table = table_from(rows)

    probabilities = policy.distribution(table)

    assert policy.name
    assert probabilities.shape == (len(table),)
    assert (probabilities >= 0).all()
    assert probabilities.sum() == pytest.approx(1.0, rel=0, abs=1e-12)


@every
@given(rows=ROWS)
def test_same_table_has_the_same_distribution(policy: Policy, rows: list[tuple[str, float, float, float]]) -> None:
    """A distribution is a function of the table, to the bit."""
    assert policy.distribution(table_from(rows)).tobytes() == policy.distribution(table_from(rows)).tobytes()


@every
@given(rows=ROWS, data=st.data())
def test_probabilities_go_with_their_actions(
    policy: Policy, rows: list[tuple[str, float, float, float]], data: st.DataObject
) -> None:
    """Actions in another order have the same probabilities."""
    table = table_from(rows)
    order = data.draw(st.permutations(range(len(table))))

    assert policy.distribution(reordered(table, order)) == pytest.approx(
        policy.distribution(table)[order], rel=0, abs=1e-11
    )


@every
@given(rows=ROWS.filter(bool), which=st.integers(0, 11), loss=VALUES.map(abs))
def test_action_worth_less_is_never_likelier(
    policy: Policy, rows: list[tuple[str, float, float, float]], which: int, loss: float
) -> None:
    """Lowering the value of one action never raises its probability, neither on its own nor by what is left of a budget."""
    table = table_from(rows)
    which = 1 + which % len(rows)
    lower = table.plan_micros.copy()
    lower[which] -= loss

    before, after = policy.distribution(table), policy.distribution(replace(table, plan_micros=lower))

    assert after[which] <= before[which] + 1e-9


@every
@given(
    rows=ROWS.filter(bool),
    rise=st.integers(0, 100 * RUBLE),
    followed=st.lists(st.floats(0, 1), min_size=12, max_size=12),
)
def test_dearer_channel_never_has_a_greater_share(
    policy: Policy, rows: list[tuple[str, float, float, float]], rise: int, followed: list[float]
) -> None:
    """Raising the price of a channel never raises its probability over all its slots, whatever part of the rise other plans lose that it is a later step of.

    Values are whole micros, so that none are rounded.
    """
    channel = rows[0][0]
    cheap = table_from([(c, float(round(v)), d, 1.0 if c == channel else p) for c, v, d, p in rows])
    mask = np.array([action.channel == channel for action in cheap.actions])
    loss = np.where(mask, rise, np.floor(rise * np.array([0.0, *followed[: len(rows)]])))
    dear = replace(cheap, plan_micros=cheap.plan_micros - loss, price_micros=cheap.price_micros + rise * mask)

    before, after = policy.distribution(cheap), policy.distribution(dear)

    assert after[mask].sum() <= before[mask].sum() + 1e-9


@pytest.mark.parametrize("policy", [*BOUNDED, *FLOORED], ids=named)
@given(rows=ROWS)
def test_policy_that_explores_leaves_every_action_possible(
    policy: Policy, rows: list[tuple[str, float, float, float]]
) -> None:
    """Under a policy that explores every eligible action has a positive propensity, whatever it is worth and whatever the budget."""
    assert (policy.distribution(table_from(rows)) > 0).all()


@pytest.mark.parametrize("policy", FLOORED, ids=named)
@given(rows=ROWS)
def test_floor_is_kept_where_no_budget_is_in_the_way(
    policy: Policy, rows: list[tuple[str, float, float, float]]
) -> None:
    """Without a budget no probability is below the floor that the policy promises."""
    table = table_from(rows)
    n = len(table)
    channels = [action.channel for action in table.actions]
    even = np.array([1 / len(set(channels)) / channels.count(channel) for channel in channels])
    promised = 0.3 * even if isinstance(policy, EpsilonGreedy) else np.full(n, min(0.02, 0.3 / n))

    assert (policy.distribution(table) >= promised * (1 - 1e-12)).all()


@pytest.mark.parametrize("policy", BOUNDED, ids=named)
@given(rows=ROWS)
def test_exploring_is_never_expected_to_cost_more_than_the_budget(
    policy: Policy, rows: list[tuple[str, float, float, float]]
) -> None:
    """Whatever the values, what is expected to be lost against the best action stays within the budget."""
    table = table_from(rows)
    probabilities = policy.distribution(table)
    paid = table.price_micros > 0
    gross = np.maximum(table.plan_micros + table.price_micros, 0.0)
    worth = np.where(paid, table.plan_micros - 0.1 * gross, table.plan_micros)

    cost = policy.exploration_cost(table, probabilities)

    assert cost == pytest.approx(float(np.sum(probabilities * (worth.max() - worth))), rel=1e-9, abs=1e-6)
    assert 0 <= cost <= BUDGET * (1 + 1e-9)


@pytest.mark.parametrize("policy", CERTAIN, ids=named)
@given(rows=ROWS)
def test_policy_that_does_not_explore_costs_nothing(
    policy: Policy, rows: list[tuple[str, float, float, float]]
) -> None:
    """Where nothing is explored nothing is lost by exploring."""
    table = table_from(rows)

    assert policy.exploration_cost(table, policy.distribution(table)) == pytest.approx(0.0, abs=1e-6)


@by_value
def test_policy_by_value_sends_the_best_most(policy: Policy) -> None:
    """Where one action is far the best, it is the likeliest, and a paid one only where it is better by more than the caution."""
    rows = [("push", 20.0 * RUBLE, 0.0, 0.0), ("sms", 21.0 * RUBLE, 0.0, 5.3), ("email", 1.0 * RUBLE, 0.0, 0.0)]
    dearer = [*rows[:1], ("sms", 40.0 * RUBLE, 0.0, 5.3), *rows[2:]]

    assert policy.distribution(table_from(rows)).argmax() == 1
    assert policy.distribution(table_from(dearer)).argmax() == 2


@pytest.fixture(scope="module")
def uniforms() -> FloatArray:
    """Return the number that each of a million requests draws with, each from the seed of its own id."""
    seeds = (make_seed(f"request-{n}", 1) for n in range(1_000_000))
    return np.fromiter((np.random.default_rng(seed).random() for seed in seeds), dtype=np.float64)


def p_value(probabilities: FloatArray, uniforms: FloatArray) -> float:
    """Return the p-value of chi-square that the probabilities made the frequencies of what was drawn."""
    counts = np.bincount(pick(probabilities, uniforms), minlength=len(probabilities))
    positive = probabilities > 0
    expected = probabilities[positive] * counts.sum()
    assert counts[~positive].sum() == 0
    assert expected.min() >= 5
    return float(stats.chisquare(counts[positive], expected).pvalue) if positive.sum() > 1 else 1.0


@every
@pytest.mark.parametrize("values", [(9.0, 9.0, 8.9, 3.0, 5.0, 9.05), (0.0, -1.0, 0.5, 0.1, 0.0, -0.2)])
def test_a_million_requests_are_drawn_as_often_as_their_probabilities_say(
    policy: Policy, values: Sequence[float], uniforms: FloatArray
) -> None:
    """Over a million requests, frequencies fit what the policy logs as propensities: chi-square, p > 1e-4."""
    channels = ("push", "push", "push", "email", "sms", "viber")
    rows = [
        (c, v * RUBLE, 1.0 * RUBLE, 5.3 if c in ("sms", "viber") else 0.0)
        for c, v in zip(channels, values, strict=True)
    ]

    assert p_value(policy.distribution(table_from(rows)), uniforms) > SMALLEST_P_VALUE


def test_a_million_requests_never_draw_what_has_no_probability(uniforms: FloatArray) -> None:
    """Frequencies fit small and great probabilities alike, and an action without any is not drawn once: chi-square, p > 1e-4."""
    probabilities = np.array([0.005, 0.005, 0.4, 0.4, 0.0, 0.15, 0.0399, 0.0001, 0.0])

    assert p_value(probabilities, uniforms) > SMALLEST_P_VALUE


def test_what_is_drawn_is_what_the_seeds_number_falls_to(uniforms: FloatArray) -> None:
    """A draw is the pick of the first number of the request's generator: over 5,000 requests, one by one."""
    probabilities = np.array([0.1, 0.0, 0.6, 0.3])

    drawn = [draw(probabilities, make_seed(f"request-{n}", 1)) for n in range(5_000)]

    assert drawn == pick(probabilities, uniforms[:5_000]).tolist()


def test_no_send_alone_is_certain() -> None:
    """Where there is nothing to send through, every policy sends nothing."""
    table = table_from([])

    assert [policy.distribution(table).tolist() for policy in POLICIES] == [[1.0]] * len(POLICIES)
    assert table.actions[0].channel == NO_SEND

"""Policies and the draw: what is logged is what is drawn from."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from models.decide import make_seed
from models.policies import GreedyFloor, Policy, RuleCascade, draw
from tests.unit.examples import table_of

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


@pytest.mark.parametrize("policy", [GreedyFloor(0.01, 0.1), RuleCascade(("push",))])
def test_every_policy_gives_a_distribution_under_its_name(policy: Policy) -> None:
    """Each policy has a name and gives every action of the table a probability."""
    probabilities = policy.distribution(table_of([0, 1, 2]))

    assert policy.name
    assert probabilities.shape == (3,)
    assert probabilities.sum() == pytest.approx(1.0)


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


def test_a_million_requests_are_drawn_as_often_as_their_probabilities_say() -> None:
    """Over a million requests, each with the seed of its own id, frequencies fit the probabilities: chi-square, p > 1e-4."""
    probabilities = [0.005, 0.005, 0.4, 0.4, 0.0, 0.15, 0.0399, 0.0001, 0.0]

    assert p_value(probabilities, (make_seed(f"request-{n}", 1) for n in range(1_000_000))) > SMALLEST_P_VALUE


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

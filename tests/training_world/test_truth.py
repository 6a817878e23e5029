"""The exact expectations are those of the law that the truth states."""

from itertools import pairwise

import numpy as np
import pytest

from models.rules import read_rules
from tests.training_world.worlds import FixedPlan, Nosy, clones_of, sample_net, small_world
from training.world.people import CHANNELS, EMAIL, IN_APP, LOST_CAUSE, ORDINARY, SMS, SURE_THING, VIBER, WHATSAPP
from training.world.run import World
from training.world.scenarios import RULES_FILE, world_rules
from training.world.truth import OWN_STEP_TIREDNESS, Case, Happened, Send

SIGMAS = 4.5
"""A true mean is further off in fewer than one of 100,000 tests."""


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def plans(case: Case) -> list[list[Send]]:
    """Cascades of one, two and three steps; the last two send while an earlier message may still be noticed."""
    begin = case.arrive + 1

    def send(channel: int, after: int, step: int) -> Send:
        price = {VIBER: 4.1, SMS: 5.3, WHATSAPP: 6.2}.get(channel, 0.0)
        return Send(channel=channel, hour=begin + after, tiredness=0.7 + OWN_STEP_TIREDNESS * (step - 1), price=price)

    return [
        [send(SMS, 0, 1)],
        [send(EMAIL, 0, 1), send(VIBER, 1, 2)],
        [send(IN_APP, 0, 1), send(WHATSAPP, 2, 2), send(SMS, 9, 3)],
    ]


def valuable(world: World) -> list[int]:
    """Messages whose cascades do much, so that a wrong term would show: by chance of an order anyway, and by margin."""
    cases = [world.truth.case(index) for index in range(len(world.messages))]
    score = [c.margin * c.prior[2] * (c.organic[2] + 0.05) for c in cases]
    return [int(i) for i in np.argsort(score)[-3:]]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_expected_net_is_the_mean_of_samples(world: World, steps: int) -> None:
    """A million samples, drawn step by step without any sum, have the expected mean: within 4.5 standard errors."""
    rng = np.random.default_rng(steps)
    n = 1_000_000
    for index in valuable(world):
        case = world.truth.case(index)
        sends = plans(case)[steps - 1]

        net = sample_net(world.truth, case, sends, n, rng)

        expected = world.truth.expected(case, sends)
        assert abs(net.mean() - expected.net) < SIGMAS * net.std() / np.sqrt(n)


def test_runs_come_out_as_expected(world: World) -> None:
    """The event-driven run of a plan on many clones realises its expectation: within 4.5 standard errors of n = 2,000."""
    index = valuable(world)[-1]
    clones = clones_of(world, index, 2000)
    case = clones.truth.case(0)
    sends = [
        Send(channel=s.channel, hour=s.hour, tiredness=OWN_STEP_TIREDNESS * k, price=s.price)
        for k, s in enumerate(plans(case)[2])
    ]

    result = clones.run(FixedPlan(sends))

    expected = clones.truth.expected(case, sends)
    n = len(clones.messages)
    for name in ("caused_orders", "unsubscribes"):
        rate = getattr(expected, name)
        bound = SIGMAS * np.sqrt(rate * (1 - rate) / n)
        assert abs(getattr(result.realised, name) / n - rate) < bound, name
        assert abs(getattr(result.expected, name) / n - rate) < bound, name
    spread = sum(s.price for s in sends)
    assert abs(result.realised.spend / n - expected.spend) < SIGMAS * spread / np.sqrt(n)


def test_gains_of_steps_sum_to_what_comes_out(world: World) -> None:
    """Where a policy acts on receipts, its gains, conditional on them, still have the realised mean: n = 2,000 clones."""
    index = valuable(world)[-1]
    clones = clones_of(world, index, 2000)

    result = clones.run(Nosy())

    n = len(clones.messages)
    for name, bound in (("caused_orders", 1.0), ("unsubscribes", 1.0)):
        realised, expected = getattr(result.realised, name), getattr(result.expected, name)
        rate = max(realised, 1) / n
        assert abs(realised - expected) < bound * SIGMAS * np.sqrt(n * rate), name
    assert abs(result.realised.spend - result.expected.spend) < SIGMAS * 12 * np.sqrt(n)


def test_being_ignored_lowers_the_worth_of_another_step(world: World) -> None:
    """A message seen and left says that interest is less: the next SMS is worth less than after one that never arrived."""
    case = world.truth.case(valuable(world)[-1])
    first = Send(channel=VIBER, hour=case.arrive, tiredness=0.0, price=4.1)
    sms = Send(channel=SMS, hour=case.arrive + 6, tiredness=0.5, price=5.3)

    def worth(past: Happened) -> float:
        with_sms = world.truth.expected(case, [sms], [past], case.arrive + 6)
        return with_sms.net - world.truth.expected(case, [], [past], case.arrive + 6).net

    unseen = worth(Happened(send=first))
    failed = worth(Happened(send=first, is_undelivered=True))
    left = worth(Happened(send=first, seen_hour=case.arrive + 2))

    assert left < failed
    assert unseen < failed


def test_sure_things_and_lost_causes_are_not_moved() -> None:
    """An SMS causes at most a twentieth of the orders among them that it causes among ordinary customers."""
    world = small_world(count=1500, customers=1500)
    caused: dict[int, list[float]] = {ORDINARY: [], SURE_THING: [], LOST_CAUSE: []}
    organic: dict[int, list[float]] = {ORDINARY: [], SURE_THING: [], LOST_CAUSE: []}

    for index in range(len(world.messages)):
        case = world.truth.case(index)
        send = Send(channel=SMS, hour=case.arrive, tiredness=0.0, price=5.3)
        kind = int(world.people.kind[case.person])
        caused[kind].append(world.truth.expected(case, [send]).caused_orders)
        organic[kind].append(float(case.prior @ case.organic))

    usual = np.mean(caused[ORDINARY])
    assert usual > 0.005
    assert np.mean(caused[SURE_THING]) < usual / 20
    assert np.mean(caused[LOST_CAUSE]) < usual / 20
    assert np.mean(organic[SURE_THING]) > 3 * np.mean(organic[ORDINARY])
    assert np.mean(organic[LOST_CAUSE]) < np.mean(organic[ORDINARY]) / 3


def test_contacts_tire(world: World) -> None:
    """The more contacts, the less a send earns before harm and the likelier an unsubscribe per notice."""
    case = world.truth.case(valuable(world)[-1])

    found = [
        world.truth.expected(case, [Send(channel=SMS, hour=case.arrive, tiredness=t, price=5.3)])
        for t in (0.0, 1.0, 4.0)
    ]

    assert all(a.caused_orders > b.caused_orders for a, b in pairwise(found))
    assert all(a.unsubscribes < b.unsubscribes for a, b in pairwise(found))


def test_weekend_readers_open_mail_at_weekends() -> None:
    """Their attention to mail is all but nil from Monday to Friday, and above everybody's on Sunday."""
    world = small_world(customers=400)
    person = int(np.flatnonzero(world.people.is_weekend_mail & (world.people.zone == 1))[0])

    week = world.truth.rhythm(person, np.array([EMAIL, SMS]), np.arange(24 * 7) + 165)  # from a Monday, 00:00 in Moscow

    weekday, weekend = week[0, : 5 * 24], week[0, 5 * 24 : 7 * 24]
    assert weekday.max() < 0.1 * weekend.max()
    assert week[1, : 5 * 24].max() > 0.2 * week[1, 5 * 24 :].max()


def test_channels_are_those_of_the_default_rules() -> None:
    """Channels, paid or free, price book and quiet hours are those of the service's default rules."""
    ours = world_rules()
    default = read_rules(RULES_FILE.parents[2] / "service" / "rules" / "default.toml")

    assert set(ours.channels) == set(CHANNELS)
    assert all(ours.channels[c].paid == default.channels[c].paid for c in CHANNELS)
    assert ours.prices == tuple(p for p in default.prices if p.channel in CHANNELS)
    assert (ours.quiet_hours, ours.harm) == (default.quiet_hours, default.harm)

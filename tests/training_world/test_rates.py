"""The world's rates are those of the retailer that it is calibrated to."""

import pytest

from tests.training_world.worlds import STATIONARY
from training.world import calibration
from training.world.messages import KINDS, make_messages
from training.world.people import CHANNELS, EMAIL, PUSH, make_population
from training.world.rates import channel_rates
from training.world.run import World
from training.world.scenarios import world_rules

TOLERANCE = 0.15
"""Relative, of rates by kind: the calibration fitted 6,000 messages of seed 0, these are 3,600 others; orders per click twice that."""


@pytest.fixture(scope="module")
def world() -> World:
    people = make_population(6000, 11)
    return World(people, make_messages(people, 3600, 0, 28 * 24, 11), STATIONARY, world_rules(), 11)


@pytest.mark.parametrize("kind", calibration.MAIL_RATES, ids=KINDS.__getitem__)
def test_mail_of_each_kind_is_as_calibrated(world: World, kind: int) -> None:
    """Opens per send, clicks per open, orders per click and unsubscribes per send of e-mail are those of REES46."""
    target = calibration.MAIL_RATES[kind]

    rates = channel_rates(world, EMAIL, kind)

    assert rates.open_rate == pytest.approx(target.open_rate, rel=TOLERANCE)
    assert rates.click_to_open == pytest.approx(target.click_to_open, rel=TOLERANCE)
    assert rates.unsubscribe_rate == pytest.approx(target.unsubscribe_rate, rel=2 * TOLERANCE)
    orders = calibration.ORDER_UNDERCOUNT * target.orders_per_click
    assert rates.orders_per_click == pytest.approx(orders, rel=2 * TOLERANCE)


def test_push_is_as_calibrated(world: World) -> None:
    """Opens, clicks per open and unsubscribes of push are those of REES46, as it is read."""
    rates = channel_rates(world, PUSH)

    assert rates.open_rate == pytest.approx(calibration.PUSH_OPEN_RATE, rel=TOLERANCE)
    assert rates.click_to_open == pytest.approx(calibration.PUSH_CLICK_TO_OPEN, rel=TOLERANCE)
    assert rates.unsubscribe_rate == pytest.approx(calibration.PUSH_UNSUBSCRIBE_RATE, rel=2 * TOLERANCE)


@pytest.mark.parametrize("channel", calibration.ASSUMED_OPEN_RATES)
def test_other_channels_are_as_assumed(world: World, channel: str) -> None:
    """What no data says is at least what the constants say."""
    rates = channel_rates(world, CHANNELS.index(channel))

    assert rates.open_rate == pytest.approx(calibration.ASSUMED_OPEN_RATES[channel], rel=TOLERANCE)
    unsubscribes = calibration.ASSUMED_UNSUBSCRIBE_RATES[channel]
    assert rates.unsubscribe_rate == pytest.approx(unsubscribes, rel=2 * TOLERANCE)

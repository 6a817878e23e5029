"""What each eligible action is expected to earn."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.actions import ActionTable, Estimate, list_actions, value_actions
from models.context import Context
from models.curves import PLAIN_KEPT
from models.eligibility import EligibleChannel, Slot
from models.features import NO_SEND, Action
from tests.unit.examples import CONTEXT, HOUR, NOW, RUBLE, RULES, budget, with_message

HARMFUL = replace(RULES, harm=replace(RULES.harm, unsubscribe=100 * RUBLE))


def channel(name: str, *starts: datetime, price: int = 0) -> EligibleChannel:
    slots = tuple(Slot(start=start, end=start) for start in starts)
    return EligibleChannel(channel=name, is_paid=price > 0, price_micros=price, slots=slots)


def estimate(p_response: Sequence[float], p_unsubscribe: Sequence[float] | None = None) -> Estimate:
    unsubscribe = [0.0] * len(p_response) if p_unsubscribe is None else p_unsubscribe
    return Estimate(p_response=np.array(p_response), p_unsubscribe=np.array(unsubscribe))


PUSH_AND_SMS = (channel("push", NOW, NOW + 3 * HOUR), channel("sms", NOW, price=5 * RUBLE))


def test_actions_are_no_send_and_every_slot_in_order() -> None:
    """The first action is no send; then come the channels, each with its slots."""
    assert list_actions(PUSH_AND_SMS) == (
        Action(channel=NO_SEND),
        Action(channel="push", send_time=NOW),
        Action(channel="push", send_time=NOW + 3 * HOUR),
        Action(channel="sms", send_time=NOW),
    )


def test_net_value_is_margin_of_uplift_less_price_and_harm() -> None:
    """Margin times uplift, less price with the worth of every budget that counts it, less harm, is what an action is worth."""
    context = replace(CONTEXT, budgets=(budget("sms", 0.3), budget("*", 0.2), budget("viber", 7.0)))
    table = value_actions(context, HARMFUL, PUSH_AND_SMS, estimate([0.01, 0.03, 0.02, 0.06], [0.5, 0.1, 0.1, 0.2]))

    assert table.uplift == pytest.approx([0, 0.02, 0.01, 0.05])
    assert table.incremental_micros == pytest.approx(np.array([0, 20, 10, 50]) * RUBLE)
    assert table.price_micros.tolist() == [0, 0, 0, 5 * RUBLE]
    assert table.harm_micros == pytest.approx(np.array([0, 10, 10, 20]) * RUBLE)
    assert table.net_micros == pytest.approx(np.array([0, 10, 0, 22.5]) * RUBLE)
    assert table.is_paid.tolist() == [False, False, False, True]


def test_no_send_is_worth_nothing_exactly() -> None:
    """No send has no uplift, no price and no harm, whatever the model says of unsubscribing without a message."""
    table = value_actions(CONTEXT, HARMFUL, PUSH_AND_SMS, estimate([0.3, 0, 0, 0], [0.9, 0, 0, 0]))

    assert (table.uplift[0], table.net_micros[0], table.harm_micros[0], table.p_unsubscribe[0]) == (0, 0, 0, 0)


def test_estimate_is_left_as_it_was() -> None:
    """Putting values on actions does not change the estimate that it is given."""
    found = estimate([0.1, 0.2], [0.9, 0.1])

    value_actions(CONTEXT, HARMFUL, (channel("push", NOW),), found)

    assert found.p_unsubscribe.tolist() == [0.9, 0.1]


def test_worth_halves_with_each_half_life() -> None:
    """A send is worth half as much with each half-life after the earliest moment, and the whole without one."""
    slots = (channel("push", NOW, NOW + HOUR, NOW + 2 * HOUR),)
    fading = replace(CONTEXT, message=replace(CONTEXT.message, relevance_half_life_seconds=3600.0))
    found = estimate([0, 0.1, 0.1, 0.1])

    assert value_actions(fading, RULES, slots, found).incremental_micros == pytest.approx(
        np.array([0, 100, 50, 25]) * RUBLE
    )
    assert value_actions(CONTEXT, RULES, slots, found).incremental_micros == pytest.approx(
        np.array([0, 100, 100, 100]) * RUBLE
    )


def test_first_step_fades_from_the_decision_and_later_ones_from_the_message() -> None:
    """A message decided long after its earliest time is fresh at its first step; a later step is as old as the message, and ignored once."""
    message = replace(CONTEXT.message, relevance_half_life_seconds=3600.0, earliest_time=NOW - HOUR)
    first = replace(CONTEXT, message=message)
    later = replace(first, step=2)
    found = estimate([0, 0.1])

    assert value_actions(first, RULES, (channel("push", NOW),), found).incremental_micros[1] == 100 * RUBLE
    assert value_actions(later, RULES, (channel("push", NOW),), found).incremental_micros[1] == pytest.approx(
        PLAIN_KEPT * 50 * RUBLE
    )


def test_shortest_half_life_leaves_nothing_and_breaks_nothing() -> None:
    """A half-life of a microsecond takes all worth from a send weeks later without a numerical fault."""
    fading = replace(CONTEXT, message=replace(CONTEXT.message, relevance_half_life_seconds=1e-6))

    table = value_actions(fading, RULES, (channel("push", NOW, NOW + timedelta(days=60)),), estimate([0, 0.5, 0.5]))

    assert table.incremental_micros.tolist() == [0, 500 * RUBLE, 0]


def test_without_channels_there_is_no_send_alone() -> None:
    """Without eligible channels the table holds no send and nothing else."""
    table = value_actions(CONTEXT, RULES, (), estimate([0.1]))

    assert table.actions == (Action(channel=NO_SEND),)
    assert table.net_micros.tolist() == [0]
    assert table.deviation_micros.tolist() == [0]


def test_kept_actions_keep_their_values() -> None:
    """A table of some of the actions has their values, row by row."""
    context = replace(CONTEXT, budgets=(budget("sms", 0.5),))
    table = value_actions(context, RULES, PUSH_AND_SMS, estimate([0.01, 0.02, 0.03, 0.04]))

    table = replace(table, deviation_micros=np.array([5.0, 6.0, 7.0, 8.0]))
    kept = table.keep(np.array([True, False, False, True]))

    assert len(kept) == 2
    assert kept.actions == (table.actions[0], table.actions[3])
    assert kept.net_micros.tolist() == table.net_micros[[0, 3]].tolist()
    assert kept.p_response.tolist() == [0.01, 0.04]
    assert kept.deviation_micros.tolist() == [5.0, 8.0]
    assert kept.shadow_price.tolist() == [0, 0.5]


@given(
    chances=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    prices=st.tuples(st.integers(0, 10**15), st.integers(0, 10**15)),
    margin=st.integers(0, 10**15),
    shadow_price=st.floats(0, 100),
)
def test_dearer_is_never_worth_more(
    chances: list[float], prices: tuple[int, int], margin: int, shadow_price: float
) -> None:
    """Raising the price of one channel never raises what it is worth, nor changes what the others are."""
    context = replace(with_message(CONTEXT, margin=margin), budgets=(budget("*", shadow_price),))

    def table_at(price: int) -> ActionTable:
        eligible = (channel("push", NOW, NOW + HOUR), channel("sms", NOW, price=price))
        return value_actions(context, HARMFUL, eligible, estimate(chances))

    cheap, dear = table_at(min(prices)), table_at(max(prices))

    assert dear.net_micros[3] <= cheap.net_micros[3]
    assert dear.net_micros[:3].tobytes() == cheap.net_micros[:3].tobytes()
    assert np.isfinite(dear.net_micros).all()


@given(price=st.integers(0, 10**15))
def test_price_is_kept_exactly(price: int) -> None:
    """The price in the table is the price of the price book to the micro."""
    context: Context = CONTEXT

    table = value_actions(context, RULES, (channel("sms", NOW, price=price),), estimate([0, 0]))

    assert int(table.price_micros[1]) == price

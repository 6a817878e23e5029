"""Cascades valued by backward induction, held against looking at every sequence."""

import itertools
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.actions import ActionTable
from models.features import NO_SEND, Action
from models.planner import value_cascades, value_cascades_plainly
from tests.unit.examples import HOUR, NOW, RUBLE

WAITS = {"push": 3 * HOUR, "email": 12 * HOUR, "sms": 6 * HOUR, "viber": timedelta(0)}
PAID = {"sms", "viber"}


def table(rows: list[tuple[str, int, float, float, float]], shadow_price: float = 0.0) -> ActionTable:
    """Return no send and sends of (channel, hour, P(order), incremental, price) in rubles."""
    incremental = np.array([0.0, *(row[3] * RUBLE for row in rows)])
    price = np.array([0.0, *(row[4] * RUBLE for row in rows)])
    zeros = np.zeros(len(rows) + 1)
    net = incremental - price * (1 + shadow_price)
    return ActionTable(
        actions=(Action(channel=NO_SEND), *(Action(channel=r[0], send_time=NOW + r[1] * HOUR) for r in rows)),
        is_paid=np.array([False, *(row[0] in PAID for row in rows)]),
        price_micros=price,
        p_response=np.array([0.0, *(row[2] for row in rows)]),
        p_unsubscribe=zeros,
        uplift=zeros,
        incremental_micros=incremental,
        harm_micros=zeros,
        net_micros=net,
        plan_micros=net,
        deviation_micros=zeros,
        shadow_price=shadow_price,
    )


ROWS = st.lists(
    st.tuples(
        st.sampled_from(sorted(WAITS)),
        st.integers(0, 40),
        st.floats(0, 1),
        st.floats(-50, 200),
        st.sampled_from([0.0, 1.0, 5.3, 40.0]),
    ),
    max_size=9,
    unique_by=lambda row: row[:2],
)


@given(rows=ROWS, steps=st.integers(1, 4), kept=st.sampled_from([0.0, 0.5, 0.8, 1.0]), is_strict=st.booleans())
def test_values_are_those_of_looking_at_every_sequence(
    rows: list[tuple[str, int, float, float, float]], steps: int, kept: float, is_strict: bool
) -> None:
    """The vectorised induction agrees with the plain reference on every action."""
    actions = table(rows)

    found = value_cascades(actions, WAITS, steps, kept, is_strict=is_strict)

    plain = value_cascades_plainly(actions, WAITS, steps, kept, is_strict=is_strict)
    np.testing.assert_allclose(found.value_micros, plain, rtol=1e-12, atol=1e-3)


@given(rows=ROWS, kept=st.sampled_from([0.0, 0.8, 1.0]), is_strict=st.booleans())
def test_planned_steps_earn_what_is_said(
    rows: list[tuple[str, int, float, float, float]], kept: float, is_strict: bool
) -> None:
    """Following the named second and third steps gives the value, and they keep order, waits and channels apart."""
    actions = table(rows)

    found = value_cascades(actions, WAITS, 3, kept, is_strict=is_strict)

    for first in range(1, len(actions)):
        chain = [first, *found.following(first)]
        value, reached = 0.0, 1.0
        for depth, index in enumerate(chain):
            value += reached * (kept**depth * actions.incremental_micros[index] - actions.price_micros[index])
            reached *= 1 - actions.p_response[index]
        assert value == pytest.approx(found.value_micros[first], rel=1e-12, abs=1e-3)
        sends = [actions.actions[index] for index in chain]
        assert len({send.channel for send in sends}) == len(sends)
        for before, after in itertools.pairwise(sends):
            assert before.send_time is not None
            assert after.send_time is not None
            assert after.send_time >= before.send_time + WAITS[before.channel]


@given(rows=ROWS.filter(bool), data=st.data())
def test_taking_an_action_away_never_raises_a_value(
    rows: list[tuple[str, int, float, float, float]], data: st.DataObject
) -> None:
    """Fewer possibilities are never worth more."""
    gone = data.draw(st.integers(0, len(rows) - 1))
    fewer = [row for index, row in enumerate(rows) if index != gone]

    full = value_cascades(table(rows), WAITS, 3, 0.8, is_strict=False).value_micros
    less = value_cascades(table(fewer), WAITS, 3, 0.8, is_strict=False).value_micros

    assert np.all(less <= np.delete(full, gone + 1) + 1e-3)


@given(rows=ROWS, extra=st.floats(0, 100))
def test_dearer_paid_channel_never_raises_a_value(
    rows: list[tuple[str, int, float, float, float]], extra: float
) -> None:
    """Raising the price of one channel lowers what plans are worth, or leaves it."""
    dearer = [(c, h, p, i, price + extra if c == "sms" else price) for c, h, p, i, price in rows]

    before = value_cascades(table(rows), WAITS, 3, 0.8, is_strict=False).value_micros
    after = value_cascades(table(dearer), WAITS, 3, 0.8, is_strict=False).value_micros

    assert np.all(after <= before + 1e-3)


def test_free_channel_goes_first_where_the_paid_one_can_wait() -> None:
    """A little better paid send comes second, since the free one may make it needless."""
    actions = table([("push", 0, 0.10, 50, 0), ("sms", 0, 0.12, 60, 5.3), ("sms", 6, 0.12, 60, 5.3)])

    found = value_cascades(actions, WAITS, 3, 0.8, is_strict=False)

    assert found.value_micros.argmax() == 1
    assert found.following(1) == (3,)
    assert found.value_micros[1] == pytest.approx((50 + 0.9 * (0.8 * 60 - 5.3)) * RUBLE)


def test_paid_step_that_does_not_pay_any_more_is_left_out() -> None:
    """What being ignored says about the interest can make a paid step not worth its price."""
    actions = table([("push", 0, 0.1, 50, 0), ("sms", 6, 0.1, 6, 5.3)])

    assert value_cascades(actions, WAITS, 3, 1.0, is_strict=False).following(1) == (2,)
    assert value_cascades(actions, WAITS, 3, 0.8, is_strict=False).following(1) == ()


def test_strictly_free_first_opens_paid_steps_when_free_ones_are_used_up() -> None:
    """With two free channels a paid one can only be the third step."""
    actions = table([("push", 0, 0.1, 5, 0), ("email", 4, 0.1, 4, 0), ("sms", 4, 0.1, 90, 5), ("sms", 20, 0.1, 90, 5)])

    strict = value_cascades(actions, WAITS, 3, 1.0, is_strict=True)
    free = value_cascades(actions, WAITS, 3, 1.0, is_strict=False)

    assert strict.following(1) == (2, 4)
    assert free.following(1)[0] == 3


def test_dear_budget_counts_in_later_steps() -> None:
    """The shadow price of the budget weighs on paid steps of the plan as on single sends."""
    rows = [("push", 0, 0.0, 10.0, 0.0), ("sms", 6, 0.0, 20.0, 5.3)]

    assert value_cascades(table(rows), WAITS, 2, 0.8, is_strict=False).following(1) == (2,)
    assert replace(table(rows, 3.0)).shadow_price == 3.0
    assert value_cascades(table(rows, 3.0), WAITS, 2, 0.8, is_strict=False).following(1) == ()

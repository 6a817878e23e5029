"""The actions of an answer say what the table says, whatever the numbers."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from models.actions import ActionTable
from models.features import NO_SEND
from models.slate import Action, Actions
from service.gen.channelchoice.v1 import decision_pb2 as pb
from service.rpc.actions import add_actions
from service.rpc.answer import stamp

FloatArray = NDArray[np.float64]
START = datetime(2026, 3, 1, 9, 30, 15, 123_456, tzinfo=UTC)
NONE = Action(channel=NO_SEND)
SLATES = {
    "by channel": [
        NONE,
        *(Action(channel=c, send_time=START + timedelta(hours=n)) for c in ("sms", "e-mail") for n in range(9)),
    ],
    "mixed": [
        Action(channel=c, send_time=START + timedelta(minutes=n)) for n in range(5) for c in ("push", "sms", "vk")
    ]
    + [NONE],
    "nothing but no send": [NONE],
    "before 1970 and far ahead": [
        NONE,
        Action(channel="sms", send_time=datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)),
        Action(channel="sms", send_time=datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
    "a name of 200 bytes, and one that is not ASCII": [
        NONE,
        Action(channel="a" * 200, send_time=START),
        Action(channel="\u043f\u043e\u0447\u0442\u0430", send_time=START),
    ],
}


def make_table(actions: list[Action], numbers: FloatArray, money: FloatArray) -> ActionTable:
    """Return a table of actions with numbers and money in turn, each taken as often as is needed."""
    n = len(actions)
    rows, amounts = np.resize(numbers, (4, n)), np.resize(money, (5, n))
    return ActionTable(
        actions=Actions(actions),
        is_paid=np.zeros(n, dtype=np.bool_),
        p_response=rows[0],
        uplift=rows[1],
        p_unsubscribe=rows[2],
        shadow_price=rows[3],
        incremental_micros=amounts[0],
        price_micros=amounts[1],
        harm_micros=amounts[2],
        net_micros=amounts[3],
        plan_micros=amounts[4],
        deviation_micros=np.zeros(n),
    )


def added_one_by_one(table: ActionTable, probabilities: FloatArray, currency: str) -> pb.Decision:
    """Return a decision with the actions of a table, each field set by itself."""
    decision = pb.Decision()
    for place, action in enumerate(table.actions):
        value = decision.actions.add(
            propensity=probabilities[place],
            p_response=table.p_response[place],
            uplift=table.uplift[place],
            p_unsubscribe=table.p_unsubscribe[place],
            shadow_price=table.shadow_price[place],
        )
        if action.send_time is not None:
            value.channel = action.channel
            value.send_time.CopyFrom(stamp(action.send_time))
        for part, micros in (
            (value.incremental_value, table.incremental_micros),
            (value.price, table.price_micros),
            (value.harm, table.harm_micros),
            (value.net_value, table.net_micros),
            (value.plan_value, table.plan_micros),
        ):
            part.currency = currency
            part.micros = round(float(micros[place]))
    return decision


@pytest.mark.parametrize("slate", SLATES)
def test_actions_are_what_setting_each_field_gives(slate: str) -> None:
    """Actions read in from bytes are the same, to the byte of the answer, as actions whose fields are set one by one."""
    random = np.random.default_rng(5)
    numbers = np.concatenate([[0.0, -0.0, 1.0, -1.0, 5e-324, 1e300], random.normal(size=40)])
    money = np.concatenate([[0.0, 0.5, 1.5, -0.5, -1.0, 2.0**62, -(2.0**63), 127, 128], random.normal(0, 1e8, size=40)])
    for turn in range(12):
        table = make_table(SLATES[slate], np.roll(numbers, turn), np.roll(money, turn))
        probabilities = np.resize(np.roll(numbers, -turn), len(table))
        for currency in ("RUB", "EUR"):
            decision = pb.Decision()
            add_actions(decision, table, probabilities, currency)
            expected = added_one_by_one(table, probabilities, currency)
            assert decision.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_the_rest_of_a_decision_stays() -> None:
    """What a decision said before its actions were added is as it was."""
    table = make_table(SLATES["mixed"], np.array([0.25]), np.array([1e6]))
    decision = pb.Decision(decision_id="d", channel="sms", propensity=0.5, versions=pb.Versions(policy="greedy"))
    before = decision.SerializeToString(deterministic=True)
    add_actions(decision, table, np.full(len(table), 0.5), "RUB")
    assert len(decision.actions) == len(table)
    decision.ClearField("actions")
    assert decision.SerializeToString(deterministic=True) == before

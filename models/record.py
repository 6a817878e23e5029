"""How a decision is written down and read back: JSON for context, choice and features, packed columns for its actions.

Reading what was written gives an equal decision, so an answer can be given again and a decision made again from its log row.
The packed form is a little-endian array of ACTION_ROW, one row an action, in the order of the distribution.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from models.actions import ActionTable
from models.context import Context, FeatureValue
from models.decide import Choice, Decision, Distribution
from models.features import NO_SEND, Action, feature_values

ACTION_ROW = np.dtype(
    [
        ("option", "<i2"),
        ("is_paid", "?"),
        ("send_time_micros", "<i8"),
        ("propensity", "<f8"),
        ("price_micros", "<f8"),
        ("p_response", "<f8"),
        ("uplift", "<f8"),
        ("p_unsubscribe", "<f8"),
        ("incremental_micros", "<f8"),
        ("harm_micros", "<f8"),
        ("net_micros", "<f8"),
        ("plan_micros", "<f8"),
        ("deviation_micros", "<f8"),
        ("shadow_price", "<f8"),
    ]
)
"""`option` is the place of the channel among the context's options, -1 for no send; times are microseconds since 1970 in UTC."""

_COLUMNS = (
    "is_paid",
    "price_micros",
    "p_response",
    "uplift",
    "p_unsubscribe",
    "incremental_micros",
    "harm_micros",
    "net_micros",
    "plan_micros",
    "deviation_micros",
    "shadow_price",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CONTEXT = TypeAdapter(Context)
_CHOICE = TypeAdapter(Choice)
_FEATURES: TypeAdapter[dict[str, FeatureValue]] = TypeAdapter(dict[str, FeatureValue])


def to_micros(moment: datetime) -> int:
    """Return microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the moment of that many microseconds since 1970 in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def context_to_json(context: Context) -> str:
    return _CONTEXT.dump_json(context, exclude_defaults=True).decode()


def context_from_json(text: str | bytes) -> Context:
    return _CONTEXT.validate_json(text)


def choice_to_json(choice: Choice) -> str:
    return _CHOICE.dump_json(choice, exclude_defaults=True).decode()


def choice_from_json(text: str | bytes) -> Choice:
    return _CHOICE.validate_json(text)


def features_to_json(decision: Decision) -> str:
    """Return the features of the served action as used, by name; of no send where nothing was chosen."""
    action = decision.choice.action or Action(channel=NO_SEND)
    return _FEATURES.dump_json(feature_values(decision.context, action)).decode()


def features_from_json(text: str | bytes) -> dict[str, FeatureValue]:
    return _FEATURES.validate_json(text)


def pack_actions(decision: Decision) -> bytes | None:
    """Return the distribution as packed rows, None where there is none."""
    found = decision.distribution
    if found is None:
        return None
    places = {option.channel: place for place, option in enumerate(decision.context.options)}
    rows = np.zeros(len(found.table), dtype=ACTION_ROW)
    rows["option"] = [places.get(action.channel, -1) for action in found.table.actions]
    rows["send_time_micros"] = [0 if a.send_time is None else to_micros(a.send_time) for a in found.table.actions]
    rows["propensity"] = found.probabilities
    for name in _COLUMNS:
        rows[name] = getattr(found.table, name)
    return rows.tobytes()


def unpack_actions(context: Context, packed: bytes | None) -> Distribution | None:
    """Read a distribution back."""
    if packed is None:
        return None
    rows = np.frombuffer(packed, dtype=ACTION_ROW)
    actions = tuple(
        Action(channel=NO_SEND)
        if option < 0
        else Action(channel=context.options[option].channel, send_time=from_micros(int(micros)))
        for option, micros in zip(rows["option"], rows["send_time_micros"], strict=True)
    )
    columns: dict[str, Any] = {name: rows[name].copy() for name in _COLUMNS}
    table = ActionTable(actions=actions, **columns)
    return Distribution(table=table, probabilities=rows["propensity"].copy())

"""Small rules, contexts and bundles that tests change with `dataclasses.replace`.

The shop is in Moscow. Its channels: push and email are free, in_app is free and never quiet, sms is paid by the segment and
viber by the message. NOW is noon of a Wednesday there; the message expires after two days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.actions import ActionTable
from models.booster import Booster, BoosterError
from models.budget import BudgetState
from models.bundle import Bundle, Description
from models.context import ChannelOption, Contact, Content, Context, CustomerState, Message
from models.features import NO_SEND, Action, Column
from models.rules import Category, QuietHours, parse_rules
from models.sms import TextSize

FloatArray = NDArray[np.float64]

RULES_TOML = """
version = "test"
currency = "RUB"
country = "RU"
time_zone = "Europe/Moscow"

[channels.push]
paid = false
max_characters = 178
images = true
wait_minutes = 180
unsubscribe_rate = 0.002

[channels.email]
paid = false
images = true
wait_minutes = 720

[channels.in_app]
paid = false
images = true
quiet_hours = "none"

[channels.viber]
paid = true
max_characters = 1000
images = true

[channels.sms]
paid = true
max_characters = 1005
wait_minutes = 720

[[prices]]
channel = "sms"
start_date = 2025-01-01
price = "5.30"
per = "segment"

[[prices]]
channel = "viber"
start_date = 2025-01-01
price = "4.10"

[quiet_hours]
start = "21:30"
end = "09:00"

[cascade]
order = ["in_app", "push", "email", "viber", "sms"]
"""

RULES = parse_rules(RULES_TOML)
NOW = datetime(2026, 11, 4, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NIGHT = QuietHours(start=time(21, 30), end=time(9, 0))
SHORT = TextSize(characters=60, encoding="ucs2", segments=1)
RUBLE = 1_000_000

CUSTOMER = CustomerState(key="person-1", time_zone="Europe/Moscow", country="RU")
MESSAGE = Message(
    campaign="autumn",
    kind="abandoned_cart",
    category="marketing",
    order_margin_micros=1_000 * RUBLE,
    earliest_time=NOW,
    expire_time=NOW + 2 * DAY,
    content=Content(size=SHORT),
    topic="cart",
)


def option(channel: str, *, price_override_micros: int | None = None) -> ChannelOption:
    """Return a channel that reaches a customer who consented."""
    return ChannelOption(
        channel=channel, is_reachable=True, has_consent=True, price_override_micros=price_override_micros
    )


CONTEXT = Context(
    decision_id="decision-1",
    step=1,
    decide_time=NOW,
    not_before=NOW,
    customer=CUSTOMER,
    message=MESSAGE,
    options=tuple(option(channel) for channel in RULES.channels),
    seed=1,
)


def at(moment: datetime, context: Context = CONTEXT) -> Context:
    """Return the context as if asked then, for a message that lives two days."""
    message = replace(context.message, earliest_time=moment, expire_time=moment + 2 * DAY)
    return replace(context, decide_time=moment, not_before=moment, message=message)


def with_channels(*channels: str, context: Context = CONTEXT) -> Context:
    """Return the context with these channels alone."""
    return replace(context, options=tuple(option(channel) for channel in channels))


def with_message(context: Context = CONTEXT, *, category: Category = "marketing", margin: int | None = None) -> Context:
    """Return the context with another category or margin in micros."""
    margin = context.message.order_margin_micros if margin is None else margin
    return replace(context, message=replace(context.message, category=category, order_margin_micros=margin))


def with_contacts(*contacts: Contact, context: Context = CONTEXT) -> Context:
    """Return the context of a customer who has had, or will have, these messages."""
    return replace(context, customer=replace(context.customer, contacts=contacts))


def contact(
    start: datetime,
    *,
    channel: str = "push",
    slip: timedelta = timedelta(0),
    topic: str = "other",
    category: Category = "marketing",
    decision_id: str = "earlier",
) -> Contact:
    """Return a message sent between start and start + slip."""
    return Contact(
        decision_id=decision_id, channel=channel, topic=topic, category=category, start=start, end=start + slip
    )


def budget(channel: str, shadow_price: float = 0.0, *, left: int = 1_000 * RUBLE, name: str = "") -> BudgetState:
    """Return a budget of 1,000 rubles for a channel, or for all, whose next period begins tomorrow."""
    return BudgetState(
        name=name or f"of {channel}",
        channel=channel,
        cap_micros=1_000 * RUBLE,
        left_micros=left,
        shadow_price=shadow_price,
        retry_time=NOW + DAY,
    )


class ScriptedBooster:
    """A booster whose raw score depends on nothing but the channel, the first column."""

    def __init__(self, scores: Sequence[float], failure: str = "") -> None:
        self.scores = np.array(scores)
        self.failure = failure
        self.column_count = 1
        self.tree_count = 1

    def raw_scores(self, matrix: FloatArray) -> FloatArray:
        if self.failure:
            raise BoosterError(self.failure)
        scores: FloatArray = self.scores[matrix[:, 0].astype(int)]
        return scores


def bundle_of(
    p_response: Mapping[str, float], *, unsubscribe_rates: Mapping[str, float] | None = None, failure: str = ""
) -> Bundle:
    """Return a bundle that gives each channel its P(response); a channel not named, and no send, have 0.01."""
    channels = (NO_SEND, *RULES.channels)
    chances = np.array([p_response.get(channel, 0.01) for channel in channels])
    booster = ScriptedBooster(list(np.log(chances / (1 - chances))), failure)
    description = Description(
        columns=(Column(name="channel", kind="category", categories=channels),),
        calibration_slope=1.0,
        calibration_intercept=0.0,
        unsubscribe_rates=dict.fromkeys(channels, 0.0) | dict(unsubscribe_rates or {}),
    )
    return Bundle("scripted", "scripted-1", description, cast(Booster, booster))


def table_of(net_micros: Sequence[float], channels: Sequence[str] | None = None) -> ActionTable:
    """Return a table of no send and of one send an hour, with these net values."""
    n = len(net_micros)
    names = [NO_SEND, *(channels if channels is not None else ["push"] * (n - 1))]
    times = [None, *(NOW + hour * HOUR for hour in range(n - 1))]
    zeros = np.zeros(n)
    return ActionTable(
        actions=tuple(Action(channel=c, send_time=t) for c, t in zip(names, times, strict=True)),
        is_paid=np.array([name in ("sms", "viber") for name in names]),
        price_micros=zeros,
        p_response=zeros,
        p_unsubscribe=zeros,
        uplift=zeros,
        incremental_micros=np.array(net_micros, dtype=np.float64),
        harm_micros=zeros,
        net_micros=np.array(net_micros, dtype=np.float64),
        plan_micros=np.array(net_micros, dtype=np.float64),
        deviation_micros=zeros,
        shadow_price=zeros,
    )


def as_bytes(table: ActionTable) -> bytes:
    """Return all numbers of a table, to compare tables to the bit."""
    return table.net_micros.tobytes() + table.p_response.tobytes() + table.price_micros.tobytes()

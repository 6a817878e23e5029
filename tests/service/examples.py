"""Rules and requests that the tests of the service change where they need to.

The shop is in Moscow; NOW is noon of a Wednesday there. in_app is free, never quiet and needs no consent; push and email are free;
viber and sms are paid; vk has no price before 2027. Waits: push 3 h, email 12 h, viber 4 h, sms 12 h.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from service.gen.channelchoice.v1.channel_choice_service_pb2 import ChooseChannelRequest
from service.gen.channelchoice.v1.customer_pb2 import (
    CONSENT_STATE_GRANTED,
    IDENTITY_TYPE_EMAIL,
    CustomerRef,
    Identity,
    IdentityType,
)
from service.gen.channelchoice.v1.decision_pb2 import DECISION_VIEW_FULL
from service.gen.channelchoice.v1.message_pb2 import MESSAGE_CATEGORY_MARKETING, ChannelOption, Content, Message
from service.gen.channelchoice.v1.money_pb2 import Money
from service.gen.channelchoice.v1.outcome_pb2 import Outcome, OutcomeType

RULES = """
version = "test"
currency = "RUB"
country = "RU"
time_zone = "Europe/Moscow"

[channels.in_app]
paid = false
images = true
consent_default = "granted"
quiet_hours = "none"
wait_minutes = 720

[channels.push]
paid = false
max_characters = 178
images = true
wait_minutes = 180

[channels.email]
paid = false
images = true
wait_minutes = 720

[channels.viber]
paid = true
images = true
wait_minutes = 240

[channels.sms]
paid = true
max_characters = 1005
wait_minutes = 720

[channels.vk]
paid = true

[[prices]]
channel = "viber"
start_date = 2025-01-01
price = "4.10"

[[prices]]
channel = "sms"
start_date = 2025-01-01
price = "5.30"
per = "segment"

[[prices]]
channel = "vk"
start_date = 2027-01-01
price = "2.40"

[quiet_hours]
start = "21:30"
end = "09:00"

[[caps]]
name = "day"
limit = 3
window_hours = 24

[[caps]]
name = "sms-week"
channel = "sms"
limit = 1
window_hours = 168

[topic_cap]
limit = 1
window_hours = 72

[cascade]
order = ["in_app", "push", "email", "viber", "sms", "vk"]
"""

NOW = datetime(2026, 11, 4, 9, 0, tzinfo=UTC)
NIGHT = datetime(2026, 11, 4, 20, 0, tzinfo=UTC)
"""23:00 in Moscow."""
MORNING = datetime(2026, 11, 5, 6, 0, tzinfo=UTC)
"""09:00 in Moscow, when quiet hours end."""
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def rubles(amount: float) -> Money:
    return Money(micros=round(amount * 1_000_000), currency="RUB")


def stamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def moment_of(found: Timestamp) -> datetime:
    return found.ToDatetime(tzinfo=UTC)


def options(*channels: str) -> Iterable[ChannelOption]:
    """Channels that the customer has consented to."""
    return [ChannelOption(channel=channel, consent=CONSENT_STATE_GRANTED) for channel in channels]


def identity(value: str, kind: "IdentityType.ValueType" = IDENTITY_TYPE_EMAIL) -> Identity:
    return Identity(type=kind, value=value)


def choose_request(
    request_id: str = "request-1",
    *,
    customer: str = "customer-1",
    identities: Iterable[Identity] = (),
    channels: Iterable[str] = ("push", "email", "sms"),
    topic: str = "",
) -> ChooseChannelRequest:
    """A FULL request for a marketing message without a topic, through channels that the customer consented to."""
    return ChooseChannelRequest(
        request_id=request_id,
        customer=CustomerRef(customer_id=customer, identities=identities),
        message=Message(
            campaign="autumn",
            kind="abandoned_cart",
            topic=topic,
            category=MESSAGE_CATEGORY_MARKETING,
            order_margin=rubles(900),
            content=Content(text="Ваша корзина ждёт."),
        ),
        channels=options(*channels),
        view=DECISION_VIEW_FULL,
    )


def outcome(
    event_id: str,
    kind: "OutcomeType.ValueType",
    *,
    decision_id: str = "",
    step: int = 0,
    occur_time: datetime = NOW,
    customer: CustomerRef | None = None,
) -> Outcome:
    return Outcome(
        event_id=event_id,
        type=kind,
        decision_id=decision_id,
        step=step,
        occur_time=stamp(occur_time),
        customer=customer,
    )
